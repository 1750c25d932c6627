// Command caller sends, from the pod that it runs in, the request that it is asked for:
// GET /?url=URL&version=X has it get URL with header X-Version, and it answers with the
// status and the body of what came.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	s := &http.Server{Addr: os.Args[1], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		url := q.FormValue("url")
		if url == "" {
			return // ready
		}
		r, err := http.NewRequestWithContext(q.Context(), http.MethodGet, url, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Header.Set("X-Version", q.FormValue("version"))
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%d %s", resp.StatusCode, body)
	})}
	log.Fatal(s.ListenAndServe())
}
