package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"sigs.k8s.io/yaml"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// read makes an input of the objects of a YAML text, as a watch would bring them.
func read(t *testing.T, text string) *Input {
	t.Helper()
	in := &Input{Cluster: "c1", Site: "north", Sites: []string{"north", "south"}, Pool: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/24")}}
	for _, part := range strings.Split(text, "\n---\n") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		data, err := yaml.YAMLToJSON([]byte(part))
		if err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		var m struct{ Kind string }
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		doc, err := Decode(m.Kind, data)
		if err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		in.add(t, doc)
	}
	return in
}

func (in *Input) add(t *testing.T, doc any) {
	t.Helper()
	switch d := doc.(type) {
	case *Namespace:
		in.Namespaces = append(in.Namespaces, d)
	case *Node:
		in.Nodes = append(in.Nodes, d)
	case *Pod:
		in.Pods = append(in.Pods, d)
	case *Secret:
		in.Secrets = append(in.Secrets, d)
	case *Service:
		in.Services = append(in.Services, d)
	case *EndpointSlice:
		in.Slices = append(in.Slices, d)
	case *GatewayClass:
		in.Classes = append(in.Classes, d)
	case *Gateway:
		in.Gateways = append(in.Gateways, d)
	case *Route:
		in.Routes = append(in.Routes, d)
	case *Grant:
		in.Grants = append(in.Grants, d)
	case *Own:
		in.Own = append(in.Own, d)
	default:
		t.Fatalf("no list of %T", doc)
	}
}

// said prints what the conditions of an object are: "Kind ns/name[:part] Type=Status/Reason ...".
func said(out *Output) []string {
	var lines []string
	list := func(who string, conditions []Condition) {
		for _, c := range conditions {
			who += fmt.Sprintf(" %s=%s/%s", c.Type, c.Status, c.Reason)
		}
		lines = append(lines, who)
	}
	for _, s := range out.Statuses {
		who := s.Kind + " " + strings.TrimPrefix(s.Meta.Namespace+"/"+s.Meta.Name, "/")
		switch w := s.Want.(type) {
		case *ClassStatus:
			list(who, w.Conditions)
		case *GatewayStatus:
			list(who, w.Conditions)
			for _, l := range w.Listeners {
				var kinds []string
				for _, k := range l.SupportedKinds {
					kinds = append(kinds, k.Kind)
				}
				list(fmt.Sprintf("%s:%s %v %d", who, l.Name, kinds, l.AttachedRoutes), l.Conditions)
			}
		case *RouteStatus:
			for _, p := range w.Parents {
				list(who+":"+p.ParentRef.Name+p.ParentRef.SectionName, p.Conditions)
			}
		case *OwnStatus:
			list(who, w.Conditions)
		}
	}
	return lines
}

// base is a class, a Gateway with one HTTP listener, and Service web with two pods.
const base = `
kind: GatewayClass
metadata: {name: meridian, generation: 1}
spec: {controllerName: mesh.meridian.dev/gateway-controller}
---
kind: Gateway
metadata: {name: gw, namespace: shop, generation: 3, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  gatewayClassName: meridian
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}]
---
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80, protocol: TCP}]}
---
kind: EndpointSlice
metadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
- {addresses: [10.1.0.2], nodeName: n1, conditions: {ready: true}, targetRef: {kind: Pod, name: web-7f9-b}}
- {addresses: [10.1.0.1], nodeName: n2, targetRef: {kind: Pod, name: web-7f9-a}}
- {addresses: [10.1.0.3], nodeName: n2, conditions: {ready: false, serving: true}}
---
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: south}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]}
---
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/zone: nowhere}}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
kind: Pod
metadata: {name: web-7f9-a, namespace: shop, labels: {pod-template-hash: 7f9}, ownerReferences: [{kind: ReplicaSet, name: web-7f9, controller: true}]}
---
`

func route(name, spec string) string {
	return "kind: HTTPRoute\nmetadata: {name: " + name + ", namespace: shop, generation: 2}\nspec:\n  parentRefs: [{name: gw}]\n" + spec + "\n---\n"
}

func to(backend string) string { return "  rules: [{backendRefs: [" + backend + "]}]" }

