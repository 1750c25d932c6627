package world

import (
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A cluster IP that a site says of its service means something else in another site's
// cluster; the hub's addresses hold everywhere.
func TestAddressesStayAtTheirSite(t *testing.T) {
	s := &mesh.MeshService{
		Metadata: mesh.ObjectMeta{Name: "shop", Namespace: "default"},
		Spec:     mesh.MeshServiceSpec{Addresses: []string{"10.96.0.10"}, Export: &mesh.Export{Scope: mesh.ScopeMesh}},
	}
	for _, tt := range []struct {
		owner, site string
		want        int
	}{{"north", "north", 1}, {"north", "south", 0}, {Hub, "south", 1}} {
		if got := narrowed(s, tt.owner, tt.site).Spec.Addresses; len(got) != tt.want {
			t.Errorf("of %s at %s: %v", tt.owner, tt.site, got)
		}
	}
	if len(s.Spec.Addresses) != 1 {
		t.Error("the document itself was changed")
	}
}
