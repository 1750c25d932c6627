package edgeproxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// TestSlowClients holds 200 connections by heads, bodies and responses that go on
// for ever, an octet at a time: others are served meanwhile, and the slots come
// back though no attacker lets go.
func TestSlowClients(t *testing.T) {
	page := strings.Repeat("x", 1<<20)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/big" {
			io.WriteString(w, page)
		}
	})
	times := worker.DefaultTimes
	times.Head, times.Body, times.KeepAlive, times.Stall = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	p := startProxy(t, Config{times: times}, Deps{}, toOne(b))
	const attackers = 200
	for _, attack := range []struct {
		name, first, more string
		pause             time.Duration
	}{
		{"heads", "GET / HTTP/1.1\r\nHost: x\r\n", "X: y\r\n", 100 * time.Millisecond},
		// Each octet of a body is progress, so these are slower than the limit.
		{"bodies", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8192\r\n\r\n", "x", time.Second},
		{"readers", "GET /big HTTP/1.1\r\nHost: x\r\n\r\n", "", time.Second},
	} {
		t.Run(attack.name, func(t *testing.T) {
			over := make(chan struct{})
			for range attackers {
				c := p.dial("http")
				if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
					t.Fatal(err)
				}
				go func() {
					for piece := attack.first; ; piece = attack.more {
						if _, err := io.WriteString(c, piece); err != nil {
							return
						}
						select {
						case <-over:
							return
						case <-time.After(attack.pause):
						}
					}
				}()
			}
			defer close(over)
			if status, _ := get(t, p.url("/")); status != 200 {
				t.Errorf("during the attack: %d", status)
			}
			http.DefaultClient.CloseIdleConnections()
			for range 3000 {
				if p.shared.Connections.Load() == 0 {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
			t.Errorf("%d connections are still held", p.shared.Connections.Load())
		})
	}
}