func TestConditions(t *testing.T) {
	const gateway = "Gateway shop/gw Accepted=True/Accepted Programmed=True/Programmed"
	const good = " Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts"
	for _, c := range []struct {
		name, more string
		// want are lines that must be there, not lines that must not begin so.
		want []string
		not  string
	}{
		{"a route and its Gateway", route("r", to("{name: web, port: 80}")), []string{
			"GatewayClass meridian Accepted=True/Accepted", gateway,
			"Gateway shop/gw:http [HTTPRoute GRPCRoute] 1" + good,
			"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
		}, ""},
		{"no such Service", route("r", to("{name: wed, port: 80}")), []string{
			"Gateway shop/gw:http [HTTPRoute GRPCRoute] 1" + good,
			"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/BackendNotFound",
		}, ""},
		{"no such port", route("r", to("{name: web, port: 81}")), []string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/BackendNotFound"}, ""},
		{"a kind that is no backend", route("r", to("{group: x.io, kind: Thing, name: web, port: 80}")), []string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/InvalidKind"}, ""},
		{"another namespace, not permitted", route("r", to("{name: web, namespace: other, port: 80}")), []string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/RefNotPermitted"}, ""},
		{"another namespace, permitted", route("r", to("{name: api, namespace: other, port: 80}")) + `
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service, name: api}]}
---
kind: Service
metadata: {name: api, namespace: other}
spec: {ports: [{port: 80}]}`, []string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs"}, ""},
		{"a grant to another Service", route("r", to("{name: api, namespace: other, port: 80}")) + `
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service, name: another}]}
---
kind: Service
metadata: {name: api, namespace: other}
spec: {ports: [{port: 80}]}`, []string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/RefNotPermitted"}, ""},
		{"a mirror that leads nowhere", route("r", "  rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nope, port: 1}}}], backendRefs: [{name: web, port: 80}]}]"),
			[]string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/BackendNotFound"}, ""},
		{"TLS to a port that HTTP leads to", route("r", to("{name: s, port: 443}")) + "kind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 443, appProtocol: https}]}",
			[]string{"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=False/UnsupportedProtocol"}, ""},
		{"no such listener", "kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: gw, sectionName: nope}], rules: [{}]}", []string{
			"HTTPRoute shop/r:gwnope Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs", "Gateway shop/gw:http [HTTPRoute GRPCRoute] 0" + good}, ""},
		{"no such port of the Gateway", "kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: gw, port: 81}], rules: [{}]}", []string{
			"HTTPRoute shop/r:gw Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs"}, ""},
		{"a namespace that is not allowed", "kind: HTTPRoute\nmetadata: {name: r, namespace: other}\nspec: {parentRefs: [{name: gw, namespace: shop}], rules: [{}]}", []string{
			"HTTPRoute other/r:gw Accepted=False/NotAllowedByListeners ResolvedRefs=True/ResolvedRefs"}, ""},
		{"a kind that is not allowed", "kind: TCPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: web, port: 80}]}]}", []string{
			"TCPRoute shop/r:gw Accepted=False/NotAllowedByListeners ResolvedRefs=True/ResolvedRefs"}, ""},
		{"a Gateway of nobody", "kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: none}, {group: \"\", kind: Service, name: web}]}", nil, "HTTPRoute"},
		{"what this version does not serve", route("r", "  rules: [{sessionPersistence: {type: Cookie}, backendRefs: [{name: web, port: 80}]}]"), []string{
			"HTTPRoute shop/r:gw Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs", "Gateway shop/gw:http [HTTPRoute GRPCRoute] 0" + good}, ""},
		{"a value that the mesh refuses", route("r", "  rules: [{matches: [{path: {type: RegularExpression, value: '('}}], backendRefs: [{name: web, port: 80}]}]"), []string{
			"HTTPRoute shop/r:gw Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs"}, ""},
		{"hostnames that do not meet", `
kind: Gateway
metadata: {name: named, namespace: shop, creationTimestamp: "2026-01-02T00:00:00Z"}
spec: {gatewayClassName: meridian, listeners: [{name: a, port: 80, protocol: HTTP, hostname: "*.example.com"}]}
---
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: named}], hostnames: [example.org], rules: [{}]}
---
kind: HTTPRoute
metadata: {name: s, namespace: shop}
spec: {parentRefs: [{name: named}], hostnames: [a.example.com], rules: [{}]}`, []string{
			"HTTPRoute shop/r:named Accepted=False/NoMatchingListenerHostname ResolvedRefs=True/ResolvedRefs",
			"HTTPRoute shop/s:named Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
			"Gateway shop/named:a [HTTPRoute GRPCRoute] 1" + good}, ""},
		{"routes chosen by a label of their namespace", `
kind: Gateway
metadata: {name: sel, namespace: infra}
spec: {gatewayClassName: meridian, listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}]}
---
kind: Namespace
metadata: {name: infra}
---
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: sel, namespace: infra}], rules: [{}]}
---
kind: HTTPRoute
metadata: {name: s, namespace: infra}
spec: {parentRefs: [{name: sel}], rules: [{}]}`, []string{
			"HTTPRoute shop/r:sel Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
			"HTTPRoute infra/s:sel Accepted=False/NotAllowedByListeners ResolvedRefs=True/ResolvedRefs"}, ""},
		{"listeners that are not valid", `
kind: Gateway
metadata: {name: bad, namespace: shop}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: 80, protocol: HTTP}
  - {name: c, port: 80, protocol: TCP}
  - {name: d, port: 81, protocol: SCTP}
  - {name: e, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}}
  - {name: f, port: 83, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: Thing}]}}
  - {name: g, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
  - {name: h, port: 444, protocol: TLS, tls: {mode: Passthrough}}`, []string{
			"Gateway shop/bad Accepted=True/ListenersNotValid Programmed=True/Programmed",
			"Gateway shop/bad:a [HTTPRoute GRPCRoute] 0" + good,
			"Gateway shop/bad:b [HTTPRoute GRPCRoute] 0 Accepted=False/HostnameConflict Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=True/HostnameConflict",
			"Gateway shop/bad:c [TCPRoute] 0 Accepted=False/ProtocolConflict Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=True/ProtocolConflict",
			"Gateway shop/bad:d [] 0 Accepted=False/UnsupportedProtocol Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts",
			"Gateway shop/bad:e [] 0 Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/InvalidRouteKinds Conflicted=False/NoConflicts",
			"Gateway shop/bad:f [HTTPRoute] 0 Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=False/InvalidRouteKinds Conflicted=False/NoConflicts",
			"Gateway shop/bad:g [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/InvalidCertificateRef Conflicted=False/NoConflicts",
			"Gateway shop/bad:h [TLSRoute] 0" + good,
		}, ""},
		{"addresses", `
kind: Gateway
metadata: {name: x, namespace: shop}
spec: {gatewayClassName: meridian, addresses: [{type: Hostname, value: a.example}], listeners: [{name: a, port: 80, protocol: HTTP}]}
---
kind: Gateway
metadata: {name: u, namespace: shop}
spec: {gatewayClassName: meridian, addresses: [{value: 203.0.113.9}], listeners: [{name: a, port: 80, protocol: HTTP}]}
---
kind: Gateway
metadata: {name: z, namespace: shop}
spec: {gatewayClassName: meridian, addresses: [{value: 10.98.0.7}], listeners: [{name: a, port: 80, protocol: HTTP}]}
---
kind: Gateway
metadata: {name: zz, namespace: shop, creationTimestamp: "2026-02-01T00:00:00Z"}
spec: {gatewayClassName: meridian, addresses: [{value: 10.98.0.7}], listeners: [{name: a, port: 80, protocol: HTTP}]}`, []string{
			"Gateway shop/x Accepted=False/UnsupportedAddress Programmed=False/Invalid",
			"Gateway shop/u Accepted=True/Accepted Programmed=False/AddressNotUsable",
			"Gateway shop/z Accepted=True/Accepted Programmed=True/Programmed",
			"Gateway shop/zz Accepted=False/ListenersNotValid Programmed=False/Invalid",
			"Gateway shop/zz:a [HTTPRoute GRPCRoute] 0 Accepted=False/PortUnavailable Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts",
		}, ""},
		{"what of a Gateway this version does not serve", "kind: Gateway\nmetadata: {name: t, namespace: shop}\nspec: {gatewayClassName: meridian, tls: {frontend: {}}, listeners: [{name: a, port: 80, protocol: HTTP}]}", []string{
			"Gateway shop/t Accepted=False/Invalid Programmed=False/Invalid"}, ""},
		{"a class with parameters", "kind: GatewayClass\nmetadata: {name: p}\nspec: {controllerName: mesh.meridian.dev/gateway-controller, parametersRef: {name: x}}\n---\nkind: Gateway\nmetadata: {name: t, namespace: shop}\nspec: {gatewayClassName: p, listeners: []}", []string{
			"GatewayClass p Accepted=False/InvalidParameters"}, "Gateway shop/t"},
		{"another's class", "kind: GatewayClass\nmetadata: {name: q}\nspec: {controllerName: example.com/other}", nil, "GatewayClass q"},
		{"the mesh's own kinds", `
kind: MeshService
metadata: {name: hand, namespace: shop}
spec: {ports: [{port: 80}], endpoints: [{address: "10.0.0.1:80"}]}
---
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRefs: []}
---
` + route("r", to("{group: mesh.meridian.dev, kind: MeshService, name: hand, port: 80}")), []string{
			"MeshService shop/hand Accepted=True/Accepted",
			"TrafficPolicy shop/p Accepted=False/Invalid",
			"HTTPRoute shop/r:gw Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := Translate(read(t, base+c.more), noon)
			lines := said(out)
			for _, w := range c.want {
				if !slices.Contains(lines, w) {
					t.Errorf("want %q in\n%s", w, strings.Join(lines, "\n"))
				}
			}
			for _, l := range lines {
				if c.not != "" && strings.HasPrefix(l, c.not) {
					t.Errorf("nobody is to say %q", l)
				}
			}
			if err := mesh.Validate(&out.Objects); err != nil {
				t.Errorf("what goes to the mesh is not valid: %v", err)
			}
		})
	}
}

// What the mesh gets, as the documents of a file.
func TestObjects(t *testing.T) {
	out := Translate(read(t, base+route("r", to("{name: web, port: 80}, {name: gone, port: 80}"))+`
kind: Service
metadata: {name: many, namespace: shop, annotations: {mesh.meridian.dev/export: "mesh"}}
spec: {ports: [{name: http, port: 80}, {name: h2, port: 81, appProtocol: kubernetes.io/h2c}, {name: dns, port: 53, protocol: UDP}, {name: s, port: 9, protocol: SCTP}]}
---
kind: EndpointSlice
metadata: {name: many-x, namespace: shop, labels: {kubernetes.io/service-name: many}}
ports: [{name: http, port: 8000}, {name: h2, port: 8001}, {name: dns, port: 53}]
endpoints: [{addresses: [10.1.0.9], nodeName: n1}, {addresses: ["fd00::9"], nodeName: n1}]
---
kind: Service
metadata: {name: unused, namespace: shop}
spec: {ports: [{port: 80}]}
---
kind: TCPRoute
metadata: {name: t, namespace: shop}
spec: {parentRefs: [{name: tcp}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: Gateway
metadata: {name: tcp, namespace: shop, creationTimestamp: "2026-01-01T00:00:01Z"}
spec: {gatewayClassName: meridian, listeners: [{name: t, port: 80, protocol: TCP}]}`), noon)
	got, err := mesh.ToYAML(&out.Objects)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  addresses:\n  - type: IPAddress\n    value: 10.98.0.1\n", // the older Gateway is first
		"kind: MeshService\nmetadata:\n  labels:\n    mesh.meridian.dev/cluster: c1\n  name: web\n  namespace: shop\nspec:\n  endpoints:\n" +
			"  - address: 10.1.0.1:8080\n    node: n2\n    site: north\n    weight: 1\n    workload:\n      cluster: c1\n      name: web\n      namespace: shop\n" +
			"  - address: 10.1.0.2:8080\n    node: n1\n    site: south\n    weight: 1\n  ports:\n  - port: 80\n    protocol: http\n",
		"  name: web-tcp\n", "  name: many-80\n", "  name: many-81\n", "  name: many-53\n", "    protocol: http2\n", "  - address: 10.1.0.9:8001\n", "    scope: mesh\n",
		"    - group: mesh.meridian.dev\n      kind: MeshService\n      name: web\n      namespace: shop\n      port: 80\n      weight: 1\n",
		"      name: unresolved-gone-",
		"  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: gw\n    namespace: shop\n    sectionName: http\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("want\n%s\nin\n%s", want, got)
		}
	}
	for _, not := range []string{"unused", "fd00", "10.1.0.3", "many-9\n"} {
		if strings.Contains(string(got), not) {
			t.Errorf("%s is there:\n%s", not, got)
		}
	}
	if err := mesh.Validate(&out.Objects); err != nil {
		t.Error(err)
	}
}

// Endpoints that end serve on where no other is left.
func TestLastEndpointsServe(t *testing.T) {
	in := read(t, base+route("r", to("{name: web, port: 80}")))
	in.Slices[0].Endpoints[0].Ready, in.Slices[0].Endpoints[1].Ready = false, false
	in.Slices[0].Endpoints[0].Serving, in.Slices[0].Endpoints[1].Serving = false, false
	out := Translate(in, noon)
	if e := out.Objects.Services[0].Spec.Endpoints; len(e) != 1 || e[0].Address != "10.1.0.3:8080" {
		t.Errorf("endpoints %+v", e)
	}
}

// Services whose MeshServices would have one name keep apart.
func TestNamesKeepApart(t *testing.T) {
	out := Translate(read(t, base+route("r", to("{name: a, port: 80}, {name: a-80, port: 1}, {name: "+strings.Repeat("x", 63)+", port: 80}"))+`
kind: Service
metadata: {name: a, namespace: shop}
spec: {ports: [{name: x, port: 80}, {name: z, port: 81}]}
---
kind: Service
metadata: {name: a-80, namespace: shop}
spec: {ports: [{port: 1}]}
---
kind: Service
metadata: {name: `+strings.Repeat("x", 63)+`, namespace: shop}
spec: {ports: [{name: x, port: 80}, {name: z, port: 81}]}`), noon)
	var names []string
	for _, s := range out.Objects.Services {
		names = append(names, s.Metadata.Name)
	}
	if len(names) != 3 || !slices.Contains(names, "a-80") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != 3 {
		t.Errorf("names %q", names)
	}
	if err := mesh.Validate(&out.Objects); err != nil {
		t.Error(err)
	}
}

// A status that is as it was is not written again, its times stay, and what other
// controllers wrote there stays too.
func TestStatusSettles(t *testing.T) {
	in := read(t, base+route("r", to("{name: web, port: 80}")))
	other := ParentStatus{ParentRef: ParentRef{Name: "theirs"}, ControllerName: "example.com/c", Conditions: []Condition{{Type: "Accepted", Status: "True", Reason: "X"}}}
	in.Routes[0].Status.Parents = []ParentStatus{other}
	in.Gateways[0].Status.Conditions = []Condition{{Type: "Theirs", Status: "True", Reason: "X"}}
	out := Translate(in, noon)
	// store writes a status and reads it, as an API server does.
	store := func(out *Output) {
		t.Helper()
		for _, s := range out.Statuses {
			data, err := json.Marshal(s.Want)
			if err != nil {
				t.Fatal(err)
			}
			var into any
			switch s.Kind {
			case KindGatewayClass:
				in.Classes[0].Status, into = ClassStatus{}, &in.Classes[0].Status
			case mesh.KindGateway:
				in.Gateways[0].Status, into = GatewayStatus{}, &in.Gateways[0].Status
			case mesh.KindHTTPRoute:
				in.Routes[0].Status, into = RouteStatus{}, &in.Routes[0].Status
			}
			if err := json.Unmarshal(data, into); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range out.Statuses {
		if !s.Changed {
			t.Errorf("%s is new and does not count as changed", s.Kind)
		}
	}
	store(out)
	out = Translate(in, noon.Add(time.Hour))
	for _, s := range out.Statuses {
		if s.Changed {
			t.Errorf("status of %s changes although nothing did: %+v", s.Kind, s.Want)
		}
	}
	if p := in.Routes[0].Status.Parents; len(p) != 2 || p[0].ControllerName != other.ControllerName {
		t.Errorf("another's status is lost: %+v", p)
	}
	if c := in.Gateways[0].Status.Conditions; len(c) != 3 || c[2].Type != "Theirs" {
		t.Errorf("another's condition is lost: %+v", c)
	}
	// One condition changes: its time does, its neighbour's does not, and the
	// generation follows the spec.
	in.Services, in.Routes[0].Generation = nil, 9
	out = Translate(in, noon.Add(2*time.Hour))
	i := slices.IndexFunc(out.Statuses, func(s Status) bool { return s.Kind == mesh.KindHTTPRoute })
	mine := out.Statuses[i].Want.(*RouteStatus).Parents[1].Conditions
	if !out.Statuses[i].Changed || mine[0].LastTransitionTime != "2026-01-02T12:00:00Z" || mine[1].LastTransitionTime != "2026-01-02T14:00:00Z" || mine[0].ObservedGeneration != 9 {
		t.Errorf("conditions %+v", mine)
	}
	// It leaves our Gateway: our entry goes, theirs stays.
	store(out)
	in.Routes[0].Parents = nil
	out = Translate(in, noon)
	i = slices.IndexFunc(out.Statuses, func(s Status) bool { return s.Kind == mesh.KindHTTPRoute })
	if s := out.Statuses[i]; !s.Changed || len(s.Want.(*RouteStatus).Parents) != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestCertificatesOfSecrets(t *testing.T) {
	const text = base + `
kind: Gateway
metadata: {name: s, namespace: shop}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: own, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
  - {name: theirs, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: other}]}}
  - {name: none, port: 445, protocol: HTTPS, tls: {certificateRefs: [{name: nope}]}}
---
kind: Secret
metadata: {name: cert, namespace: shop}
data: {tls.crt: Y2VydA==, tls.key: a2V5}
---
kind: Secret
metadata: {name: cert, namespace: other}
data: {tls.crt: Y2VydA==, tls.key: a2V5}
---
`
	in := read(t, text)
	in.Certificates = "/var/lib/meridian/certificates"
	out := Translate(in, noon)
	lines := strings.Join(said(out), "\n")
	for _, want := range []string{
		"Gateway shop/s:own [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True",
		"Gateway shop/s:theirs [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/RefNotPermitted",
		"Gateway shop/s:none [HTTPRoute GRPCRoute] 0 Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/InvalidCertificateRef",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("want %q in\n%s", want, lines)
		}
	}
	if len(out.Objects.Certificates) != 1 || len(out.Files) != 2 {
		t.Fatalf("certificates %+v, files %v", out.Objects.Certificates, out.Files)
	}
	c := out.Objects.Certificates[0].Spec
	if string(out.Files[c.CertificateFile]) != "cert" || string(out.Files[c.KeyFile]) != "key" {
		t.Errorf("files %v of %+v", out.Files, c)
	}
	if err := mesh.Validate(&out.Objects); err != nil {
		t.Error(err)
	}
	in = read(t, text+"kind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}], to: [{group: \"\", kind: Secret}]}")
	in.Certificates = "/c"
	if out := Translate(in, noon); len(out.Objects.Certificates) != 2 {
		t.Errorf("with a grant there are %d certificates", len(out.Objects.Certificates))
	}
	in.Secrets[0].Problem = "expired"
	if out := Translate(in, noon); len(out.Objects.Certificates) != 1 {
		t.Errorf("one that cannot be used is used")
	}
}

// The input is not changed, whatever is asked twice is said twice, in any order.
func TestTranslateIsPure(t *testing.T) {
	in := read(t, base+route("r", to("{name: web, port: 80}"))+route("q", "  rules: [{matches: [{method: GET}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]}]"))
	print := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := print(in)
	first := print(Translate(in, noon))
	if print(in) != before {
		t.Error("the input changed")
	}
	slices.Reverse(in.Routes)
	slices.Reverse(in.Nodes)
	slices.Reverse(in.Slices)
	if again := print(Translate(in, noon)); again != first {
		t.Errorf("another order gives another result:\n%s\n%s", first, again)
	}
}
