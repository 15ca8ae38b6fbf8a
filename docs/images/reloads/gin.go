// gin, as its users restart it by hand: on SIGHUP the program starts itself with the listener as descriptor 3, waits until the
// new process says that it serves, and shuts down.
//
// Build with the Go and the gin of the distribution, without modules:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o gin gin.go
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

	"github.com/gin-gonic/gin"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address to listen on")
	pidfile := flag.String("pidfile", "gin.pid", "where the number of the process that serves is")
	heir := flag.Bool("heir", false, "take the listener from descriptor 3, and say on 4 when it serves")
	flag.Parse()

	listener, err := listenOrInherit(*listen, *heir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(gin.Recovery())
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "Hello, World!") })
	server := &http.Server{Handler: engine}
	done := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	go func() {
		for {
			if <-signals == syscall.SIGHUP && restart(listener, *pidfile) != nil {
				continue
			}
			break
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		close(done)
	}()
	if err := os.WriteFile(*pidfile, []byte(fmt.Sprint(os.Getpid())), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
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
func restart(listener net.Listener, pidfile string) error {
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	child := exec.Command(os.Args[0], "-heir", "-pidfile", pidfile)
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{file, writer}
	if err := child.Start(); err != nil {
		return err
	}
	writer.Close()
	reader.Read(make([]byte, 1))
	return nil
}
