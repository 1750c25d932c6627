package kube

import (
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Where chainagent redirects connections to a Gateway of the mesh, a Service's routes are
// for its cluster IPs, pods or not.
func TestOutbound(t *testing.T) {
	text := strings.Replace(meshed, "{name: b, port: 8080, protocol: HTTP}", "{name: out, port: 15001, protocol: mesh.meridian.dev/Outbound}", 1)
	text = strings.Replace(text, "spec: {selector: {app: cart}", `spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, "fd00::7"], selector: {app: cart}`, 1)
	in := read(t, text+ofService("HTTPRoute", "r", "name: cart, port: 8080", to("{name: web, port: 80}")))
	out := Translate(in, noon)
	i := slices.IndexFunc(out.Objects.HTTPRoutes, func(r *mesh.HTTPRoute) bool { return r.Metadata.Name == "r" })
	if i < 0 {
		t.Fatalf("the route is not there: %+v", out.Notices)
	}
	want := mesh.ParentRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Namespace: "shop", Name: "cart-8080", Port: 8080}
	if got := out.Objects.HTTPRoutes[i].Spec.ParentRefs; !slices.Equal(got, []mesh.ParentRef{want}) {
		t.Errorf("parents %+v", got)
	}
	i = slices.IndexFunc(out.Objects.Services, func(s *mesh.MeshService) bool { return s.Metadata.Name == "cart-8080" })
	if i < 0 || !slices.Equal(out.Objects.Services[i].Spec.Addresses, []string{"10.96.0.7", "fd00::7"}) {
		t.Fatalf("the service has not the cluster IPs: %+v", out.Objects.Services)
	}
	g := out.Objects.Gateways[slices.IndexFunc(out.Objects.Gateways, func(g *mesh.Gateway) bool { return g.Metadata.Name == "mesh" })]
	if !slices.ContainsFunc(g.Spec.Listeners, func(l mesh.Listener) bool { return l.Protocol == mesh.ProtocolOutbound }) {
		t.Errorf("listeners %+v", g.Spec.Listeners)
	}
	mesh.Default(&out.Objects)
	for _, c := range mesh.Check(&out.Objects) {
		if c.Object.Name == "r" && strings.HasPrefix(c.Path, "spec.parentRefs") {
			t.Error(c)
		}
	}
	// Of a headless Service there is no address, and so no such parent.
	in = read(t, strings.Replace(text, `clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, "fd00::7"]`, "clusterIP: None, clusterIPs: [None]", 1)+
		ofService("HTTPRoute", "r", "name: cart, port: 8080", to("{name: web, port: 80}")))
	if out := Translate(in, noon); slices.ContainsFunc(out.Objects.HTTPRoutes, func(r *mesh.HTTPRoute) bool { return r.Metadata.Name == "r" }) {
		t.Error("a route for a headless Service is served")
	}
}
