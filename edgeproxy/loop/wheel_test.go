package loop

import (
	"math/rand/v2"
	"testing"
)

type firing struct {
	id int
	at int64
}

// owner records its expiry and may act on the wheel while it is being advanced.
type owner struct {
	id  int
	t   Timer
	log *[]firing
	act func()
}

func (o *owner) Expire(_ *Timer, now int64) {
	*o.log = append(*o.log, firing{o.id, now})
	if o.act != nil {
		o.act()
	}
}

// TestWheelAgainstTwin drives the wheel and a plain map of deadlines with the same
// random operations, over spans from one tick to hours.
func TestWheelAgainstTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var w Wheel
		start := r.Int64N(1 << 50)
		w.Init(start)
		now := start
		var log []firing
		owners := make([]*owner, 50)
		twin := map[int]int64{} // id -> tick
		for i := range owners {
			owners[i] = &owner{id: i, log: &log}
			owners[i].t.Owner = owners[i]
		}
		span := func() int64 { return r.Int64N(1 << (10 + r.IntN(36))) }
		for range 3000 {
			o := owners[r.IntN(len(owners))]
			switch r.IntN(4) {
			case 0, 1:
				when := now + span() - 1e6
				w.Set(&o.t, when)
				twin[o.id] = max((when+tickNS-1)/tickNS, now/tickNS+1)
			case 2:
				w.Clear(&o.t)
				delete(twin, o.id)
			case 3:
				now += span()
				if next, ok := w.Next(); ok {
					for id, tick := range twin {
						if tick*tickNS < next {
							t.Fatalf("seed %d: Next says %d, timer %d is due at %d", seed, next, id, tick*tickNS)
						}
					}
				} else if len(twin) != 0 {
					t.Fatalf("seed %d: Next says none, %d armed", seed, len(twin))
				}
				log = log[:0]
				w.Advance(now)
				last := int64(0)
				for _, f := range log {
					tick, ok := twin[f.id]
					if !ok || tick > now/tickNS || tick < last {
						t.Fatalf("seed %d: timer %d expired at %d, due %d (armed %v), after one due %d", seed, f.id, now/tickNS, tick, ok, last)
					}
					last = tick
					delete(twin, f.id)
				}
				for id, tick := range twin {
					if tick <= now/tickNS {
						t.Fatalf("seed %d: timer %d due %d has not expired at %d", seed, id, tick, now/tickNS)
					}
				}
			}
			for _, o := range owners {
				if _, ok := twin[o.id]; ok != o.t.Armed() {
					t.Fatalf("seed %d: timer %d armed %v, want %v", seed, o.id, o.t.Armed(), ok)
				}
			}
		}
	}
}

func TestWheelActsWhileAdvancing(t *testing.T) {
	var w Wheel
	w.Init(0)
	var log []firing
	a, b, c := &owner{id: 1, log: &log}, &owner{id: 2, log: &log}, &owner{id: 3, log: &log}
	for _, o := range []*owner{a, b, c} {
		o.t.Owner = o
		w.Set(&o.t, 5e6)
	}
	a.act = func() {
		w.Clear(&b.t)      // due in the same slot, not yet expired
		w.Set(&c.t, 100e6) // moved out of the same slot
		w.Set(&a.t, 5e6)   // the past: next tick
		a.act = nil
	}
	w.Advance(50e6)
	if len(log) != 2 || log[0].id != 1 || log[1].id != 1 {
		t.Fatalf("expired %v, want 1 and 1 again", log)
	}
	w.Advance(100e6)
	if len(log) != 3 || log[2].id != 3 {
		t.Fatalf("expired %v, want 3 last", log)
	}
}

func TestWheelBeyondHorizon(t *testing.T) {
	var w Wheel
	w.Init(7)
	var log []firing
	o := &owner{id: 1, log: &log}
	o.t.Owner = o
	w.Set(&o.t, 1<<62)
	w.Advance(1 << 40)
	if len(log) != 0 || !o.t.Armed() {
		t.Fatal("a far deadline expired early")
	}
}

func TestWheelAllocatesNothing(t *testing.T) {
	var w Wheel
	w.Init(0)
	log := make([]firing, 0, 1<<16)
	o := &owner{id: 1, log: &log}
	o.t.Owner = o
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		w.Set(&o.t, now+70e6)
		now += 80e6
		w.Advance(now)
	}); n != 0 {
		t.Fatalf("%v allocations per timer", n)
	}
}
