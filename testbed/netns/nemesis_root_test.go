//go:build root

package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/testbed/link"
)

const registers = 3

// operation is a write to a register, or a read.
type operation struct {
	register, value int
	write           bool
}

// unknown is the answer to a write that failed: it may have happened, now or later.
const unknown = -1

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		out := make([][]porcupine.Operation, registers)
		for _, o := range history {
			r := o.Input.(operation).register
			out[r] = append(out[r], o)
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		in := input.(operation)
		if in.write {
			return true, in.value
		}
		return output.(int) == state.(int), state
	},
}

// history collects what clients did and saw.
type history struct {
	mu            sync.Mutex
	ops           []porcupine.Operation
	acked, failed atomic.Int64
}

func (h *history) add(o porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// told are the operations that say something. A write of unknown outcome whose value
// nobody ever read may have come after everything else, or never: without it the
// history is linearizable exactly when it is with it.
func (h *history) told() (out []porcupine.Operation) {
	read := map[[2]int]bool{}
	for _, o := range h.ops {
		if in := o.Input.(operation); !in.write {
			read[[2]int{in.register, o.Output.(int)}] = true
		}
	}
	for _, o := range h.ops {
		if in := o.Input.(operation); !in.write || o.Output.(int) != unknown || read[[2]int{in.register, in.value}] {
			out = append(out, o)
		}
	}
	return out
}

// read returns a register's value as the hub has it; 0 when it was never written.
func read(ctx context.Context, hub *site, register int) (int, error) {
	ctx, done := context.WithTimeout(ctx, 3*time.Second)
	defer done()
	o, err := hub.api.Get(ctx, siteapi.GetRequest{Kind: mesh.KindSite, Name: fmt.Sprintf("reg-%d", register)})
	if err != nil {
		return 0, err
	}
	if len(o.Objects) == 0 {
		return 0, nil
	}
	d := &mesh.Site{}
	if err := json.Unmarshal(o.Objects[0].Object, d); err != nil {
		return 0, err
	}
	return int(math.Round(d.Spec.Location.Lon * 1000)), nil
}

// client writes and reads at the hub until ctx ends.
func (h *history) client(ctx context.Context, hub *site, id int, next *atomic.Int64, rng *rand.Rand) {
	for ctx.Err() == nil {
		in := operation{register: rng.IntN(registers), write: rng.IntN(2) == 0}
		call := time.Now().UnixNano()
		if in.write {
			in.value = int(next.Add(1))
			// Not ctx: the end of the run must not look like a fault.
			err := apply(context.Background(), hub, register(fmt.Sprintf("reg-%d", in.register), in.value))
			o := porcupine.Operation{ClientId: id, Input: in, Call: call, Output: unknown, Return: math.MaxInt64}
			switch {
			case err == nil:
				o.Output, o.Return = in.value, time.Now().UnixNano()
				h.acked.Add(1)
				h.add(o)
			case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
				h.failed.Add(1) // nobody was there to hear it
			default:
				h.failed.Add(1)
				h.add(o)
			}
		} else if v, err := read(context.Background(), hub, in.register); err == nil {
			h.add(porcupine.Operation{ClientId: id, Input: in, Call: call, Output: v, Return: time.Now().UnixNano()})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(20+rng.IntN(80)) * time.Millisecond):
		}
	}
}

