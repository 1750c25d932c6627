package sim_test

import (
	"math"
	"testing"

	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
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

func TestHotspotTable(t *testing.T) {
	for _, name := range policy.Names() {
		sc := ring(6, 4, 10, 5, 0.5)
		sc.ForS, sc.MeasureFromS = 30, 10
		sc.Changes = []sim.Change{{AtS: 10, Site: 0, Demand: 4}}
		s := run(t, sc, name, 100, policy.Options{DelayPeriods: 1})
		t.Logf("%-22s mean %8.2f p99 %7.1f err %5d away %6d sd %5.1f idle %.1f", name, s.Window.MeanMS(), s.QuantileMS(0.99), s.Window.Errors(), s.Window.Away, s.LoadSD(), s.QueuedBesideIdleS)
	}
}
