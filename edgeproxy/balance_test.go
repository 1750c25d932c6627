package edgeproxy

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// backends starts n backends that answer with their number, or with status 500
// while sick says so.
func backends(t *testing.T, n int, sick func(i int) bool) []string {
	t.Helper()
	var addrs []string
	for i := range n {
		addrs = append(addrs, backend(t, func(w http.ResponseWriter, _ *http.Request) {
			if sick != nil && sick(i) {
				w.WriteHeader(http.StatusInternalServerError)
			}
			fmt.Fprint(w, i)
		}))
	}
	return addrs
}

// with adds a policy for the service echo.
func with(o mesh.Objects, spec mesh.TrafficPolicySpec) mesh.Objects {
	spec.TargetRefs = []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}}
	o.TrafficPolicies = []*mesh.TrafficPolicy{{Metadata: mesh.ObjectMeta{Name: "p", Namespace: "default"}, Spec: spec}}
	return o
}

// visit sends a GET with a header and returns the status, the body and the cookies.
func visit(t *testing.T, url, name, value string) (int, string, []*http.Cookie) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Cookies()
}

func TestEveryAlgorithmServes(t *testing.T) {
	addrs := backends(t, 4, nil)
	p := startProxy(t, Config{}, Deps{}, toOne(addrs...))
	for algorithm, want := range map[string]int{
		mesh.LBFadingTable: 4, mesh.LBLeastRequest: 4, mesh.LBPeakEWMA: 4, mesh.LBRoundRobin: 4, mesh.LBRandom: 4,
		mesh.LBRingHash: 1, mesh.LBMaglev: 1, // one client, one endpoint
	} {
		p.apply(with(toOne(addrs...), mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{Algorithm: algorithm}}))
		got := map[string]int{}
		for range 100 {
			status, body, _ := visit(t, p.url("/"), "", "")
			if status != 200 {
				t.Fatalf("%s: status %d", algorithm, status)
			}
			got[body]++
		}
		if len(got) != want && algorithm != mesh.LBPeakEWMA {
			t.Errorf("%s: %v, want %d endpoints", algorithm, got, want)
		}
		if algorithm == mesh.LBPeakEWMA && len(got) < 2 {
			t.Errorf("%s: %v", algorithm, got)
		}
	}
}

// TestPeakEWMAAvoidsTheSlow has one of two endpoints take 20 ms.
func TestPeakEWMAAvoidsTheSlow(t *testing.T) {
	fast := backend(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fast") })
	slow := backend(t, func(w http.ResponseWriter, _ *http.Request) { time.Sleep(20 * time.Millisecond); fmt.Fprint(w, "slow") })
	o := with(toOne(fast, slow), mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{Algorithm: mesh.LBPeakEWMA}})
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	got := map[string]int{}
	for range 200 {
		_, body, _ := visit(t, p.url("/"), "", "")
		got[body]++
	}
	if got["slow"] == 0 || got["slow"] > 20 {
		t.Errorf("%v", got)
	}
}

