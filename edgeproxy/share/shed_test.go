package share

import (
	"math/rand/v2"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestPick_shed(t *testing.T) {
	w := someplan(2)
	w.ShedLimit = 20
	g := compile(t, "", w)
	if i := g.Pick(1e9, 50, 7, 0); i < 0 {
		t.Errorf("a long line at home and two sites that can take it: picked %d", i)
	}
	for k := range 2 {
		for range 100 {
			g.Live(k).Start(1e9) // at its limit
		}
		g.Live(k).answeredNS.Store(1e9)
	}
	for n, want := range map[int]int{3: Home, 19: Home, 20: Shed, 500: Shed} {
		if i := g.Pick(1e9, n, 7, 0); i != want {
			t.Errorf("%d in flight at home, others at their limits: picked %d, want %d", n, i, want)
		}
	}
	if i := compile(t, mesh.SharingNone, w).Pick(1e9, 500, 7, 0); i != Home {
		t.Errorf("policy none: picked %d, want home", i)
	}
	// Nobody to share with, as when every other site is dead: home's own limit is none.
	g = compile(t, "", &mesh.ServiceWeights{Service: "default/echo", HomeLimit: 1 << 20, ShedLimit: 20})
	for n, want := range map[int]int{19: Home, 20: Shed} {
		if i := g.Pick(1e9, n, 7, 0); i != want {
			t.Errorf("alone with %d in flight: picked %d, want %d", n, i, want)
		}
		if c := g.Explain(1e9, 0, n, 1)[0]; (c.Chance == 1) != (want == Home) {
			t.Errorf("alone with %d in flight: explained as %+v", n, c)
		}
	}
	w.ShedLimit = 0
	g = compile(t, "", &mesh.ServiceWeights{Service: "default/echo", HomeLimit: 4})
	if i := g.Pick(1e9, 500, 7, 0); i != Home {
		t.Errorf("nothing is to be shed: picked %d, want home", i)
	}
}

// A link's greatest rate holds whatever the plan, the policy and the demand are.
func TestPick_greatestRate(t *testing.T) {
	for _, policy := range []string{mesh.SharingCooperative, mesh.SharingRoundRobin} {
		w := someplan(3)
		w.Remotes[0].MaxRate = 50
		g := compile(t, policy, w)
		rnd := rand.New(rand.NewPCG(5, 1))
		sent := map[int]int{}
		now := int64(1e9)
		for range 20000 { // 20 s of 1,000 requests/s
			now += 1e6
			i := g.Pick(now, 9, rnd.Uint64(), 0)
			sent[i]++
			if i >= 0 {
				g.Live(i).Start(now)
				g.Live(i).Answer(now, -1)
			}
		}
		if n := sent[0]; n < 900 || n > 20*50+7 {
			t.Errorf("%s: %d requests in 20 s over a link for 50/s", policy, n)
		}
		// Nothing else is left: it still holds.
		for range 1000 {
			if g.Pick(now, NoHome, rnd.Uint64(), Mask(0).With(1).With(2)) == 0 {
				g.Live(0).Start(now)
			}
		}
		if n := g.Live(0).Outstanding(); n > 7 {
			t.Errorf("%s: %d requests at one instant", policy, n)
		}
	}
}

// Of two classes that wait in the same line, the one that may wait less is refused
// first; a class that the plan does not know yet is as if it had none.
func TestPickFor_classes(t *testing.T) {
	w := &mesh.ServiceWeights{Service: "default/echo", HomeLimit: 4, ShedLimit: 20, ClassShedLimits: map[string]int{"batch": 8, "vital": 50, "patient": 0}}
	g, err := Compile("", w, new(Ledger), "batch", "vital", "patient", "new")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ class, inFlight, want int }{
		{0, 19, Home}, {0, 20, Shed}, {1, 7, Home}, {1, 8, Shed}, {2, 49, Home}, {2, 50, Shed},
		{3, 1 << 20, Home}, {4, 19, Home}, {4, 20, Shed}, {9, 19, Home}, {9, 20, Shed},
	} {
		if got := g.PickFor(c.class, 1e9, c.inFlight, 7, 0); got != c.want {
			t.Errorf("class %d with %d in flight: %d, want %d", c.class, c.inFlight, got, c.want)
		}
	}
}
