package admin

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
)

// fakeProxy is a data path with one of everything.
type fakeProxy struct{ problems []string }

func (fakeProxy) Listeners() []edgeproxy.Listener {
	return []edgeproxy.Listener{{Gateway: "default/ingress", Name: "http", Protocol: mesh.ProtocolHTTP, Addr: netip.MustParseAddrPort("127.0.0.1:8080")}}
}

func (fakeProxy) Endpoints() []edgeproxy.Endpoint {
	return []edgeproxy.Endpoint{
		{Service: "default/echo", Address: "127.0.0.1:9001", InFlight: 3, Requests: 10, Failures: 1},
		{Service: "default/echo", Address: "10.0.0.1:15443", Site: "south", Requests: 4},
		{Service: "default/echo", Address: "127.0.0.1:9001", InFlight: 3, Requests: 10, Failures: 1},
	}
}

func (p fakeProxy) Problems() []string { return p.problems }

func (fakeProxy) Memory() edgeproxy.Memory {
	return edgeproxy.Memory{Limit: 64 << 20, Resident: 10 << 20, Sockets: 4096, ShedIdle: 1, ShedSlow: 2, RefusedConnections: 3, RefusedRequests: 4}
}

func (fakeProxy) Handshakes() []tlsio.Count {
	return []tlsio.Count{{Side: tlsio.ServerSide, InFlight: 2, Done: 9, Resumed: 4, Failed: map[tlsio.Reason]uint64{tlsio.NotTLS: 3}}}
}

func (fakeProxy) Certificates() []tlsio.Held {
	return []tlsio.Held{{Name: "Certificate/default/shop", NotAfter: time.Unix(2000000000, 0)}, {Name: "Certificate/default/late", Problem: "missing"}}
}

func (fakeProxy) Workload() *x509.Certificate {
	return &x509.Certificate{NotAfter: time.Unix(1_900_000_000, 0), URIs: []*url.URL{{Scheme: "spiffe", Host: "mesh.example", Path: "/site/north/ns/shop/sa/web"}}}
}

func (fakeProxy) Identity() *x509.Certificate {
	id := &url.URL{Scheme: "spiffe", Host: "mesh.example", Path: "/site/north/ns/meridian/sa/n1"}
	return &x509.Certificate{NotAfter: time.Unix(2000000000, 0), URIs: []*url.URL{id}}
}

func (fakeProxy) Loads(dst []edgeproxy.ServiceLoad) []edgeproxy.ServiceLoad {
	return append(dst, edgeproxy.ServiceLoad{Service: "default/echo", From: []edgeproxy.SourceCount{{Site: "south", N: 12}}})
}

func (fakeProxy) Chains() []edgeproxy.Chain {
	return []edgeproxy.Chain{{Name: "default/web", SPI: 7, Takes: []string{"HTTPRoute/default/r/0"}, Hops: []edgeproxy.Hop{
		{SI: 255, Function: "limit", Kind: "policer", Passed: 5, Answered: 2, Failed: 4, Bypassed: 3, Timed: 2, Took: 3 * time.Microsecond}}}}
}

func (fakeProxy) Connections(int) []edgeproxy.Connection { return []edgeproxy.Connection{{ID: 7}} }

func (fakeProxy) Connection(id uint64) (edgeproxy.Connection, bool) {
	return edgeproxy.Connection{ID: id}, id == 7
}

