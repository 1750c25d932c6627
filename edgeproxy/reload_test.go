package edgeproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestReloadUnderLoad applies snapshot after snapshot while clients ask without
// pause: listeners come and go, endpoints change, and nothing fails.
func TestReloadUnderLoad(t *testing.T) {
	ok := func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
	a, b := backend(t, ok), backend(t, ok)
	p := startProxy(t, Config{}, Deps{}, toOne(a))
	url := p.url("/")
	var stop atomic.Bool
	var served, failed atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for !stop.Load() {
				res, err := c.Post(url, "text/plain", strings.NewReader("hello"))
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(body) != "hello" {
					failed.Add(1)
					t.Errorf("%d %q %v", res.StatusCode, body, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 60 {
		o := toOne(a, b)
		if i%3 == 0 {
			o.Services[0].Spec.Endpoints = o.Services[0].Spec.Endpoints[1:]
		}
		if i%2 == 0 {
			o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("second", 0))
		}
		p.apply(o)
		if i%2 == 0 {
			second := p.addr("second")
			if status, _ := get(t, "http://"+second.String()+"/"); status != 200 {
				t.Fatalf("new listener: %d", status)
			}
		} else if _, ok := p.ListenerAddr("default/ingress", "second"); ok {
			t.Fatal("a listener that is gone is listed")
		}
		before := served.Load()
		for served.Load() < before+5 && failed.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	stop.Store(true)
	clients.Wait()
	if g, _ := p.Generation(); g.Counter != 61 {
		t.Errorf("generation %v", g)
	}
	var counted uint64
	for _, c := range p.Stats().Requests {
		if c.Service == "default/echo" && c.Class == 2 {
			counted += c.N
		}
	}
	if want := uint64(served.Load()) + 30; counted != want {
		t.Errorf("counted %d over all reloads, want %d", counted, want)
	}
}

// TestRemovedListener closes its connections: at once at rest, else after the
// response under way.
func TestRemovedListener(t *testing.T) {
	began, release := make(chan bool), make(chan bool)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- true
			<-release
		}
		io.WriteString(w, "done")
	})
	o := toOne(b)
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("second", 0))
	p := startProxy(t, Config{}, Deps{}, o)
	addr := p.addr("second").String()
	rest, busy := p.dial("second"), p.dial("second")
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	p.apply(toOne(b))
	if _, err := rest.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("resting connection: %v", err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a listener that is gone accepts")
	}
	close(release)
	res, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || res.StatusCode != 200 || !res.Close {
		t.Errorf("request under way: %v %v", res, err)
	}
}

// TestUnboundListener has one of two listeners' ports taken: the other serves, the
// fault is a problem until the port is free.
func TestUnboundListener(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := toOne(b)
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("taken", taken.Addr().(*net.TCPAddr).Port))
	p := startProxy(t, Config{}, Deps{}, o)
	if status, _ := get(t, p.url("/")); status != 200 {
		t.Errorf("the other listener: %d", status)
	}
	if ps := p.Problems(); len(ps) != 1 || !strings.Contains(ps[0], taken.Addr().String()) || !strings.Contains(ps[0], "default/ingress") {
		t.Errorf("problems %q, want the gateway and the address named", ps)
	}
	taken.Close()
	for range 2000 {
		if len(p.Problems()) == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if status, _ := get(t, "http://"+taken.Addr().String()+"/"); status != 200 || len(p.Listeners()) != 2 {
		t.Errorf("when the port is free: %d, listeners %v", status, p.Listeners())
	}
}

// TestPortMoves moves a port between all addresses and one of them, both ways, in
// single reloads, while somebody connects without pause.
func TestPortMoves(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	probe, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.Addr().(*net.TCPAddr).Port
	probe.Close()
	at := func(addresses ...string) mesh.Objects {
		o := toOne(b)
		o.Gateways[0] = gatewayOn("127.0.0.1", httpListener("http", port))
		o.Gateways[0].Spec.Addresses = nil
		for _, a := range addresses {
			o.Gateways[0].Spec.Addresses = append(o.Gateways[0].Spec.Addresses, mesh.GatewayAddress{Value: a})
		}
		return o
	}
	p := startProxy(t, Config{Loops: 2}, Deps{}, at())
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for range 5 {
		for _, o := range []mesh.Objects{at("127.0.0.1"), at(), at("127.0.0.1", "127.0.0.2"), at("0.0.0.0"), at()} {
			p.apply(o)
			if ps := p.Problems(); len(ps) > 0 {
				t.Fatalf("problems %q", ps)
			}
			for range 4 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "ok") {
					t.Fatalf("%q %v", got, err)
				}
				c.Close()
			}
		}
	}
	// Nobody else may share the port.
	if other, err := net.Listen("tcp", address); err == nil {
		other.Close()
		t.Error("the port can be taken twice")
	}
}

