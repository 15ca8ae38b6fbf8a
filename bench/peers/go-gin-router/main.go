// gin's router as its own benchmark measures it: ServeHTTP with handlers that do nothing, a writer that keeps nothing,
// and requests that are there already. One line of JSON, as the program `inprocess` writes them.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header             { return n.header }
func (n *nowhere) Write(bytes []byte) (int, error) { return len(bytes), nil }
func (n *nowhere) WriteHeader(int)                 {}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go-gin-router ROUTES")
	}
	runtime.GOMAXPROCS(1)
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	requests, found := read(os.Args[1]), 0
	count := func(c *gin.Context) { found++ }
	for _, request := range requests {
		engine.Handle(request.Method, request.Header.Get("Pattern"), count)
		request.Header.Del("Pattern")
	}
	writer := &nowhere{header: http.Header{}}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; i < b.N; i++ {
			for _, request := range requests {
				engine.ServeHTTP(writer, request)
			}
		}
	})
	if found == 0 || found%len(requests) != 0 {
		log.Fatalf("%d found of %d asked for in turn", found, len(requests))
	}
	each := float64(len(requests))
	fmt.Printf("{\"what\":\"request\",\"of\":\"gin\",\"ns\":%.2f,\"allocations\":%.2f,\"bytes\":%.1f}\n",
		float64(result.NsPerOp())/each, float64(result.AllocsPerOp())/each, float64(result.AllocedBytesPerOp())/each)
}

// read makes a request for every line of `METHOD,METHOD /path`; its pattern is in a header.
func read(path string) []*http.Request {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	var requests []*http.Request
	for lines := bufio.NewScanner(file); lines.Scan(); {
		methods, pattern, _ := strings.Cut(lines.Text(), " ")
		for _, method := range strings.Split(methods, ",") {
			request, err := http.NewRequest(method, strings.ReplaceAll(pattern, ":", "v-"), nil)
			if err != nil {
				log.Fatal(err)
			}
			request.Header.Set("Pattern", pattern)
			requests = append(requests, request)
		}
	}
	return requests
}
