package edgeproxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const crossed = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: own}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - matches: [{path: {value: /shared}}]
    backendRefs:
    - {group: mesh.meridian.dev, kind: MeshService, name: here, port: 80}
    - {group: mesh.meridian.dev, kind: MeshService, namespace: data, name: there, port: 80}
  - matches: [{path: {value: /there}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: data, name: there, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: foreign, namespace: shop}
spec:
  parentRefs: [{name: ingress, namespace: default}]
  rules:
  - matches: [{path: {value: /shop}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: default, name: here, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: here}
spec: {ports: [{port: 80}], endpoints: [{address: "HERE"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: there, namespace: data}
spec: {ports: [{port: 80}], endpoints: [{address: "THERE"}]}
`

const grantThere = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: data}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: mesh.meridian.dev, kind: MeshService, name: there}]
`

const grantHere = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: mesh.meridian.dev, kind: MeshService}]
`

// TestReferenceGrantEndToEnd: what crosses namespaces without a grant costs its
// share 500, and a route of another namespace joins only where it is allowed.
func TestReferenceGrantEndToEnd(t *testing.T) {
	says := func(text string) string {
		return backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
	}
	text := strings.NewReplacer("THERE", says("there"), "HERE", says("here")).Replace(crossed)
	shares := func(p *proxy, path string) map[string]int {
		got := map[string]int{}
		for range 60 {
			status, body := get(t, p.url(path))
			switch {
			case status == 200:
				got[body]++
			case status == 500 || status == 404:
				got[http.StatusText(status)]++
			default:
				t.Fatalf("%s: %d %s", path, status, body)
			}
		}
		return got
	}
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, text))
	for path, want := range map[string]string{"/there": "Internal Server Error", "/shop": "Not Found"} {
		if got := shares(p, path); got[want] != 60 {
			t.Errorf("%s without a grant: %v", path, got)
		}
	}
	if got := shares(p, "/shared"); got["here"] == 0 || got["Internal Server Error"] == 0 || len(got) != 2 {
		t.Errorf("/shared without a grant: %v", got)
	}
	if problems := strings.Join(p.Problems(), "\n"); !strings.Contains(problems, "data/there is in another namespace") {
		t.Errorf("the node does not say why: %s", problems)
	}

	o := parsed(t, text+grantThere)
	o.Gateways[0].Spec.Listeners[0].AllowedRoutes = &mesh.AllowedRoutes{Namespaces: &mesh.RouteNamespaces{From: mesh.NamespacesAll}}
	p.apply(o)
	deadline := time.Now().Add(10 * time.Second)
	for status := 0; status != 200 && time.Now().Before(deadline); {
		status, _ = get(t, p.url("/there"))
	}
	if got := shares(p, "/there"); got["there"] != 60 {
		t.Errorf("/there with a grant: %v", got)
	}
	if got := shares(p, "/shared"); got["here"] == 0 || got["there"] == 0 || len(got) != 2 {
		t.Errorf("/shared with a grant: %v", got)
	}
	if got := shares(p, "/shop"); got["Internal Server Error"] != 60 {
		t.Errorf("/shop, allowed and without a grant: %v", got)
	}

	o = parsed(t, text+grantThere+grantHere)
	o.Gateways[0].Spec.Listeners[0].AllowedRoutes = &mesh.AllowedRoutes{Namespaces: &mesh.RouteNamespaces{From: mesh.NamespacesAll}}
	p.apply(o)
	for status := 0; status != 200 && time.Now().Before(deadline); {
		status, _ = get(t, p.url("/shop"))
	}
	if got := shares(p, "/shop"); got["here"] != 60 {
		t.Errorf("/shop with a grant: %v", got)
	}
}
