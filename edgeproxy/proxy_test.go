package edgeproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// proxy is a running Server under test.
type proxy struct {
	*Server
	t testing.TB
	// snap is what was applied last; counters of its generation grow by Apply.
	snap mesh.Snapshot
}

func startProxy(t testing.TB, cfg Config, deps Deps, objects mesh.Objects) *proxy {
	t.Helper()
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end")
		}
	})
	p := &proxy{Server: s, t: t, snap: mesh.Snapshot{Origin: "file", Site: cfg.Site}}
	p.apply(objects)
	return p
}

func (p *proxy) apply(objects mesh.Objects) {
	p.t.Helper()
	p.snap.Generation.Counter++
	next := p.snap
	next.Objects = objects
	if err := p.Apply(&next); err != nil {
		p.t.Fatal(err)
	}
	p.snap = next
}

func (p *proxy) addr(listener string) netip.AddrPort {
	p.t.Helper()
	a, ok := p.ListenerAddr("default/ingress", listener)
	if !ok {
		p.t.Fatalf("no listener %q: %v", listener, p.Listeners())
	}
	return a
}

func (p *proxy) url(path string) string { return "http://" + p.addr("http").String() + path }

// gatewayOn is a Gateway named ingress on an address.
func gatewayOn(addr string, listeners ...mesh.Listener) *mesh.Gateway {
	return &mesh.Gateway{
		Metadata: mesh.ObjectMeta{Name: "ingress", Namespace: "default"},
		Spec: mesh.GatewaySpec{
			GatewayClassName: mesh.GatewayClass,
			Addresses:        []mesh.GatewayAddress{{Type: "IPAddress", Value: addr}},
			Listeners:        listeners,
		},
	}
}

func httpListener(name string, port int) mesh.Listener {
	return mesh.Listener{Name: name, Port: port, Protocol: mesh.ProtocolHTTP}
}

func backendRef(name string) mesh.BackendRef {
	return mesh.BackendRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: name, Port: 80}
}

func routeTo(name string, rules ...mesh.HTTPRouteRule) *mesh.HTTPRoute {
	return &mesh.HTTPRoute{
		Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
		Spec:     mesh.HTTPRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Rules: rules},
	}
}

func prefixRule(prefix string, refs ...mesh.BackendRef) mesh.HTTPRouteRule {
	return mesh.HTTPRouteRule{
		Matches:     []mesh.HTTPRouteMatch{{Path: &mesh.PathMatch{Type: mesh.PathPrefix, Value: prefix}}},
		BackendRefs: refs,
	}
}

func service(name string, addrs ...string) *mesh.MeshService {
	s := &mesh.MeshService{
		Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
		Spec:     mesh.MeshServiceSpec{Ports: []mesh.ServicePort{{Port: 80, Protocol: "http"}}},
	}
	for _, a := range addrs {
		s.Spec.Endpoints = append(s.Spec.Endpoints, mesh.Endpoint{Address: a})
	}
	return s
}

// toOne is the smallest useful configuration.
func toOne(addrs ...string) mesh.Objects {
	return mesh.Objects{
		Gateways:   []*mesh.Gateway{gatewayOn("127.0.0.1", httpListener("http", 0))},
		HTTPRoutes: []*mesh.HTTPRoute{routeTo("all", prefixRule("/", backendRef("echo")))},
		Services:   []*mesh.MeshService{service("echo", addrs...)},
	}
}

func backend(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// refused returns an address that nobody listens on.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestServesFromBackend(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Header.Get("X-Request-Id")+" "+r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto"))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	for range 3 {
		res, err := http.Get(p.url("/a/../b?q=1"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "GET " + p.addr("http").String() + " /b?q=1"; res.StatusCode != 200 || string(body) != want {
			t.Fatalf("%d %q, want %q", res.StatusCode, body, want)
		}
		if seen := res.Header.Get("X-Seen"); len(seen) != 32+len(" 127.0.0.1 http") || seen[32:] != " 127.0.0.1 http" {
			t.Fatalf("backend saw %q", seen)
		}
	}
	if s := p.Stats(); s.UpstreamConnects != 1 || s.UpstreamReused != 2 || s.ConnectionsTotal != 1 {
		t.Errorf("stats %+v", s)
	}
}
