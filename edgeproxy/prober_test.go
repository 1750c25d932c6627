package edgeproxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// gateway answers probes as answer says and counts connections.
func gateway(t *testing.T, answer func(*http.Request) string) (address string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := fmt.Fprint(c, answer(req)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String(), connections
}

const goodAnswer = "HTTP/1.1 204 No Content\r\nmeridian-load: a=1\r\nother: x\r\nMeridian-Load: b=2\r\n\r\n"

func TestProbe(t *testing.T) {
	var asked *http.Request
	addr, connections := gateway(t, func(r *http.Request) string { asked = r; return goodAnswer })
	c := &probeConn{source: "north", secure: inTheClear}
	defer c.close()
	for range 3 {
		rtt, loads, err := c.probe(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		if rtt <= 0 || len(loads) != 2 || string(loads[0]) != "a=1" || string(loads[1]) != "b=2" {
			t.Errorf("rtt %v loads %q", rtt, loads)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 3 probes", n)
	}
	if asked.URL.Path != worker.LoadPath || asked.Header.Get(inband.HeaderSource) != "north" || asked.Host != addr {
		t.Errorf("asked %s of %s from %q", asked.URL.Path, asked.Host, asked.Header.Get(inband.HeaderSource))
	}
}

func TestProbe_fails(t *testing.T) {
	for name, answer := range map[string]string{
		"not a gateway": "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"not HTTP":      "SSH-2.0-OpenSSH\r\n",
		"endless head":  "HTTP/1.1 204 No Content\r\n" + strings.Repeat("x: "+strings.Repeat("y", 1000)+"\r\n", 64),
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := gateway(t, func(*http.Request) string { return answer })
			c := &probeConn{source: "north", secure: inTheClear}
			defer c.close()
			if _, loads, err := c.probe(t.Context(), addr); err == nil {
				t.Errorf("took %q", loads)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		addr, _ := gateway(t, func(*http.Request) string { return "" })
		c := &probeConn{source: "north", secure: inTheClear}
		defer c.close()
		if _, _, err := c.probe(t.Context(), addr); err == nil {
			t.Error("a silent gateway answered")
		}
	})
}

func TestProber(t *testing.T) {
	addr, connections := gateway(t, func(*http.Request) string { return goodAnswer })
	type outcome struct {
		site string
		err  error
	}
	results := make(chan outcome, 64)
	p := &prober{
		secure:   plainly,
		source:   "north",
		answered: func(string) time.Time { return time.Time{} },
		result: func(site string, _ time.Duration, _ [][]byte, err error) {
			results <- outcome{site, err}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	sets := make(chan []peer)
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx, sets) }()
	// The first address refuses: the next probe tries the second.
	sets <- []peer{{"south", []string{"127.0.0.1:1", addr}}}
	if r := <-results; r.err == nil || !strings.Contains(r.err.Error(), "127.0.0.1:1") {
		t.Errorf("first: %v", r.err)
	}
	if r := <-results; r.err != nil || r.site != "south" {
		t.Errorf("second: %v", r.err)
	}
	sets <- []peer{{"south", []string{"127.0.0.1:1", addr}}, {"east", []string{addr}}}
	for seen := map[string]int{}; seen["east"] < 1 || seen["south"] < 1; {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		seen[r.site]++
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections for two sites: the one that stayed was opened again", n)
	}
	sets <- nil
	cancel()
	<-done
}

func inTheClear(_ context.Context, c net.Conn) (net.Conn, error) { return c, nil }
