package edgeproxy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// busy is the load of the hot-path rules: clients that keep their connections and
// a backend that answers at once, neither of which allocates per request.
type busy struct {
	clients int
	request []byte
	t       testing.TB
}

// respond serves one backend connection: a fixed response for each blank line.
func respond(c net.Conn, response []byte) {
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		for {
			i := bytes.Index(buf[:have], []byte("\r\n\r\n"))
			if i < 0 {
				break
			}
			have = copy(buf, buf[i+4:have])
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	}
}

// fixedResponse has a 1 KiB body.
var fixedResponse = []byte("HTTP/1.1 200 OK\r\nServer: fixed\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))

// fixedBackend answers every request with fixedResponse.
func fixedBackend(t testing.TB) string {
	t.Helper()
	return fixedBackendSaying(t, "")
}

// fixedBackendSaying adds field lines to its responses.
func fixedBackendSaying(t testing.TB, lines string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	response := bytes.Replace(fixedResponse, []byte("\r\n\r\n"), []byte("\r\n"+lines+"\r\n"), 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				respond(c, response)
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// run sends n requests over the clients' connections and calls measured around
// all but the first few of each.
func (b *busy) run(addr string, n int, measured func(run func())) {
	b.t.Helper()
	var warm, done sync.WaitGroup
	start := make(chan struct{})
	for range b.clients {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { c.Close() })
		warm.Add(1)
		done.Go(func() {
			buf := make([]byte, 4096)
			length := 0
			ask := func() bool {
				if _, err := c.Write(b.request); err != nil {
					b.t.Error(err)
					return false
				}
				got := 0
				for {
					k, err := c.Read(buf[got:])
					if err != nil {
						b.t.Error(err)
						return false
					}
					got += k
					if length == 0 {
						// All responses are alike: the first says how long they are.
						if i := bytes.Index(buf[:got], []byte("\r\n\r\n")); i >= 0 && bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
							length = i + 4 + 1024
						}
					}
					if length > 0 && got >= length {
						return got == length
					}
				}
			}
			for range 50 {
				if !ask() {
					break
				}
			}
			warm.Done()
			<-start
			for range n / b.clients {
				if !ask() {
					b.t.Error("a response went wrong")
					return
				}
			}
		})
	}
	warm.Wait()
	measured(func() {
		close(start)
		done.Wait()
	})
}

// hotObjects has 50 routes on 10 hosts; the request takes one in the middle.
func hotObjects(backend string) mesh.Objects {
	o := toOne(backend)
	o.HTTPRoutes = nil
	for host := range 10 {
		r := routeTo(fmt.Sprintf("r%d", host))
		r.Spec.Hostnames = []string{fmt.Sprintf("h%d.example.com", host)}
		for rule := range 5 {
			r.Spec.Rules = append(r.Spec.Rules, prefixRule(fmt.Sprintf("/api/v%d", rule), backendRef("echo")))
		}
		o.HTTPRoutes = append(o.HTTPRoutes, r)
	}
	return o
}

// filteredObjects are hotObjects whose rules match by more than the path and have
// every filter that sends a request on, but for mirrors.
func filteredObjects(t testing.TB, backend string) mesh.Objects {
	o := hotObjects(backend)
	filters := parsed(t, routeText(`
  - matches:
    - path: {type: RegularExpression, value: "/api/v[0-9]+/items/.*"}
      headers: [{name: x-field-07, type: RegularExpression, value: "value of .* 7"}, {name: X-Field-18, value: value of field number 18}]
      queryParams: [{name: full, value: "true"}]
      method: GET
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Field-03, value: a}], add: [{name: X-Field-04, value: b}], remove: [X-Field-05]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: Server, value: edge}], add: [{name: X-Add, value: b}], remove: [Content-Language]}}
    - {type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplaceFullPath, replaceFullPath: /new}}}
    - {type: CORS, cors: {allowOrigins: ["https://*.example.com"], allowCredentials: true, exposeHeaders: [x-add]}}
`)).HTTPRoutes[0].Spec.Rules[0]
	for _, r := range o.HTTPRoutes {
		for i := range r.Spec.Rules {
			r.Spec.Rules[i].Filters = filters.Filters
		}
		r.Spec.Rules[3].Matches = append(filters.Matches, r.Spec.Rules[3].Matches...)
	}
	return o
}

func hotRequest() []byte {
	var b bytes.Buffer
	b.WriteString("GET /api/v3/items/42?full=true HTTP/1.1\r\nHost: h7.example.com\r\nOrigin: https://www.example.com\r\n")
	for i := range 19 {
		fmt.Fprintf(&b, "X-Field-%02d: value of field number %d\r\n", i, i)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// openAccessLog opens a log in JSON that is written while the test runs.
func openAccessLog(t testing.TB) *accesslog.Log {
	t.Helper()
	format, err := accesslog.Parse(accesslog.FormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	l, err := accesslog.Open(accesslog.Config{
		Path: filepath.Join(t.TempDir(), "access.log"), Format: format, Rings: 1, Now: loop.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { l.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return l
}

// TestHotPath holds the rules of the hot path: no allocation, at most 4.2 system
// calls a request with 64 busy keep-alive connections.
func TestHotPath(t *testing.T) {
	backend := fixedBackend(t)
	t.Run("plain", func(t *testing.T) { hotPath(t, Deps{}, hotObjects(backend), 1, 100_000) })
	t.Run("filters", func(t *testing.T) { hotPath(t, Deps{}, filteredObjects(t, backend), 1, 50_000) })
	mirrored := filteredObjects(t, backend)
	mirror := mesh.HTTPRouteFilter{Type: mesh.FilterRequestMirror, RequestMirror: &mesh.RequestMirror{
		BackendRef: mesh.BackendObjectRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "echo", Port: 80}}}
	for _, r := range mirrored.HTTPRoutes {
		for i := range r.Spec.Rules {
			r.Spec.Rules[i].Filters = append(slices.Clip(r.Spec.Rules[i].Filters), mirror)
		}
	}
	t.Run("mirror", func(t *testing.T) { hotPath(t, Deps{}, mirrored, 2, 30_000) })
	for name, o := range map[string]mesh.Objects{
		"peak EWMA, a new session each": balanced(hotObjects(backend), mesh.LBPeakEWMA, &mesh.SessionAffinity{}),
		"ring hash by header":           balanced(hotObjects(backend), mesh.LBRingHash, &mesh.SessionAffinity{Type: mesh.AffinityHeader, SessionName: "X-Field-07"}),
	} {
		t.Run(name, func(t *testing.T) { hotPath(t, Deps{}, o, 1, 30_000) })
	}
}

// TestHotPath_told has the backend say its load with each response, in ORCA's form
// and for two endpoints.
func TestHotPath_told(t *testing.T) {
	b := fixedBackendSaying(t, "endpoint-load-metrics: JSON {\"named_metrics\":{\"in_flight\":3,\"service_time_ms\":0.05}}\r\n")
	hotPath(t, Deps{}, hotObjects(b), 1, 50_000)
}

// TestHotPath_accessLog holds an access log to the same.
func TestHotPath_accessLog(t *testing.T) {
	log := openAccessLog(t)
	hotPath(t, Deps{AccessLog: log}, hotObjects(fixedBackend(t)), 1, 100_000)
	if s := log.Stats(); s.Written == 0 || s.Failed > 0 {
		t.Errorf("access log: %+v", s)
	}
}

// balanced adds what balancing looks at beyond the default.
func balanced(o mesh.Objects, algorithm string, affinity *mesh.SessionAffinity) mesh.Objects {
	o = with(o, mesh.TrafficPolicySpec{
		LoadBalancing: &mesh.LoadBalancing{Algorithm: algorithm, SlowStart: &mesh.SlowStart{Window: mesh.Duration(time.Minute)}},
	})
	o.Services[0].Spec.SessionAffinity = affinity
	return o
}

// hotPath sends requests that reach a backend copies times each: at full speed for
// what is allocated, then in lock-step for the system calls.
func hotPath(t *testing.T, deps Deps, objects mesh.Objects, copies, requests int) {
	if testing.Short() {
		requests = 20_000
	}
	p := startProxy(t, Config{Loops: 1}, deps, objects)
	allocatesNothing(t, p, requests, copies)
	asksLittle(t, p, copies)
}

// allocatesNothing has no allocation per request.
func allocatesNothing(t *testing.T, p *proxy, requests, copies int) {
	b := &busy{clients: 64, request: hotRequest(), t: t}
	b.run(p.addr("http").String(), requests, func(run func()) {
		runtime.GC()
		var before, after runtime.MemStats
		was := p.Stats()
		runtime.ReadMemStats(&before)
		began := time.Now()
		run()
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		is := p.Stats()
		n := float64(requests / b.clients * b.clients)
		opened, all := is.UpstreamConnects-was.UpstreamConnects, after.Mallocs-before.Mallocs
		t.Logf("%.0f requests/s, %.3f system calls a request, %d allocations and %d connections opened, longest turn %v, %d slow",
			n/took.Seconds(), float64(is.Loops[0].Syscalls-was.Loops[0].Syscalls)/n, all, opened, is.Loops[0].LongestTurn, is.Loops[0].SlowTurns)
		// The most requests at one time, and the connections for them, may be new
		// in this time: about 17 objects each, of both sides of this process. The
		// runtime's goroutines and tickers allocate too, some a second: a number of
		// objects that does not hang on that of the requests.
		if most := 100 + 20*opened + uint64(40*took.Seconds()); all > most {
			t.Errorf("%d allocations in %.0f requests that opened %d connections, want at most %d: none per request", all, n, opened, most)
		}
		// A copy's connection may be busy when its request is long over.
		if most := uint64(64 * copies * copies); is.UpstreamConnects > most {
			t.Errorf("%d connections to the backend, want at most %d", is.UpstreamConnects, most)
		}
	})
}

// TestIdleConnectionsAreCheap opens many connections that each served a request:
// at rest they hold no buffer and little else.
func TestIdleConnectionsAreCheap(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, hotObjects(fixedBackend(t)))
	request := hotRequest()
	at := p.addr("http")
	to := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	const n = 500
	buf := make([]byte, 4096)
	ask := func(fd int) {
		t.Helper()
		if _, err := unix.Write(fd, request); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 1024; {
			k, err := unix.Read(fd, buf)
			if err != nil || k == 0 {
				t.Fatal(k, err)
			}
			got += k
		}
	}
	open := func() {
		t.Helper()
		// Plain descriptors: the clients' memory must not be in the figure.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		ask(fd)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	open()
	before := heap()
	for range n {
		open()
	}
	each := (heap() - before) / n
	s := p.Stats()
	t.Logf("%d bytes of heap a connection, %d bytes of buffers mapped", each, s.Loops[0].MappedBytes)
	if s.Connections != n+1 {
		t.Errorf("%d connections", s.Connections)
	}
	if each > 1024 {
		t.Errorf("%d bytes of heap for a connection at rest", each)
	}
	if m := s.Loops[0].MappedBytes; m > 1<<20 {
		t.Errorf("%d bytes of buffers for %d connections at rest", m, n)
	}
}

// TestSlowStepsAreCounted proves that the figure of the 5 ms rule can move.
func TestSlowStepsAreCounted(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(refused(t)))
	done := make(chan struct{})
	p.shared.Workers[0].Loop.Post(slowTask(done))
	<-done
	for range 1000 {
		if l := p.Stats().Loops[0]; l.SlowTurns > 0 && l.LongestTurn >= 10*time.Millisecond {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%+v", p.Stats().Loops[0])
}

type slowTask chan struct{}

func (s slowTask) Run() {
	time.Sleep(10 * time.Millisecond)
	close(s)
}
