package edgeproxy

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// ticking runs a pulse and counts its ticks, each of which is as busy as it says.
func ticking(t *testing.T, watch *loop.Watch, woken chan struct{}, busy *atomic.Bool, ticked func(since time.Duration)) {
	p := newPulse(watch, woken)
	last := time.Now()
	end := make(chan struct{})
	t.Cleanup(func() { close(end); p.stop() })
	go func() {
		for {
			select {
			case <-end:
				return
			case <-woken:
				p.wake()
			case at := <-p.timer.C:
				ticked(at.Sub(last))
				last = at
				p.ticked(at, busy.Load())
			}
		}
	}()
}

// TestPulse has a pulse rest after two seconds without news, and be back at ten ticks
// a second, the first at once, when it is woken.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		var n atomic.Int64
		least := time.Hour
		woken := make(chan struct{}, 1)
		ticking(t, new(loop.Watch), woken, &busy, func(since time.Duration) { n.Add(1); least = min(least, since) })
		in := func(d time.Duration) int64 {
			was := n.Load()
			time.Sleep(d)
			synctest.Wait()
			return n.Load() - was
		}
		busy.Store(true)
		if got := in(5 * time.Second); got != 50 {
			t.Errorf("busy: %d ticks in 5 s", got)
		}
		busy.Store(false)
		in(3 * time.Second)
		if got := in(10 * time.Second); got != 20 {
			t.Errorf("at rest: %d ticks in 10 s, want one each 500 ms", got)
		}
		time.Sleep(123 * time.Millisecond)
		woken <- struct{}{}
		if got := in(0); got != 1 {
			t.Errorf("%d ticks at once when it is woken", got)
		}
		if got := in(time.Second); got != 10 {
			t.Errorf("awake: %d ticks in the first second", got)
		}
		in(3 * time.Second)
		for was := n.Load(); n.Load() == was; {
			in(time.Millisecond)
		}
		in(30 * time.Millisecond)
		woken <- struct{}{}
		if got := in(60 * time.Millisecond); got != 0 {
			t.Errorf("%d ticks within 100 ms of the one before", got)
		}
		if got := in(20 * time.Millisecond); got != 1 {
			t.Errorf("%d ticks 100 ms after the one before", got)
		}
		if least < tickEvery {
			t.Errorf("two ticks within %v", least)
		}
		// Woken while it is awake, it keeps its pace.
		for range 10 {
			woken <- struct{}{}
			if got := in(tickEvery); got != 1 {
				t.Errorf("%d ticks in 100 ms", got)
			}
		}
		// What a slow tick itself finds brings the pace back too.
		in(3 * time.Second)
		busy.Store(true)
		in(500 * time.Millisecond)
		if got := in(time.Second); got != 10 {
			t.Errorf("after a slow tick found news: %d ticks in a second", got)
		}
	})
}

// TestPulseWithoutWatch has one that nobody would wake tick on.
func TestPulseWithoutWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		ticking(t, nil, make(chan struct{}, 1), new(atomic.Bool), func(time.Duration) { n.Add(1) })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := n.Load(); got != 100 {
			t.Errorf("%d ticks in 10 s", got)
		}
	})
}

// TestHealthIsBusy has health ask for the full pace while an endpoint works, is out or
// warms up, and for no more afterwards.
func TestHealthIsBusy(t *testing.T) {
	policy := mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{SlowStart: &mesh.SlowStart{Window: mesh.Duration(3 * time.Second)}}}
	v, err := view.Build(&mesh.Snapshot{Objects: with(toOne("10.0.0.1:1", "10.0.0.2:1"), policy)}, view.Deps{Registry: upstream.NewRegistry(1), Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	h, now := newHealth(slog.New(slog.DiscardHandler)), loop.Now()
	e := v.Services["default/echo"].Home[0]
	tick := func() bool { now += int64(tickEvery); return h.tick(now, v) }
	tick()
	if tick() {
		t.Fatal("busy at rest")
	}
	e.InFlight.Add(1)
	if !tick() {
		t.Error("at rest with a request in flight")
	}
	e.InFlight.Add(-1)
	e.Cells[0].Bad.Add(uint64(outlier.DefaultConfig.Failures))
	if !tick() {
		t.Error("at rest after failures")
	}
	ticks := 0
	for ; tick() && ticks < 1000; ticks++ {
	}
	// Out for 10 s, then warming up for 3.
	if ticks < 125 || ticks > 135 {
		t.Errorf("busy for %d ticks after an ejection", ticks)
	}
}

// TestCooperationRests has a node of a site alone plan twice a second while nobody asks for
// anything, still report as often as its controller wants to hear of it, and plan ten
// times a second again from the first request on.
func TestCooperationRests(t *testing.T) {
	reports := make(chan mesh.NodeReport, 1024)
	c := NewCooperation(CooperationConfig{Site: "here", Node: "n", Log: slog.New(slog.DiscardHandler), Publish: func(r *mesh.NodeReport) error {
		reports <- *r
		return nil
	}})
	o := toOne(fixedBackend(t))
	o.Services[0].Spec.Export = &mesh.Export{Scope: mesh.ScopeMesh}
	o.Services[0].Spec.Endpoints[0].Capacity = &mesh.Capacity{Concurrency: 4, ServiceTime: mesh.Duration(time.Millisecond)}
	p := startProxy(t, Config{Site: "here"}, Deps{Sharing: c}, mesh.Objects{})
	if err := c.Configure(&mesh.Snapshot{Site: "here", Objects: o}, func() error { p.apply(o); return nil }); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Run(t.Context(), p.Server) }()
	// A report's number is that of its tick.
	next := func() mesh.NodeReport {
		select {
		case r := <-reports:
			return r
		case <-time.After(10 * time.Second):
			t.Fatal("the node is silent")
			panic("unreachable")
		}
	}
	for was, inARow, n := uint64(0), 0, 0; inARow < 2; n++ {
		if n == 40 {
			t.Fatal("it plans more often than it reports")
		}
		r := next()
		if inARow++; r.Seq != was+1 {
			inARow = 0
		}
		was = r.Seq
	}
	if !p.watch.Armed() {
		t.Fatal("nobody would wake it")
	}
	if _, err := fetchStatus(p.addr("http").String()); err != nil {
		t.Fatal(err)
	}
	await(t, "waking", func() bool { return !p.watch.Armed() })
	// Some ticks find the request and report it; the others report every fifth.
	woken := next().Seq
	for n := 1; next().Seq-woken < restAfter/2; n++ {
		if n == 8 {
			t.Fatal("it is not back at ten ticks a second")
		}
	}
}
