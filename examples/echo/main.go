// Command echo is a service to try things with: an HTTP server on each address it
// is given that answers every request with its address and what was asked.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: echo ADDRESS...   (for example: echo 127.0.0.1:9001 127.0.0.1:9002)")
		os.Exit(2)
	}
	failed := make(chan error)
	for _, address := range os.Args[1:] {
		go func() {
			failed <- (&http.Server{
				Addr:              address,
				ReadHeaderTimeout: 10 * time.Second,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/plain; charset=utf-8")
					fmt.Fprintf(w, "%s got %s %s%s\n", address, r.Method, r.Host, r.URL.Path)
				}),
			}).ListenAndServe()
		}()
	}
	fmt.Fprintln(os.Stderr, "echo:", <-failed)
	os.Exit(1)
}
