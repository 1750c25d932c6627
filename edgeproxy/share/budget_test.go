package share

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

// TestSpentLink picks under every policy: nothing begins over a link whose budget is
// spent, not even as the last resort, and what is left goes elsewhere.
func TestSpentLink(t *testing.T) {
	for _, policy := range []string{mesh.SharingCooperative, mesh.SharingNone, mesh.SharingRoundRobin, mesh.SharingWeightedRoundRobin, Pinned} {
		w := someplan(3)
		if w.Pinned = policy == Pinned; w.Pinned {
			policy = ""
		}
		ledger := new(Ledger)
		g, err := Compile(policy, w, ledger)
		if err != nil {
			t.Fatal(err)
		}
		m := ledger.Meter("s01")
		m.Bound(1000)
		rnd := rand.New(rand.NewPCG(1, 2))
		count := func(inFlight int) map[int]int {
			got := map[int]int{}
			for range 500 {
				got[g.Pick(1e9, inFlight, rnd.Uint64(), 0)]++
			}
			return got
		}
		if got := count(9); g.Policy() != mesh.SharingNone && got[1] == 0 {
			t.Errorf("%s: below the bound nothing goes there: %v", g.Policy(), got)
		}
		m.Add(1000)
		for _, inFlight := range []int{0, 9, 1000, NoHome} {
			if got := count(inFlight); got[1] != 0 {
				t.Errorf("%s, %d in flight: %d of 500 go over the link that is spent", g.Policy(), inFlight, got[1])
			}
		}
		ledger.Meter("s00").Bound(0)
		ledger.Meter("s02").Bound(0)
		if got := count(NoHome); got[None] != 500 {
			t.Errorf("%s: with every link spent %v", g.Policy(), got)
		}
		if e := g.Explain(1e9, 0, 9, 0); policy == mesh.SharingCooperative && !strings.Contains(e[2].Why, "budget") {
			t.Errorf("explained as %q", e[2].Why)
		}
		m.Unbound()
		if got := count(NoHome); got[1] != 500 {
			t.Errorf("%s: with one link open again %v", g.Policy(), got)
		}
	}
}

// TestNodeBudget follows a node from its start: closed until something is granted, and
// what is meant for a process before it is not taken.
func TestNodeBudget(t *testing.T) {
	n := NewNode(Identity{Site: "a", Node: "edge-a", Epoch: 7}, new(price.Curves), new(Ledger))
	configure := func(budget bool) {
		t.Helper()
		if err := n.Configure([]Service{{Key: echo, DeclaredMS: 10}}, []Peer{{Site: "b", RTTMS: 5, PriceMS: 1, Budget: budget}}); err != nil {
			t.Fatal(err)
		}
	}
	configure(true)
	now, demand := int64(1e9), uint64(0)
	tick := func() (mesh.RemoteWeight, mesh.LinkReport) {
		now, demand = now+500e6, demand+50
		n.Hear(now, heard("b", demand))
		out := n.Tick(now, count(demand))
		return out.Shares[0].Weights.Remotes[0], out.Report.Links[0]
	}
	if r, _ := tick(); !strings.Contains(r.Excluded, "has not said yet") {
		t.Errorf("before anything is granted: %+v", r)
	}
	grant := func(epoch, serial, most uint64, priceMS float64) {
		n.SetLinks([]mesh.LinkState{{Site: "b", PriceMS: priceMS, Grants: map[string]mesh.LinkGrant{"edge-a": {Epoch: epoch, Serial: serial, Most: most}}}})
	}
	grant(6, 1, 1e9, 0)
	if r, l := tick(); r.Excluded == "" || l.Grant != nil {
		t.Errorf("with a part of the process before: %+v, %+v", r, l)
	}
	grant(7, 2, 1000, 0)
	cheap, l := tick()
	if cheap.Excluded != "" || l.Grant == nil || l.Grant.Serial != 2 {
		t.Errorf("with a part: %+v, %+v", cheap, l)
	}
	n.ledger.Meter("b").Add(600)
	grant(7, 2, 1000, 30)
	if dear, l := tick(); dear.PriceMS < cheap.PriceMS+25 || l.Carried != 600 {
		t.Errorf("as the budget runs out the price goes from %g to %g ms; reported %+v", cheap.PriceMS, dear.PriceMS, l)
	}
	n.ledger.Meter("b").Add(400)
	if r, _ := tick(); r.Excluded != spentText {
		t.Errorf("at the end: %+v", r)
	}
	configure(false)
	if r, _ := tick(); r.Excluded != "" {
		t.Errorf("without a budget: %+v", r)
	}
	configure(true)
	if r, _ := tick(); !strings.Contains(r.Excluded, "has not said yet") {
		t.Errorf("with a new budget: %+v", r)
	}
}
