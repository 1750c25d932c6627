package edgeproxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// TestStalledClient cuts a client that takes nothing of its response, and not one
// whose backend is slow.
func TestStalledClient(t *testing.T) {
	times := worker.DefaultTimes
	times.Stall = 50 * time.Millisecond
	var ended atomic.Bool
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(4 * times.Stall)
			io.WriteString(w, "ok")
			return
		}
		for piece := make([]byte, 64<<10); ; {
			if _, err := w.Write(piece); err != nil {
				ended.Store(true)
				return
			}
		}
	})
	p := startProxy(t, Config{times: times}, Deps{}, toOne(b))
	if status, body := get(t, p.url("/slow")); status != 200 || body != "ok" {
		t.Errorf("slow backend: %d %q", status, body)
	}
	c := p.dial("http")
	io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 2000 {
		if ended.Load() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a client that reads nothing is kept")
}

// TestPoolIdle closes connections to a backend that rest too long.
func TestPoolIdle(t *testing.T) {
	times := worker.DefaultTimes
	times.PoolIdle = 50 * time.Millisecond
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{times: times}, Deps{}, toOne(b))
	get(t, p.url("/"))
	for range 2000 {
		if p.Endpoints()[0].Idle == 0 {
			if status, _ := get(t, p.url("/")); status != 200 || p.Stats().UpstreamConnects != 2 {
				t.Errorf("%d after %d connects", status, p.Stats().UpstreamConnects)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a connection rests for ever")
}

// TestBodyToTheClose passes on a response that ends with its connection.
func TestBodyToTheClose(t *testing.T) {
	want := strings.Repeat("0123456789", 10_000)
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+want)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	if status, body, err := do(t, "GET", p.url("/"), ""); err != nil || status != 200 || body != want {
		t.Errorf("%d, %d bytes, %v", status, len(body), err)
	}
	c := p.dial("http")
	io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != want || !res.Close {
		t.Errorf("HTTP/1.0: %d bytes, close %v, %v", len(body), res.Close, err)
	}
}

// TestLastResponseArrives has a client still send its body when the proxy has
// refused the request: the answer must not be lost to a reset.
func TestLastResponseArrives(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	o := toOne(b)
	o.HTTPRoutes[0].Spec.Hostnames = []string{"other"}
	p := startProxy(t, Config{}, Deps{}, o)
	for range 20 {
		c := p.dial("http")
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
		res := make(chan error, 1)
		go func() {
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil {
				_, err = io.ReadAll(r.Body)
			}
			res <- err
		}()
		c.Write(make([]byte, 1_000_000))
		if err := <-res; err != nil {
			t.Fatal(err)
		}
	}
}
