package mesh

import (
	"strings"
	"testing"
)

func TestCheckStreams(t *testing.T) {
	found := Check(mustParse(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: tcp, port: 1, protocol: TCP}
  - {name: tls, port: 2, protocol: TLS, hostname: "*.example.com", tls: {mode: Passthrough}}
  - {name: http, port: 3, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: g}, {name: g, sectionName: http}, {name: gg}]
  rules:
  - backendRefs:
    - {group: mesh.meridian.dev, kind: MeshService, name: db, port: 1}
    - {group: mesh.meridian.dev, kind: MeshService, name: db, port: 2}
    - {group: mesh.meridian.dev, kind: MeshService, name: db}
    - {group: mesh.meridian.dev, kind: MeshService, name: db, port: 9}
    - {group: mesh.meridian.dev, kind: MeshService, name: dc}
    - {group: mesh.meridian.dev, kind: MeshService, name: db, namespace: other, port: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: r}
spec:
  parentRefs: [{name: g, sectionName: tcp}, {name: g}]
  hostnames: [a.example.org]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db, port: 1}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: h}
spec:
  parentRefs: [{name: g}]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db, port: 1}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gg}, {group: gateway.networking.k8s.io, kind: Gateway, name: g, sectionName: x}]
  acceptProxyProtocol: {from: [10.0.0.0/8]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: q}
spec:
  targetRefs: [{kind: MeshService, name: plain}]
  sendProxyProtocol: {}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: plain}
spec:
  ports: [{port: 1}]
  endpoints: [{address: "127.0.0.1:1"}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: db}
spec:
  ports: [{name: a, port: 1, protocol: tcp}, {name: b, port: 2}]
  endpoints: [{address: "127.0.0.1:1"}]
`))
	var got []string
	for _, c := range found {
		got = append(got, c.Object.Kind+" "+c.Path+" "+c.Reason)
	}
	want := []string{
		"HTTPRoute spec.rules[0].backendRefs[0].port UnsupportedProtocol",
		"TCPRoute spec.parentRefs[1] NoMatchingParent",
		"TCPRoute spec.parentRefs[2] NoMatchingParent",
		"TCPRoute spec.rules[0].backendRefs[1].port UnsupportedProtocol",
		"TCPRoute spec.rules[0].backendRefs[2].port UnknownPort",
		"TCPRoute spec.rules[0].backendRefs[3].port UnknownPort",
		"TCPRoute spec.rules[0].backendRefs[4] BackendNotFound",
		"TCPRoute spec.rules[0].backendRefs[5] RefNotPermitted",
		"TLSRoute spec.parentRefs[0] NoMatchingParent",
		"TLSRoute spec.parentRefs[1] NoMatchingListenerHostname",
		"TrafficPolicy spec.targetRefs[0] TargetNotFound",
		"TrafficPolicy spec.targetRefs[1].sectionName TargetNotFound",
		"TrafficPolicy spec.sendProxyProtocol UnsupportedProtocol",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
