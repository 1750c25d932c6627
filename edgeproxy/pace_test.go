package edgeproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// slowClients has a listener's clients move so many bytes a second in each grace.
func slowClients(o mesh.Objects, grace time.Duration, rate int) mesh.Objects {
	g := mesh.Duration(grace)
	o.TrafficPolicies = append(o.TrafficPolicies, &mesh.TrafficPolicy{
		Metadata: mesh.ObjectMeta{Name: "slow", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs:  []mesh.PolicyTargetRef{{Group: mesh.GatewayGroup, Kind: mesh.KindGateway, Name: "ingress"}},
			SlowClients: &mesh.SlowClients{Grace: &g, MinBytesPerSecond: &rate},
		},
	})
	return o
}

// flagged counts finished requests with a flag.
func (p *proxy) flagged(flag string) (n uint64) {
	for _, c := range p.Stats().Requests {
		if c.Flag == flag {
			n += c.N
		}
	}
	return n
}

// trickle writes pieces with pauses until the other side is gone or all is sent.
func trickle(c net.Conn, piece string, times int, pause time.Duration) {
	for range times {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// TestSlowBody refuses bodies below the rate of the policy, though each piece is
// progress, and none that keeps to it, that waits for a 100 (Continue) or whose
// backend is slow.
func TestSlowBody(t *testing.T) {
	const grace = 200 * time.Millisecond
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/continue":
				time.Sleep(5 * grace)
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			case "/slow":
				time.Sleep(3 * grace)
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p := startProxy(t, Config{}, Deps{}, slowClients(toOne(b), grace, 1000))
	for _, tt := range []struct {
		name, head, piece string
		times             int
		pause             time.Duration
		want              int
	}{
		{"an octet at a time", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", "x", 5000, grace / 10, 408},
		{"and chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 5000, grace / 10, 408},
		// A hundred times the rate, so that a busy machine is no slow client.
		{"above the rate", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n", strings.Repeat("x", 1000), 40, grace / 10, 200},
		{"a slow backend", "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 16777216\r\n\r\n", strings.Repeat("x", 1<<24), 1, 0, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := p.dial("http")
			io.WriteString(c, tt.head)
			go trickle(c, tt.piece, tt.times, tt.pause)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != tt.want {
				t.Fatal(res, err)
			}
		})
	}
	t.Run("waits to be asked", func(t *testing.T) {
		c := p.dial("http")
		in := bufio.NewReader(c)
		io.WriteString(c, "POST /continue HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		for want := 100; ; want = 200 {
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != want {
				t.Fatal(res, err)
			}
			if want == 200 {
				return
			}
			io.WriteString(c, "body")
		}
	})
	if n, s := p.flagged("SB"), p.Stats().SlowBodies; n != 2 || s != 2 {
		t.Errorf("%d requests flagged SB, %d connections counted, want 2", n, s)
	}
}

// TestSlowReaderRate cuts who takes a response below the rate, and not who takes
// it slowly but above that, nor one who waits for the backend.
func TestSlowReaderRate(t *testing.T) {
	const grace, size = 500 * time.Millisecond, 8 << 20
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			time.Sleep(3 * grace)
		}
		io.WriteString(w, strings.Repeat("x", size))
	})
	p := startProxy(t, Config{}, Deps{}, slowClients(toOne(b), grace, 2000))
	read := func(path string, piece int) int64 {
		c := p.dial("http")
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		buf := make([]byte, piece)
		got := int64(0)
		for got < size {
			n, err := c.Read(buf)
			got += int64(n)
			if err != nil {
				break
			}
		}
		return got
	}
	var over atomic.Bool
	defer over.Store(true)
	slow := p.dial("http")
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	io.WriteString(slow, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	go func() { // it goes on with what its kernel has when it is cut
		for buf := make([]byte, 10); !over.Load(); time.Sleep(grace / 10) {
			if _, err := slow.Read(buf); err != nil {
				return
			}
		}
	}()
	fast := make(chan int64)
	// 100 KB/s at most: in each window what is far above the rate and far below
	// what would make the socket writable again.
	go func() {
		c := p.dial("http")
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		buf, got := make([]byte, 10_000), int64(0)
		for end := time.Now().Add(6 * grace); time.Now().Before(end); time.Sleep(grace / 25) {
			n, err := c.Read(buf)
			if got += int64(n); err != nil {
				t.Errorf("cut after %d bytes: %v", got, err)
				break
			}
		}
		fast <- got
	}()
	if got := read("/slow", 64<<10); got < size {
		t.Errorf("behind a slow backend: cut after %d bytes", got)
	}
	t.Logf("%d bytes above the rate", <-fast)
	for range 2000 {
		if p.flagged("SR") == 1 && p.Stats().SlowReaders == 1 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d requests flagged SR, %d connections counted, want 1", p.flagged("SR"), p.Stats().SlowReaders)
}

// TestSlowReadersAreCheap has many clients that take nothing of large responses:
// nothing is read from the backend ahead of them.
func TestSlowReadersAreCheap(t *testing.T) {
	var endless atomic.Int64
	piece := make([]byte, 256<<10)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		endless.Add(1)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(b))
	const n = 100
	for range n {
		c := p.dial("http")
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	each, last := 0, -1
	for range 2000 {
		if each = p.memoryInUse() / n; endless.Load() == n && each == last {
			break
		}
		last = each
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%d bytes of buffers for a slow reader", each)
	if each > 12<<10 {
		t.Errorf("%d bytes of buffers for a slow reader, want three small ones at most", each)
	}
}

// TestDrainInSteps closes thousands of connections at rest, by a drain, by a
// listener that goes and by time: no turn of the loop takes 5 ms for it.
func TestDrainInSteps(t *testing.T) {
	const n = 4000
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	both := func() mesh.Objects {
		o := toOne(b)
		o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("second", 0))
		return o
	}
	for _, tt := range []struct {
		name  string
		times worker.Times
		end   func(*proxy)
	}{
		{"drain", worker.DefaultTimes, func(p *proxy) { p.Drain(t.Context()) }},
		{"listener", worker.DefaultTimes, func(p *proxy) { p.apply(toOne(b)) }},
		{"time", withKeepAlive(3 * time.Second), func(*proxy) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stepsAreShort(t, func(t *testing.T) *stepMeter {
				p := startProxy(t, Config{Loops: 1, times: tt.times}, Deps{}, both())
				conns := make([]net.Conn, 0, n)
				for range n {
					c, err := net.Dial("tcp", p.addr("second").String())
					if err != nil {
						t.Fatal(err)
					}
					conns = append(conns, c)
				}
				defer func() {
					for _, c := range conns {
						c.Close()
					}
				}()
				l := p.shared.Workers[0].Loop
				for range 2000 {
					if p.Stats().ConnectionsTotal == n {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				m := &stepMeter{loop: l, done: make(chan struct{})}
				l.Post(m)
				tt.end(p)
				for range 2000 {
					if p.shared.Connections.Load() == 0 {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				if left := p.shared.Connections.Load(); left != 0 {
					t.Errorf("%d connections left", left)
				}
				m.stop.Store(true)
				<-m.done
				return m
			})
		})
	}
}

func withKeepAlive(d time.Duration) worker.Times {
	t := worker.DefaultTimes
	t.KeepAlive = d
	return t
}

// TestBudgetHolds floods a loop whose budget is small with bodies and responses at
// once: what is in use never passes it, nobody is forgotten, and all is served
// when the budget is gone.
func TestBudgetHolds(t *testing.T) {
	const budget = 1 << 20
	body := strings.Repeat("x", 300_000)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err == nil {
			w.Write(got)
		}
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(b))
	l := p.shared.Workers[0].Loop
	l.SetBudget(l.Spent() + budget)
	most := &highWater{loop: l, done: make(chan struct{})}
	l.Post(most)
	const clients = 60
	ended := make(chan error, clients)
	for range clients {
		go func() {
			c, err := net.Dial("tcp", p.addr("http").String())
			if err != nil {
				ended <- err
				return
			}
			defer c.Close()
			go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			time.Sleep(100 * time.Millisecond)
			_, err = io.ReadAll(c) // shed, refused or served
			ended <- err
		}()
	}
	for range clients {
		<-ended
	}
	most.stop.Store(true)
	<-most.done
	t.Logf("at most %d bytes in use, %d of requests shed or refused", most.bytes, p.flagged("UO"))
	if most.bytes > budget || most.bytes < budget/4 {
		t.Errorf("%d bytes in use, budget %d", most.bytes, budget)
	}
	l.SetBudget(0)
	if status, got, err := do(t, "POST", p.url("/"), body); err != nil || status != 200 || got != body {
		t.Errorf("then: %d, %d bytes, %v", status, len(got), err)
	}
}

// highWater looks at a loop's buffers in each turn.
type highWater struct {
	loop  *loop.Loop
	bytes int
	stop  atomic.Bool
	done  chan struct{}
}

func (h *highWater) Run() {
	h.bytes = max(h.bytes, h.loop.Slabs.InUse())
	if h.stop.Load() {
		close(h.done)
		return
	}
	h.loop.Post(h)
}
