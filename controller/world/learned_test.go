package world

import (
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// What nodes learn adds up once it is settled; declared slots, and who is surer, count
// for more, whoever is heard first.
func TestLoadsOfLearnedSlots(t *testing.T) {
	bound, settled := mesh.SlotsLowerBound, mesh.SlotsSettled
	for name, c := range map[string]struct {
		nodes   []mesh.ServiceReport
		slots   float64
		learned mesh.SlotsLearned
	}{
		"bounds":                  {[]mesh.ServiceReport{{Slots: 3, Learned: bound}, {Slots: 5, Learned: bound}}, 5, bound},
		"settled":                 {[]mesh.ServiceReport{{Slots: 3, Learned: settled}, {Slots: 5, Learned: settled}}, 8, settled},
		"one of them":             {[]mesh.ServiceReport{{Slots: 3, Learned: settled}, {Slots: 5, Learned: bound}}, 3, settled},
		"declared at one already": {[]mesh.ServiceReport{{Slots: 9, Learned: settled}, {Slots: 4}}, 4, mesh.SlotsDeclared},
		"declared, and a bound":   {[]mesh.ServiceReport{{Slots: 9, Learned: bound}, {Slots: 4}}, 4, mesh.SlotsDeclared},
		"declared":                {[]mesh.ServiceReport{{Slots: 4}, {Slots: 4}}, 4, mesh.SlotsDeclared},
		"down at one":             {[]mesh.ServiceReport{{Slots: 0}, {Slots: 2, Learned: bound}}, 2, bound},
	} {
		for _, turned := range []bool{false, true} {
			w := New("a", "a")
			for i, r := range c.nodes {
				r.Service = "default/shop"
				node := []string{"n1", "n2"}[i]
				if turned {
					node = []string{"n2", "n1"}[i]
				}
				w.Tell(nodeReport(node, 1, mesh.NodeServiceReport{ServiceReport: r}), at(0))
			}
			if g := w.Loads(at(10))[0]; g.Slots != c.slots || g.Learned != c.learned {
				t.Errorf("%s, turned %v: %g %q, want %g %q", name, turned, g.Slots, g.Learned, c.slots, c.learned)
			}
		}
	}
}
