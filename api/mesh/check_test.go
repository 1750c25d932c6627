package mesh

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	if found := Check(mustParse(t, smallest)); len(found) != 0 {
		t.Errorf("the smallest file has %v", found)
	}
	o := mustParse(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: b}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: http, port: 8080, protocol: HTTP, hostname: shop.example.com}
  - {name: again, port: 8080, protocol: HTTP, hostname: shop.example.com}
  - {name: other, port: 8080, protocol: HTTP, hostname: "*.example.org"}
  - {name: ew, port: 8080, protocol: mesh.meridian.dev/EastWest}
  - {name: free, port: 0, protocol: HTTP, hostname: shop.example.com}
  - {name: free2, port: 0, protocol: HTTP, hostname: shop.example.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: c}
spec:
  gatewayClassName: meridian
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: http, port: 8080, protocol: HTTP}, {name: packets, port: 8080, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: d}, {name: b, sectionName: ew}, {name: b, port: 9}, {name: b}, {name: bb}, {name: b, namespace: elsewhere}]
  hostnames: [x.example.net]
  rules:
  - backendRefs:
    - {group: mesh.meridian.dev, kind: MeshService, name: ech, port: 80}
    - {group: mesh.meridian.dev, kind: MeshService, name: echo, port: 81}
    - {group: mesh.meridian.dev, kind: MeshService, name: echo, namespace: elsewhere}
    - {group: mesh.meridian.dev, kind: MeshService, name: echo}
    - {group: mesh.meridian.dev, kind: MeshService, name: two}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: fits}
spec:
  parentRefs: [{name: b}]
  hostnames: [a.b.example.org]
  rules: [{}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: b, namespace: elsewhere}
spec: {gatewayClassName: meridian, addresses: [{value: 10.0.0.1}], listeners: [{name: http, port: 8081, protocol: HTTP}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "10.0.0.1:80", site: geelnog}, {address: "10.0.0.2:80", site: geelong}]
  export: {scope: mesh, sites: [geelong, nowhere]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: two}
spec:
  ports: [{port: 80}, {port: 81}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: three}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "10.0.0.1:80", weight: 0}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: geelong}
spec:
  location: {type: Point, coordinates: [144.36, -38.15]}
  parent: victoria
  links: [{to: geelong}, {to: melbourne}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: victoria}
spec: {location: {type: Point, coordinates: [144.36, -38.15]}, parent: geelong}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: z}
spec:
  targetRefs: [{kind: MeshService, name: echo}, {kind: MeshService, name: gone}]
  siteSharing: {policy: none}
  retries: {attempts: 0}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: a}
spec:
  targetRefs: [{kind: MeshService, name: echo}]
  siteSharing: {}
`)
	var got []string
	for _, c := range Check(o) {
		got = append(got, c.String())
	}
	want := strings.Split(strings.TrimSpace(`
