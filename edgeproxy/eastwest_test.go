package edgeproxy

import (
	"bufio"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// decided is a Gate and Sharing that does what a test says and notes what it is told.
type decided struct {
	mu       sync.Mutex
	pick     int
	then     []int // on retries
	inFlight []int
	sites    []string
	told     []string
}

func (d *decided) Gate(_ mesh.ServiceKey, remotes []string) upstream.Gate {
	d.sites = remotes
	return d
}

func (d *decided) Meter(string) *limit.Meter              { return nil }
func (d *decided) Report(mesh.ServiceKey) upstream.Report { return d }

func (d *decided) AppendLoad(dst, source []byte, inFlight int) []byte {
	return strconv.AppendInt(append(append(dst, "for "...), source...), int64(inFlight), 10)
}

func (d *decided) Pick(_ int, _ int64, inFlight int, _ uint64, tried upstream.Tried) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight = append(d.inFlight, inFlight)
	if n := bits.OnesCount64(uint64(tried)); n > 0 {
		if n <= len(d.then) {
			return d.then[n-1]
		}
		for i := upstream.Home; i < len(d.sites); i++ {
			if !tried.Has(i) {
				return i
			}
		}
		return upstream.None
	}
	return d.pick
}

func (d *decided) tell(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = append(d.told, fmt.Sprintf(format, args...))
}

func (d *decided) Sent(remote int, _ int64) { d.tell("sent %d", remote) }
func (d *decided) Done(remote int, _ int64, how upstream.Outcome) {
	d.tell("done %d %d", remote, how)
}
func (d *decided) Load(remote int, value []byte, _ int64) { d.tell("load %d %s", remote, value) }

func (d *decided) heard() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := strings.Join(d.told, ", ")
	d.told = nil
	return s
}

// siteObjects is what the node of one of the sites "a", "b", "c" serves: echo at
// the addresses given by site, an ingress, and an east-west listener.
func siteObjects(endpoints, gateways map[string]string) mesh.Objects {
	o := toOne()
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners,
		mesh.Listener{Name: "eastwest", Protocol: mesh.ProtocolEastWest})
	svc := o.Services[0]
	svc.Spec.Export = &mesh.Export{Scope: mesh.ScopeMesh}
	for _, name := range []string{"a", "b", "c"} {
		s := &mesh.Site{Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"}}
		if g := gateways[name]; g != "" {
			s.Spec.Gateways = []mesh.SiteGateway{{Address: g}}
		}
		o.Sites = append(o.Sites, s)
		if e := endpoints[name]; e != "" {
			svc.Spec.Endpoints = append(svc.Spec.Endpoints, mesh.Endpoint{Address: e, Site: name, Capacity: &mesh.Capacity{Concurrency: 2}})
		}
	}
	return o
}

// named is a backend that says its name and the in-band fields it should not see.
func named(t *testing.T, name string) string {
	return http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Meridian-Load", "forged by a backend")
		fmt.Fprint(w, name, " ", r.Header.Get("X-Forwarded-For"))
		for k := range r.Header {
			if strings.HasPrefix(k, "Meridian-") {
				fmt.Fprint(w, " saw ", k)
			}
		}
	})
}

