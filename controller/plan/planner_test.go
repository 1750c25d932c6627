package plan

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

const svc mesh.ServiceKey = "default/echo"

// checkPlan is what holds for every plan, whatever went in.
func checkPlan(t interface{ Errorf(string, ...any) }, w *mesh.ServiceWeights, in *Input) {
	sum := w.HomeWeight
	barred := map[string]bool{}
	for _, o := range in.Options {
		barred[o.Site] = barred[o.Site] || o.Excluded != ""
	}
	for _, r := range w.Remotes {
		sum += r.Weight
		if (r.Excluded != "" || barred[r.Site]) && (r.Weight != 0 || r.Draw != 0 || r.Excluded == "") {
			t.Errorf("%s is excluded (%q) and gets weight %v, draw %v", r.Site, r.Excluded, r.Weight, r.Draw)
		}
		if !(r.Weight >= 0 && r.Weight <= 1+1e-9 && r.Draw >= 0) || r.Limit < 0 || r.Limit > MaxLimit {
			t.Errorf("%s: weight %v, draw %v, limit %d", r.Site, r.Weight, r.Draw, r.Limit)
		}
	}
	if want := 1.0; math.Abs(sum-want) > 1e-9 && !(w.Off != "" && w.HomeLimit == 0 && sum == 0) {
		t.Errorf("weights sum to %v", sum)
	}
	if w.HomeLimit < 0 || w.HomeLimit > MaxLimit || !in.NoHome && !in.Drained && w.HomeLimit < 1 {
		t.Errorf("home limit %d", w.HomeLimit)
	}
	if in.NoHome && w.HomeWeight != 0 {
		t.Errorf("weight %v at a home without endpoints", w.HomeWeight)
	}
	if in.Drained && !in.NoHome && (w.Off == "") != (w.HomeWeight == 0 && w.HomeLimit == 0 && w.Drained) {
		t.Errorf("a drained home has weight %v and limit %d, off %q", w.HomeWeight, w.HomeLimit, w.Off)
	}
	if _, err := json.Marshal(w); err != nil { // JSON refuses NaN and infinities
		t.Errorf("plan is not sendable: %v", err)
	}
}

// anyNumber draws sane numbers mostly, and every kind of nonsense.
func anyNumber(top float64) *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64Range(0, top), rapid.Float64Range(0, top), rapid.Float64Range(0, top),
		rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 1e-300, 1e12}))
}

func TestTick_anyInput(t *testing.T) {
	curves := new(price.Curves)
	rapid.Check(t, func(t *rapid.T) {
		p := New(svc, curves)
		now := int64(1e9)
		for range rapid.IntRange(1, 6).Draw(t, "ticks") {
			now += rapid.SampledFrom([]int64{100e6, 100e6, 0, -5e6, 7e9}).Draw(t, "dt")
			in := Input{
				DemandPerS: anyNumber(2000).Draw(t, "demand"), Slots: anyNumber(16).Draw(t, "slots"),
				ServiceMS: anyNumber(100).Draw(t, "service"), OthersPerS: anyNumber(500).Draw(t, "others"),
				StayHome: anyNumber(4).Draw(t, "h"), NoHome: rapid.IntRange(0, 5).Draw(t, "noHome") == 0, Drained: rapid.IntRange(0, 3).Draw(t, "drained") == 0,
			}
			for i := range rapid.IntRange(0, 5).Draw(t, "sites") {
				in.Options = append(in.Options, Option{
					Site: fmt.Sprint("s", i), Slots: anyNumber(16).Draw(t, "c"), ServiceMS: anyNumber(100).Draw(t, "s"),
					ArrivalsPerS: anyNumber(1000).Draw(t, "L"), FromUsPerS: anyNumber(300).Draw(t, "from"),
					InFlight: rapid.IntRange(-1, 10000).Draw(t, "n"), Spillers: rapid.IntRange(-1, 9).Draw(t, "spillers"),
					AgeMS: anyNumber(3000).Draw(t, "age"), UsualMS: anyNumber(500).Draw(t, "usual"),
					InBand: rapid.Bool().Draw(t, "inBand"), RTTMS: anyNumber(30).Draw(t, "rtt"),
					LinkPriceMS: anyNumber(10).Draw(t, "price"),
					Excluded:    rapid.SampledFrom([]string{"", "", "", "suspect", "fence"}).Draw(t, "excluded"),
				})
			}
			w := p.Tick(now, in)
			checkPlan(t, &w, &in)
		}
	})
}

func site(name string, arrivals float64) Option {
	return Option{Site: name, Slots: 4, ServiceMS: 10, ArrivalsPerS: arrivals, RTTMS: 5, InBand: true}
}

func home(demand float64, options ...Option) Input {
	return Input{DemandPerS: demand, Slots: 4, ServiceMS: 10, Options: options}
}

// settle ticks until the plan no longer moves.
func settle(p *Planner, in Input) (w mesh.ServiceWeights) {
	for i := range 200 {
		w = p.Tick(int64(i+1)*100e6, in)
	}
	return w
}

