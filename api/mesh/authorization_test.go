package mesh

import (
	"strings"
	"testing"
)

func TestAuthorizationConditions(t *testing.T) {
	o, err := ParseYAML("test.yaml", []byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: in}
spec:
  gatewayClassName: meridian
  listeners: [{name: web, port: 80, protocol: HTTP}, {name: db, port: 5432, protocol: TCP}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: db}
spec: {ports: [{port: 5432, protocol: tcp}], endpoints: [{address: "10.0.0.1:5432"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: nowhere}
spec:
  targetRefs:
  - {kind: MeshService, name: dbs}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: out}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: in, sectionName: webs}
  - {group: gateway.networking.k8s.io, kind: TCPRoute, name: db}
  action: allow
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: opaque}
spec:
  targetRefs: [{kind: MeshService, name: db}, {group: gateway.networking.k8s.io, kind: Gateway, name: in, sectionName: web}]
  action: deny
  rules: [{to: [{ports: [5432]}]}, {to: [{paths: [{value: /admin}]}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range Check(o) {
		if c.Object.Kind == KindAuthorizationPolicy {
			got = append(got, c.Object.Name+" "+c.Path+" "+c.Reason+" "+c.Message)
		}
	}
	for i, want := range []string{
		"nowhere spec.targetRefs[0] TargetNotFound there is no MeshService default/dbs",
		"nowhere spec.targetRefs[1] TargetNotFound there is no Gateway default/out",
		"nowhere spec.targetRefs[2].sectionName TargetNotFound Gateway default/in has no listener webs",
		"nowhere spec.targetRefs[3] TargetNotFound there is no TCPRoute default/db",
		"opaque spec.rules[1].to[0] UnsupportedProtocol looks into requests, but port 5432 of MeshService default/db speaks tcp: what cannot be looked into refuses everything there",
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("condition %d of %q, want %q", i, got, want)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d conditions: %q", len(got), got)
	}
	if r := o.Requires(); len(r) == 0 || r[0] != "authorization" {
		t.Errorf("requires %v", r)
	}
}