func TestCookieSessions(t *testing.T) {
	var sick atomic.Int32
	sick.Store(-1)
	addrs := backends(t, 4, func(i int) bool { return int(sick.Load()) == i })
	objects := func(addrs ...string) mesh.Objects {
		o := with(toOne(addrs...), mesh.TrafficPolicySpec{
			LoadBalancing:    &mesh.LoadBalancing{Algorithm: mesh.LBRandom},
			OutlierDetection: &mesh.OutlierDetection{BaseEjectionTime: span(time.Minute)},
		})
		o.Services[0].Spec.SessionAffinity = &mesh.SessionAffinity{
			AbsoluteTimeout: span(90 * time.Minute), CookieConfig: &mesh.CookieConfig{LifetimeType: mesh.CookiePermanent, Path: "/shop", SameSite: "Strict"},
		}
		return o
	}
	p := startProxy(t, Config{}, Deps{}, objects(addrs...))
	_, home, cookies := visit(t, p.url("/"), "", "")
	if len(cookies) != 1 {
		t.Fatalf("cookies %v", cookies)
	}
	c := cookies[0]
	if c.Name != "meridian-echo" || len(c.Value) != 16 || !c.HttpOnly || c.Path != "/shop" || c.SameSite != http.SameSiteStrictMode || c.MaxAge != 5400 || c.Secure {
		t.Errorf("cookie %q", c.Raw)
	}
	session := "theme=dark; " + c.Name + "=" + c.Value
	for range 30 {
		status, body, again := visit(t, p.url("/"), "Cookie", session)
		if status != 200 || body != home || len(again) > 0 {
			t.Fatalf("status %d from %s instead of %s, cookies %v", status, body, home, again)
		}
	}
	// It survives a reload in another order with one endpoint less.
	own := int(home[0] - '0')
	var others []string
	for i, a := range addrs {
		if i != own {
			others = append(others, a)
		}
	}
	p.apply(objects(others[2], others[1], addrs[own]))
	if _, body, again := visit(t, p.url("/"), "Cookie", session); body != home || len(again) > 0 {
		t.Errorf("after a reload %s instead of %s", body, home)
	}
	// A cookie that names nobody gives way to a new one.
	for _, bad := range []string{"x", "0123456789abcdef", strings.ToUpper(c.Value)} {
		if _, _, again := visit(t, p.url("/"), "Cookie", c.Name+"="+bad); len(again) != 1 {
			t.Errorf("cookie %q is taken", bad)
		}
	}
	// So does one of an endpoint that is ejected.
	sick.Store(int32(own))
	await(t, "a new place", func() bool {
		_, body, again := visit(t, p.url("/"), "Cookie", session)
		return body != home && len(again) == 1
	})
}

// await gives what runs in the background time.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}

func span(d time.Duration) *mesh.Duration { s := mesh.Duration(d); return &s }

func TestHashedSessions(t *testing.T) {
	addrs := backends(t, 5, nil)
	o := toOne(addrs...)
	o.Services[0].Spec.SessionAffinity = &mesh.SessionAffinity{Type: mesh.AffinityHeader, SessionName: "X-User"}
	for _, algorithm := range []string{mesh.LBLeastRequest, mesh.LBRingHash, mesh.LBMaglev} {
		p := startProxy(t, Config{}, Deps{}, with(o, mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{Algorithm: algorithm}}))
		places, all := map[string]string{}, map[string]bool{}
		for k := range 200 {
			user := fmt.Sprint("user", k%40)
			_, body, cookies := visit(t, p.url("/"), "x-user", user)
			if places[user] == "" {
				places[user] = body
				all[body] = true
			}
			if places[user] != body || len(cookies) > 0 {
				t.Fatalf("%s: %s was at %s, is at %s", algorithm, user, places[user], body)
			}
		}
		if len(all) < 4 {
			t.Errorf("%s: 40 users are at %d endpoints", algorithm, len(all))
		}
		// Without the header nothing keeps requests together.
		all = map[string]bool{}
		for range 60 {
			_, body, _ := visit(t, p.url("/"), "", "")
			all[body] = true
		}
		if len(all) < 4 {
			t.Errorf("%s: requests without the header reach %v", algorithm, all)
		}
	}
	o.Services[0].Spec.SessionAffinity = &mesh.SessionAffinity{Type: mesh.AffinitySourceAddress}
	p := startProxy(t, Config{}, Deps{}, o)
	all := map[string]bool{}
	for range 30 {
		_, body, _ := visit(t, p.url("/"), "", "")
		all[body] = true
	}
	if len(all) != 1 {
		t.Errorf("one client is at %v", all)
	}
}

// TestSessionsAcrossSites: a session that began at another site's endpoint goes
// back there.
func TestSessionsAcrossSites(t *testing.T) {
	a, b := named(t, "a"), named(t, "b")
	sticky := func(o mesh.Objects) mesh.Objects {
		o.Services[0].Spec.SessionAffinity = &mesh.SessionAffinity{}
		return o
	}
	endpoints := map[string]string{"a": a, "b": b}
	other := startProxy(t, Config{Site: "b"}, Deps{}, sticky(siteObjects(endpoints, nil)))
	gate := &decided{pick: 0} // everything goes to b
	p := startProxy(t, Config{Site: "a"}, Deps{Sharing: gate}, sticky(siteObjects(endpoints, map[string]string{"b": other.addr("eastwest").String()})))
	_, body, cookies := visit(t, p.url("/"), "", "")
	if !strings.HasPrefix(body, "b") || len(cookies) != 1 {
		t.Fatalf("%q %v", body, cookies)
	}
	gate.mu.Lock()
	gate.pick = upstream.Home
	gate.mu.Unlock()
	if _, body, _ := visit(t, p.url("/"), "", ""); !strings.HasPrefix(body, "a") {
		t.Fatalf("%q without a session", body)
	}
	for range 10 {
		if _, body, again := visit(t, p.url("/"), "Cookie", cookies[0].Name+"="+cookies[0].Value); !strings.HasPrefix(body, "b") || len(again) > 0 {
			t.Fatalf("the session is at %q, cookies %v", body, again)
		}
	}
}

