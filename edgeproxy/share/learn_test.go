package share

import (
	"math"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

// undeclared are sites of which nobody states slots or service times.
func undeclared(sites []*simSite) {
	for _, s := range sites {
		s.learns = true
	}
}

func (s *simSite) known() (float64, mesh.SlotsLearned) {
	r := s.node.services[0].report(s.node.services[0].learn(&s.count))
	return r.Slots, r.Learned
}

// The hotspot of TestHotspot where nobody states anything: calm sites keep their users
// and say that they learn; the hot one finds its slots, and from then on its users
// wait about as long as where they are stated.
func TestHotspotLearned(t *testing.T) {
	var all meter
	for seed := range uint64(4) {
		sites, way := ring(6, 4, 10, 5, 0.5)
		undeclared(sites)
		m := newSim(t, seed, sites, way, -1, "")
		m.onDone = func(r *simRequest, delayMS float64) { all.add(r.bornNS, delayMS) }
		m.run(10)
		for _, s := range sites {
			slots, learned := s.known()
			if slots < 1 || slots > 6 || learned == mesh.SlotsDeclared {
				t.Errorf("seed %d: calm %s knows %g slots, %q", seed, s.name, slots, learned)
			}
			if w := &s.share.Weights; learned == mesh.SlotsLowerBound && (w.Off == "" || w.HomeWeight != 1) {
				t.Errorf("seed %d: %s shares by a lower bound: %+v", seed, s.name, w)
			}
		}
		sites[0].users *= 4
		m.run(30)
		slots, learned := sites[0].known()
		if learned != mesh.SlotsSettled || math.Abs(slots-4) > 1 {
			t.Errorf("seed %d: the hot site knows %g slots, %q, of 4", seed, slots, learned)
		}
	}
	first, steady := all.mean(10, 15), all.mean(20, 30)
	t.Logf("calm %.1f, the first 5 s of the step %.1f, from 10 s on %.1f ms", all.mean(3, 10), first, steady)
	// Where slots are stated TestHotspot has 18.5 at most.
	if steady > 22 {
		t.Errorf("mean %.1f ms from 10 s after the step on", steady)
	}
}

// A site without users of its own, where nothing was ever served, is found.
func TestNewcomerIsFound(t *testing.T) {
	for seed := range uint64(4) {
		sites, way := ring(2, 4, 10, 5, 0.5)
		undeclared(sites)
		sites[1].users = 0
		m := newSim(t, seed, sites, way, -1, "")
		var all meter
		m.onDone = func(r *simRequest, delayMS float64) { all.add(r.bornNS, delayMS) }
		m.run(5)
		sites[0].users = 560 // 1.4 of its capacity, 0.7 of both
		m.run(40)
		slots, learned := sites[1].known()
		t.Logf("seed %d: the newcomer knows %g slots, %q; means %.0f, %.0f, %.0f, %.0f ms", seed, slots, learned, all.mean(5, 10), all.mean(10, 15), all.mean(15, 20), all.mean(30, 40))
		if slots < 2 || slots > 6 || all.mean(30, 40) > 40 {
			t.Errorf("seed %d: the newcomer knows %g slots of 4, users wait %.0f ms", seed, slots, all.mean(30, 40))
		}
	}
}

// The counters of a service whose slots are stated, or that counts sessions, are left
// alone; a site without an endpoint has no slots whatever it learned.
func TestLearnLeavesStatedAlone(t *testing.T) {
	s := newService(Service{Key: echo}, new(price.Curves))
	stated := &Counters{Slots: 3, FreeStarts: 7, Up: true}
	if got := s.learn(stated); got != stated || s.standing != mesh.SlotsDeclared {
		t.Errorf("stated slots became %+v, %q", got, s.standing)
	}
	var levels [price.Levels]price.Level
	c := &Counters{Levels: &levels, Up: true}
	if got := s.learn(c); got.Slots != 1 || s.standing != mesh.SlotsLowerBound {
		t.Errorf("an endpoint that is up has %g slots, %q", got.Slots, s.standing)
	}
	levels[0] = price.Level{N: 50, MS: 500, SqMS: 6000}
	if got := s.learn(c); got.FreeStarts != 50 || got.Unqueued != 50 || got.UnqueuedMS != 500 || got.UnqueuedSqMS != 6000 {
		t.Errorf("what found a free slot: %+v", got)
	}
	levels[0] = price.Level{N: 10, MS: 100, SqMS: 1200} // the endpoint's counts began anew
	if got := s.learn(c); got.FreeStarts != 60 || got.UnqueuedMS != 600 {
		t.Errorf("counters that fell: %+v", got)
	}
	c.Up = false
	if got := s.learn(c); got.Slots != 0 {
		t.Errorf("%g slots of no endpoint", got.Slots)
	}
	s.Sessions = true
	if got := s.learn(c); got != c || s.standing != mesh.SlotsDeclared {
		t.Errorf("sessions became %+v, %q", got, s.standing)
	}
}
