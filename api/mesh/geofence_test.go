package mesh

import (
	"slices"
	"strings"
	"testing"
)

// A fence that names what there is not is taken, and said: what it allows by other
// names holds.
func TestFenceConditions(t *testing.T) {
	o := mustParse(t, smallest+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: melbourne}
spec: {location: {type: Point, coordinates: [144.96, -37.81]}, parent: victoria}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: GeoFence
metadata: {name: f}
spec:
  targetRefs: [{kind: MeshService, name: ech}, {kind: MeshService, name: echo}]
  allow: {sites: [melbourne, sydny], parents: [victoria, tasmania]}
`)
	var got []string
	for _, c := range Check(o) {
		if c.Object.Kind == KindGeoFence {
			got = append(got, c.Path+" "+c.Reason)
		}
	}
	want := []string{"spec.targetRefs[0] TargetNotFound", "spec.allow.sites[1] UnknownSite", "spec.allow.parents[1] UnknownSite"}
	if !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	if !slices.Contains(o.Requires(), "geo-fence") {
		t.Error("a build without fences would serve these objects and send across them")
	}
}