func TestEastWest(t *testing.T) {
	endpoints := map[string]string{"a": named(t, "a"), "b": named(t, "b"), "c": named(t, "c")}
	bSharing := &decided{pick: 1}
	b := startProxy(t, Config{Site: "b"}, Deps{Sharing: bSharing}, siteObjects(endpoints, nil))
	bAddr := b.addr("eastwest").String()

	sharing := &decided{pick: 0}
	a := startProxy(t, Config{Site: "a"}, Deps{Sharing: sharing},
		siteObjects(endpoints, map[string]string{"b": bAddr, "c": refused(t)}))
	if fmt.Sprint(sharing.sites) != "[b c]" {
		t.Fatalf("gate knows %v", sharing.sites)
	}

	get := func(headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest("GET", a.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			req.Header.Set(h, "forged by a client")
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}

	t.Run("away", func(t *testing.T) {
		res, body := get("Meridian-Service", "Meridian-Source", "Meridian-Whatever")
		if body != "b 127.0.0.1" {
			t.Errorf("served %q, want b", body)
		}
		if v := res.Header.Get(inband.HeaderLoad); v != "" {
			t.Errorf("the client saw the load report %q", v)
		}
		if h := sharing.heard(); h != "sent 0, done 0 0, load 0 for a1" {
			t.Errorf("gate heard %q", h)
		}
		if len(bSharing.inFlight) != 0 {
			t.Error("a request from another site was put to the gate")
		}
	})
	t.Run("counted", func(t *testing.T) {
		for _, tt := range []struct {
			p                *proxy
			demand, arrivals uint64
			from             string
		}{{a, 1, 0, "[]"}, {b, 0, 1, "[{a 1}]"}} {
			l := tt.p.Loads(nil)[0]
			if l.Demand != tt.demand || l.Arrivals != tt.arrivals || l.Completions != tt.arrivals || fmt.Sprint(l.From) != tt.from || l.InFlight != 0 || l.Slots != 2 {
				t.Errorf("loads %+v", l)
			}
			if l.Unqueued != tt.arrivals || (l.UnqueuedNS > 0) != (tt.arrivals > 0) {
				t.Errorf("service time %+v", l)
			}
		}
	})
	t.Run("unreachable site, served at home", func(t *testing.T) {
		sharing.mu.Lock()
		sharing.pick = 1
		sharing.mu.Unlock()
		if _, body := get(); body != "a 127.0.0.1" {
			t.Errorf("served %q, want home", body)
		}
		if h := sharing.heard(); h != "sent 1, done 1 1" {
			t.Errorf("gate heard %q", h)
		}
	})
	t.Run("no home, next site", func(t *testing.T) {
		sharing.mu.Lock()
		sharing.pick = upstream.Home
		sharing.mu.Unlock()
		without := map[string]string{"b": endpoints["b"], "c": endpoints["c"]}
		a.apply(siteObjects(without, map[string]string{"b": bAddr, "c": bAddr}))
		if _, body := get(); body != "b 127.0.0.1" {
			t.Errorf("served %q, want b", body)
		}
	})
	t.Run("at home", func(t *testing.T) {
		a.apply(siteObjects(endpoints, map[string]string{"b": bAddr, "c": bAddr}))
		if _, body := get("Meridian-Service", "Meridian-Source"); body != "a 127.0.0.1" {
			t.Errorf("served %q, want home, without what the client forged", body)
		}
	})
	t.Run("never passed on", func(t *testing.T) {
		without := map[string]string{"a": endpoints["a"], "c": endpoints["c"]}
		b.apply(siteObjects(without, map[string]string{"a": a.addr("eastwest").String(), "c": bAddr}))
		c := b.dial("eastwest")
		in := bufio.NewReader(c)
		for service, want := range map[string]int{"default/echo": 503, "default/other": 404} {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: %s\r\nMeridian-Source: a\r\n\r\n", service)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			if res.StatusCode != want {
				t.Errorf("%s: %d, want %d", service, res.StatusCode, want)
			}
		}
	})
	t.Run("only what is exported", func(t *testing.T) {
		for export, want := range map[*mesh.Export]int{
			nil:                     404,
			{Scope: mesh.ScopeMesh}: 200,
			{Scope: mesh.ScopeMesh, Sites: []string{"a", "c"}}: 404,
			{Scope: mesh.ScopeMesh, Sites: []string{"a", "b"}}: 200,
		} {
			o := siteObjects(endpoints, nil)
			o.Services[0].Spec.Export = export
			b.apply(o)
			c := b.dial("eastwest")
			for _, service := range []string{"default/echo", "default/echo:80"} {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: %s\r\nMeridian-Source: a\r\nConnection: keep-alive\r\n\r\n", service)
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				if res.StatusCode != want {
					t.Errorf("%s exported by %+v: %d, want %d", service, export, res.StatusCode, want)
				}
			}
		}
	})
	t.Run("a link's address goes first", func(t *testing.T) {
		o := siteObjects(map[string]string{"b": endpoints["b"]}, map[string]string{"b": refused(t)})
		o.Sites[0].Spec.Links = []mesh.SiteLink{{To: "b", Address: bAddr}}
		b.apply(siteObjects(endpoints, nil))
		a.apply(o)
		if _, body := get(); body != "b 127.0.0.1" {
			t.Errorf("served %q, want b", body)
		}
	})
}