func (fakeProxy) Stats() edgeproxy.Stats {
	return edgeproxy.Stats{
		Connections: 2, ConnectionsTotal: 9, Tunnels: 4,
		Streams: []edgeproxy.StreamCount{{Ended: map[string]uint64{"NR": 1}},
			{Service: "default/db", Open: 2, Ended: map[string]uint64{"": 1, "UF": 3}, FromClients: 10, FromBackend: 20}},
		Listeners: []edgeproxy.ListenerCount{{Address: "127.0.0.1:5432", Connections: 1, RefusedListener: 5, RefusedProxy: 6}},
		Requests:  []edgeproxy.RequestCount{{Service: "default/echo", Class: 2, N: 8}, {Class: 0, Flag: `NR"\` + "\n", N: 1}},
		Latency: []edgeproxy.ServiceLatency{{
			Service: "default/echo", Bounds: []time.Duration{time.Millisecond, 10 * time.Millisecond},
			Counts: []uint64{5, 2, 1}, Sum: 80 * time.Millisecond,
		}},
	}
}

// node returns a healthy node to be spoiled by a test.
func node() Node {
	snap := &mesh.Snapshot{Origin: "file", Generation: mesh.Generation{Incarnation: 7, Counter: 3}, Hash: "abc"}
	snap.Objects.Services = []*mesh.MeshService{{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindMeshService},
		Metadata: mesh.ObjectMeta{Name: "echo", Namespace: "default"},
		Spec:     mesh.MeshServiceSpec{Ports: []mesh.ServicePort{{Port: 80}}},
	}}
	return Node{
		Build: Build{Version: "1.2.3", GoVersion: "go1"},
		Config: func() source.State {
			return source.State{
				Source: "mesh.yaml", Snapshot: snap, AppliedAt: time.Now().Add(-time.Minute), CheckedAt: time.Now(), Reloads: 3,
				Link: &source.Link{Connected: true, Since: time.Now().Add(-time.Hour)},
			}
		},
		Proxy: fakeProxy{},
		Weights: func(since time.Time) edgeproxy.WeightsView {
			v := edgeproxy.WeightsView{Site: "north", Node: "n1", Services: []edgeproxy.ServiceSharesInForce{{
				Service: "default/echo", Policy: "cooperative", Source: "controller", HomeLimit: 12, HomeShare: 0.7,
				Remotes: []edgeproxy.RemoteShareInForce{{Site: "south", Share: 0.3, PriceMS: 12.5, RTTMS: 5, Limit: 9}},
			}}}
			if since.UnixMilli() < 1000 {
				v.History = []edgeproxy.ShareChange{{AtMS: 1000, Service: "default/echo"}}
			}
			return v
		},
		Draining: func() bool { return false },
		Turn:     func(context.Context) (func(), error) { return func() {}, nil },
	}
}

func get(t *testing.T, n Node, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	routes(n).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadyz(t *testing.T) {
	healthy := node()
	with := func(change func(*source.State)) Node {
		n := node()
		n.Config = func() source.State {
			s := healthy.Config()
			change(&s)
			return s
		}
		return n
	}
	draining := node()
	draining.Draining = func() bool { return true }
	dangling := node()
	dangling.Proxy = fakeProxy{problems: []string{"HTTPRoute/default/all: no such service"}}
	refused := with(func(s *source.State) {
		s.Refused = &source.Refusal{At: time.Now(), Faults: []string{"mesh.yaml:6:15: spec.endpoints[0].adress: unknown field"}}
	})
	alone := with(func(s *source.State) { s.Restored = true; s.Link.Connected = false })
	for _, tt := range []struct {
		name   string
		n      Node
		status int
		want   []string
	}{
		{"healthy", healthy, 200, []string{"[+] config: generation 7.3", "[+] controller: connected", "[+] listener: default/ingress/http (HTTP) on 127.0.0.1:8080"}},
		{"nothing yet", with(func(s *source.State) { s.Snapshot = nil }), 503, []string{"[-] config: nothing to serve yet from mesh.yaml"}},
		{"refused", refused, 200, []string{"[!] config: newer configuration refused", "mesh.yaml:6:15: spec.endpoints[0].adress"}},
		{"alone", alone, 200, []string{"[!] config: generation 7.3 of file from the last good copy", "[!] controller: not connected since"}},
		{"dangling", dangling, 200, []string{"[!] config: cannot be served: HTTPRoute/default/all"}},
		{"draining", draining, 503, []string{"[-] drain: the node is stopping"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := get(t, tt.n, "/readyz?verbose")
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			for _, w := range tt.want {
				if !strings.Contains(body, w) {
					t.Errorf("no %q in\n%s", w, body)
				}
			}
			short, _ := get(t, tt.n, "/readyz")
			if short != tt.status {
				t.Errorf("without ?verbose status %d, want %d", short, tt.status)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	n := node()
	status, body := get(t, n, "/config")
	var v configView
	if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil {
		t.Fatalf("%d %v\n%s", status, err, body)
	}
	if v.Origin != "file" || v.Generation.Counter != 3 || v.AgeSeconds < 59 || len(v.Objects.Services) != 1 || !v.Controller.Connected {
		t.Errorf("%+v", v)
	}
	status, body = get(t, n, "/config?format=yaml")
	objects, err := mesh.ParseYAML("config", []byte(body))
	if status != 200 || err != nil || len(objects.Services) != 1 {
		t.Errorf("what /config?format=yaml says is not a configuration: %d %v\n%s", status, err, body)
	}
}

func TestUpstreams(t *testing.T) {
	_, body := get(t, node(), "/upstreams")
	var v struct {
		Listeners []listenerView
		Upstreams []upstreamView
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil || len(v.Upstreams) != 3 || v.Upstreams[0].InFlight != 3 || v.Upstreams[1].Site != "south" || v.Listeners[0].Address != "127.0.0.1:8080" {
		t.Errorf("%v %+v", err, v)
	}
	if _, text := get(t, node(), "/upstreams?format=text"); !strings.Contains(text, "10.0.0.1:15443") || strings.Contains(text, "{") {
		t.Errorf("table:\n%s", text)
	}
}

func TestWeights(t *testing.T) {
	_, body := get(t, node(), "/weights")
	var v edgeproxy.WeightsView
	if err := json.Unmarshal([]byte(body), &v); err != nil || v.Services[0].Remotes[0].Share != 0.3 || len(v.History) != 1 {
		t.Errorf("%v %+v", err, v)
	}
	_, body = get(t, node(), "/weights?since=1000")
	v = edgeproxy.WeightsView{}
	if err := json.Unmarshal([]byte(body), &v); err != nil || len(v.History) != 0 {
		t.Errorf("since is not passed on: %v %+v", err, v.History)
	}
	if status, _ := get(t, node(), "/weights?since=yesterday"); status != http.StatusBadRequest {
		t.Errorf("since=yesterday: status %d", status)
	}
	if _, text := get(t, node(), "/weights?format=text"); !strings.Contains(text, "south") || !strings.Contains(text, "30.0%") {
		t.Errorf("table:\n%s", text)
	}
}

func TestMethods(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		w := httptest.NewRecorder()
		routes(node()).ServeHTTP(w, httptest.NewRequest(method, "/config", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

func TestListen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		if s, err := Listen(addr, false, node(), log); err == nil || !strings.Contains(err.Error(), "--admin-allow-remote") {
			t.Errorf("%s: %v, %v", addr, s, err)
		}
	}
	if _, err := Listen("nonsense", false, node(), log); err == nil {
		t.Error("nonsense is an address")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:"+file, false, node(), log); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:"+stale, false, node(), log); err == nil {
		t.Error("a socket that answers was replaced")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, addr := range []string{"unix:" + stale, "127.0.0.1:0", "[::1]:0", "localhost:0"} {
		t.Run(addr, func(t *testing.T) { serveOn(t, addr, log) })
	}
}

func serveOn(t *testing.T, addr string, log *slog.Logger) {
	s, err := Listen(addr, false, node(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	network, target := "tcp", s.Address()
	if path, ok := strings.CutPrefix(target, unixPrefix); ok {
		network, target = "unix", path
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v %v", info.Mode(), err)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, target)
	}}}
	ask := func(host string) int {
		t.Helper()
		resp, err := client.Get("http://" + host + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for host, want := range map[string]int{"127.0.0.1": 200, "[::1]:15000": 200, "localhost:1": 200, "evil.example": 403} {
		if network == "unix" {
			want = 200 // no browser speaks to a socket
		}
		if got := ask(host); got != want {
			t.Errorf("Host %s: %d, want %d", host, got, want)
		}
	}
}

func (fakeProxy) Explain(q *mesh.ExplainQuery) (*mesh.Explanation, error) {
	if q.Host == "none" {
		return nil, errors.New("no listener for HTTP is served here")
	}
	return &mesh.Explanation{Rule: q.Method + " " + q.Host + q.Path + " " + strings.Join(q.Headers, ",") + " " + string(q.Service) + streamOf(q)}, nil
}

// streamOf is what of the query is a connection's or a datagram's.
func streamOf(q *mesh.ExplainQuery) string {
	if q.Protocol == "" {
		return ""
	}
	return fmt.Sprint(q.Protocol, " ", q.Port)
}

func TestExplain(t *testing.T) {
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/explain?host=a&path=/x%3Fy=1&header=k:v&header=l:w": {200, `"GET a/x?y=1 k:v,l:w "`},
		"/explain?service=default/shop":                       {200, `"rule": "   default/shop"`},
		"/explain?service=shop":                               {400, "want namespace/name"},
		"/explain?service=default/shop&host=a":                {400, "in place of host"},
		"/explain?host=a&path=x":                              {400, "begins with /"},
		"/explain?host=a&header=kv":                           {400, "want name: value"},
		"/explain?host=none":                                  {409, "no listener"},
		"/explain?protocol=tcp&port=80&host=b":                {200, `tcp 80`},
		"/explain?protocol=sctp":                              {400, "want tcp or udp"},
		"/explain?protocol=udp&host=b":                        {400, "datagrams name no host"},
		"/explain?protocol=tcp&path=/x":                       {400, "a request's of HTTP"},
		"/explain?protocol=tcp&port=x":                        {400, "want a number"},
		"/explain?port=80":                                    {400, "give protocol tcp or udp"},
		"/explain?service=default/shop&port=80":               {400, "in place of protocol"},
	} {
		if status, body := get(t, node(), path); status != want.status || !strings.Contains(body, want.body) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
