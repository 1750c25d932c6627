package plan

import (
	"math"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestPin(t *testing.T) {
	w := mesh.ServiceWeights{HomeWeight: 1, HomeLimit: 10, Remotes: []mesh.RemoteWeight{
		{Site: "a", Weight: 0.1, Draw: 3}, {Site: "b", Excluded: "stale"}, {Site: "c"},
	}}
	for name, tc := range map[string]struct {
		pin     map[string]float64
		change  func(*mesh.ServiceWeights)
		home, a float64
	}{
		"shares":                   {map[string]float64{"here": 3, "a": 1}, nil, 0.75, 0.25},
		"excluded leaves its part": {map[string]float64{"here": 1, "a": 1, "b": 2}, nil, 0.5, 0.5},
		"all away":                 {map[string]float64{"a": 5}, nil, 0, 1},
		"nobody left":              {map[string]float64{"b": 5}, nil, 1, 0},
		"drained":                  {map[string]float64{"here": 3, "a": 1}, func(w *mesh.ServiceWeights) { w.Drained = true }, 0, 1},
		"drained, nobody else":     {map[string]float64{"here": 3, "b": 1}, func(w *mesh.ServiceWeights) { w.Drained = true }, 1, 0},
	} {
		in := w
		if tc.change != nil {
			tc.change(&in)
		}
		out := Pin(in, "here", tc.pin)
		if !out.Pinned || math.Abs(out.HomeWeight-tc.home) > 1e-9 || math.Abs(out.Remotes[0].Weight-tc.a) > 1e-9 || out.Remotes[1].Weight != 0 || out.Remotes[2].Weight != 0 {
			t.Errorf("%s: %+v", name, out)
		}
	}
	if w.Remotes[0].Weight != 0.1 {
		t.Error("the plan was changed")
	}
	if out := Pin(w, "here", nil); out.Pinned || out.HomeWeight != 1 {
		t.Errorf("without a pin: %+v", out)
	}
}
