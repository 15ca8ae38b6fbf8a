// gin in release mode without its logger, on net/http with Shutdown on SIGTERM.
package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

const text = "text/plain; charset=utf-8"

var all = bytes.Repeat([]byte("x"), 64*1024)

type user struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin"`
}

type signup struct {
	Name  string `json:"name" binding:"required,min=3,max=20"`
	Email string `json:"email" binding:"required,email"`
	Age   uint32 `json:"age" binding:"required,min=18,max=130"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	threads := flag.Int("threads", 1, "how many threads run Go code")
	flag.Parse()
	runtime.GOMAXPROCS(*threads)

	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(gin.Recovery())
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "Hello, World!") })
	engine.GET("/big", func(c *gin.Context) {
		bytes, err := strconv.Atoi(c.Query("bytes"))
		if err != nil || bytes < 0 || bytes > len(all) {
			bytes = len(all)
		}
		c.Header("Content-Length", strconv.Itoa(bytes))
		c.Data(http.StatusOK, text, all[:bytes])
	})
	engine.GET("/slow", func(c *gin.Context) {
		ms, _ := strconv.Atoi(c.Query("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		c.String(http.StatusOK, "Hello, World!")
	})
	engine.GET("/user/:name", func(c *gin.Context) { c.String(http.StatusOK, "Hello, %s!", c.Param("name")) })
	engine.GET("/json/:name", func(c *gin.Context) { c.JSON(http.StatusOK, user{Name: c.Param("name")}) })
	engine.POST("/signup", func(c *gin.Context) {
		var form signup
		if err := c.ShouldBindJSON(&form); err != nil {
			c.String(http.StatusBadRequest, err.Error())
			return
		}
		c.JSON(http.StatusOK, user{Name: form.Name})
	})
	engine.POST("/echo", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			c.String(http.StatusBadRequest, err.Error())
			return
		}
		c.Data(http.StatusOK, text, body)
	})
	engine.POST("/upload", func(c *gin.Context) {
		received, _ := io.Copy(io.Discard, c.Request.Body)
		c.String(http.StatusOK, "received=%d", received)
	})

	server := &http.Server{Addr: *listen, Handler: engine}
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
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-stopped
}
