package view

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

const outboundDocuments = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: node}
spec:
  gatewayClassName: meridian
  listeners: [{name: outbound, port: 15001, protocol: mesh.meridian.dev/Outbound}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}, {port: 81}, {port: 5432, protocol: tcp}, {port: 53, protocol: udp}]
  addresses: [10.96.0.10, "fd00::10"]
  endpoints: [{address: "127.0.0.1:1"}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: thief}
spec:
  ports: [{port: 80}]
  addresses: [10.96.0.10]
  endpoints: [{address: "127.0.0.1:2"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 80}]
  rules:
  - matches: [{path: {value: /v2}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: thief, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: gate}
spec:
  parentRefs: [{name: shop}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: thief, port: 80}]
`

// A redirected connection is served by where it was to go: by the routes of the service
// that has the address, without one by the service itself, and by nobody where none has it.
func TestOutbound(t *testing.T) {
	o, err := mesh.ParseYAML("outbound.yaml", []byte(outboundDocuments))
	if err != nil {
		t.Fatal(err)
	}
	v := build(t, upstream.NewRegistry(2), *o)
	if len(v.Sockets) != 1 {
		t.Fatalf("%d sockets, want that of the listener", len(v.Sockets))
	}
	at := v.Sockets[0]
	to := func(address string) *Socket { return at.Outbound[netip.MustParseAddrPort(address)] }
	match := func(address, path string) string {
		t.Helper()
		s := to(address)
		if s == nil || s.Routes == nil {
			t.Fatalf("%s: no routes", address)
		}
		rule, ok := s.Routes.Match(&route.Request{Host: []byte("any.example"), Method: []byte("GET"), Path: []byte(path)})
		if !ok {
			return "none"
		}
		return string(rule.Pick(0).Service)
	}
	for _, tt := range []struct{ address, path, want string }{
		{"10.96.0.10:80", "/v2", "default/thief"},
		{"10.96.0.10:80", "/v1", "none"}, // the route of the service says nothing of it
		{"[fd00::10]:80", "/v2", "default/thief"},
		{"10.96.0.10:81", "/v2", "default/shop"}, // a port without a route
	} {
		if got := match(tt.address, tt.path); got != tt.want {
			t.Errorf("%s%s: %s, want %s", tt.address, tt.path, got, tt.want)
		}
	}
	db := to("10.96.0.10:5432")
	if db == nil || db.Streams == nil || db.Key != (SocketKey{Addr: netip.MustParseAddr("10.96.0.10"), Port: 5432}) {
		t.Fatalf("port of tcp: %+v", db)
	}
	if rule, ok := db.Streams.Match(nil); !ok || rule.Pick(0).Service != "default/shop" || rule.Pick(0).Port != 5432 {
		t.Errorf("port of tcp: %+v", rule)
	}
	for _, address := range []string{"10.96.0.10:53", "10.96.0.10:82", "10.96.0.11:80"} {
		if to(address) != nil {
			t.Errorf("%s is served", address)
		}
	}
	if !slices.ContainsFunc(v.Problems, func(p string) bool { return strings.Contains(p, "10.96.0.10:80 is another service's already") }) {
		t.Errorf("problems %q", v.Problems)
	}
	if found := mesh.Check(o); !slices.ContainsFunc(found, func(c mesh.Condition) bool {
		return c.Reason == mesh.ReasonConflicted && c.Object.Name == "thief" && c.Path == "spec.addresses[0]"
	}) {
		t.Errorf("conditions %v", found)
	}
}
