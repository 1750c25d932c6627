package edgeproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// rawBackend serves each accepted connection with serve, in turn numbered from 0.
func rawBackend(t testing.TB, serve func(n int, c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				serve(n, c, bufio.NewReader(c))
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// answer reads a request and answers it; false when none came.
func answer(c net.Conn, in *bufio.Reader, body string) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, req.Body)
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return true
}

func do(t *testing.T, method, url, body string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// TestStaleConnection has a backend that takes a second request on a connection
// and closes it instead of answering, as one that closes at the same moment does.
func TestStaleConnection(t *testing.T) {
	for _, tt := range []struct {
		method string
		want   int
	}{{"GET", 200}, {"PUT", 200}, {"POST", 502}} {
		var connections atomic.Int64
		b := rawBackend(t, func(n int, c net.Conn, in *bufio.Reader) {
			connections.Add(1)
			if answer(c, in, fmt.Sprint(n)) && n == 0 {
				http.ReadRequest(in)
			} else {
				answer(c, in, "more")
			}
		})
		o := toOne(b)
		attempts := 0
		o.TrafficPolicies = []*mesh.TrafficPolicy{{
			Metadata: mesh.ObjectMeta{Namespace: "default", Name: "p"},
			Spec: mesh.TrafficPolicySpec{
				TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
				Retries:    &mesh.Retries{Attempts: &attempts}, // a stale connection costs none
			},
		}}
		p := startProxy(t, Config{}, Deps{}, o)
		if status, _, err := do(t, tt.method, p.url("/"), "x"); err != nil || status != 200 {
			t.Fatalf("%s: first %d %v", tt.method, status, err)
		}
		status, body, err := do(t, tt.method, p.url("/"), "x")
		if err != nil || status != tt.want || status == 200 && body != "1" {
			t.Errorf("%s on a stale connection: %d %q %v, want %d", tt.method, status, body, err, tt.want)
		}
	}
}

// TestIdleBackendClose has the backend close a connection that rests in the pool:
// even a POST must not meet it.
func TestIdleBackendClose(t *testing.T) {
	closed := make(chan bool, 10)
	b := rawBackend(t, func(n int, c net.Conn, in *bufio.Reader) {
		answer(c, in, fmt.Sprint(n))
		c.Close()
		closed <- true
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	for i := range 5 {
		status, body, err := do(t, "POST", p.url("/"), "x")
		if err != nil || status != 200 || body != fmt.Sprint(i) {
			t.Fatalf("request %d: %d %q %v", i, status, body, err)
		}
		<-closed
		for idle := 1; idle > 0; { // until the proxy has seen the close
			idle = p.Endpoints()[0].Idle
			time.Sleep(time.Millisecond)
		}
	}
}

func TestConnectRefusedGoesElsewhere(t *testing.T) {
	good := backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	bad := refused(t)
	p := startProxy(t, Config{}, Deps{}, toOne(bad, good))
	for i := range 40 {
		if status, body, err := do(t, "POST", p.url("/"), "hello"); err != nil || status != 200 || body != "hello" {
			t.Fatalf("request %d: %d %q %v", i, status, body, err)
		}
	}
	for _, e := range p.Endpoints() {
		if e.InFlight != 0 {
			t.Errorf("%s: %d in flight at rest", e.Address, e.InFlight)
		}
		if (e.Address == bad) != (e.ConnectFailures > 0) {
			t.Errorf("%s: %d connect failures", e.Address, e.ConnectFailures)
		}
	}
}

func TestBackendDiesInBody(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
	} {
		b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			io.WriteString(c, head)
		})
		p := startProxy(t, Config{}, Deps{}, toOne(b))
		status, body, err := do(t, "GET", p.url("/"), "")
		if err == nil {
			t.Errorf("%s: a cut response passed for a whole one: %d %q", name, status, body)
		}
		p.counted("default/echo", 2, "UC")
	}
}

