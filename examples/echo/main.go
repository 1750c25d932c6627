// Command echo is a service to try things with: an HTTP server on each address it
// is given that answers every request with its address and what was asked. With
// -load its responses say how loaded it is, which the proxy balances by.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	load := flag.Bool("load", false, "say in a header of each response how loaded the address is")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: echo [-load] ADDRESS...   (for example: echo 127.0.0.1:9001 127.0.0.1:9002)")
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	failed := make(chan error)
	for _, address := range flag.Args() {
		var here atomic.Int64
		go func() {
			failed <- (&http.Server{
				Addr:              address,
				ReadHeaderTimeout: 10 * time.Second,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					began := time.Now()
					here.Add(1)
					defer here.Add(-1)
					w.Header().Set("Content-Type", "text/plain; charset=utf-8")
					if *load {
						w.Header().Set("Meridian-Endpoint-Load", fmt.Sprintf("1;n=%d;t=%.3f", here.Load()-1, float64(time.Since(began))/1e6))
					}
					fmt.Fprintf(w, "%s got %s %s%s\n", address, r.Method, r.Host, r.URL.Path)
				}),
			}).ListenAndServe()
		}()
	}
	fmt.Fprintln(os.Stderr, "echo:", <-failed)
	os.Exit(1)
}