// TestBrokenSite has a gateway that takes requests and answers none: the request
// is served at home within the attempt's time.
func TestBrokenSite(t *testing.T) {
	hang := make(chan struct{})
	dead := rawBackend(t, func(_ int, _ net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		<-hang
	})
	t.Cleanup(func() { close(hang) })
	endpoints := map[string]string{"a": named(t, "a"), "b": "127.0.0.1:1"}
	o := siteObjects(endpoints, map[string]string{"b": dead})
	short := mesh.Duration(50 * time.Millisecond)
	o.HTTPRoutes[0].Spec.Rules[0].Timeouts = &mesh.RouteTimeouts{BackendRequest: &short}
	sharing := &decided{pick: 0}
	a := startProxy(t, Config{Site: "a"}, Deps{Sharing: sharing}, o)
	if status, body := get(t, a.url("/")); status != 200 || body != "a 127.0.0.1" {
		t.Errorf("%d %q, want home", status, body)
	}
	if h := sharing.heard(); h != "sent 0, done 0 2" {
		t.Errorf("gate heard %q", h)
	}
	for _, e := range a.Endpoints() {
		if e.InFlight != 0 {
			t.Errorf("%s: %d in flight at rest", e.Address, e.InFlight)
		}
	}
}

// TestRetryAsksTheGate has a remote fail: where the request goes next, if anywhere,
// is the gate's to say.
func TestRetryAsksTheGate(t *testing.T) {
	endpoints := map[string]string{"b": "127.0.0.1:1", "c": "127.0.0.1:1"}
	for _, tt := range []struct {
		then []int
		home bool
		want string
		told string
	}{
		{[]int{upstream.None}, false, "503", "sent 1, done 1 1"},
		{[]int{upstream.Home, upstream.None}, false, "503", "sent 1, done 1 1"},
		{[]int{2, upstream.None}, false, "200 d", "sent 1, done 1 1, sent 2, done 2 0"},
		{[]int{2}, true, "200 d", "sent 1, done 1 1, sent 2, done 2 0"},
		{[]int{upstream.Home}, true, "200 a", "sent 1, done 1 1"},
	} {
		o := siteObjects(endpoints, map[string]string{"b": named(t, "b"), "c": refused(t)})
		o.Sites = append(o.Sites, &mesh.Site{
			Metadata: mesh.ObjectMeta{Name: "d", Namespace: "default"},
			Spec:     mesh.SiteSpec{Gateways: []mesh.SiteGateway{{Address: named(t, "d")}}},
		})
		to := &o.Services[0].Spec.Endpoints
		*to = append(*to, mesh.Endpoint{Address: "127.0.0.1:1", Site: "d"})
		if tt.home {
			*to = append(*to, mesh.Endpoint{Address: named(t, "a"), Site: "a"})
		}
		sharing := &decided{pick: 1, then: tt.then}
		a := startProxy(t, Config{Site: "a"}, Deps{Sharing: sharing}, o)
		status, body := get(t, a.url("/"))
		if got := fmt.Sprint(status, " ", body); !strings.HasPrefix(got, tt.want) {
			t.Errorf("then %v: %s, want %s", tt.then, got, tt.want)
		}
		told := sharing.heard()
		for ; strings.Count(told, "sent") > strings.Count(told, "done"); told += ", " + sharing.heard() {
			time.Sleep(time.Millisecond)
		}
		told = strings.ReplaceAll(told, ", load 2 forged by a backend", "")
		if told != tt.told {
			t.Errorf("then %v: gate heard %q, want %q", tt.then, told, tt.told)
		}
	}
}
