package kube

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// alone is a Service of two ports that selects no pods.
const alone = `
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}, {name: alt, port: 8080}]}
---
`

// asSlice is what the cluster has once a redirect is written.
func asSlice(t *testing.T, r *Redirect) *EndpointSlice {
	t.Helper()
	var ports, endpoints []map[string]any
	for _, p := range r.Ports {
		ports = append(ports, map[string]any{"name": p.Name, "port": p.Port})
	}
	for _, a := range r.Addresses {
		endpoints = append(endpoints, map[string]any{"addresses": []string{a}, "conditions": map[string]bool{"ready": true}})
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"namespace": r.Namespace, "name": r.Name, "labels": r.Labels(), "resourceVersion": "7"}, "ports": ports, "endpoints": endpoints,
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Decode(KindEndpointSlice, data)
	if err != nil {
		t.Fatal(err)
	}
	return doc.(*EndpointSlice)
}

// TestRedirects: the address of a Service that selects no pods leads to a listener of
// its own, for every host, by an EndpointSlice that is written once, keeps its ports,
// is no endpoint of the Service's, and goes with the route.
func TestRedirects(t *testing.T) {
	route := ofService("HTTPRoute", "r", "name: front", to("{name: web, port: 80}, {name: front, port: 80}"))
	in := read(t, meshed+alone+route)
	out := Translate(in, noon)
	if len(out.Redirects) != 1 || len(out.Stale) != 0 {
		t.Fatalf("%+v, stale %+v", out.Redirects, out.Stale)
	}
	r := out.Redirects[0]
	if got := fmt.Sprint(r.Service, " ", r.Family, " ", r.Addresses); got != "front IPv4 [10.98.0.1]" || !r.Changed || len(r.Ports) != 2 {
		t.Errorf("%s, changed is %v, ports %v", got, r.Changed, r.Ports)
	}
	check := func(out *Output) {
		t.Helper()
		if err := mesh.Validate(&out.Objects); err != nil {
			t.Errorf("what goes to the mesh is not valid: %v", err)
		}
		for _, p := range out.Redirects[0].Ports {
			i := slices.IndexFunc(out.Objects.Gateways, func(g *mesh.Gateway) bool { return g.Metadata.Name == "mesh" })
			listeners := out.Objects.Gateways[i].Spec.Listeners
			j := slices.IndexFunc(listeners, func(l mesh.Listener) bool { return l.Port == p.Port })
			if j < 0 || listeners[j].Hostname != "" || len(listeners[j].Hostnames) > 0 || listeners[j].Protocol != mesh.ProtocolHTTP {
				t.Fatalf("no listener for every host at port %d: %+v", p.Port, listeners)
			}
			if !slices.ContainsFunc(out.Objects.HTTPRoutes[0].Spec.ParentRefs, func(ref mesh.ParentRef) bool { return ref.SectionName == listeners[j].Name }) {
				t.Errorf("the route has not joined %s: %+v", listeners[j].Name, out.Objects.HTTPRoutes[0].Spec.ParentRefs)
			}
		}
		for _, s := range out.Objects.Services {
			if s.Metadata.Name == "front" && len(s.Spec.Endpoints) > 0 {
				t.Errorf("the Service leads to its own Gateway: %+v", s.Spec.Endpoints)
			}
		}
	}
	check(out)

	// What is written stays, wherever its ports came from.
	r.Ports[0].Port = firstRedirect + redirectPorts - 1
	in.Slices = append(in.Slices, asSlice(t, &r))
	out = Translate(in, noon)
	check(out)
	if w := out.Redirects[0]; w.Changed || !slices.Equal(w.Ports, r.Ports) || len(out.Stale) != 0 {
		t.Errorf("written %+v, and now %+v, stale %+v", r, w, out.Stale)
	}
	in.Slices[len(in.Slices)-1].Endpoints[0].Address = "10.98.0.77"
	if out = Translate(in, noon); !out.Redirects[0].Changed {
		t.Error("another address is no change")
	}
	in.Routes = nil
	if out = Translate(in, noon); len(out.Redirects) != 0 || len(out.Stale) != 1 || out.Stale[0].Name != r.Name || out.Stale[0].Version != "7" {
		t.Errorf("without the route there are %+v, stale %+v", out.Redirects, out.Stale)
	}
}

// TestNoRedirect: nobody's endpoints are taken from him.
func TestNoRedirect(t *testing.T) {
	route := ofService("HTTPRoute", "r", "name: front", to("{name: web, port: 80}"))
	of := strings.Replace(meshed, `labels: {mesh.meridian.dev/mesh: "true"}`, `labels: {mesh.meridian.dev/mesh: "true", mesh.meridian.dev/site: south}`, 1)
	if out := Translate(read(t, of+alone+route), noon); len(out.Redirects) != 0 || !slices.Contains(frontendNames(out), "service.shop.front.80") {
		t.Errorf("a Gateway of one site: %+v, names %v", out.Redirects, frontendNames(out))
	}
	for _, c := range []struct{ name, text string }{
		{"a Service that selects pods", strings.Replace(alone, "clusterIP:", "selector: {app: front}, clusterIP:", 1)},
		{"one without an address", strings.Replace(alone, "10.96.0.9", "None", 1)},
		{"one with endpoints by hand", alone + "kind: EndpointSlice\nmetadata: {name: front-1, namespace: shop, labels: {kubernetes.io/service-name: front}}\nports: [{name: http, port: 1}]\nendpoints: [{addresses: [10.1.0.9]}]\n---\n"},
		{"a Gateway whose address no EndpointSlice may have", alone + "kind: Gateway\nmetadata: {name: a, namespace: infra, generation: 1, labels: {mesh.meridian.dev/mesh: \"true\"}}\nspec: {gatewayClassName: meridian, addresses: [{value: 10.98.0.99}], listeners: [{name: a, port: 80, protocol: HTTP}]}\n---\n"},
	} {
		in := read(t, meshed+c.text+route)
		for _, g := range in.Gateways {
			if len(g.Addresses) > 0 {
				g.Addresses[0].Value = "127.0.0.7"
				in.Nodes = append(in.Nodes, &Node{Addresses: []string{"127.0.0.7"}})
			}
		}
		out := Translate(in, noon)
		if len(out.Redirects) != 0 {
			t.Errorf("%s: %+v", c.name, out.Redirects)
		}
		if !slices.Contains(frontendNames(out), "service.shop.front.80") {
			t.Errorf("%s: its names are not served: %v", c.name, frontendNames(out))
		}
	}
}