func share(w mesh.ServiceWeights, name string) mesh.RemoteWeight {
	for _, r := range w.Remotes {
		if r.Site == name {
			return r
		}
	}
	return mesh.RemoteWeight{}
}

// TestTick_equalMarginalCost checks the optimum's condition on a settled plan.
func TestTick_equalMarginalCost(t *testing.T) {
	curves := new(price.Curves)
	near, far := site("near", 100), site("far", 50)
	far.RTTMS, far.Slots = 12, 8
	in := home(600, near, far, site("full", 390))
	w := settle(New(svc, curves), in)
	marginal := func(slots, perS, rtt float64) float64 {
		q, err := curves.Queue(slots, 10)
		if err != nil {
			t.Fatal(err)
		}
		return 1.3*rtt + q.MarginalMS(perS)
	}
	h := marginal(4, w.HomeWeight*600, 0)
	n := marginal(4, 100+share(w, "near").Weight*600, 5)
	f := marginal(8, 50+share(w, "far").Weight*600, 12)
	if math.Abs(h-n) > 0.05*h || math.Abs(h-f) > 0.05*h {
		t.Errorf("marginal costs %.2f here, %.2f near, %.2f far; weights %+v", h, n, f, w)
	}
	if r := share(w, "full"); r.Weight != 0 {
		t.Errorf("a full site gets %v", r.Weight)
	}
}

func TestTick_calmStaysHome(t *testing.T) {
	w := settle(New(svc, new(price.Curves)), home(80, site("a", 80), site("b", 80)))
	if w.HomeWeight != 1 || w.HomeLimit < 4 {
		t.Errorf("calm: home weight %v, limit %d", w.HomeWeight, w.HomeLimit)
	}
	// A way out for a burst of 15 % of own capacity is drawn all the same.
	if sum := share(w, "a").Draw + share(w, "b").Draw; math.Abs(sum-60) > 0.01 {
		t.Errorf("draws sum to %v, want 60", sum)
	}
}

func TestTick_edges(t *testing.T) {
	curves := new(price.Curves)
	for _, k := range []struct {
		name string
		in   Input
		want func(w mesh.ServiceWeights) bool
	}{
		{"no remote", home(900), func(w mesh.ServiceWeights) bool { return w.HomeWeight == 1 && w.HomeLimit == MaxLimit && w.Off == "" }},
		{"no demand", home(0, site("a", 10)), func(w mesh.ServiceWeights) bool { return w.HomeWeight == 1 && share(w, "a").Draw > 0 }},
		{"capacity unknown", Input{DemandPerS: 100, ServiceMS: 10, Options: []Option{site("a", 1)}}, func(w mesh.ServiceWeights) bool {
			return w.HomeWeight == 1 && strings.Contains(w.Off, "concurrency") && share(w, "a").Excluded != ""
		}},
		{"no endpoint", Input{DemandPerS: 100, NoHome: true, Options: []Option{site("a", 1)}}, func(w mesh.ServiceWeights) bool {
			return w.HomeLimit == 0 && w.HomeWeight == 0 && share(w, "a").Weight == 1
		}},
		{"no endpoint, no demand", Input{NoHome: true, Options: []Option{site("a", 1)}}, func(w mesh.ServiceWeights) bool {
			return w.HomeLimit == 0 && share(w, "a").Weight == 1 && share(w, "a").Draw > 0
		}},
		{"no endpoint anywhere", Input{DemandPerS: 100, NoHome: true}, func(w mesh.ServiceWeights) bool { return w.HomeLimit == 0 && w.Off != "" }},
		{"ten times slower", Input{DemandPerS: 100, Slots: 4, ServiceMS: 100, Options: []Option{site("a", 10)}}, func(w mesh.ServiceWeights) bool {
			return w.HomeLimit == 1 && w.HomeWeight < 0.05
		}},
		{"unknown capacity there", home(900, Option{Site: "a", RTTMS: 5}), func(w mesh.ServiceWeights) bool {
			return w.HomeWeight == 1 && strings.Contains(share(w, "a").Excluded, "not known")
		}},
	} {
		w := settle(New(svc, curves), k.in)
		checkPlan(t, &w, &k.in)
		if !k.want(w) {
			t.Errorf("%s: %+v", k.name, w)
		}
	}
}

func TestTick_vanishedAndSuspect(t *testing.T) {
	p := New(svc, new(price.Curves))
	in := home(800, site("a", 100), site("b", 100))
	settle(p, in)
	in.Options[0].Excluded = "suspect: silent"
	w := p.Tick(21e9, in)
	if share(w, "a").Weight != 0 || share(w, "b").Weight < 0.2 {
		t.Errorf("suspect: %+v", w)
	}
	in.Options = in.Options[1:]
	w = p.Tick(21.1e9, in)
	checkPlan(t, &w, &in)
	if len(w.Remotes) != 1 {
		t.Errorf("vanished: %+v", w)
	}
}

