package policy

import (
	"math"
	"strings"
	"testing"
)

func nearAll(t *testing.T, what string, got, want []float64, by float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range got {
		if math.Abs(got[i]-want[i]) > by {
			t.Errorf("%s: %.4f, want %.4f", what, got, want)
			return
		}
	}
}

// The worked example of Envoy's documentation: A has 10 hosts at 0.7, B 10 at 0.3,
// C 10 at 0.4; A sends 19, 44 and 37 %.
func TestLoadShares(t *testing.T) {
	hosts := []int{10, 10, 10}
	nearAll(t, "example", LoadShares(hosts, []float64{0.7, 0.3, 0.4}), []float64{0.1875, 0.4375, 0.375}, 1e-9)
	nearAll(t, "within the band", LoadShares(hosts, []float64{0.44, 0.3, 0.4}), []float64{0.97, 0.015, 0.015}, 1e-9)
	nearAll(t, "all full", LoadShares([]int{10, 20, 10}, []float64{1.2, 1, 1}), []float64{.25, .5, .25}, 1e-9)
	nearAll(t, "alone", LoadShares([]int{3}, []float64{0.9}), []float64{1}, 1e-9)
}

func TestZoneShares(t *testing.T) {
	// As many hosts as proxies: all at home.
	nearAll(t, "even", ZoneShares([]int{2, 2, 2}, []int{4, 4, 4}), []float64{1, 0, 0}, 1e-9)
	// Half the proxies and a quarter of the hosts: half stays, the rest goes where
	// hosts are more than proxies.
	nearAll(t, "short", ZoneShares([]int{4, 2, 2}, []int{2, 4, 2}), []float64{0.5, 0.5, 0}, 1e-9)
	nearAll(t, "residual", ZoneShares([]int{6, 1, 1}, []int{2, 3, 3}), []float64{1. / 3, 1. / 3, 1. / 3}, 1e-9)
}

func TestWaterfall(t *testing.T) {
	near := [][]int{{1, 2}, {0, 2}, {1, 0}}
	got := Waterfall([]float64{150, 40, 40}, []float64{80, 80, 80}, near)
	nearAll(t, "spill", got[0], []float64{80, 40, 30}, 1e-9)
	nearAll(t, "idle", got[1], []float64{0, 40, 0}, 1e-9)
	// Two that compete for one divide its room by what they have left.
	got = Waterfall([]float64{120, 20, 100}, []float64{80, 80, 80}, [][]int{{1}, {0}, {1}})
	nearAll(t, "first", got[0], []float64{80, 40, 0}, 1e-9)
	nearAll(t, "second", got[2], []float64{0, 20, 80}, 1e-9)
	// Conserved when all are full.
	got = Waterfall([]float64{300, 90, 90}, []float64{80, 80, 80}, near)
	for i, want := range []float64{300, 90, 90} {
		if sum := got[i][0] + got[i][1] + got[i][2]; math.Abs(sum-want) > 1e-9 {
			t.Errorf("site %d sends %v of %v", i, sum, want)
		}
	}
}

// brpc's and tower's rule: a peak counts at once, what is faster pulls by
// 1-exp(-dt/tau).
func TestPeakEWMA(t *testing.T) {
	var e PeakEWMA
	e.Add(0, 10)
	e.Add(1e9, 50)
	if e.MS != 50 {
		t.Errorf("%v ms after a peak of 50", e.MS)
	}
	e.Add(11e9, 0)
	if want := 50 / math.E; math.Abs(e.MS-want) > 1e-9 {
		t.Errorf("%v ms ten seconds later, want %v", e.MS, want)
	}
}

func TestHAZLZones(t *testing.T) {
	for _, k := range []struct {
		zones int
		load  float64
		want  int
	}{{1, 2.1, 2}, {3, 2.1, 3}, {2, 1.5, 2}, {2, 0.7, 1}, {1, 0, 1}} {
		if got := HAZLZones(k.zones, 3, k.load); got != k.want {
			t.Errorf("%d zones at load %v: %d, want %d", k.zones, k.load, got, k.want)
		}
	}
}

func TestL3(t *testing.T) {
	// 100 / ((10/100 + 1)^2 * 0.2)
	if got, want := L3Weight(0.2, 1, 10, 100), 100/(1.21*0.2); math.Abs(got-want) > 1e-9 {
		t.Errorf("weight %v, want %v", got, want)
	}
	// Half fail: a second more.
	if got, want := L3Weight(0.2, 0.5, 0, 100), 100/1.2; math.Abs(got-want) > 1e-9 {
		t.Errorf("weight %v with failures, want %v", got, want)
	}
	if L3Weight(1e6, 1, 0, 1) != 1 {
		t.Error("a weight is at least 1")
	}
	// A rate that doubles brings weights half way to the mean; one that does not
	// change leaves them; one that falls to nothing moves them apart.
	if got := L3Rate(10, 30, 1); got != 20 {
		t.Errorf("rising: %v", got)
	}
	if L3Rate(10, 30, 0) != 10 || L3Rate(50, 30, 0) != 50 {
		t.Error("a steady rate moves weights")
	}
	if got := L3Rate(10, 30, -1); got != 2 {
		t.Errorf("falling, below the mean: %v", got)
	}
	if got := L3Rate(50, 30, -1); got != 68 {
		t.Errorf("falling, above the mean: %v", got)
	}
}

func TestNew(t *testing.T) {
	for _, name := range append(Names(), "waterfall@0.7", "slate@10") {
		if p, err := New(name, Options{}); err != nil || p == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "best", "hazl@3", "waterfall@x", "waterfall@-1"} {
		if _, err := New(name, Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWeights(t *testing.T) {
	var w weights
	w.set(2, []float64{0, 3, 0, 1})
	if w.draw(0) != 1 || w.draw(0.7499) != 1 || w.draw(0.7501) != 3 || w.draw(0.9999999) != 3 {
		t.Error("draws are not by weight")
	}
	w.set(2, nil)
	if w.draw(0.5) != 2 {
		t.Error("nothing to draw from is not home")
	}
}