// TestBadSnapshotKeepsTheOld has a snapshot none of whose listeners can be bound.
func TestBadSnapshotKeepsTheOld(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := toOne(b)
	port := taken.Addr().(*net.TCPAddr).Port
	o.Gateways[0].Spec.Listeners = []mesh.Listener{httpListener("taken", port)}
	next := p.snap
	next.Objects = o
	next.Generation.Counter++
	err = p.Apply(&next)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(port)) || !strings.Contains(err.Error(), "default/ingress") {
		t.Fatalf("error %v, want the gateway and the port named", err)
	}
	if len(p.Listeners()) != 1 {
		t.Errorf("listeners %v", p.Listeners())
	}
	next.Requires = []string{"time-travel"}
	if err := p.Apply(&next); err == nil || !strings.Contains(err.Error(), "time-travel") {
		t.Errorf("error %v, want the missing feature named", err)
	}
	if status, _ := get(t, p.url("/")); status != 200 {
		t.Errorf("the old snapshot serves %d", status)
	}
	if g, _ := p.Generation(); g.Counter != 1 {
		t.Errorf("generation %v in force", g)
	}
}

func TestWeightedBackends(t *testing.T) {
	named := func(name string) string {
		return backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	}
	o := toOne(named("a"))
	o.Services = append(o.Services, service("b", named("b")))
	three, one := 3, 1
	x, y := backendRef("echo"), backendRef("b")
	x.Weight, y.Weight = &three, &one
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", prefixRule("/", x, y))}
	p := startProxy(t, Config{}, Deps{}, o)
	seen := map[string]int{}
	for range 1000 {
		_, body := get(t, p.url("/"))
		seen[body]++
	}
	// 750 +- 8 standard deviations of 13.7.
	if seen["a"] < 640 || seen["a"] > 860 || seen["a"]+seen["b"] != 1000 {
		t.Errorf("shares %v, want about 750 to 250", seen)
	}
}

// TestSoak has 100 connections do everything at random against backends that
// answer at random, by independent peers on both sides.
func TestSoak(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/die":
			panic(http.ErrAbortHandler)
		case "/close":
			w.Header().Set("Connection", "close")
		}
		io.Copy(w, r.Body)
	})
	p := startProxy(t, Config{Loops: 2, Watermark: 16 << 10}, Deps{}, toOne(b, b))
	var clients sync.WaitGroup
	for n := range 100 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 7))
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer c.CloseIdleConnections()
			for range 30 {
				size := r.IntN(1 << (4 + r.IntN(15)))
				want := strings.Repeat(string(rune('a'+r.IntN(26))), size)
				path := []string{"/", "/", "/", "/close", "/die"}[r.IntN(5)]
				req, err := http.NewRequest("POST", p.url(path), struct{ io.Reader }{strings.NewReader(want)})
				if err != nil {
					t.Error(err)
					return
				}
				if r.IntN(2) == 0 && size > 0 {
					req.ContentLength = int64(size)
				} else {
					req.ContentLength = -1
				}
				res, err := c.Do(req)
				if path == "/die" {
					if err == nil {
						if res.StatusCode != 502 {
							t.Errorf("a backend that dies: %d", res.StatusCode)
						}
						res.Body.Close()
					}
					continue
				}
				if err != nil {
					t.Errorf("client %d %s %d bytes: %v", n, path, size, err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(got) != want {
					t.Errorf("client %d: %d, %d of %d bytes, %v", n, res.StatusCode, len(got), size, err)
					return
				}
			}
		})
	}
	clients.Wait()
	for _, e := range p.Endpoints() {
		if e.InFlight != 0 {
			t.Errorf("%s: %d in flight at rest", e.Address, e.InFlight)
		}
	}
}

// TestLoopsShareConnections opens connections one by one: each goes to the loop
// that has fewer, whichever accepted it.
func TestLoopsShareConnections(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{Loops: 2}, Deps{}, toOne(b))
	for i := range 40 {
		c := p.dial("http")
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		l := p.Stats().Loops
		if d := l[0].Connections - l[1].Connections; d < -1 || d > 1 {
			t.Fatalf("after %d connections: %d and %d", i+1, l[0].Connections, l[1].Connections)
		}
	}
}

func TestApplyAfterTheEnd(t *testing.T) {
	s, err := New(Config{}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(&mesh.Snapshot{Objects: toOne("127.0.0.1:1")}); !errors.Is(err, ErrStopped) {
		t.Errorf("%v, want that the proxy has stopped", err)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
}
