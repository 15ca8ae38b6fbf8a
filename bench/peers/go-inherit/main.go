// The peer to compare restarts with: Go's net/http server that restarts as its users do it by hand. On SIGHUP it starts
// itself with the listener as descriptor 3, waits until the new process says that it serves, and shuts down.
//
// Build with the Go of the distribution, without modules:
//
//	GO111MODULE=off go build -o go-inherit .
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	heir := flag.Bool("heir", false, "take the listener from descriptor 3, and say on 4 when it serves")
	flag.Parse()

	listener, err := listenOrInherit(*listen, *heir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "Hello, World!")
	})
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	go func() {
		for {
			if <-signals == syscall.SIGHUP && restart(listener) != nil {
				continue
			}
			break
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		close(done)
	}()
	fmt.Fprintf(os.Stderr, "serving (pid %d)\n", os.Getpid())
	if *heir {
		os.NewFile(4, "ready").Close()
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}

func listenOrInherit(address string, heir bool) (net.Listener, error) {
	if heir {
		return net.FileListener(os.NewFile(3, "listener"))
	}
	return net.Listen("tcp", address)
}

// Returns when the new process serves: it closes its end of the pipe then, or by dying.
func restart(listener net.Listener) error {
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	child := exec.Command(os.Args[0], "-heir")
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{file, writer}
	if err := child.Start(); err != nil {
		return err
	}
	writer.Close()
	reader.Read(make([]byte, 1))
	return nil
}