// watch records when a proxy serves a lower generation than before, restarts
// included.
func watch(ctx context.Context, t *testing.T, s *site, looks *atomic.Int64) {
	var high mesh.Generation
	for ctx.Err() == nil {
		if g, _, err := s.applied(); err == nil {
			looks.Add(1)
			if g.Compare(high) < 0 {
				t.Errorf("%s went from generation %s to %s", s.name, high, g)
			}
			high = g
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fault breaks something, waits and mends it.
type fault struct {
	name string
	do   func(wait func(least, most float64))
}

// TestRootNemesis breaks things for a while, one after another, and checks three
// promises: every acknowledged change of the configuration is there, as if there
// were one copy of it (porcupine); no proxy ever serves a lower generation than
// before; after the last heal all sites serve what the hub has.
// MERIDIAN_NEMESIS_SECONDS sets how long; MERIDIAN_NEMESIS_SEED repeats a run.
func TestRootNemesis(t *testing.T) {
	length := time.Duration(setting(t, "MERIDIAN_NEMESIS_SECONDS", 60)) * time.Second
	seed := uint64(setting(t, "MERIDIAN_NEMESIS_SEED", int(time.Now().UnixNano()%1e6)))
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	n := New(t, seed, link.Shape{Delay: 3 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.005}, "hub", "a", "b")
	bin, err := clocked()
	if err != nil {
		t.Fatal(err)
	}
	sites := newMeshOf(t, n, bin)
	hub := sites[0]

	// The hub's folder moves to a disk of its own.
	hub.signal(controllerRole, syscall.SIGKILL)
	disk := mountDisk(t, filepath.Join(filepath.Dir(hub.dir), "disk"), 64)
	moved := filepath.Join(disk.point, "c")
	disk.run("cp", "-a", hub.dir, moved)
	disk.run("rm", "-rf", hub.dir)
	if err := os.Symlink(moved, hub.dir); err != nil {
		t.Fatal(err)
	}
	hub.startController()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var h history
	var next, looks atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { h.client(ctx, hub, i, &next, rand.New(rand.NewPCG(seed, uint64(10+i)))) })
	}
	for _, s := range sites {
		wg.Go(func() { watch(ctx, t, s, &looks) })
	}

	wait := func(least, most float64) {
		time.Sleep(time.Duration((least + rng.Float64()*(most-least)) * float64(time.Second)))
	}
	// mend is what supervisors do: whatever ended is started again.
	mend := func() {
		for _, s := range sites {
			for role, start := range map[string]func(){controllerRole: func() { s.startController() }, proxyRole: s.startProxy} {
				if p := s.procs[role]; p != nil {
					select {
					case <-p.done:
						delete(s.procs, role)
					default:
						continue
					}
				}
				start()
			}
		}
	}
	any := func() *site { return sites[rng.IntN(len(sites))] }
	leaf := func() *site { return sites[1+rng.IntN(len(sites)-1)] }
	faults := []fault{
		{"kill -9 of the hub's controller", func(wait func(least, most float64)) {
			hub.signal(controllerRole, syscall.SIGKILL)
			wait(0, 2)
		}},
		{"kill -9 of a controller", func(wait func(least, most float64)) {
			leaf().signal(controllerRole, syscall.SIGKILL)
			wait(0, 2)
		}},
		{"kill -9 of a proxy", func(wait func(least, most float64)) {
			any().signal(proxyRole, syscall.SIGKILL)
			wait(0, 1)
		}},
		{"kill -9 of everything", func(wait func(least, most float64)) {
			for _, s := range sites {
				s.signal(controllerRole, syscall.SIGKILL)
				s.signal(proxyRole, syscall.SIGKILL)
			}
			wait(0, 1)
		}},
		{"stop of a controller", func(wait func(least, most float64)) {
			s := any()
			s.signal(controllerRole, syscall.SIGSTOP)
			wait(1, 8)
			s.signal(controllerRole, syscall.SIGCONT)
		}},
		{"partition", func(wait func(least, most float64)) {
			s := any()
			s.Partition(true)
			wait(1, 10)
			s.Partition(false)
		}},
		{"partition in one direction", func(wait func(least, most float64)) {
			a, b := hub, leaf()
			if rng.IntN(2) == 0 {
				a, b = b, a
			}
			a.CutTo(b.Place, true)
			wait(1, 8)
			a.CutTo(b.Place, false)
		}},
		{"full disk at the hub", func(wait func(least, most float64)) {
			disk.fill()
			wait(1, 5)
			disk.clear()
		}},
		{"power loss at the hub", func(wait func(least, most float64)) {
			disk.cutPower()
			hub.signal(controllerRole, syscall.SIGKILL)
			disk.boot()
			wait(0, 1)
		}},
		{"a jump of the clock at a site", func(wait func(least, most float64)) {
			// Seconds to hours, forward or back, and right again: as from a machine
			// whose battery is empty and a time server that comes late.
			s := any()
			by := time.Duration(math.Exp(rng.Float64()*math.Log(7200))) * time.Second
			if rng.IntN(2) == 0 {
				by = -by
			}
			s.jumpClock(t, by)
			wait(1, 8)
			s.jumpClock(t, 0)
		}},
		{"a flipped byte in a site's store", func(wait func(least, most float64)) {
			s := leaf()
			s.signal(controllerRole, syscall.SIGKILL)
			flip(t, s, rng)
		}},
	}
	counts := map[string]int{}
	begin := time.Now()
	for i := 0; time.Since(begin) < length; i++ {
		// Each once, then at random.
		f := faults[i%len(faults)]
		if i >= len(faults) {
			f = faults[rng.IntN(len(faults))]
		}
		counts[f.name]++
		f.do(wait)
		mend()
		wait(0.5, 3)
		mend()
	}
	healed := time.Now()
	mend()
	// The last words: what every register says now, and the same everywhere.
	applySoon(t, hub, register("healed", 1))
	stop()
	wg.Wait()
	want := map[string]float64{"healed": longitude(1)}
	for r := range registers {
		call := time.Now().UnixNano()
		var v int
		within(t, 10*time.Second, "the hub to answer", func() (ok bool) {
			var err error
			v, err = read(t.Context(), hub, r)
			return err == nil
		})
		h.add(porcupine.Operation{ClientId: 99, Input: operation{register: r}, Call: call, Output: v, Return: time.Now().UnixNano()})
		if v != 0 {
			want[fmt.Sprintf("reg-%d", r)] = longitude(v)
		}
	}
	for _, s := range sites {
		var last string
		ok := func() bool {
			g, have, err := s.applied()
			last = fmt.Sprint(g, have, err)
			for name, value := range want {
				if err != nil || have[name] != value {
					return false
				}
			}
			return true
		}
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not equal 30s after the heal: serves %s, want %v", s.name, last, want)
			}
		}
	}
	t.Logf("%s of faults: %v", length, counts)
	t.Logf("%d changes acknowledged, %d failed, %d operations, %d looks at proxies; all sites equal %s after the heal",
		h.acked.Load(), h.failed.Load(), len(h.ops), looks.Load(), time.Since(healed).Round(10*time.Millisecond))
	switch porcupine.CheckOperationsTimeout(model, h.told(), 2*time.Minute) {
	case porcupine.Illegal:
		t.Error("the history of the configuration is not linearizable: an acknowledged change was lost or came out of order")
	case porcupine.Unknown:
		t.Error("porcupine did not finish: nothing is known of the history")
	}
	if h.acked.Load() < int64(length/time.Second) || looks.Load() < int64(length/time.Second) {
		t.Error("too little happened for a verdict")
	}
}

