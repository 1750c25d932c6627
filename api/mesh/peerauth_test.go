package mesh

import (
	"fmt"
	"strings"
	"testing"
)

const peerModes = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: north}
spec: {location: {type: Point, coordinates: [0, 0]}, mtls: permissive}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: south}
spec: {location: {type: Point, coordinates: [0, 0]}, mtls: disabled}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}, {port: 8080, name: admin}, {port: 9090, name: metrics}], endpoints: [{address: "10.0.0.1:80"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec:
  mtls: strict
  ports: [{port: 8080, mtls: permissive}, {port: 9090, mtls: permissive}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: also, namespace: shop}
spec:
  mtls: permissive
  ports: [{port: 9090, mtls: strict}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: gone, namespace: bank}
spec:
  ports: [{port: 443, mtls: permissive}]
`

// A port goes before its namespace, that before the site; of two that say something of
// the same, strict holds, in whatever order they come.
func TestPeerModes(t *testing.T) {
	o, err := ParseYAML("test.yaml", []byte(peerModes))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, c := range []struct {
			site, namespace string
			port            int
			want            string
		}{
			{"north", "shop", 80, "strict PeerAuthentication/shop/all"},
			{"north", "shop", 8080, "permissive PeerAuthentication/shop/all port 8080"},
			{"north", "shop", 9090, "strict PeerAuthentication/shop/also port 9090"},
			{"north", "other", 80, "permissive Site/north"},
			{"south", "other", 80, "disabled Site/south"},
			{"south", "shop", 80, "strict PeerAuthentication/shop/all"},
			{"west", "other", 80, "strict default"},
			{"west", "shop", 8080, "permissive PeerAuthentication/shop/all port 8080"},
			{"west", "bank", 443, "permissive PeerAuthentication/bank/gone port 443"},
			{"west", "bank", 80, "strict default"},
		} {
			m := o.PeerModeOf(c.site, c.namespace, c.port)
			if got := m.MTLS + " " + m.From; got != c.want {
				t.Errorf("%s %s:%d: %s, want %s", c.site, c.namespace, c.port, got, c.want)
			}
		}
		p := o.PeerAuthentications
		p[0], p[1] = p[1], p[0]
	}
	var scopes []string
	for _, s := range o.PeerScopes("north") {
		scopes = append(scopes, fmt.Sprintf("%s %s", s, s.MTLS))
	}
	if got, want := strings.Join(scopes, "; "), "the site permissive; port 443 of namespace bank permissive; namespace shop strict; port 8080 of namespace shop permissive; port 9090 of namespace shop strict"; got != want {
		t.Errorf("scopes %s", got)
	}
	var found []string
	for _, c := range Check(o) {
		if c.Object.Kind == KindPeerAuthentication {
			found = append(found, c.Object.Name+" "+c.Path+" "+c.Reason)
		}
	}
	if got, want := strings.Join(found, "; "), "all spec Conflicted; also spec Conflicted; gone spec.ports[0].port TargetNotFound"; got != want {
		t.Errorf("conditions %s", got)
	}
}