func (p *proxy) endpoint(addr string) Endpoint {
	p.t.Helper()
	for _, e := range p.Endpoints() {
		if e.Address == addr {
			return e
		}
	}
	p.t.Fatalf("no endpoint %s", addr)
	return Endpoint{}
}

func TestOutlierIsEjectedAndComesBack(t *testing.T) {
	var sick atomic.Bool
	addrs := backends(t, 3, func(i int) bool { return i == 1 && sick.Load() })
	o := with(toOne(addrs...), mesh.TrafficPolicySpec{OutlierDetection: &mesh.OutlierDetection{BaseEjectionTime: span(time.Second)}})
	var logged syncBuffer
	p := startProxy(t, Config{}, Deps{Log: slog.New(slog.NewTextHandler(&logged, nil))}, o)
	if e := p.endpoint(addrs[1]); e.Health != Healthy || e.Share != 1 {
		t.Fatalf("%+v", e)
	}
	sick.Store(true)
	await(t, "the ejection", func() bool {
		visit(t, p.url("/"), "", "")
		return p.endpoint(addrs[1]).Health == Ejected
	})
	sick.Store(false)
	e := p.endpoint(addrs[1])
	if e.Why != "failures in a row" || e.BackIn <= 0 || e.BackIn > time.Second || e.Ejections != 1 || e.Share != 0 {
		t.Errorf("%+v", e)
	}
	for range 20 {
		if _, body, _ := visit(t, p.url("/"), "", ""); body == "1" && p.endpoint(addrs[1]).Health == Ejected {
			t.Error("an ejected endpoint is asked")
		}
	}
	p.apply(o) // a reload forgets nothing
	if e := p.endpoint(addrs[1]); e.Ejections != 1 {
		t.Errorf("after a reload %+v", e)
	}
	await(t, "the return", func() bool {
		_, body, _ := visit(t, p.url("/"), "", "")
		return body == "1" && p.endpoint(addrs[1]).Health == Healthy
	})
	for _, want := range []string{`msg="endpoint is ejected" service=default/echo endpoint=` + addrs[1], "endpoint is back"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, logged.String())
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestConnectFailuresEject: an address that nobody listens on is left alone.
func TestConnectFailuresEject(t *testing.T) {
	addrs := append(backends(t, 2, nil), refused(t))
	p := startProxy(t, Config{}, Deps{}, toOne(addrs...))
	await(t, "the ejection", func() bool {
		if status, _, _ := visit(t, p.url("/"), "", ""); status != 200 {
			t.Fatalf("status %d", status)
		}
		return p.endpoint(addrs[2]).Health == Ejected
	})
	was := p.endpoint(addrs[2]).ConnectFailures
	for range 50 {
		visit(t, p.url("/"), "", "")
	}
	if n := p.endpoint(addrs[2]).ConnectFailures; n != was {
		t.Errorf("%d more tries", n-was)
	}
}

// TestNeverAllOut: where every endpoint may be and is ejected, all are used.
func TestNeverAllOut(t *testing.T) {
	var sick atomic.Bool
	addrs := backends(t, 2, func(int) bool { return sick.Load() })
	all := 100
	p := startProxy(t, Config{}, Deps{}, with(toOne(addrs...), mesh.TrafficPolicySpec{
		OutlierDetection: &mesh.OutlierDetection{MaxEjectionPercent: &all, BaseEjectionTime: span(time.Minute)},
	}))
	sick.Store(true)
	await(t, "panic", func() bool {
		status, _, _ := visit(t, p.url("/"), "", "")
		if status != 500 {
			t.Fatalf("status %d", status)
		}
		return p.endpoint(addrs[0]).Health == Panicking && p.endpoint(addrs[1]).Health == Panicking
	})
	sick.Store(false)
	got := map[string]bool{}
	for range 40 {
		status, body, _ := visit(t, p.url("/"), "", "")
		if status != 200 {
			t.Fatalf("status %d", status)
		}
		got[body] = true
	}
	if len(got) != 2 {
		t.Errorf("only %v are used", got)
	}
}

func TestDetectionCanBeSwitchedOff(t *testing.T) {
	addrs := backends(t, 2, func(i int) bool { return i == 0 })
	off := 0
	p := startProxy(t, Config{}, Deps{}, with(toOne(addrs...), mesh.TrafficPolicySpec{OutlierDetection: &mesh.OutlierDetection{MaxEjectionPercent: &off}}))
	for range 200 {
		visit(t, p.url("/"), "", "")
	}
	time.Sleep(3 * healthEvery)
	if e := p.endpoint(addrs[0]); e.Health != Healthy || e.Requests < 50 {
		t.Errorf("%+v", e)
	}
}

func TestSlowStartOfANewEndpoint(t *testing.T) {
	addrs := backends(t, 3, nil)
	least := 5
	slow := func(addrs ...string) mesh.Objects {
		return with(toOne(addrs...), mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{
			Algorithm: mesh.LBRandom, SlowStart: &mesh.SlowStart{Window: mesh.Duration(time.Hour), MinWeightPercent: &least},
		}})
	}
	p := startProxy(t, Config{}, Deps{}, slow(addrs[:2]...))
	if e := p.endpoint(addrs[0]); e.Health != Healthy {
		t.Errorf("an endpoint of the start warms up: %+v", e)
	}
	p.apply(slow(addrs...))
	if e := p.endpoint(addrs[2]); e.Health != Warming || e.Share > 0.06 {
		t.Fatalf("%+v", e)
	}
	got := map[string]int{}
	for range 300 {
		_, body, _ := visit(t, p.url("/"), "", "")
		got[body]++
	}
	if got["2"] > 30 || got["0"] < 80 || got["1"] < 80 {
		t.Errorf("%v", got)
	}
	p.apply(slow(addrs[2])) // alone it takes everything
	for range 50 {
		if status, body, _ := visit(t, p.url("/"), "", ""); status != 200 || body != "2" {
			t.Fatalf("%d %s", status, body)
		}
	}
}

