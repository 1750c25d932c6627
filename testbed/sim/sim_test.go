package sim_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
	"github.com/meridian-mesh/meridian/testbed/sim/scenario"
)

// ring is n sites with rtt ms a hop, all at a part of their capacity.
func ring(n, slots int, serviceMS, rtt, load float64) *sim.Scenario {
	sc := &sim.Scenario{Name: "ring", DeadlineMS: 2000, ForS: 30, MeasureFromS: 5}
	for i := range n {
		s := sim.Site{Name: string(rune('a' + i)), Slots: slots, ServiceMS: serviceMS}
		s.DemandPerS = load * s.CapacityPerS()
		sc.Network.Sites = append(sc.Network.Sites, s)
		row := make([]float64, n)
		for j := range row {
			row[j] = rtt * float64(min((i-j+n)%n, (j-i+n)%n))
		}
		sc.Network.RTTMS = append(sc.Network.RTTMS, row)
	}
	return sc
}

func run(t testing.TB, sc *sim.Scenario, name string, seed uint64, o policy.Options) *sim.Stats {
	t.Helper()
	p, err := policy.New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sim.New(sc, p, seed)
	if err != nil {
		t.Fatal(err)
	}
	s, whole := m.Run(nil)
	if !whole {
		t.Fatal("stopped though nobody asked")
	}
	return s
}

// One site alone is an M/M/c queue, whose mean delay is known.
func TestOneSiteIsAnErlangQueue(t *testing.T) {
	for _, k := range []struct {
		slots  int
		load   float64
		meanMS float64
	}{
		{1, 0.5, 20},               // s/(1-rho)
		{2, 0.5, 10 * (1 + 1./3)},  // C = 1/3, wait = C*s/(c*(1-rho))
		{4, 0.5, 10 * (1 + 2./23)}, // C = 4/23
		{10, 0.8, 10 * (1 + 0.4091803/2)},
	} {
		sc := ring(1, k.slots, 10, 0, k.load)
		sc.ForS = 600
		s := run(t, sc, policy.NameNone, 1, policy.Options{})
		if got := s.Window.MeanMS(); math.Abs(got/k.meanMS-1) > 0.05 {
			t.Errorf("%d slots at %v: mean %.2f ms, Erlang C says %.2f", k.slots, k.load, got, k.meanMS)
		}
		if want := 595 * sc.Network.Sites[0].DemandPerS; math.Abs(float64(s.Window.Requests)/want-1) > 0.03 {
			t.Errorf("%d requests, want about %.0f", s.Window.Requests, want)
		}
	}
}

// Every policy sees the same requests, and a run repeats to the last bit.
func TestSameRequestsForEverybody(t *testing.T) {
	hot := func() *sim.Scenario {
		sc := ring(6, 4, 10, 5, 0.5)
		sc.ForS = 15
		sc.Changes = []sim.Change{{AtS: 8, Site: 0, Demand: 3}, {AtS: 10, Site: -1, Cut: []sim.Pair{{A: 0, B: 1}}}, {AtS: 12, Site: 2, Service: 2}}
		return sc
	}
	want := uint64(0)
	for _, name := range policy.Names() {
		a := run(t, hot(), name, 7, policy.Options{DelayPeriods: 2})
		b := run(t, hot(), name, 7, policy.Options{DelayPeriods: 2})
		if a.Window.SumMS != b.Window.SumMS || a.Window.Away != b.Window.Away || a.LoadSD() != b.LoadSD() {
			t.Errorf("%s: two runs of one seed differ: %+v, %+v", name, a.Window, b.Window)
		}
		if want == 0 {
			want = a.Window.Requests
		}
		if a.Window.Requests != want {
			t.Errorf("%s: %d requests, others had %d", name, a.Window.Requests, want)
		}
		answered := uint64(0)
		for _, n := range a.Bins {
			answered += n
		}
		if answered != want {
			t.Errorf("%s: %d requests were born and %d ended", name, want, answered)
		}
		if c := run(t, hot(), name, 8, policy.Options{DelayPeriods: 2}); c.Window.SumMS == a.Window.SumMS {
			t.Errorf("%s: another seed gives the same run", name)
		}
	}
}

