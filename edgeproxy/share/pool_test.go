package share

import (
	"math"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

const (
	video = mesh.ServiceKey("default/video")
	local = mesh.ServiceKey("default/local")
)

// Three services on one machine of 4 slots: what the others do there is load to each,
// by the time that theirs take, whether they are shared with other sites or not.
func TestNode_pool(t *testing.T) {
	run := func(mates ...mesh.ServiceKey) (Output, *Node) {
		n := NewNode(Identity{Site: "a", Node: "edge-a", Epoch: 7}, new(price.Curves), new(Ledger))
		err := n.Configure([]Service{{Key: echo, DeclaredMS: 10}, {Key: video, DeclaredMS: 20}}, []Peer{{Site: "b", RTTMS: 5}})
		if err != nil {
			t.Fatal(err)
		}
		others := func(self mesh.ServiceKey) []mesh.ServiceKey {
			var out []mesh.ServiceKey
			for _, m := range mates {
				if m != self {
					out = append(out, m)
				}
			}
			return out
		}
		now := int64(1e9)
		var out Output
		// 50 requests/s of 10 ms, 100 of 20 ms and 200 of 5 ms: 0.5, 2 and 1 slots.
		count := func(i uint64, perTick, ms float64, self mesh.ServiceKey, inFlight int) *Counters {
			done := uint64(float64(i) * perTick)
			return &Counters{Demand: done, Served: done, Completed: done, FreeStarts: done, Unqueued: done,
				UnqueuedMS: float64(done) * ms, UnqueuedSqMS: float64(done) * 2 * ms * ms,
				InFlight: inFlight, Slots: 4, Up: true, Mates: others(self), DeclaredMS: ms}
		}
		for i := range uint64(100) {
			now += 100e6
			n.Hear(now, heard("b", i+1))
			out = n.Tick(now, map[mesh.ServiceKey]*Counters{
				echo: count(i, 5, 10, echo, 1), video: count(i, 10, 20, video, 2), local: count(i, 20, 5, local, 1),
			})
		}
		return out, n
	}
	alone, _ := run()
	together, n := run(echo, video, local)
	of := func(o Output, i int) *mesh.NodeServiceReport { return &o.Report.Services[i] }
	if r := of(alone, 0); math.Abs(r.Arrivals-50) > 1 || r.InFlight != 1 || r.PoolPerS != 0 {
		t.Errorf("alone: %+v", r)
	}
	// 100 of 20 ms are 200 of 10 ms, and 200 of 5 ms are 100 of 10.
	if r := of(together, 0); math.Abs(r.PoolPerS-300) > 6 || math.Abs(r.Arrivals-350) > 7 || r.InFlight != 4 || math.Abs(r.Demand-50) > 1 {
		t.Errorf("together: %+v", r)
	}
	if r := of(together, 1); math.Abs(r.PoolPerS-75) > 3 || r.InFlight != 4 {
		t.Errorf("together: %+v", r)
	}
	before, after := alone.Shares[0].Weights, together.Shares[0].Weights
	if !(after.HomePriceMS > 1.5*before.HomePriceMS) || !(after.HomeLimit < before.HomeLimit) {
		t.Errorf("a full machine: price %v ms, limit %d; alone %v ms, limit %d", after.HomePriceMS, after.HomeLimit, before.HomePriceMS, before.HomeLimit)
	}
	if len(n.mates) != 1 || n.mates[local] == nil {
		t.Errorf("mates that are not shared: %v", n.mates)
	}
}
