package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What redirections, addresses and routes for them lead to is looked at.
func TestRedirectConditions(t *testing.T) {
	const documents = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: node}
spec:
  gatewayClassName: meridian
  listeners: [{name: outbound, port: 15001, protocol: mesh.meridian.dev/Outbound}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec:
  redirect:
    controlGroups: [/]
    proxy: {controlGroup: /meridian.slice, addresses: ["127.0.0.1:15001", "[::1]:15002"]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}, {port: 5432, protocol: tcp}]
  addresses: [10.96.0.10]
  endpoints: [{address: "127.0.0.1:1"}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: bare}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "127.0.0.1:2"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good}
spec:
  parentRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop}]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: bare, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad}
spec:
  hostnames: [shop.example]
  parentRefs:
  - {group: mesh.meridian.dev, kind: MeshService, name: shopp}
  - {group: mesh.meridian.dev, kind: MeshService, name: bare}
  - {group: mesh.meridian.dev, kind: MeshService, name: shop}
  - {group: mesh.meridian.dev, kind: MeshService, name: shop, namespace: other}
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: bare, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: port}
spec:
  parentRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 5432}]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: bare, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 5432}]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 5432}]}]
`
	o := mustParse(t, documents)
	found := []string{}
	for _, c := range Check(o) {
		found = append(found, fmt.Sprintf("%s/%s %s %s: %s", c.Object.Kind, c.Object.Name, c.Path, c.Reason, c.Message))
	}
	want := []string{
		"HTTPRoute/bad spec.parentRefs[0] NoMatchingParent: there is no MeshService default/shopp, did you mean shop?",
		"HTTPRoute/bad spec.parentRefs[1] NoMatchingParent: MeshService default/bare has no addresses",
		"HTTPRoute/bad spec.parentRefs[2] NoMatchingListenerHostname: hostnames are not looked at",
		"HTTPRoute/bad spec.parentRefs[3] NotAllowedByListeners: MeshService other/shop is of another namespace",
		"HTTPRoute/port spec.parentRefs[0] NoMatchingParent: MeshService default/shop has no port for requests at port 5432",
		"TCPRoute/db spec.parentRefs[0] NoMatchingParent: a TCPRoute whose parent is a MeshService is not served",
		"ChainNode/edge spec.redirect.proxy.addresses[1] NoListener: no Gateway has a listener of protocol mesh.meridian.dev/Outbound at port 15002",
	}
	for _, w := range want {
		if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, w) }) {
			t.Errorf("not found: %s", w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found\n%s", strings.Join(found, "\n"))
	}
}
