package edgeproxy

import (
	"net"
	"net/http"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestDialOutlivesReset has a client open streams and reset them in the same breath:
// they share the dials to the backend, and one that comes after them is answered, be
// there a backend or not.
func TestDialOutlivesReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, tt := range []struct {
		name, addr string
		status     int
	}{
		{"backend", http2Backend(t, func(http.ResponseWriter, *http.Request) {}), 200},
		{"nobody", nobody, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(tt.addr))
			c := dialHTTP2(t, p, http2.Limits{})
			const streams = 90
			var evs []stream.Event
			for range streams {
				id, ok := c.codec.Open()
				if !ok {
					t.Fatal("no stream")
				}
				evs = append(evs,
					stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("GET"), Authority: []byte("x"), Path: []byte("/")}},
					stream.Event{Kind: stream.Reset, Stream: id, Reason: stream.Cancelled})
			}
			c.send(evs...)
			id := c.open("/")
			for {
				ev, ok := c.next()
				if !ok {
					t.Fatal("the connection ended")
				}
				if ev.Stream == id && ev.Kind == stream.Head {
					if ev.Head.Status != tt.status {
						t.Errorf("answered %d, want %d", ev.Head.Status, tt.status)
					}
					break
				}
			}
			if n := p.Stats().UpstreamConnects; n == 0 || n > streams/3 {
				t.Errorf("%d dials for %d streams", n, streams)
			}
		})
	}
}
