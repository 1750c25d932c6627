package price

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// station is a queue with slots whose completions are booked by level.
type station struct {
	rnd           *rand.Rand
	slots         int
	serviceMS, cv float64
	nowMS         float64
	free          []float64 // when each slot is free
	leaving       leaving
	levels        [Levels]Level
}

type departure struct {
	at, took float64
	level    int
}

type leaving []departure

func (l leaving) Len() int           { return len(l) }
func (l leaving) Less(i, j int) bool { return l[i].at < l[j].at }
func (l leaving) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *leaving) Push(x any)        { *l = append(*l, x.(departure)) }
func (l *leaving) Pop() any {
	x := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return x
}

func (s *station) depart() {
	for len(s.leaving) > 0 && s.leaving[0].at <= s.nowMS {
		d := heap.Pop(&s.leaving).(departure)
		s.levels[d.level].N++
		s.levels[d.level].MS += d.took
		s.levels[d.level].SqMS += d.took * d.took
	}
}

// run lets requests come at load times the capacity of slots until a time; tick runs
// every 100 ms.
func (s *station) run(untilMS, perS float64, tick func()) {
	next := s.nowMS + 100
	for {
		s.nowMS += s.rnd.ExpFloat64() * 1000 / perS
		if s.nowMS > untilMS {
			s.nowMS = untilMS
			return
		}
		for ; next < s.nowMS; next += 100 {
			s.depart()
			tick()
		}
		s.depart()
		for len(s.free) > s.slots {
			slices.Sort(s.free)
			s.free = s.free[:s.slots]
		}
		for len(s.free) < s.slots {
			s.free = append(s.free, s.nowMS)
		}
		k := 0
		for i := range s.free {
			if s.free[i] < s.free[k] {
				k = i
			}
		}
		work := s.serviceMS * s.rnd.ExpFloat64()
		if s.cv == 0 {
			work = s.serviceMS * (0.95 + 0.1*s.rnd.Float64())
		}
		s.free[k] = math.Max(s.nowMS, s.free[k]) + work
		heap.Push(&s.leaving, departure{s.free[k], s.free[k] - s.nowMS, LevelOf(len(s.leaving) + 1)})
	}
}

func (s *station) capacity() float64 { return float64(s.slots) / s.serviceMS * 1000 }

func newStation(seed uint64, slots int, serviceMS, cv float64) *station {
	return &station{rnd: rand.New(rand.NewPCG(seed, 0x5107)), slots: slots, serviceMS: serviceMS, cv: cv}
}

func TestLevels(t *testing.T) {
	before := 0
	for n := 1; n < 5000; n++ {
		k := LevelOf(n)
		if k < before || k >= Levels {
			t.Fatalf("level %d of %d in flight, %d of one less", k, n, before)
		}
		if at := inFlightAt(k); k < Levels-1 && math.Abs(at/float64(n)-1) > 0.1 {
			t.Fatalf("%d in flight stand at level %d for %.1f", n, k, at)
		}
		before = k
	}
	if LevelOf(0) != 0 || LevelOf(-3) != 0 {
		t.Error("nothing in flight has no level of its own")
	}
}

// Calm load gives a bound that is never settled and never far beyond the truth;
// overload settles near it.
func TestSlotsBoundThenSettled(t *testing.T) {
	for _, slots := range []int{1, 2, 4, 8, 16, 64} {
		for _, cv := range []float64{0, 1} {
			for seed := range uint64(3) {
				name := fmt.Sprintf("c=%d cv=%g seed=%d", slots, cv, seed)
				q := newStation(seed, slots, 10, cv)
				var s Slots
				q.run(30e3, 0.3*q.capacity(), func() { s.Observe(&q.levels) })
				bound, settled := s.Known()
				if near := math.Abs(bound-float64(slots)) <= 0.25*float64(slots)+0.5; settled && !near {
					t.Errorf("%s: settled on %g at 0.3 load", name, bound)
				}
				if slots >= 16 && settled {
					t.Errorf("%s: settled on %g without saturation", name, bound)
				}
				if bound < 1 || bound > 1.5*float64(slots)+1 {
					t.Errorf("%s: bound %g", name, bound)
				}
				q.run(70e3, 0.97*q.capacity(), func() { s.Observe(&q.levels) })
				got, settled := s.Known()
				if !settled || math.Abs(got-float64(slots)) > 0.25*float64(slots)+0.5 {
					t.Errorf("%s: %g slots after saturation, settled %v", name, got, settled)
				}
			}
		}
	}
}

// A shrunk endpoint and a grown one are followed; a slower version keeps its slots.
func TestSlotsFollow(t *testing.T) {
	for seed := range uint64(3) {
		q := newStation(seed, 8, 10, 1)
		var s Slots
		at := func(what string, want float64) {
			t.Helper()
			got, settled := s.Known()
			if !settled || math.Abs(got/want-1) > 0.3 {
				t.Errorf("seed %d, %s: %g slots, settled %v, want %g", seed, what, got, settled, want)
			}
		}
		look := func() { s.Observe(&q.levels) }
		q.run(40e3, 0.95*q.capacity(), look)
		at("at first", 8)
		q.slots = 4
		q.run(80e3, 0.9*q.capacity(), look)
		at("shrunk", 4)
		q.slots = 12
		q.run(140e3, 0.95*q.capacity(), look)
		at("grown", 12)
		q.serviceMS = 30
		q.run(220e3, 0.9*q.capacity(), look)
		at("slower", 12)
	}
}

// Whatever the load does, what is learned of a service that stays the same settles:
// it does not go back and forth, and quiet hours do not unlearn it.
func TestSlotsDoNotOscillate(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 0x05c1))
		slots := 1 + rnd.IntN(24)
		q := newStation(seed, slots, 2+20*rnd.Float64(), float64(rnd.IntN(2)))
		var s Slots
		q.run(200*q.serviceMS*10, 1.1*q.capacity(), func() { s.Observe(&q.levels) })
		before, _ := s.Known()
		turns, way, lost := 0, 0.0, 0
		for range 30 {
			q.run(q.nowMS+1000, (0.1+0.88*rnd.Float64())*q.capacity(), func() {
				s.Observe(&q.levels)
				now, settled := s.Known()
				if !settled {
					lost++
				}
				if d := now - before; math.Abs(d) > 0.15*before {
					if d*way < 0 {
						turns++
					}
					way, before = d, now
				}
			})
		}
		now, settled := s.Known()
		if turns > 2 || !settled || math.Abs(now-float64(slots)) > 0.3*float64(slots)+0.5 {
			t.Errorf("seed %d: %d slots: %g (settled %v) at the end, %d turns, unsettled %d ticks", seed, slots, now, settled, turns, lost)
		}
	}
}

// Impossible sums change nothing.
func TestSlotsRefuseNonsense(t *testing.T) {
	var s Slots
	for _, l := range []Level{{5, -1, 1}, {9, math.NaN(), 1}, {12, math.Inf(1), 1}, {20, 1e3, math.NaN()}} {
		s.Observe(&[Levels]Level{l})
		if got, settled := s.Known(); got != 0 || settled {
			t.Errorf("%v: learned %g", l, got)
		}
	}
}
