package compare

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
	"github.com/meridian-mesh/meridian/testbed/sim/scenario"
)

func load(t testing.TB, names ...string) []*sim.Scenario {
	t.Helper()
	var out []*sim.Scenario
	for _, n := range names {
		sc, err := scenario.Load(n, "")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sc)
	}
	return out
}

// The product keeps its bars in a short version of the comparison that `make sim`
// runs whole (MERIDIAN_SIM=full runs all scenarios here).
func TestBars(t *testing.T) {
	o := Options{
		Scenarios: load(t, "ring-step", "ring-bus-cut", "ring-mixed"), Seeds: []uint64{900, 901}, Delays: []float64{3},
		Policies: []string{policy.NameMeridian, policy.NameBus, policy.NameOptimum},
	}
	if os.Getenv("MERIDIAN_SIM") == "full" {
		o.Scenarios = load(t, "ring-step", "ring-low", "ring-high", "ring-moving", "ring-slow", "ring-cut", "ring-bus-cut", "ring-adjacent", "ring-mixed", "line")
		o.Seeds, o.Delays = []uint64{900, 901, 902, 903}, []float64{0, 1, 3, 5}
	} else {
		for _, sc := range o.Scenarios {
			sc.ForS = 50
		}
	}
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.Table(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	for _, m := range r.Missed() {
		t.Error(m)
	}
}

// At 1.05 times all there is, refusing early brings the errors to what is beyond
// capacity; without it requests queue to their deadline.
func TestShedding(t *testing.T) {
	o := Options{Scenarios: load(t, "overload"), Seeds: []uint64{900}, Policies: []string{policy.NameMeridian}}
	o.Scenarios[0].ForS = 45
	errorsOf := func(shedMS float64) *Cell {
		o.Scenarios[0].ShedAfterMS = shedMS
		r, err := Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if u := r.Scenarios[0].Unavoidable; math.Abs(u-0.0476) > 0.001 {
			t.Fatalf("unavoidable %v", u)
		}
		return &r.Scenarios[0].Cells[0]
	}
	with, without := errorsOf(200), errorsOf(0)
	if with.Errors > 1.2*0.0476 || with.Shed == 0 || with.MeanMS > without.MeanMS {
		t.Errorf("shedding: errors %.4f (shed %.4f), mean %.0f ms; without %.4f, %.0f ms", with.Errors, with.Shed, with.MeanMS, without.Errors, without.MeanMS)
	}
}

// Of two classes in the same overload the one that may wait less bears it alone.
func TestShedding_classes(t *testing.T) {
	o := Options{Scenarios: load(t, "overload-classes"), Seeds: []uint64{900}, Policies: []string{policy.NameMeridian}}
	o.Scenarios[0].ForS = 40
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	c := &r.Scenarios[0].Cells[0]
	rest, batch := c.ClassErrors[""], c.ClassErrors["batch"]
	if c.Errors > 1.2*0.0476 || rest > 0.002 || batch < 0.05 {
		t.Errorf("errors %.4f, of class batch %.4f, of all others %.4f", c.Errors, batch, rest)
	}
	var text bytes.Buffer
	if err := r.Table(&text); err != nil || !strings.Contains(text.String(), "errors by priority class: (none) 0.0") {
		t.Errorf("%v\n%s", err, &text)
	}
}

func TestOutputs(t *testing.T) {
	o := Options{
		Scenarios: load(t, "ring-step"), Seeds: []uint64{1, 2}, Delays: []float64{0, 2},
		Policies: []string{policy.NameMeridian, policy.NameOptimum, policy.NameNone},
	}
	o.Scenarios[0].ForS = 32
	done := 0
	o.Progress = func(n, all int, _ string) {
		if done++; n != done || all != 8 {
			t.Errorf("progress %d of %d after %d", n, all, done)
		}
	}
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	cells := r.Scenarios[0].Cells
	if len(cells) != 4 || done != 8 {
		t.Fatalf("%d cells, %d runs", len(cells), done)
	}
	for _, c := range cells {
		switch {
		case c.Policy == policy.NameOptimum && (c.Ratio != 1 || c.Cross != 1 || c.Spread != 1):
			t.Errorf("the optimum beside itself: %+v", c)
		case c.Policy == policy.NameNone && (c.Ratio < 5 || c.SettleS != -1 || c.Cross != 0):
			t.Errorf("none: ratio %v, settle %v, cross %v", c.Ratio, c.SettleS, c.Cross)
		}
	}
	var b bytes.Buffer
	if err := r.CSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(lines) != 5 || len(lines[0]) != len(lines[1]) {
		t.Errorf("CSV: %d lines (%v)", len(lines), err)
	}
	b.Reset()
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"<svg", "polyline", "ring-step", "<circle", "application/json"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, not := range []string{"http://", "https://", "NaN", "ZgotmplZ", "src="} {
		if strings.Contains(page, not) {
			t.Errorf("the page holds %q", not)
		}
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{Scenarios: load(t, "ring-high"), Seeds: []uint64{1, 2, 3}, Policies: []string{policy.NameNone}}
	o.Progress = func(int, int, string) { cancel() }
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if _, err := Run(context.Background(), Options{}); err == nil {
		t.Error("nothing to run is no error")
	}
	o.Policies = []string{"best"}
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "best") {
		t.Errorf("unknown policy: %v", err)
	}
}

func TestSettle(t *testing.T) {
	second := func(ms float64) sim.Second { return sim.Second{Requests: 100, SumMS: 100 * ms} }
	ref, got := make([]sim.Second, 30), make([]sim.Second, 30)
	for k := range ref {
		ref[k], got[k] = second(10), second(10.5)
	}
	sc := &sim.Scenario{ForS: 30, MeasureFromS: 5, Changes: []sim.Change{{AtS: 15}}}
	if s := settle(sc, got, ref); s != 0 {
		t.Errorf("never above: %v", s)
	}
	got[15], got[16], got[17] = second(40), second(20), second(12)
	if s := settle(sc, got, ref); s != 3 {
		t.Errorf("three bad seconds: %v", s)
	}
	for k := 15; k < 30; k++ {
		got[k] = second(12)
	}
	if s := settle(sc, got, ref); s != -1 {
		t.Errorf("never back: %v", s)
	}
}