func TestInvalidResponse(t *testing.T) {
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\nContent-Length: 0\n\n")
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	if status, body, err := do(t, "POST", p.url("/"), "x"); err != nil || status != 502 {
		t.Errorf("%d %q %v, want 502", status, body, err)
	}
}

func TestBackendTimeouts(t *testing.T) {
	release := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	short := mesh.Duration(30 * time.Millisecond)
	for name, set := range map[string]func(o *mesh.Objects){
		"request": func(o *mesh.Objects) {
			o.HTTPRoutes[0].Spec.Rules[0].Timeouts = &mesh.RouteTimeouts{Request: &short}
		},
		"attempt": func(o *mesh.Objects) {
			o.HTTPRoutes[0].Spec.Rules[0].Timeouts = &mesh.RouteTimeouts{BackendRequest: &short}
		},
		"silence": func(o *mesh.Objects) {
			o.TrafficPolicies = []*mesh.TrafficPolicy{{
				Metadata: mesh.ObjectMeta{Namespace: "default", Name: "p"},
				Spec: mesh.TrafficPolicySpec{
					TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
					Timeouts:   &mesh.PolicyTimeouts{Idle: &short},
				},
			}}
		},
	} {
		o := toOne(b)
		set(&o)
		p := startProxy(t, Config{}, Deps{}, o)
		if status, _, err := do(t, "GET", p.url("/"), ""); err != nil || status != 504 {
			t.Errorf("%s: %d %v, want 504", name, status, err)
		}
		for _, e := range p.Endpoints() {
			if e.InFlight != 0 {
				t.Errorf("%s: %d in flight at rest", name, e.InFlight)
			}
		}
	}
}

// TestClientGone has the client leave while the backend works: the backend's
// request must be cancelled. A client that only ends its sending side is still
// there (TestHalfClose).
func TestClientGone(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		<-r.Context().Done()
		ended <- true
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the backend's request was not cancelled")
	}
	p.counted("default/echo", 0, "DC")
}

// TestSlowReader has a client that reads nothing of a long response: the proxy
// must stop reading the backend, in bounded memory.
func TestSlowReader(t *testing.T) {
	const size = 64 << 20
	var sent atomic.Int64
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 64<<10)
		for range size / len(piece) {
			n, err := w.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	stuck(t, &sent)
	if n := sent.Load(); n > size/2 {
		t.Fatalf("the backend could send %d of %d bytes to a client that reads none", n, size)
	}
	if m := p.Stats().Loops[0].MappedBytes; m > 2<<20 {
		t.Errorf("%d bytes of buffers for one slow reader", m)
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<20), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size {
		t.Fatalf("then read %d bytes, %v", n, err)
	}
}

