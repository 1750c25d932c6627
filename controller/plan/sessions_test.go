package plan

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/meridian-mesh/meridian/controller/price"
)

func sessionInput(open int, options ...Option) Input {
	return Input{Sessions: true, Slots: 100, ServiceMS: 5, Open: open, DemandPerS: 2, Options: options}
}

func sessionOption(site string, open int) Option {
	return Option{Site: site, Slots: 100, ServiceMS: 5, InFlight: open, AgeMS: 100, RTTMS: 4}
}

// A new session leaves home where home is twice as dear as the cheapest other site by
// the sessions that are open, and only then.
func TestTick_sessions(t *testing.T) {
	p := New("default/chat", new(price.Curves))
	for _, c := range []struct {
		open, there int
		limit       int
	}{
		// 5/(1-u)^2 <= 2*(1.3*4+5/(1-v)^2)
		{0, 0, 51}, {20, 0, 51}, {60, 0, 51}, {40, 50, 69}, {0, 90, 93}, {99, 95, 97}, {0, 100, MaxLimit},
	} {
		w := p.Tick(1e9, sessionInput(c.open, sessionOption("b", c.there)))
		if w.HomeLimit != c.limit {
			t.Errorf("%d open here and %d there: home limit %d, want %d", c.open, c.there, w.HomeLimit, c.limit)
		}
		if room := w.Remotes[0].Limit; room != 100-c.there {
			t.Errorf("%d open there: limit %d", c.there, room)
		}
		if leaves := w.HomeWeight < 1; leaves != (c.open+2 > c.limit) {
			t.Errorf("%d open here, home limit %d: home weight %v", c.open, c.limit, w.HomeWeight)
		}
		if got := w.Remotes[0].LiveMS; len(got) != 101 || math.Abs(got[50]-(4+20)) > 1e-6 {
			t.Errorf("live prices %v", got)
		}
	}
	in := sessionInput(50, sessionOption("b", 0))
	in.ShedAfterMS, in.Classes = 15, []Class{{"batch", 5}}
	if w := p.Tick(1e9, in); w.ShedLimit != 75 || w.ClassShedLimits["batch"] != 50 {
		t.Errorf("shed limits %d, %v", w.ShedLimit, w.ClassShedLimits)
	}
	in.NoHome = true
	if w := p.Tick(1e9, in); w.HomeLimit != 0 || w.Remotes[0].Weight != 1 {
		t.Errorf("without a home: %+v", w)
	}
}

// Random sites, all of whose new sessions go where their plans say, by reports that
// are late: shares are shares, nobody is sent more than it has room for, fences hold,
// and while a site has a free slot no other has more sessions than it can hold.
func TestTick_sessionsAnywhere(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		n := 2 + r.IntN(6)
		slots, open, planners := make([]float64, n), make([]int, n), make([]*Planner, n)
		total := 0.0
		for i := range n {
			slots[i] = float64(5 + r.IntN(300))
			total += slots[i]
			planners[i] = New("default/chat", new(price.Curves))
		}
		barred := r.IntN(n)
		total -= slots[barred] // its free slots are nobody's but its own
		late := make([][]int, 0, 8)
		opened := 0
		for step := 0; float64(opened) < 0.9*total; step++ {
			late = append(late, append([]int(nil), open...))
			known := late[max(0, len(late)-6)] // half a second ago
			for i := range n {
				in := Input{Sessions: true, Slots: slots[i], ServiceMS: 5, Open: open[i], DemandPerS: 10, StayHome: 2}
				for j := range n {
					if j != i {
						o := Option{Site: string(rune('a' + j)), Slots: slots[j], ServiceMS: 5, InFlight: known[j], AgeMS: 500, RTTMS: 1 + r.Float64()*20, Spillers: n - 1}
						if j == barred {
							o.Excluded = "fenced"
						}
						in.Options = append(in.Options, o)
					}
				}
				w := planners[i].Tick(int64(1e9+1e8*step), in)
				sum := w.HomeWeight
				for _, rem := range w.Remotes {
					sum += rem.Weight
					j := int(rem.Site[0] - 'a')
					if j == barred && (rem.Weight != 0 || rem.Draw != 0 || rem.Limit != 0) {
						t.Fatalf("seed %d: a session crosses the fence: %+v", seed, rem)
					}
					if float64(rem.Limit+known[j]) > slots[j] && rem.Limit > 0 {
						t.Fatalf("seed %d: %d more sessions for a site with %d of %v", seed, rem.Limit, known[j], slots[j])
					}
				}
				if math.Abs(sum-1) > 1e-6 {
					t.Fatalf("seed %d: shares sum to %v: %+v", seed, sum, w)
				}
				// One session in a step and site: home, or where most are drawn.
				to, best := i, 0.0
				if open[i] >= w.HomeLimit {
					for _, rem := range w.Remotes {
						if j := int(rem.Site[0] - 'a'); rem.Limit > 0 && rem.Draw > best {
							to, best = j, rem.Draw
						}
					}
				}
				open[to]++
				opened++
			}
		}
		for i := range n {
			// Reports are six steps old, and every site sends one session in each.
			if over := float64(open[i]) - slots[i]; over > float64(6*n) {
				t.Errorf("seed %d: %d sessions at a site for %v: %v of %v", seed, open[i], slots[i], open, slots)
			}
		}
	}
}