func TestTick_manySites(t *testing.T) {
	in := home(900)
	for i := range 60 {
		o := site(fmt.Sprintf("s%02d", i), 10)
		o.RTTMS = float64(1 + i)
		in.Options = append(in.Options, o)
	}
	w := settle(New(svc, new(price.Curves)), in)
	checkPlan(t, &w, &in)
	used := 0
	for _, r := range w.Remotes {
		if r.Excluded == "" {
			used++
		}
	}
	if used != MaxRemotes || len(w.Remotes) != 60 || share(w, "s59").Excluded == "" {
		t.Errorf("%d of %d sites used", used, len(w.Remotes))
	}
}

func TestFade(t *testing.T) {
	curves := new(price.Curves)
	from := settle(New(svc, curves), home(800, site("a", 50), site("b", 150)))
	fenced := site("a", 50)
	fenced.Excluded = "fence"
	inTo := home(500, fenced, site("b", 50), site("c", 20))
	to := settle(New(svc, curves), inTo)
	last := from.HomeWeight
	for part := 0.1; part < 0.95; part += 0.1 {
		w := Fade(from, to, part)
		checkPlan(t, &w, &inTo)
		if share(w, "a").Excluded != "fence" {
			t.Errorf("part %.1f: a fenced site is back", part)
		}
		if lo, hi := min(from.HomeLimit, to.HomeLimit), max(from.HomeLimit, to.HomeLimit); w.HomeLimit < lo || w.HomeLimit > hi {
			t.Errorf("part %.1f: home limit %d not between %d and %d", part, w.HomeLimit, lo, hi)
		}
		if share(w, "c").Weight <= 0 || w.HomeWeight == last {
			t.Errorf("part %.1f: %+v", part, w)
		}
		last = w.HomeWeight
	}
	for part, want := range map[float64]mesh.ServiceWeights{-1: from, 0: from, math.NaN(): from, 1: to, 7: to} {
		if got := Fade(from, to, part); got.HomeWeight != want.HomeWeight {
			t.Errorf("part %v: home weight %v, want %v", part, got.HomeWeight, want.HomeWeight)
		}
	}
	if w := Fade(mesh.ServiceWeights{HomeLimit: MaxLimit}, mesh.ServiceWeights{HomeLimit: 10}, 0.5); w.HomeLimit > 5000 {
		t.Errorf("half way between no limit and 10 is %d", w.HomeLimit)
	}
}

func TestBoard(t *testing.T) {
	var b Board
	hear := func(nowMS int64, site, reporter string, epoch, seq uint64, ageMS, arrivals float64) bool {
		return b.Hear(nowMS*1e6, Heard{Site: site, Reporter: reporter, Epoch: epoch, Seq: seq, AgeMS: ageMS, InBand: reporter == "edge",
			Load: mesh.ServiceReport{Service: svc, Slots: 4, Arrivals: arrivals, From: map[string]float64{"me": 7}}})
	}
	steps := []struct {
		nowMS      int64
		reporter   string
		epoch, seq uint64
		age        float64
		want       bool
	}{
		{1000, "ctl", 5, 10, 0, true},
		{1100, "ctl", 5, 10, 0, false},         // repeated
		{1200, "ctl", 5, 9, 0, false},          // out of order
		{1300, "edge", 9, 1, 0, true},          // younger, in band
		{1400, "ctl", 5, 11, 300, false},       // new, but older than the in-band one
		{1500, "ctl", 4, 99, 0, false},         // an earlier life
		{1600, "ctl", 6, 1, 0, true},           // started anew
		{9000, "ctl", 2, 1, 0, true},           // its clock was set back
		{9100, "edge", 9, 2, math.NaN(), true}, // no age is no time
	}
	for i, k := range steps {
		if got := hear(k.nowMS, "a", k.reporter, k.epoch, k.seq, k.age, float64(i)); got != k.want {
			t.Errorf("step %d: news %v, want %v", i, got, k.want)
		}
	}
	hear(9100, "me", "ctl", 1, 1, 0, 1)
	o := b.Options(9300*1e6, "me", svc)
	if len(o) != 1 || o[0].Site != "a" || o[0].AgeMS != 200 || o[0].FromUsPerS != 7 || !o[0].InBand || o[0].ArrivalsPerS != 8 {
		t.Errorf("options %+v", o)
	}
	if r, ok := b.Report(9300*1e6, "a", svc); !ok || r.Site != "a" || r.AgeMS != 200 {
		t.Errorf("report %+v, %v", r, ok)
	}
	b.Forget(80e9)
	if r, ok := b.Report(80e9, "a", svc); ok {
		t.Errorf("report after a minute of silence: %+v", r)
	}
	for i := range maxReporters + 5 {
		hear(90000+int64(i), "a", fmt.Sprint("r", i), 1, 1, 0, 1)
	}
	if n := len(b.entries[place{svc, "a"}].marks); n > maxReporters {
		t.Errorf("%d reporters remembered", n)
	}
}

func BenchmarkTick16(b *testing.B) {
	in := home(800)
	for i := range 16 {
		in.Options = append(in.Options, site(fmt.Sprint("s", i), float64(20*i)))
	}
	p := New(svc, new(price.Curves))
	now := int64(1e9)
	for b.Loop() {
		now += 100e6
		p.Tick(now, in)
	}
}