// flip changes one byte in the largest block of a site's copy of the hub's bucket.
func flip(t *testing.T, s *site, rng *rand.Rand) {
	blocks, err := filepath.Glob(filepath.Join(s.dir, "nats", "jetstream", "$G", "streams", "KV_cfg_hub", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Errorf("%s has no block of the hub's bucket: %v", s.name, err)
		return
	}
	path := blocks[rng.IntN(len(blocks))]
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		data[rng.IntN(len(data))] ^= 0xff
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestRootCheckers shows that the checkers find what they are for.
func TestRootCheckers(t *testing.T) {
	op := func(client int, in operation, out int, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: ret}
	}
	w := func(v int) operation { return operation{value: v, write: true} }
	good := []porcupine.Operation{
		op(0, w(1), 1, 0, 10), op(1, operation{}, 1, 11, 12),
		op(0, w(2), unknown, 20, math.MaxInt64), op(1, operation{}, 1, 21, 22), op(1, operation{}, 2, 30, 31),
	}
	if !porcupine.CheckOperations(model, good) {
		t.Error("a good history is refused")
	}
	lost := append(append([]porcupine.Operation{}, good...), op(0, w(3), 3, 40, 50), op(1, operation{}, 2, 60, 61))
	if porcupine.CheckOperations(model, lost) {
		t.Error("a lost write is not found")
	}
	// What told leaves out is what says nothing, and no more.
	h := history{ops: append(lost, op(2, w(9), unknown, 41, math.MaxInt64))}
	if got := h.told(); len(got) != len(lost) || porcupine.CheckOperations(model, got) {
		t.Errorf("of %d operations %d are told", len(h.ops), len(got))
	}
}