func TestConnectionsEnd(t *testing.T) {
	addrs := backends(t, 1, nil)
	p := startProxy(t, Config{Loops: 1, ClientMaxRequests: 20}, Deps{}, with(toOne(addrs...), mesh.TrafficPolicySpec{Connections: &mesh.Connections{MaxRequests: 10}}))
	for range 100 {
		if status, _, _ := visit(t, p.url("/"), "", ""); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	s := p.Stats()
	if n := s.UpstreamConnects; n < 9 || n > 12 {
		t.Errorf("%d connections for 100 requests of 10 each, give or take one", n)
	}
	if n := s.ConnectionsTotal; n < 5 || n > 7 {
		t.Errorf("%d client connections for 100 requests of 20 each, give or take two", n)
	}
}

func TestConnectionsAge(t *testing.T) {
	addrs := backends(t, 1, nil)
	p := startProxy(t, Config{Loops: 1, ClientMaxAge: time.Millisecond}, Deps{}, with(toOne(addrs...), mesh.TrafficPolicySpec{Connections: &mesh.Connections{MaxAge: span(time.Millisecond)}}))
	for range 10 {
		time.Sleep(2 * time.Millisecond)
		visit(t, p.url("/"), "", "")
	}
	if s := p.Stats(); s.UpstreamConnects < 9 || s.ConnectionsTotal < 5 || s.Connections > 1 {
		t.Errorf("%d to the backend, %d from clients, %d open", s.UpstreamConnects, s.ConnectionsTotal, s.Connections)
	}
}

// TestTickDoesNotAllocate: it runs ten times a second for ever.
func TestTickDoesNotAllocate(t *testing.T) {
	v, err := view.Build(&mesh.Snapshot{Objects: toOne("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")}, view.Deps{Registry: upstream.NewRegistry(2), Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	h, now := newHealth(slog.New(slog.DiscardHandler)), loop.Now()
	h.tick(now, v)
	if n := testing.AllocsPerRun(100, func() { now += int64(healthEvery); h.tick(now, v) }); n > 0 {
		t.Errorf("%v allocations a tick", n)
	}
}
