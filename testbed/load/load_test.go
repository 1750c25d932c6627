package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/emu"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

func loop(t *testing.T) *reactor.Loop {
	t.Helper()
	l, err := reactor.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

// server answers each connection by fn, called with the connection's number.
func server(t *testing.T, fn func(n int, c net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				fn(n, c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// requests reads requests off a connection and answers each by fn.
func requests(c net.Conn, fn func(i int, r *http.Request)) {
	br := bufio.NewReader(c)
	for i := 0; ; i++ {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		fn(i, r)
	}
}

func generate(t *testing.T, l *reactor.Loop, addr netip.AddrPort, deadline time.Duration, arrivals []scenario.Arrival) *Result {
	t.Helper()
	g := New(l, Config{
		Sites: []Site{{Name: "north", Proxy: addr, Users: []Position{{Lon: 144.9, Lat: -37.8}}}, {Name: "south", Proxy: addr, Users: []Position{{}}}},
		Host:  "svc.test", Path: "/work", Deadline: deadline,
	})
	res, err := g.Run(context.Background(), arrivals, time.Now().Add(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func every(gap time.Duration, n int) []scenario.Arrival {
	var out []scenario.Arrival
	for i := range n {
		out = append(out, scenario.Arrival{At: time.Duration(i) * gap, Work: 1})
	}
	return out
}

func TestLatencyIsCountedFromWhenARequestWasDue(t *testing.T) {
	l := loop(t)
	s, err := emu.Start(l, emu.Config{Site: "north", Endpoints: 1, Slots: 1, ServiceTime: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// One worker of 40 ms, a request every 10 ms: the k-th is due at 10k and
	// done at 40(k+1), so it waits 30k + 40. A closed loop would see 40 each.
	const n = 20
	res := generate(t, l, s.Addrs()[0], 30*time.Second, every(10*time.Millisecond, n))
	for k, q := range res.Requests {
		want := time.Duration(30*k+40) * time.Millisecond
		if q.Outcome != report.OK || q.Served != 0 || q.Latency < want {
			t.Errorf("request %d: %+v, want at least %v", k, q, want)
		}
	}
	if last := res.Requests[n-1].Latency; last > 20*(30*n+40)*time.Millisecond {
		t.Errorf("the last request took %v", last)
	}
	if len(res.Late) != n {
		t.Errorf("%d delays recorded", len(res.Late))
	}
}

func TestRequestsCarryPositionAndWork(t *testing.T) {
	var seen sync.Map
	addr := server(t, func(_ int, c net.Conn) {
		requests(c, func(_ int, r *http.Request) {
			seen.Store(r.Header.Get(wire.WorkHeader), r.Header.Get(wire.GeoHeader)+" "+r.Host+r.URL.Path)
			fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n%s: south\r\n\r\nabc", wire.ServedByHeader)
		})
	})
	res := generate(t, loop(t), addr, time.Second, []scenario.Arrival{{Site: 0, Work: 1.25}, {Site: 1, Work: 0.5}})
	if v, _ := seen.Load("1.2500"); v != "geo:-37.800000,144.900000 svc.test/work" {
		t.Errorf("got %v", v)
	}
	for i, q := range res.Requests {
		if q.Outcome != report.OK || q.Served != 1 || q.Home != i || q.Status != 200 {
			t.Errorf("%+v", q)
		}
	}
}

func TestConnectionsAreKeptAndGrowWithNeed(t *testing.T) {
	l := loop(t)
	var conns atomic.Int32
	addr := server(t, func(_ int, c net.Conn) {
		conns.Add(1)
		requests(c, func(int, *http.Request) {
			time.Sleep(30 * time.Millisecond)
			fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n\r\n")
		})
	})
	generate(t, l, addr, 10*time.Second, every(200*time.Millisecond, 4))
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for requests one after another", n)
	}
	conns.Store(0)
	generate(t, l, addr, 10*time.Second, every(0, 8))
	if n := conns.Load(); n != 8 {
		t.Errorf("%d connections for 8 requests at once", n)
	}
}

func TestOutcomes(t *testing.T) {
	l := loop(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().(*net.TCPAddr).AddrPort()
	closed.Close()
	answer := func(s string) netip.AddrPort {
		return server(t, func(_ int, c net.Conn) { requests(c, func(int, *http.Request) { fmt.Fprint(c, s) }) })
	}
	for name, c := range map[string]struct {
		addr   netip.AddrPort
		want   report.Outcome
		status int
	}{
		"refused":      {nobody, report.Refused, 0},
		"status":       {answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), report.BadStatus, 503},
		"timeout":      {answer(""), report.Timeout, 0},
		"half a body":  {answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), report.Timeout, 0},
		"closed":       {server(t, func(_ int, c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), report.Broken, 0},
		"no HTTP":      {answer("SSH-2.0-x\r\n\r\n"), report.Broken, 0},
		"chunked":      {answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), report.Broken, 0},
		"endless head": {answer(strings.Repeat("x", 2*wire.MaxHead)), report.Broken, 0},
		"too much":     {answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"), report.Broken, 0},
	} {
		res := generate(t, l, c.addr, 150*time.Millisecond, every(0, 1))
		if q := res.Requests[0]; q.Outcome != c.want || q.Status != c.status || q.Served != report.Nowhere {
			t.Errorf("%s: %+v, want %v", name, q, c.want)
		} else if c.want == report.Timeout && q.Latency < 150*time.Millisecond {
			t.Errorf("%s: gave up after %v", name, q.Latency)
		}
	}
}

func TestAKeptConnectionThatIsClosedIsReplaced(t *testing.T) {
	addr := server(t, func(n int, c net.Conn) {
		requests(c, func(i int, _ *http.Request) {
			if i == 1 && n == 0 {
				c.Close() // takes the second request and answers nothing
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
	})
	res := generate(t, loop(t), addr, 5*time.Second, every(50*time.Millisecond, 3))
	for i, q := range res.Requests {
		if q.Outcome != report.OK {
			t.Errorf("request %d: %+v", i, q)
		}
	}
	if res.Retried != 1 {
		t.Errorf("%d retries", res.Retried)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	l := loop(t)
	addr := server(t, func(_ int, c net.Conn) { requests(c, func(int, *http.Request) {}) })
	g := New(l, Config{Sites: []Site{{Name: "a", Proxy: addr, Users: []Position{{}}}}, Host: "h", Path: "/", Deadline: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := g.Run(ctx, every(time.Millisecond, 10), time.Now()); err == nil {
		t.Fatal("no error from a run that was cut short")
	}
	if g.Live() != nil {
		t.Error("live figures after the run")
	}
}
