package edgeproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// books is a Gate for two remotes that sends anywhere and keeps account of what it is told.
type books struct {
	sent, done, wrong atomic.Int64
}

func (b *books) Gate(mesh.ServiceKey, []string) upstream.Gate { return b }
func (b *books) Meter(string) *limit.Meter                    { return nil }
func (b *books) Report(mesh.ServiceKey) upstream.Report       { return nil }
func (b *books) Pick(_ int, _ int64, inFlight int, rnd uint64, tried upstream.Tried) int {
	if inFlight < 0 {
		b.wrong.Add(1)
	}
	if i := int(rnd%3) - 1; !tried.Has(i) {
		return i
	}
	return upstream.Home
}
func (b *books) Sent(int, int64)                   { b.sent.Add(1) }
func (b *books) Done(int, int64, upstream.Outcome) { b.done.Add(1) }
func (b *books) Load(int, []byte, int64)           {}

// TestBooksBalance has clients, backends and sites fail in every way at random
// while configurations come and go: afterwards nothing is in flight any more. A
// failure names its seed; MERIDIAN_SEED runs it again.
func TestBooksBalance(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MERIDIAN_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed %d", seed)
	var draws atomic.Uint64
	chance := func() *rand.Rand { return rand.New(rand.NewPCG(seed, draws.Add(1))) }
	faulty := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		r := chance()
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			switch r.IntN(12) {
			case 0:
				c.(*net.TCPConn).SetLinger(0)
				return
			case 1:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
				return
			case 2:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // before the body
				return
			case 3:
				io.WriteString(c, "garbage\r\n\r\n")
				return
			case 4:
				time.Sleep(60 * time.Millisecond) // longer than an attempt may take
			case 5:
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the close")
				return
			}
			io.Copy(io.Discard, req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", 40_000, strings.Repeat("x", 40_000))
		}
	})
	good := backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	times := worker.DefaultTimes
	times.Head, times.Body, times.Stall, times.Linger = 40*time.Millisecond, 40*time.Millisecond, 80*time.Millisecond, 20*time.Millisecond
	gate := &books{}
	config := func(i int) mesh.Objects {
		endpoints := map[string]string{"a": faulty, "b": "127.0.0.1:1", "c": "127.0.0.1:1"}
		o := siteObjects(endpoints, map[string]string{"b": faulty, "c": refused(t)})
		if i%2 == 0 {
			o.Services[0].Spec.Endpoints = append(o.Services[0].Spec.Endpoints, mesh.Endpoint{Address: good, Site: "a"})
		}
		if i%3 == 0 {
			o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("second", 0))
		}
		short := mesh.Duration(50 * time.Millisecond)
		o.HTTPRoutes[0].Spec.Rules[0].Timeouts = &mesh.RouteTimeouts{BackendRequest: &short}
		return o
	}
	p := startProxy(t, Config{Site: "a", Loops: 2, times: times}, Deps{Sharing: gate}, config(1))
	address := p.addr("http").String()
	var clients sync.WaitGroup
	until := time.Now().Add(time.Second)
	for range 12 {
		r := chance()
		clients.Go(func() {
			for time.Now().Before(until) {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(2 * time.Second))
				method := []string{"GET", "PUT", "POST"}[r.IntN(3)]
				n := r.IntN(3) * 50_000
				whole := fmt.Sprintf("%s / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, n, strings.Repeat("y", n))
				whole = strings.Repeat(whole, 1+r.IntN(3))
				cut := len(whole)
				if r.IntN(3) == 0 {
					cut = r.IntN(cut)
				}
				io.WriteString(c, whole[:cut])
				switch r.IntN(5) {
				case 0:
					c.(*net.TCPConn).SetLinger(0)
				case 1:
					c.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, c)
				case 2:
					io.CopyN(io.Discard, c, int64(r.IntN(50_000)))
				case 3:
					time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				}
				c.Close()
			}
		})
	}
	for i := 0; time.Now().Before(until); i++ {
		p.apply(config(i))
		time.Sleep(20 * time.Millisecond)
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Drain(ctx); err != nil {
		t.Error(err)
	}
	if p.Stats().Connections != 0 || gate.sent.Load() != gate.done.Load() || gate.wrong.Load() > 0 {
		t.Errorf("%d connections, %d sent abroad and %d done, %d times a negative number in flight",
			p.Stats().Connections, gate.sent.Load(), gate.done.Load(), gate.wrong.Load())
	}
	for _, l := range p.Stats().Loops {
		if l.Connections != 0 {
			t.Errorf("%d connections on a loop", l.Connections)
		}
	}
	for _, e := range p.Endpoints() {
		if e.InFlight != 0 {
			t.Errorf("%s: %d in flight", e.Address, e.InFlight)
		}
	}
	var requests, answered uint64
	for _, c := range p.Stats().Requests {
		requests += c.N
		if c.Class == 2 {
			answered += c.N
		}
	}
	for _, l := range p.Loads(nil) {
		if l.InFlight != 0 || l.Completions > l.Arrivals || l.UnqueuedStarts < l.Unqueued {
			t.Errorf("%s: %d in flight, %d arrivals, %d completions, %d of %d unqueued", l.Service, l.InFlight, l.Arrivals, l.Completions, l.Unqueued, l.UnqueuedStarts)
		}
	}
	if answered == 0 || answered == requests || gate.sent.Load() == 0 {
		t.Errorf("%d of %d requests answered, %d sent abroad: the test tests nothing", answered, requests, gate.sent.Load())
	}
	for i, w := range p.shared.Workers {
		used := make(chan int, 1)
		w.Loop.Post(loop.Func(func() { used <- w.Loop.Slabs.InUse() }))
		if n := <-used; n != 0 {
			t.Errorf("loop %d: %d bytes of buffers in use at rest", i, n)
		}
	}
}
