package plan

import (
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Pin replaces a plan's shares by those that the operator has fixed, by site, self
// among them. A site that may not be used leaves its part to the others; home keeps
// what nobody else may take. A nil pin changes nothing. The plan is not changed.
func Pin(w mesh.ServiceWeights, self string, pin map[string]float64) mesh.ServiceWeights {
	if pin == nil {
		return w
	}
	w.Remotes = slices.Clone(w.Remotes)
	abroad := 0.0
	for i := range w.Remotes {
		r := &w.Remotes[i]
		r.Draw, r.Weight = 0, 0
		if r.Excluded == "" {
			r.Weight = pin[r.Site]
			abroad += r.Weight
		}
	}
	home := pin[self]
	if abroad > 0 && (w.Drained || w.Off == "" && w.HomeLimit == 0) {
		home = 0 // it is drained or has no endpoint
	}
	w.Pinned = true
	sum := home + abroad
	if sum == 0 {
		w.HomeWeight = 1
		return w
	}
	w.HomeWeight = home / sum
	for i := range w.Remotes {
		w.Remotes[i].Weight /= sum
	}
	return w
}
