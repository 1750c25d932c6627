package mesh

import (
	"strings"
	"testing"
)

// grants has routes of two namespaces that name the services of a third.
const grants = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}}
  - {name: tcp, port: 81, protocol: TCP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: TCPRoute}]}}
  - {name: own, port: 82, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: http, namespace: shop}
spec:
  parentRefs: [{name: g, namespace: default, sectionName: http}]
  rules:
  - backendRefs:
    - {group: mesh.meridian.dev, kind: MeshService, namespace: data, name: one}
    - {group: mesh.meridian.dev, kind: MeshService, namespace: data, name: two}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: stranger, namespace: other}
spec:
  parentRefs: [{name: g, namespace: default}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: data, name: one}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: tcp, namespace: shop}
spec:
  parentRefs: [{name: g, namespace: default}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: data, name: raw}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: one, namespace: data}
spec: {ports: [{port: 80}], endpoints: [{address: "127.0.0.1:1"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: two, namespace: data}
spec: {ports: [{port: 80}], endpoints: [{address: "127.0.0.1:1"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: raw, namespace: data}
spec: {ports: [{port: 80, protocol: tcp}], endpoints: [{address: "127.0.0.1:1"}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: GRANTSIN}
spec:
  from: [{group: gateway.networking.k8s.io, kind: FROM, namespace: shop}]
  to: [TO]
`

// TestReferenceGrants names the references that are refused under a grant.
func TestReferenceGrants(t *testing.T) {
	const mesh = "group: mesh.meridian.dev, kind: MeshService"
	for name, c := range map[string]struct {
		namespace, from, to string
		refused             string // of one two raw
	}{
		"all services to HTTPRoutes":   {"data", "HTTPRoute", "{" + mesh + "}", "raw"},
		"one service to HTTPRoutes":    {"data", "HTTPRoute", "{" + mesh + ", name: two}", "one raw"},
		"all services to TCPRoutes":    {"data", "TCPRoute", "{" + mesh + "}", "one two"},
		"a grant of another namespace": {"shop", "HTTPRoute", "{" + mesh + "}", "one two raw"},
		"core Services":                {"data", "HTTPRoute", `{group: "", kind: Service}`, "one two raw"},
		"several":                      {"data", "HTTPRoute", `{kind: Secret}, {` + mesh + ", name: one}", "two raw"},
	} {
		o, err := ParseYAML("test", []byte(strings.NewReplacer("GRANTSIN", c.namespace, "FROM", c.from, "TO", c.to).Replace(grants)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var refused []string
		for _, s := range []struct{ kind, service string }{{KindHTTPRoute, "one"}, {KindHTTPRoute, "two"}, {KindTCPRoute, "raw"}} {
			if !o.PermitsBackend(s.kind, "shop", "data", s.service) {
				refused = append(refused, s.service)
			}
		}
		if got := strings.Join(refused, " "); got != c.refused {
			t.Errorf("%s: refused %q, want %q", name, got, c.refused)
		}
		conditions := 0
		for _, found := range Check(o) {
			if found.Reason == ReasonRefNotPermitted && found.Object.Namespace == "shop" {
				conditions++
			}
		}
		if want := len(refused); conditions != want {
			t.Errorf("%s: %d conditions, want %d", name, conditions, want)
		}
	}
}

// TestAllowedRoutes: the selector takes the HTTPRoute of shop and not that of
// other, the TCP listener takes TCPRoutes from anywhere.
func TestAllowedRoutes(t *testing.T) {
	o, err := ParseYAML("test", []byte(strings.NewReplacer("GRANTSIN", "data", "FROM", "HTTPRoute", "TO", "{kind: Secret}").Replace(grants)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range Check(o) {
		if c.Reason != ReasonRefNotPermitted {
			got = append(got, c.Object.String()+" "+c.Reason)
		}
	}
	if want := "HTTPRoute/other/stranger " + ReasonNotAllowedByListeners; strings.Join(got, ", ") != want {
		t.Errorf("conditions %v, want %s", got, want)
	}
	l := o.Gateways[0].Spec.Listeners
	for _, c := range []struct {
		listener        int
		kind, namespace string
		want            bool
	}{
		{0, KindHTTPRoute, "shop", true}, {0, KindHTTPRoute, "default", false},
		{1, KindTCPRoute, "anywhere", true}, {1, KindTLSRoute, "anywhere", false},
		{2, KindHTTPRoute, "default", true}, {2, KindHTTPRoute, "shop", false},
	} {
		if got := l[c.listener].Allows(c.kind, c.namespace, "default"); got != c.want {
			t.Errorf("listener %s, %s of %s: %v", l[c.listener].Name, c.kind, c.namespace, got)
		}
	}
}

// TestNamespaceSelector joins both parts of a selector.
func TestNamespaceSelector(t *testing.T) {
	expr := func(op string, values ...string) []NamespaceRequirement {
		return []NamespaceRequirement{{NamespaceLabel, op, values}}
	}
	for i, c := range []struct {
		s    NamespaceSelector
		want string
	}{
		{NamespaceSelector{}, "a b c"},
		{NamespaceSelector{MatchLabels: map[string]string{NamespaceLabel: "b"}}, "b"},
		{NamespaceSelector{MatchLabels: map[string]string{"team": "b"}}, ""},
		{NamespaceSelector{MatchExpressions: expr(OperatorIn, "a", "c")}, "a c"},
		{NamespaceSelector{MatchExpressions: expr(OperatorNotIn, "a", "c")}, "b"},
		{NamespaceSelector{MatchLabels: map[string]string{NamespaceLabel: "a"}, MatchExpressions: expr(OperatorNotIn, "a")}, ""},
	} {
		var got []string
		for _, n := range []string{"a", "b", "c"} {
			if c.s.selects(n) {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("selector %d takes %v, want %q", i, got, c.want)
		}
	}
}
