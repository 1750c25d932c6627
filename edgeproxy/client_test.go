package edgeproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
)

// logged starts an access log of a format and returns what reads its lines, once
// there are so many.
func logged(t *testing.T, format string) (*accesslog.Log, func(n int) []string) {
	t.Helper()
	f, err := accesslog.Parse(format)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := accesslog.Open(accesslog.Config{Path: path, Format: f, Rings: 1, Now: func() int64 { return 0 }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan bool)
	go func() { l.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return l, func(n int) (lines []string) {
		await(t, fmt.Sprintf("%d lines", n), func() bool {
			b, _ := os.ReadFile(path)
			lines = strings.Split(strings.TrimSpace(string(b)), "\n")
			return len(lines) >= n && lines[0] != ""
		})
		return lines
	}
}

// TestClientBehindProxies: who is behind a trusted proxy is whom the log names and
// whose session sticks, also at another site; others are taken at no word.
func TestClientBehindProxies(t *testing.T) {
	var addrs []string
	for i := range 8 {
		addrs = append(addrs, backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Meridian-Client") != "" {
				t.Error("a backend sees what proxies say to each other")
			}
			fmt.Fprint(w, i)
		}))
	}
	log, lines := logged(t, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, toOne(addrs...))
	seen := 0
	apply := func(f *mesh.Forwarding) {
		o := toOne(addrs...)
		o.Services[0].Spec.SessionAffinity = &mesh.SessionAffinity{Type: mesh.AffinitySourceAddress}
		if f != nil {
			o.TrafficPolicies = []*mesh.TrafficPolicy{{Metadata: mesh.ObjectMeta{Name: "f", Namespace: "default"}, Spec: mesh.TrafficPolicySpec{
				TargetRefs: []mesh.PolicyTargetRef{{Group: mesh.GatewayGroup, Kind: mesh.KindGateway, Name: "ingress"}}, Forwarding: f,
			}}}
		}
		p.apply(o)
	}
	for name, c := range map[string]struct {
		f    *mesh.Forwarding
		way  string // %d is the client
		want string // as logged; %d as there
	}{
		"nobody is trusted": {nil, "192.0.2.%d", "127.0.0.1 127.0.0.1"},
		"another network":   {&mesh.Forwarding{TrustedNetworks: []string{"10.0.0.0/8"}}, "192.0.2.%d", "127.0.0.1 127.0.0.1"},
		"a network":         {&mesh.Forwarding{TrustedNetworks: []string{"127.0.0.0/8", "10.0.0.0/8"}}, "6.6.6.6, 192.0.2.%d, 10.0.0.1", "192.0.2.%d 127.0.0.1"},
		"one hop":           {&mesh.Forwarding{TrustedHops: 1}, "6.6.6.6, 192.0.2.%d", "192.0.2.%d 127.0.0.1"},
		"two hops":          {&mesh.Forwarding{TrustedHops: 2}, "6.6.6.6, 192.0.2.%d, 7.7.7.7", "192.0.2.%d 127.0.0.1"},
		"fewer hops":        {&mesh.Forwarding{TrustedHops: 3}, "192.0.2.%d, 7.7.7.7", "127.0.0.1 127.0.0.1"},
	} {
		apply(c.f)
		places := map[string]bool{}
		for client := range 30 {
			way, want := c.way, c.want
			if strings.Contains(way, "%d") {
				way = fmt.Sprintf(way, client)
			}
			if strings.Contains(want, "%d") {
				want = fmt.Sprintf(want, client)
			}
			_, first := ask(t, "GET", p.url("/"), "", "X-Forwarded-For: "+way)
			_, again := ask(t, "GET", p.url("/"), "", "X-Forwarded-For: "+way)
			if first != again {
				t.Fatalf("%s: client %d went to %s and then to %s", name, client, first, again)
			}
			places[first] = true
			all := lines(seen + 2)
			for _, got := range all[seen:] {
				if got != want {
					t.Fatalf("%s: logged %q, want %q", name, got, want)
				}
			}
			seen += 2
		}
		if many := strings.Contains(c.want, "%d"); many != (len(places) > 2) {
			t.Errorf("%s: clients are at %d places", name, len(places))
		}
	}
}

// TestResponseCodeDetails: each answer says why it is as it is.
func TestResponseCodeDetails(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %ROUTE_NAME%")
	o := parsed(t, routeText(`
  - {matches: [{path: {value: /ok}}], `+toEcho+`}
  - {matches: [{path: {value: /none}}]}
  - {matches: [{path: {value: /gone}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: gone, port: 80}]}
  - {matches: [{path: {value: /foreign}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: other, name: gone, port: 80}]}
  - {matches: [{path: {value: /redirect}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]}
  - {matches: [{path: {value: /local}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: l}}]}
  - {matches: [{path: {value: /dead}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: dead, port: 80}]}
  - {matches: [{path: {value: /slow}}], timeouts: {request: 100ms}, `+toEcho+`}
`)+serviceText("echo", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(time.Second)
		}
	}))+serviceText("dead", refused(t))+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: LocalResponse
metadata: {name: l}
spec: {body: here}
`)
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	seen := 0
	for _, c := range []struct{ path, want string }{
		{"/ok", "200 via_upstream default/r/0"}, {"/none", "500 route_has_no_backend default/r/1"}, {"/gone", "500 backend_not_found default/r/2"},
		{"/foreign", "500 backend_reference_invalid default/r/3"}, {"/redirect", "302 redirect default/r/4"}, {"/local", "200 direct_response default/r/5"},
		{"/dead", "503 upstream_connection_failure default/r/6"}, {"/slow", "504 upstream_response_timeout default/r/7"}, {"/nowhere", "404 route_not_found -"},
	} {
		ask(t, "GET", p.url(c.path), "")
		if got := lines(seen + 1)[seen]; got != c.want {
			t.Errorf("%s: logged %q, want %q", c.path, got, c.want)
		}
		seen++
	}
	conn := p.dial("http")
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	if got := lines(seen + 1)[seen]; !strings.HasPrefix(got, "400 ") || strings.Contains(got, "via_upstream") || strings.Contains(got, "400 -") {
		t.Errorf("two lengths: logged %q", got)
	}
}

// TestStreamRouteIsLogged: a TCP connection's line names its route.
func TestStreamRouteIsLogged(t *testing.T) {
	log, lines := logged(t, "%ROUTE_NAME% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER%")
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		_, _ = in.ReadString('\n')
		fmt.Fprintln(c, "hello")
	})
	s := service("echo", b)
	s.Spec.Ports[0].Protocol = mesh.PortTCP
	o := mesh.Objects{
		Gateways: []*mesh.Gateway{gatewayOn("127.0.0.1", mesh.Listener{Name: "tcp", Protocol: mesh.ProtocolTCP})},
		Services: []*mesh.MeshService{s},
		TCPRoutes: []*mesh.TCPRoute{{Metadata: mesh.ObjectMeta{Name: "db", Namespace: "default"}, Spec: mesh.TCPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Rules: []mesh.StreamRouteRule{{BackendRefs: []mesh.BackendRef{backendRef("echo")}}},
		}}},
	}
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	c := p.dial("tcp")
	fmt.Fprintln(c, "hello")
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := lines(1)[0]; got != "default/db via_upstream default/echo" {
		t.Errorf("logged %q", got)
	}
}