// What each rule is known for shows in the plain hotspot.
func TestHotspot(t *testing.T) {
	mean := map[string]float64{}
	for _, name := range policy.Names() {
		sc := ring(6, 4, 10, 5, 0.5)
		sc.ForS, sc.MeasureFromS = 30, 10
		sc.Changes = []sim.Change{{AtS: 10, Site: 0, Demand: 4}}
		s := run(t, sc, name, 100, policy.Options{DelayPeriods: 1})
		mean[name] = s.Window.MeanMS()
		t.Logf("%-22s mean %8.2f p99 %7.1f errors %5d away %6d", name, s.Window.MeanMS(), s.QuantileMS(0.99), s.Window.Errors(), s.Window.Away)
		if (name == policy.NameNone || name == policy.NameZone) != (s.Window.Away == 0) {
			t.Errorf("%s: %d requests were served elsewhere", name, s.Window.Away)
		}
	}
	for _, ours := range []string{policy.NameMeridian, policy.NameBus, policy.NameAlone, policy.NameLearned} {
		if mean[ours] > 1.05*mean[policy.NameOptimum] {
			t.Errorf("%s: mean %.1f ms, the optimum's static weights %.1f", ours, mean[ours], mean[policy.NameOptimum])
		}
	}
	if mean[policy.NameJSED] > mean[policy.NameOptimum] || mean[policy.NameNone] < 20*mean[policy.NameOptimum] {
		t.Errorf("means %v", mean)
	}
}

// The optimum's weights have the mean that its own solution says.
func TestOptimumIsWhatItSays(t *testing.T) {
	sc := ring(6, 4, 10, 5, 0.5)
	sc.Network.Sites[0].DemandPerS = 800
	sc.ForS, sc.MeasureFromS = 200, 20
	s := run(t, sc, policy.NameOptimum, 3, policy.Options{})
	if got := s.Window.MeanMS(); math.Abs(got/17.5-1) > 0.05 {
		t.Errorf("mean %.2f ms, the fluid optimum is 17.5", got)
	}
}

// The runaway property: random networks and faults, and no site goes on queueing
// beside an idle neighbour worth the way for more than 1 s.
func TestNoSiteQueuesBesideAnIdleOne(t *testing.T) {
	networks := uint64(40)
	if testing.Short() {
		networks = 8
	}
	for seed := range networks {
		r := rand.New(rand.NewPCG(seed, 21))
		n := 2 + r.IntN(6)
		sc := &sim.Scenario{Name: "random", DeadlineMS: 2000, ForS: 16}
		for i := range n {
			s := sim.Site{Name: string(rune('a' + i)), Slots: 1 + r.IntN(8), ServiceMS: 5 + 35*r.Float64()}
			s.DemandPerS = (0.1 + 0.5*r.Float64()) * s.CapacityPerS()
			sc.Network.Sites = append(sc.Network.Sites, s)
			sc.Network.RTTMS = append(sc.Network.RTTMS, make([]float64, n))
			for j := range i {
				sc.Network.RTTMS[i][j] = 1 + 24*r.Float64()
				sc.Network.RTTMS[j][i] = sc.Network.RTTMS[i][j]
			}
		}
		hot, slow := r.IntN(n), r.IntN(n)
		link := sim.Pair{A: hot, B: (hot + 1) % n}
		sc.Changes = []sim.Change{
			{AtS: 3, Site: hot, Demand: 2 + 3*r.Float64()}, {AtS: 6, Site: slow, Service: 3},
			{AtS: 8, Site: -1, Cut: []sim.Pair{link}}, {AtS: 9, Site: -1, Bus: -1}, {AtS: 11, Site: -1, Heal: []sim.Pair{link}},
			{AtS: 12, Site: -1, Bus: 1}, {AtS: 12, Site: hot, Demand: 0.5}, {AtS: 12, Site: slow, Service: 1},
		}
		name := policy.Names()[seed%3]
		s := run(t, sc, name, seed, policy.Options{DelayPeriods: float64(r.IntN(6))})
		if s.QueuedBesideIdleS > 1 {
			t.Errorf("network %d, %s: site %d of %d queued beside an idle neighbour for %.1f s until %.1f s",
				seed, name, s.QueuedAt, n, s.QueuedBesideIdleS, s.QueuedUntilS)
		}
	}
}

