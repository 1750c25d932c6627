package edgeproxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// far is a way that takes half of a round trip, as wide as one likes.
type far struct {
	addr string
	// most is how many bytes were on it at one time, there and back.
	most [2]atomic.Int64
}

func farOff(t testing.TB, to string, rtt time.Duration) *far {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &far{addr: l.Addr().String()}
	type piece struct {
		at time.Time
		p  []byte
	}
	pass := func(i int, dst, src net.Conn) {
		var now atomic.Int64
		way := make(chan piece, 1<<12) // 64 MiB, more than any window
		go func() {
			defer close(way)
			for {
				p := make([]byte, 16<<10)
				n, err := src.Read(p)
				if n > 0 {
					if all := now.Add(int64(n)); all > f.most[i].Load() {
						f.most[i].Store(all)
					}
					way <- piece{time.Now().Add(rtt / 2), p[:n]}
				}
				if err != nil {
					return
				}
			}
		}()
		for x := range way {
			time.Sleep(time.Until(x.at))
			now.Add(-int64(len(x.p)))
			if _, err := dst.Write(x.p); err != nil {
				src.Close()
			}
		}
		dst.(*net.TCPConn).CloseWrite()
	}
	var wg sync.WaitGroup
	var open []net.Conn
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			open = append(open, in, out)
			wg.Go(func() {
				var both sync.WaitGroup
				both.Go(func() { pass(0, out, in) })
				pass(1, in, out)
				both.Wait()
				in.Close()
				out.Close()
			})
		}
	})
	return f
}

// TestFarStreamsGrow moves bulk between two sites that are apart: more of it comes to be on
// the way than a stream's first window, less where there is little memory, and never more
// than the most.
func TestFarStreamsGrow(t *testing.T) {
	const size = 8 << 20
	web := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.Method == "GET" {
			_, _ = io.CopyN(w, zeros{}, size)
		}
	})
	for _, tt := range []struct {
		name        string
		left        int64 // of the memory of both proxies
		least, most int64
	}{
		{"memory to spare", 1 << 30, 256 << 10, 1<<20 + 256<<10},
		{"little memory", 2 << 20, 128 << 10, 768 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := relayedBy(t, siteObjects, map[string]string{"b": web}, Deps{}, Deps{})
			way := farOff(t, p.b.addr("eastwest").String(), 20*time.Millisecond)
			p.a.apply(trusting(siteObjects(p.endpoints, map[string]string{"b": way.addr}), p.trust()))
			for _, x := range []*proxy{p.a, p.b} {
				l := x.shared.Workers[0].Loop
				l.SetBudget(l.Spent() + tt.left)
			}
			// What one stream is given the next one gets after it.
			for n, method := range []string{"PUT", "GET", "PUT", "GET"} {
				i := n % 2
				way.most[i].Store(0)
				body := io.Reader(http.NoBody)
				if method == "PUT" {
					body = io.LimitReader(zeros{}, size)
				}
				req, _ := http.NewRequest(method, p.a.url("/"), body)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || method == "GET" && n != size {
					t.Fatal(res.Status, n, err)
				}
				if most := way.most[i].Load(); most < tt.least || most > tt.most {
					t.Errorf("%s: %d bytes were on the way at most, want %d to %d", method, most, tt.least, tt.most)
				}
			}
		})
	}
}

// BenchmarkFarBulk moves bulk between two sites that are 20 ms apart, with mTLS: a TCP
// connection, and an answer and a request of HTTP.
func BenchmarkFarBulk(b *testing.B) {
	const size, rtt = 64 << 20, 20 * time.Millisecond
	blob := make([]byte, 256<<10)
	apart := func(b *testing.B, objects func(endpoints, gateways map[string]string) mesh.Objects, endpoint string) *relayed {
		p := relayedBy(b, objects, map[string]string{"b": endpoint}, Deps{}, Deps{})
		p.a.apply(trusting(objects(p.endpoints, map[string]string{"b": farOff(b, p.b.addr("eastwest").String(), rtt).addr}), p.trust()))
		return p
	}
	b.Run("tcp", func(b *testing.B) {
		p := apart(b, siteStreams, tcpBackend(b, func(c *net.TCPConn) { io.Copy(io.Discard, c); c.Write([]byte{1}) }))
		b.SetBytes(size)
		for b.Loop() {
			c := p.a.dial("tcp")
			for n := 0; n < size; n += len(blob) {
				if _, err := c.Write(blob); err != nil {
					b.Fatal(err)
				}
			}
			c.(*net.TCPConn).CloseWrite()
			if _, err := io.ReadFull(c, blob[:1]); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	web := backend(b, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		if r.Method == "PUT" {
			fmt.Fprint(w, n)
			return
		}
		for n := 0; n < size; n += len(blob) {
			if _, err := w.Write(blob); err != nil {
				return
			}
		}
	})
	for _, method := range []string{"GET", "PUT"} {
		b.Run(method, func(b *testing.B) {
			p := apart(b, siteObjects, web)
			b.SetBytes(size)
			for b.Loop() {
				body := io.Reader(http.NoBody)
				if method == "PUT" {
					body = io.LimitReader(zeros{}, size)
				}
				req, _ := http.NewRequest(method, p.a.url("/"), body)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || method == "GET" && n != size {
					b.Fatal(res.Status, n, err)
				}
			}
		})
	}
}

// zeros is an endless file of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
