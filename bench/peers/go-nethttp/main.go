// Go's net/http with Shutdown on SIGTERM, as its documentation shows it.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const text = "text/plain; charset=utf-8"

var (
	hello = []byte("Hello, World!")
	all   = bytes.Repeat([]byte("x"), 64*1024)
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	threads := flag.Int("threads", 1, "how many threads run Go code")
	tls := flag.String("tls", "", "where cert.pem and key.pem are")
	flag.Parse()
	runtime.GOMAXPROCS(*threads)

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		write(w, hello)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		bytes, err := strconv.Atoi(r.URL.Query().Get("bytes"))
		if err != nil || bytes < 0 || bytes > len(all) {
			bytes = len(all)
		}
		w.Header().Set("Content-Length", strconv.Itoa(bytes))
		write(w, all[:bytes])
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		write(w, hello)
	})
	mux.HandleFunc("/user/", func(w http.ResponseWriter, r *http.Request) {
		write(w, []byte("Hello, "+strings.TrimPrefix(r.URL.Path, "/user/")+"!"))
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		write(w, body)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		received, _ := io.Copy(io.Discard, r.Body)
		write(w, []byte(fmt.Sprintf("received=%d", received)))
	})

	server := &http.Server{Addr: *listen, Handler: mux}
	stopped := make(chan struct{})
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		close(stopped)
	}()
	var err error
	if *tls == "" {
		err = server.ListenAndServe()
	} else {
		err = server.ListenAndServeTLS(*tls+"/cert.pem", *tls+"/key.pem")
	}
	if err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-stopped
}

func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", text)
	w.Write(body)
}
