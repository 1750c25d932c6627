package kube

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// meshed is a Gateway at which requests between services come in, with two ports, and a
// Service with more.
const meshed = base + `
kind: Gateway
metadata: {name: mesh, namespace: infra, generation: 1, labels: {mesh.meridian.dev/mesh: "true"}}
spec:
  gatewayClassName: meridian
  listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 8080, protocol: HTTP}, {name: named, port: 80, protocol: HTTP, hostname: cart.shop.svc}]
---
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 80}, {name: grpc, port: 8080, appProtocol: kubernetes.io/h2c}, {name: tls, port: 443, appProtocol: https}, {name: alt, port: 9000}, {name: dns, port: 80, protocol: UDP}]}
---
`

// ofService is a route whose parents are of the core group.
func ofService(kind, name, parent, more string) string {
	return fmt.Sprintf("kind: %s\nmetadata: {name: %s, namespace: shop, generation: 2}\nspec:\n  parentRefs: [{group: \"\", kind: Service, %s}]\n%s\n---\n", kind, name, parent, more)
}

// TestServiceParents: what becomes of routes whose parent is a Service, in their
// conditions and at the Gateways with the mesh's label.
func TestServiceParents(t *testing.T) {
	const gw = "Gateway shop/gw:http [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts"
	const entry = "Gateway infra/mesh:a [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts"
	lead := to("{name: web, port: 80}")
	for _, c := range []struct {
		name, more string
		want       string // the condition of route r, after its parent
		listeners  string // that the mesh's Gateway has besides its own
	}{
		{"all ports", ofService("HTTPRoute", "r", "name: cart", lead), "cart Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "service.shop.cart.80 service.shop.cart.8080"},
		{"a port", ofService("HTTPRoute", "r", "name: cart, port: 8080", lead), "cart Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "service.shop.cart.8080"},
		{"a port by name", ofService("HTTPRoute", "r", "name: cart, sectionName: http", lead), "carthttp Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "service.shop.cart.80"},
		{"of gRPC", ofService("GRPCRoute", "r", "name: cart, port: 8080", to("{name: cart, port: 8080}")), "cart Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "service.shop.cart.8080"},
		{"a port by name and another's number", ofService("HTTPRoute", "r", "name: cart, sectionName: http, port: 8080", lead), "carthttp Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs", ""},
		{"no such port", ofService("HTTPRoute", "r", "name: cart, port: 81", lead), "cart Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs", ""},
		{"no such Service", ofService("HTTPRoute", "r", "name: card", lead), "card Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs", ""},
		{"a port of TLS", ofService("HTTPRoute", "r", "name: cart, port: 443", lead), "cart Accepted=False/UnsupportedProtocol ResolvedRefs=True/ResolvedRefs", ""},
		{"a port that no Gateway of the mesh has", ofService("HTTPRoute", "r", "name: cart, port: 9000", lead), "cart Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs", ""},
		{"a consumer's", ofService("HTTPRoute", "r", "name: api, namespace: infra", lead) + "kind: Service\nmetadata: {name: api, namespace: infra}\nspec: {ports: [{port: 80}]}",
			"api Accepted=False/ConsumerRouteUnsupported ResolvedRefs=True/ResolvedRefs", ""},
		{"hostnames", ofService("HTTPRoute", "r", "name: cart", "  hostnames: [cart.example.com]\n"+lead), "cart Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", ""},
		{"of TCP", ofService("TCPRoute", "r", "name: cart", lead), "cart Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", ""},
		{"of TLS", ofService("TLSRoute", "r", "name: cart", lead), "cart Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", ""},
		{"an external Service", ofService("HTTPRoute", "r", "name: away", lead) + "kind: Service\nmetadata: {name: away, namespace: shop}\nspec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}",
			"away Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", ""},
		{"a backend that is not there", ofService("HTTPRoute", "r", "name: cart, port: 80", to("{name: gone, port: 80}")), "cart Accepted=True/Accepted ResolvedRefs=False/BackendNotFound", "service.shop.cart.80"},
		{"what is not served", ofService("HTTPRoute", "r", "name: cart, port: 80", "  rules: [{sessionPersistence: {type: Cookie}}]"), "cart Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := Translate(read(t, meshed+c.more), noon)
			lines := said(out)
			kind := strings.Fields(c.more)[1]
			for _, w := range []string{kind + " shop/r:" + c.want, gw, entry} {
				if !slices.Contains(lines, w) {
					t.Errorf("want %q in\n%s", w, strings.Join(lines, "\n"))
				}
			}
			if have := strings.Join(frontendNames(out), " "); have != c.listeners {
				t.Errorf("the Gateway has listeners %q for Services, want %q", have, c.listeners)
			}
			if err := mesh.Validate(&out.Objects); err != nil {
				t.Errorf("what goes to the mesh is not valid: %v", err)
			}
		})
	}
}

func frontendNames(out *Output) (names []string) {
	for _, g := range out.Objects.Gateways {
		for _, l := range g.Spec.Listeners {
			if len(l.Hostnames) > 0 {
				names = append(names, l.Name)
			}
		}
	}
	return names
}

// TestFrontendHosts: a Service's names are those of the cluster's DNS, its name alone
// only where all that could be meant by it are of one namespace, and none of a listener.
func TestFrontendHosts(t *testing.T) {
	in := read(t, meshed+ofService("HTTPRoute", "r", "name: cart", to("{name: web, port: 80}"))+`
kind: Gateway
metadata: {name: own, namespace: shop, generation: 1, labels: {mesh.meridian.dev/mesh: "true"}}
spec: {gatewayClassName: meridian, listeners: [{name: a, port: 80, protocol: HTTP}]}`)
	in.Domain = "site.example"
	hosts := map[string]string{}
	for _, g := range Translate(in, noon).Objects.Gateways {
		for _, l := range g.Spec.Listeners {
			hosts[g.Metadata.Name+" "+l.Name] = strings.Join(l.Hostnames, " ")
		}
	}
	want := map[string]string{
		"gw http": "", "mesh a": "", "mesh b": "", "mesh named": "", "own a": "",
		"mesh service.shop.cart.80":   "cart.shop cart.shop.svc.site.example",
		"mesh service.shop.cart.8080": "cart.shop cart.shop.svc cart.shop.svc.site.example",
		"own service.shop.cart.80":    "cart.shop cart.shop.svc cart.shop.svc.site.example cart",
	}
	if !reflect.DeepEqual(hosts, want) {
		t.Errorf("have %v\nwant %v", hosts, want)
	}
}

// TestNoMeshGateway: where no Gateway has the label, routes of Services are another
// mesh's, and what its controller wrote stays as it is.
func TestNoMeshGateway(t *testing.T) {
	out := Translate(read(t, base+"kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{group: \"\", kind: Service, name: web}], rules: [{}]}"), noon)
	for _, l := range said(out) {
		if strings.HasPrefix(l, "HTTPRoute") {
			t.Errorf("nobody is to say %q", l)
		}
	}
}

// TestServiceParentStatus: the group of a Service is written though it is empty, and
// what was written is not written again. An entry of another controller stays.
func TestServiceParentStatus(t *testing.T) {
	text := meshed + ofService("HTTPRoute", "r", "name: cart, port: 80", to("{name: web, port: 80}"))
	const theirs = `{"parentRef":{"group":"","kind":"Service","name":"cart","port":80},"controllerName":"example.com/c","conditions":[]}`
	in := read(t, text)
	if err := json.Unmarshal([]byte(`{"parents": [`+theirs+`]}`), &in.Routes[0].Status); err != nil {
		t.Fatal(err)
	}
	for _, s := range Translate(in, noon).Statuses {
		if s.Kind != mesh.KindHTTPRoute {
			continue
		}
		b, err := json.Marshal(s.Want)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []string{theirs, `"parentRef":{"group":"","kind":"Service","name":"cart","port":80},"controllerName":"` + ControllerName} {
			if !s.Changed || !strings.Contains(string(b), w) {
				t.Errorf("changed is %v, want %s in %s", s.Changed, w, b)
			}
		}
		if err := json.Unmarshal(b, &in.Routes[0].Status); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range Translate(in, noon.AddDate(0, 0, 1)).Statuses {
		if s.Kind == mesh.KindHTTPRoute && s.Changed {
			t.Errorf("written twice: %+v", s.Want)
		}
	}
}

// TestPlainServices: a Service with the mesh's label answers by its endpoints where it
// has no route, and says so where nothing leads to it.
func TestPlainServices(t *testing.T) {
	plain := strings.Replace(meshed, "{name: cart, namespace: shop}", `{name: cart, namespace: shop, labels: {mesh.meridian.dev/mesh: "true"}}`, 1)
	lost := "kind: Service\nmetadata: {name: lost, namespace: shop, labels: {mesh.meridian.dev/mesh: \"true\"}}\nspec: {ports: [{port: 9000}]}"
	for _, c := range []struct{ name, more, want string }{
		{"no route", "", "service.shop.cart.8080>cart-8080 service.shop.cart.80>cart-80"},
		{"a route of one port", ofService("HTTPRoute", "r", "name: cart, port: 80", to("{name: web, port: 80}")), "service.shop.cart.8080>cart-8080 service.shop.cart.80>web"},
		{"a route that is not served", ofService("HTTPRoute", "r", "name: cart", "  rules: [{sessionPersistence: {type: Cookie}}]"), "service.shop.cart.8080>cart-8080 service.shop.cart.80>cart-80"},
	} {
		out := Translate(read(t, plain+c.more+lost), noon)
		if err := mesh.Validate(&out.Objects); err != nil {
			t.Errorf("%s: what goes to the mesh is not valid: %v", c.name, err)
		}
		var have []string
		for _, r := range out.Objects.HTTPRoutes {
			for _, p := range r.Spec.ParentRefs {
				have = append(have, p.SectionName+">"+r.Spec.Rules[0].BackendRefs[0].Name)
			}
		}
		slices.Sort(have)
		if got := strings.Join(have, " "); got != c.want {
			t.Errorf("%s: have %q, want %q", c.name, got, c.want)
		}
		if got := fmt.Sprint(out.Notices); !strings.Contains(got, "shop/lost") {
			t.Errorf("%s: notices are %s", c.name, got)
		}
	}
}