// The loop allocates next to nothing: requests and events are reused.
func TestLoopAllocatesNothingPerEvent(t *testing.T) {
	sc := ring(6, 16, 5, 5, 0.6)
	sc.ForS = 20
	p, err := policy.New(policy.NameWRR, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sim.New(sc, p, 1)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, _ := m.Run(nil)
	runtime.ReadMemStats(&after)
	if each := float64(after.Mallocs-before.Mallocs) / float64(s.Window.Requests); each > 0.01 {
		t.Errorf("%.3f allocations a request", each)
	}
}

func TestRunStops(t *testing.T) {
	p, err := policy.New(policy.NameNone, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sim.New(ring(3, 2, 10, 1, 0.5), p, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, whole := m.Run(func() bool { return m.NowS() > 3 }); whole || m.NowS() > 6 {
		t.Errorf("whole %v at %.1f s", whole, m.NowS())
	}
}

func TestCheckRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*sim.Scenario){
		"round trip":  func(sc *sim.Scenario) { sc.Network.RTTMS[0][1] = math.NaN() },
		"slots":       func(sc *sim.Scenario) { sc.Network.Sites[1].Slots = 0 },
		"deadline":    func(sc *sim.Scenario) { sc.DeadlineMS = 0 },
		"hot site":    func(sc *sim.Scenario) { sc.Hot = 9 },
		"measured":    func(sc *sim.Scenario) { sc.MeasureFromS = 99 },
		"no link":     func(sc *sim.Scenario) { sc.Changes = []sim.Change{{Site: -1, Cut: []sim.Pair{{A: 1, B: 1}}}} },
		"impossible":  func(sc *sim.Scenario) { sc.Changes = []sim.Change{{Site: 7}} },
		"lognormal":   func(sc *sim.Scenario) { sc.Work.Law = sim.Lognormal },
		"3 sites and": func(sc *sim.Scenario) { sc.Network.RTTMS = nil },
	} {
		sc := ring(3, 2, 10, 1, 0.5)
		spoil(sc)
		if err := sc.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// BenchmarkCity is the figure for speed: 125 cells for one simulated minute.
func BenchmarkCity(b *testing.B) {
	sc, err := scenario.Load("city-long", "")
	if err != nil {
		b.Fatal(err)
	}
	sc.ForS = 60
	for b.Loop() {
		s := run(b, sc, policy.NameAlone, 1, policy.Options{})
		b.ReportMetric(float64(s.Window.Requests), "requests")
	}
}

// Arrivals are those that every policy sees.
func TestArrivals(t *testing.T) {
	sc := ring(3, 2, 10, 5, 0.5)
	sc.ForS, sc.MeasureFromS = 10, 0
	sc.Changes = []sim.Change{{AtS: 5, Site: 1, Demand: 3}}
	all, err := sim.Arrivals(sc, 7)
	if err != nil {
		t.Fatal(err)
	}
	s := run(t, sc, policy.NameNone, 7, policy.Options{})
	if uint64(len(all)) != s.Window.Requests {
		t.Fatalf("%d arrivals, and a run has %d requests", len(all), s.Window.Requests)
	}
	bySite, work, last := make([]int, 3), 0.0, 0.0
	for _, a := range all {
		if a.AtS < last || a.AtS > 11 || !(a.Work >= 0) {
			t.Fatalf("%+v after second %v", a, last)
		}
		bySite[a.Site]++
		work += a.Work
		last = a.AtS
	}
	// 100 requests/s for ten seconds, and one site 300 in the second half.
	if mean := work / float64(len(all)); math.Abs(mean-1) > 0.1 || bySite[1] < 3*bySite[0]/2 {
		t.Errorf("work %.3f on average, requests by site %d", mean, bySite)
	}
}