// TestSlowBackend is the other direction.
func TestSlowBackend(t *testing.T) {
	const size = 64 << 20
	read := make(chan bool)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		<-read
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	var sent atomic.Int64
	type result struct {
		body string
		err  error
	}
	done := make(chan result)
	go func() {
		piece := make([]byte, 64<<10)
		body := readerFunc(func(p []byte) (int, error) {
			if sent.Load() == size {
				return 0, io.EOF
			}
			n := copy(p, piece)
			sent.Add(int64(n))
			return n, nil
		})
		res, err := http.Post(p.url("/"), "text/plain", io.LimitReader(body, size))
		if err != nil {
			done <- result{"", err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		done <- result{string(b), err}
	}()
	stuck(t, &sent)
	if n := sent.Load(); n > size/2 {
		t.Fatalf("the client could send %d of %d bytes to a backend that reads none", n, size)
	}
	if m := p.Stats().Loops[0].MappedBytes; m > 2<<20 {
		t.Errorf("%d bytes of buffers for one slow backend", m)
	}
	close(read)
	if r := <-done; r.err != nil || r.body != fmt.Sprint(size, nil) {
		t.Fatalf("then %q %v", r.body, r.err)
	}
}

// counted waits until exactly one request was counted, with this outcome: the
// client may see the end of a request before the counters do.
func (p *proxy) counted(service mesh.ServiceKey, class int, flag string) {
	p.t.Helper()
	var got []RequestCount
	for range 2000 {
		if got = p.Stats().Requests; len(got) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if want := (RequestCount{Service: service, Class: class, Flag: flag, N: 1}); len(got) != 1 || got[0] != want {
		p.t.Errorf("counted %+v, want %+v", got, want)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// stuck waits until a counter has begun to count and then rests.
func stuck(t *testing.T, n *atomic.Int64) {
	t.Helper()
	last, rests := int64(0), 0
	for range 2000 {
		time.Sleep(5 * time.Millisecond)
		now := n.Load()
		if rests++; now != last || now == 0 {
			last, rests = now, 0
		}
		if rests == 40 {
			return
		}
	}
	t.Fatal("it never rests")
}

// TestDrain lets a request under way end, refuses new connections and closes
// those at rest.
func TestDrain(t *testing.T) {
	began, release := make(chan bool), make(chan bool)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- true
			<-release
		}
		io.WriteString(w, "done")
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	rest, busy := p.dial("http"), p.dial("http")
	restIn, busyIn := bufio.NewReader(rest), bufio.NewReader(busy)
	io.WriteString(rest, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if res, err := http.ReadResponse(restIn, nil); err != nil || res.Close {
		t.Fatal(res, err)
	} else {
		io.Copy(io.Discard, res.Body)
	}
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("drained with a request under way: %v", err)
	}
	if _, err := restIn.ReadByte(); err != io.EOF {
		t.Errorf("resting connection: %v, want it closed", err)
	}
	close(release)
	res, err := http.ReadResponse(busyIn, nil)
	if err != nil || !res.Close {
		t.Fatalf("%v %v, want a response that says close", res, err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
		t.Errorf("%q %v", body, err)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConnectionLimits(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	for name, cfg := range map[string]Config{
		"all": {MaxConnections: 3}, "listener": {MaxListenerConnections: 3},
	} {
		p := startProxy(t, cfg, Deps{}, toOne(b))
		var conns []net.Conn
		for range 3 {
			c := p.dial("http")
			conns = append(conns, c)
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Fatal(err)
			}
		}
		// The refusal may arrive while the dial still goes on.
		if c, err := net.Dial("tcp", p.addr("http").String()); err == nil {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: a connection over the limit is served", name)
			}
			c.Close()
		}
		conns[0].Close()
		for s := p.Stats(); s.Connections == 3; s = p.Stats() {
			time.Sleep(time.Millisecond)
		}
		c := p.dial("http")
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Errorf("%s: after one left: %v", name, err)
		}
		if s := p.Stats(); s.ConnectionsRefused != 1 {
			t.Errorf("%s: %d refused", name, s.ConnectionsRefused)
		}
	}
}

// TestReplay has a connection refused after the request's body has come, so that
// the kept body goes to another endpoint, and one whose body is too long for that.
func TestReplay(t *testing.T) {
	var mu sync.Mutex
	got := map[int]int{}
	die := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err == nil {
			io.ReadFull(req.Body, make([]byte, 1000))
		}
	})
	good := backend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		got[len(b)]++
		mu.Unlock()
		w.Write(bytes.ToUpper(b[:min(len(b), 1)]))
	})
	p := startProxy(t, Config{}, Deps{}, toOne(die, good))
	for _, size := range []int{2000, 60 << 10} {
		for range 4 { // the retry budget has room for them all
			if status, body, err := do(t, "PUT", p.url("/"), strings.Repeat("a", size)); err != nil || status != 200 || body != "A" {
				t.Fatalf("PUT of %d bytes: %d %q %v", size, status, body, err)
			}
		}
	}
	failures := 0
	for range 20 {
		if status, _, err := do(t, "PUT", p.url("/"), strings.Repeat("a", 1<<20)); err != nil || status != 200 {
			failures++
		}
	}
	if failures == 0 {
		t.Error("a body longer than what is kept was sent twice")
	}
	mu.Lock()
	defer mu.Unlock()
	if got[2000] != 4 || got[60<<10] != 4 {
		t.Errorf("bodies by length: %v", got)
	}
}
