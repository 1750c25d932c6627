package fence

import (
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const world = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: melbourne}
spec: {location: {type: Point, coordinates: [144.96, -37.81]}, parent: victoria}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: suva}
spec: {location: {type: Point, coordinates: [178.44, -18.14]}, parent: fiji}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: taveuni}
spec: {location: {type: Point, coordinates: [-179.98, -16.84]}, parent: fiji}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: victoria}
spec: {location: {type: Point, coordinates: [144.3, -37]}, parent: australia}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: ring}
spec: {location: {type: Point, coordinates: [0, 0]}, parent: ring}
---
`

func compile(t *testing.T, allow ...string) *Fences {
	t.Helper()
	text := world
	for i, a := range allow {
		text += `
apiVersion: mesh.meridian.dev/v1alpha1
kind: GeoFence
metadata: {name: f` + string(rune('0'+i)) + `}
spec: {targetRefs: [{kind: MeshService, name: records}], allow: ` + a + `}
---
`
	}
	o, err := mesh.ParseYAML("test.yaml", []byte(strings.TrimSuffix(text, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return Compile(o)
}

func TestBars(t *testing.T) {
	fiji := `{areas: [{type: Polygon, coordinates: [[[177, -20], [180, -20], [180, -15], [177, -15], [177, -20]]]},` +
		` {type: Polygon, coordinates: [[[-180, -20], [-178, -20], [-178, -15], [-180, -15], [-180, -20]]]}]}`
	all := []string{"melbourne", "suva", "taveuni", "victoria", "ring", "nowhere", ""}
	for _, c := range []struct {
		allow  []string
		inside string
	}{
		{nil, "melbourne suva taveuni victoria ring nowhere "},
		{[]string{"{sites: [suva, nowhere]}"}, "suva nowhere"},
		{[]string{"{parents: [victoria]}"}, "melbourne victoria"},
		{[]string{"{parents: [australia]}"}, "melbourne victoria"},
		{[]string{"{parents: [melbourne]}"}, "melbourne"},
		{[]string{"{parents: [elsewhere]}"}, ""},
		{[]string{fiji}, "suva taveuni"},
		{[]string{"{parents: [australia], sites: [suva]}"}, "melbourne suva victoria"},
		// Of two fences both hold.
		{[]string{"{parents: [australia], sites: [suva]}", fiji}, "suva"},
	} {
		f := compile(t, c.allow...)
		var inside []string
		for _, site := range all {
			why := f.Bars("default/records", site)
			if why == "" {
				inside = append(inside, site)
			} else if !strings.Contains(why, "GeoFence default/f") {
				t.Errorf("%v: %s: reason %q names no fence", c.allow, site, why)
			}
			if why := f.Bars("default/other", site); why != "" {
				t.Errorf("%v: another service is fenced: %s", c.allow, why)
			}
		}
		if got := strings.Join(inside, " "); got != c.inside {
			t.Errorf("%v: inside are %q, want %q", c.allow, got, c.inside)
		}
	}
	if got := compile(t, "{sites: [suva]}").Barred("default/records", all); len(got) != 6 || got["suva"] != "" {
		t.Errorf("barred are %v", got)
	}
}
