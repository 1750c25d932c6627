package share

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const ms = int64(1e6)

// someplan is a plan of n remotes with draws 1, 2, .. n and prices that rise.
func someplan(n int) *mesh.ServiceWeights {
	w := &mesh.ServiceWeights{Service: "default/echo", HomeLimit: 4, HomeWeight: 0.5, HomeSlots: 2, HomeServiceTimeMS: 10}
	for i := range n {
		w.Remotes = append(w.Remotes, mesh.RemoteWeight{
			Site: fmt.Sprintf("s%02d", i), Weight: 0.5 / float64(n), Draw: float64(i + 1), Limit: 100, RTTMS: 5,
			PriceMS: 20 + float64(i), Slots: float64(i%3 + 1), ServiceTimeMS: 10,
			LiveMS: []float64{15, 15, 16, 18}, LiveSlopeMS: 3,
		})
	}
	return w
}

func compile(t testing.TB, policy string, w *mesh.ServiceWeights) *Gate {
	t.Helper()
	g, err := Compile(policy, w, new(Ledger))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestPick_home(t *testing.T) {
	g := compile(t, "", someplan(3))
	for n := range 4 {
		if i := g.Pick(1e9, n, 7, 0); i != Home {
			t.Errorf("%d in flight under a limit of 4: picked %d", n, i)
		}
	}
	if i := g.Pick(1e9, 4, 7, 0); i < 0 {
		t.Errorf("at the limit: picked %d, want a remote", i)
	}
	if i := g.Pick(1e9, 0, 7, Mask(0).With(Home)); i < 0 {
		t.Errorf("home tried: picked %d, want a remote", i)
	}
	if i := g.Pick(1e9, NoHome, 7, 0); i < 0 {
		t.Errorf("no endpoint at home: picked %d, want a remote", i)
	}
	all := Mask(0).With(0).With(1).With(2)
	if i := g.Pick(1e9, 9, 7, all); i != Home {
		t.Errorf("all remotes tried: picked %d, want home", i)
	}
	if i := g.Pick(1e9, 9, 7, all.With(Home)); i != None {
		t.Errorf("everything tried: picked %d, want none", i)
	}
}

// TestPick_law compares the picks with the law by hand: two draws of which the
// cheaper counts where a response told of either lately, else the first.
func TestPick_law(t *testing.T) {
	for _, told := range []bool{false, true} {
		w := someplan(5)
		g := compile(t, "", w)
		g.Live(3).testNS.Store(math.MaxInt64) // suspect
		for range 100 {
			g.Live(1).Start(1e9) // at its limit
		}
		g.Live(1).answeredNS.Store(1e9)
		if told {
			g.Live(0).Heard(1e9, 0) // idle, so it stays the cheapest
		}
		draw := []float64{1, 0, 3, 0, 5}
		sum := 9.0
		want := make([]float64, 5)
		for i, di := range draw {
			for j, dj := range draw {
				k := i
				if told && (i == 0 || j == 0) {
					k = 0
				}
				want[k] += di * dj / sum / sum
			}
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		const rounds = 200000
		got := make([]float64, 5)
		for range rounds {
			i := g.Pick(1e9, 9, rnd.Uint64(), 0)
			if i < 0 {
				t.Fatalf("picked %d", i)
			}
			got[i]++
		}
		for i := range want {
			if math.Abs(got[i]/rounds-want[i]) > 0.006 {
				t.Errorf("told of remote 0: %v: remote %d picked %.4f of the time, want %.4f", told, i, got[i]/rounds, want[i])
			}
		}
	}
}

func TestPick_livePrice(t *testing.T) {
	w := someplan(2)
	g := compile(t, "", w)
	// Planned, remote 0 is cheaper (20 against 21). A response says it is busy.
	g.Live(0).Start(1e9)
	g.Live(0).Answer(1e9, 30)
	count := func(nowNS int64) (zero int) {
		rnd := rand.New(rand.NewPCG(3, 4))
		for range 3000 {
			if g.Pick(nowNS, 9, rnd.Uint64(), 0) == 0 {
				zero++
			}
		}
		return zero
	}
	// Both draws fall on 0 with probability 1/9, at least one with 5/9.
	if n := count(1e9 + 50*ms); n < 200 || n > 460 {
		t.Errorf("busy by a fresh response: picked %d of 3000 times, want about 333", n)
	}
	// Later it is one draw.
	if n := count(1e9 + 150*ms); n < 850 || n > 1150 {
		t.Errorf("busy by an old response: picked %d of 3000 times, want about 1000", n)
	}
	if p := g.remotes[0].price(1e9 + ms); p != 18+27*3 {
		t.Errorf("price with 30 in flight %v, want %v", p, 18+27*3)
	}
}

func TestPick_neverExcluded(t *testing.T) {
	for _, policy := range []string{mesh.SharingCooperative, mesh.SharingNone, mesh.SharingRoundRobin, mesh.SharingWeightedRoundRobin} {
		w := someplan(4)
		w.Remotes[1].Excluded = "fence"
		w.Remotes[1].Draw = 1000
		g := compile(t, policy, w)
		rnd := rand.New(rand.NewPCG(5, 6))
		for range 2000 {
			n := rnd.IntN(12) - 1
			if i := g.Pick(1e9, n, rnd.Uint64(), Mask(rnd.Uint64N(32))&^Mask(0).With(3)); i == 1 {
				t.Fatalf("%s: an excluded site was picked", policy)
			}
		}
	}
}

func TestPick_lastResort(t *testing.T) {
	w := someplan(3)
	g := compile(t, "", w)
	for i := range 3 {
		g.Live(i).testNS.Store(math.MaxInt64)
	}
	if i := g.Pick(1e9, 9, 1, 0); i != Home {
		t.Errorf("all suspect, home full: picked %d, want home", i)
	}
	if i := g.Pick(1e9, NoHome, 1, 0); i != 0 {
		t.Errorf("all suspect, no home: picked %d, want the cheapest, 0", i)
	}
	g.Live(2).testNS.Store(0)
	if i := g.Pick(1e9, NoHome, 1, 0); i != 2 {
		t.Errorf("one trusted, no home: picked %d, want 2", i)
	}
}

func TestPick_none(t *testing.T) {
	g := compile(t, mesh.SharingNone, someplan(3))
	if i := g.Pick(1e9, 1000, 1, 0); i != Home {
		t.Errorf("picked %d, want home whatever its load", i)
	}
	if i := g.Pick(1e9, NoHome, 1, 0); i != 0 {
		t.Errorf("no endpoint at home: picked %d, want the cheapest remote", i)
	}
}

func tally(t *testing.T, g *Gate, rounds, homeInFlight int) map[int]int {
	t.Helper()
	got := map[int]int{}
	for range rounds {
		got[g.Pick(1e9, homeInFlight, 1, 0)]++
	}
	return got
}

func TestPick_roundRobin(t *testing.T) {
	w := someplan(3)
	g := compile(t, mesh.SharingRoundRobin, w)
	for i, n := range tally(t, g, 400, 1000) {
		if n != 100 {
			t.Errorf("place %d: %d of 400 turns, want 100", i, n)
		}
	}
	// Capacity is slots over service time: the third site's three slots are as
	// slow as to be worth one.
	w.Remotes[2].ServiceTimeMS = 30
	got := tally(t, compile(t, mesh.SharingWeightedRoundRobin, w), 600, 0)
	for i, want := range map[int]int{Home: 200, 0: 100, 1: 200, 2: 100} {
		if got[i] < want-2 || got[i] > want+2 { // a round is not a divisor of 600
			t.Errorf("weighted, place %d: %d of 600 turns, want %d", i, got[i], want)
		}
	}
	g.Live(1).testNS.Store(math.MaxInt64)
	if got := tally(t, g, 400, NoHome); got[1] != 0 || got[Home] != 0 || got[0]+got[2] != 400 {
		t.Errorf("no home, one suspect: turns %v", got)
	}
}

func TestPick_turnSurvivesSwap(t *testing.T) {
	var ledger Ledger
	w := someplan(3)
	got := map[int]int{}
	for range 400 {
		g, err := Compile(mesh.SharingRoundRobin, w, &ledger)
		if err != nil {
			t.Fatal(err)
		}
		got[g.Pick(1e9, 0, 1, 0)]++
	}
	for i, n := range got {
		if n != 100 {
			t.Errorf("place %d: %d of 400 turns over as many plans, want 100", i, n)
		}
	}
}

func TestTurns_spread(t *testing.T) {
	plan := []mesh.RemoteWeight{{Slots: 1}, {Slots: 1, Excluded: "fence"}, {Slots: math.NaN()}, {Slots: 0.4}}
	slots := func(p *mesh.RemoteWeight) float64 { return p.Slots }
	if got, want := fmt.Sprint(turns(3, plan, slots)), "[-1 0 -1 3 -1]"; got != want {
		t.Errorf("round %v, want %v", got, want)
	}
	if got := turns(1e6, []mesh.RemoteWeight{{Slots: 2e6}, {Slots: 1}}, slots); len(got) > maxTurns {
		t.Errorf("round of %d turns", len(got))
	}
	if got := turns(0, plan[1:2], slots); got != nil {
		t.Errorf("nobody to take turns: %v", got)
	}
}

func TestCompile(t *testing.T) {
	if _, err := Compile("random", someplan(1), new(Ledger)); err == nil {
		t.Error("unknown policy accepted")
	}
	if g := compile(t, "", someplan(80)); g.Len() != maxRemotes {
		t.Errorf("%d remotes, want %d", g.Len(), maxRemotes)
	}
	var ledger Ledger
	w := someplan(3)
	a, _ := Compile("", w, &ledger)
	a.Live(2).Start(1)
	w.Remotes[0], w.Remotes[2] = w.Remotes[2], w.Remotes[0]
	b, _ := Compile("", w, &ledger)
	if b.Live(0) != a.Live(2) || b.Live(0).Outstanding() != 1 {
		t.Error("the live state was lost with the plan")
	}
}

func TestPick_noAllocs(t *testing.T) {
	for _, policy := range []string{mesh.SharingCooperative, mesh.SharingRoundRobin} {
		g := compile(t, policy, someplan(16))
		g.Live(15).testNS.Store(math.MaxInt64)
		rnd := rand.New(rand.NewPCG(7, 8))
		if n := testing.AllocsPerRun(2000, func() {
			if i := g.Pick(1e9, 9, rnd.Uint64(), Mask(0).With(14)); i >= 0 {
				l := g.Live(i)
				l.Start(1e9)
				l.News(1, 2)
				l.Answer(1e9, 3)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per pick, want 0", policy, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, k := range []struct {
		name    string
		suspect int
	}{{"16", 0}, {"16with4suspect", 4}} {
		b.Run(k.name, func(b *testing.B) {
			g := compile(b, "", someplan(16))
			for i := range k.suspect {
				g.Live(15 - i).testNS.Store(math.MaxInt64)
			}
			for i := range 16 {
				g.Live(i).Heard(1e9, i)
			}
			rnd := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			for b.Loop() {
				g.Pick(1e9+ms, 9, rnd.Uint64(), 0)
			}
		})
	}
}

// Loops share the live state of a service while plans are swapped under them.
func TestGate_concurrent(t *testing.T) {
	var ledger Ledger
	var wg sync.WaitGroup
	for loop := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(loop, 1))
			for i := range int64(2000) {
				g, err := Compile("", someplan(3), &ledger)
				if err != nil {
					t.Error(err)
					return
				}
				k := g.Pick(i*ms, 9, rnd.Uint64(), 0)
				if k < 0 {
					continue
				}
				l := g.Live(k)
				l.Start(i * ms)
				switch rnd.IntN(8) {
				case 0:
					l.Fail(i*ms, rnd.IntN(4) == 0)
				case 1:
					l.Cancel()
				default:
					l.Answer(i*ms, rnd.IntN(20))
				}
			}
		})
	}
	wg.Wait()
	for _, site := range []string{"s00", "s01", "s02"} {
		if n := ledger.Live("default/echo", site).Outstanding(); n != 0 {
			t.Errorf("%s: %d outstanding after all ended", site, n)
		}
	}
}

// TestInForce_policy: what is shown as in force is what the gate does.
func TestInForce_policy(t *testing.T) {
	plan := someplan(3)
	for policy, want := range map[string][]float64{
		mesh.SharingCooperative:        {0.5, 0.5 / 3, 0.5 / 3, 0.5 / 3},
		mesh.SharingNone:               {1, 0, 0, 0},
		mesh.SharingRoundRobin:         {0.25, 0.25, 0.25, 0.25},
		mesh.SharingWeightedRoundRobin: {0.25, 0.125, 0.25, 0.375}, // 2 slots at home; 1, 2, 3
	} {
		w := compile(t, policy, plan).inForce(*plan, true)
		got := []float64{w.HomeWeight}
		for _, r := range w.Remotes {
			got = append(got, r.Weight)
		}
		for i := range want {
			if math.Abs(got[i]-want[i]) > 0.01 {
				t.Errorf("%s: shares %v, want %v", policy, got, want)
				break
			}
		}
	}
	if w := compile(t, mesh.SharingNone, plan).inForce(*plan, false); w.HomeWeight != 0.5 {
		t.Error("no endpoint at home: the shares are not the plan's, which the gate follows then")
	}
	if plan.Remotes[0].Weight != 0.5/3 {
		t.Error("the plan itself was changed")
	}
}