test.yaml:2:1: Gateway/default/b: spec.listeners[1].hostname: HostnameConflict: listener http has the same port and hostname
test.yaml:2:1: Gateway/default/b: spec.listeners[3].protocol: ProtocolConflict: port 8080 already serves HTTP, listener http
test.yaml:15:1: Gateway/default/c: spec.listeners[0].port: PortUnavailable: port 8080 is taken by listener http of Gateway default/b
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[0]: NoMatchingParent: there is no Gateway default/d, did you mean b?
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[1]: NoMatchingParent: Gateway default/b has no HTTP or HTTPS listener named ew
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[2]: NoMatchingParent: Gateway default/b has no HTTP or HTTPS listener at port 9
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[3]: NoMatchingListenerHostname: no listener of Gateway default/b has a hostname that overlaps with the route's
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[4]: NoMatchingParent: there is no Gateway default/bb, did you mean b?
test.yaml:23:1: HTTPRoute/default/r: spec.parentRefs[5]: NotAllowedByListeners: no listener of Gateway elsewhere/b allows HTTPRoutes of namespace default (allowedRoutes)
test.yaml:23:1: HTTPRoute/default/r: spec.rules[0].backendRefs[0]: BackendNotFound: there is no MeshService default/ech, did you mean echo?
test.yaml:23:1: HTTPRoute/default/r: spec.rules[0].backendRefs[1].port: UnknownPort: MeshService default/echo has no port 81, it has 80
test.yaml:23:1: HTTPRoute/default/r: spec.rules[0].backendRefs[2]: RefNotPermitted: MeshService elsewhere/echo is in another namespace, and no ReferenceGrant there lets HTTPRoutes of default name it
test.yaml:23:1: HTTPRoute/default/r: spec.rules[0].backendRefs[4].port: UnknownPort: MeshService default/two has several ports (80, 81), name one
test.yaml:71:1: Site/default/geelong: spec.parent: Conflicted: the site is its own ancestor
test.yaml:71:1: Site/default/geelong: spec.links[0].to: Conflicted: the link leads to the site itself
test.yaml:71:1: Site/default/geelong: spec.links[1].to: UnknownSite: there is no Site melbourne
test.yaml:79:1: Site/default/victoria: spec.parent: Conflicted: the site is its own ancestor
test.yaml:50:1: MeshService/default/echo: spec.endpoints[0].site: UnknownSite: there is no Site geelnog, did you mean geelong?
test.yaml:50:1: MeshService/default/echo: spec.export.sites[1]: UnknownSite: there is no Site nowhere
test.yaml:58:1: MeshService/default/two: spec.endpoints: NoEndpoints: the service has no endpoint, requests to it get 503
test.yaml:64:1: MeshService/default/three: spec.endpoints: NoEndpoints: every endpoint has weight 0, requests to the service get 503
test.yaml:84:1: TrafficPolicy/default/z: spec.siteSharing: Conflicted: TrafficPolicy default/a sets it for MeshService default/echo and comes first by name
test.yaml:84:1: TrafficPolicy/default/z: spec.targetRefs[1]: TargetNotFound: there is no MeshService default/gone
`), "\n")
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing %s", want[i])
		case i >= len(want):
			t.Errorf("unexpected %s", got[i])
		case got[i] != want[i]:
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}

	p := EffectivePolicy(o, "default/echo")
	if p.SiteSharing.Policy != SharingCooperative || p.SiteSharing.StayHome != 2 || *p.Retries.Attempts != 0 || p.LoadBalancing.Algorithm != LBFadingTable || p.Timeouts != nil {
		t.Errorf("effective policy %+v", p)
	}
}

func TestHostnamesOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"", "a.example.com", true}, {"a.example.com", "a.example.com", true}, {"a.example.com", "b.example.com", false},
		{"*.example.com", "a.example.com", true}, {"*.example.com", "a.b.example.com", true}, {"*.example.com", "example.com", false},
		{"*.example.com", "*.b.example.com", true}, {"*.example.com", "*.example.org", false}, {"*.example.com", "badexample.com", false},
	} {
		if HostnamesOverlap(tc.a, tc.b) != tc.want || HostnamesOverlap(tc.b, tc.a) != tc.want {
			t.Errorf("%q and %q: want %v", tc.a, tc.b, tc.want)
		}
	}
}

func TestToYAMLComesBack(t *testing.T) {
	o := mustParse(t, smallest+`
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a-first, labels: {app: "yes", "example.com/n": "1"}, annotations: {note: "x: y"}}
spec:
  parentRefs: [{name: ingress, sectionName: http, port: 8080}]
  hostnames: ["*.example.com"]
  rules:
  - name: one
    matches: [{}, {path: {type: Exact, value: "/a%20b"}}]
    timeouts: {request: 1s500ms, backendRequest: 0s}
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, weight: 0}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: b}
spec:
  location: {type: Point, coordinates: [144.36, -38.15, 12]}
  gateways: [{address: "edge.example.com:15443"}]
  links: [{to: a, rtt: 0.8ms, price: 0.5}]
`)
	text, err := ToYAML(o)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseYAML("again.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	again, err := ToYAML(back)
	if err != nil || string(again) != string(text) {
		t.Errorf("printed differently the second time: %v\n%s\n%s", err, text, again)
	}
	if !strings.HasPrefix(string(text), "apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\n") || strings.Index(string(text), "a-first") > strings.Index(string(text), "name: all") {
		t.Errorf("order is not sites first, then by name:\n%s", text)
	}
	o.HTTPRoutes[0], o.HTTPRoutes[1] = o.HTTPRoutes[1], o.HTTPRoutes[0]
	o.Positions, back.Positions = nil, nil
	if !reflect.DeepEqual(o, back) {
		t.Errorf("got %+v\nwant %+v", back, o)
	}
}

func TestDurationForms(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 1500 * time.Millisecond: "1s500ms", 90 * time.Minute: "1h30m", 800 * time.Microsecond: "800µs", 24 * time.Hour: "24h",
	} {
		b, err := Duration(d).MarshalText()
		if err != nil || string(b) != want {
			t.Errorf("%v: got %s, %v; want %s", d, b, err, want)
		}
		var back Duration
		if err := back.UnmarshalText(b); err != nil || back.D() != d {
			t.Errorf("%s came back as %v, %v", b, back.D(), err)
		}
	}
}
