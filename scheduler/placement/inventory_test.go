package placement

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

const inventory = `{"nodes": [
  {"name": "n1", "site": "a", "capacity": {"milliCPU": 1000}},
  {"name": "n2", "capacity": {"pods": 4}}],
 "pods": [
  {"name": "x-1", "workload": {"namespace": "d", "name": "x"}, "node": "n2", "request": {"milliCPU": 10}},
  {"name": "y-1", "workload": {"namespace": "d", "name": "y"}, "request": {"memoryBytes": 5}},
  {"name": "x-2", "workload": {"namespace": "d", "name": "x"}, "node": "n1", "request": {}, "pinned": true}]}`

func TestInventoryProblem(t *testing.T) {
	inv, err := ReadInventory(strings.NewReader(inventory))
	if err != nil {
		t.Fatal(err)
	}
	x, y, gone := mesh.Workload{Namespace: "d", Name: "x"}, mesh.Workload{Namespace: "d", Name: "y"}, mesh.Workload{Namespace: "d", Name: "gone"}
	m := &traffic.Matrix{Edges: []traffic.Edge{
		{From: x, To: gone, Steady: traffic.Rates{RequestBytesPerS: 7}},
		{From: y, To: x, Recent: traffic.Rates{RequestBytesPerS: 1}, Steady: traffic.Rates{RequestBytesPerS: 2, ResponseBytesPerS: 3}},
	}}
	delays := &traffic.Measured{Nodes: map[string]string{"n2": "b"}, Sites: []string{"b", "a"}, OneWayMS: [][]float64{{0.1, 5}, {6, 0.1}}}
	p, at, outside, err := inv.Problem(m, traffic.Steady, delays)
	if err != nil {
		t.Fatal(err)
	}
	if at[0] != 1 || at[1] != Unplaced || at[2] != 0 || !p.Units[2].Pinned || outside != 7 {
		t.Errorf("places %v, units %+v, outside %v", at, p.Units, outside)
	}
	if p.Units[0].Service != p.Units[2].Service || len(p.Services) != 2 || len(p.Flows) != 1 || p.Flows[0] != (Flow{From: 1, To: 0, Forward: 2, Backward: 3}) {
		t.Errorf("services %v, flows %v", p.Services, p.Flows)
	}
	if p.Delays.MS(0, 1) != 6 || p.Delays.MS(1, 0) != 5 || p.Delays.Site(1) != "b" {
		t.Errorf("delays %v, %v", p.Delays.MS(0, 1), p.Delays.MS(1, 0))
	}
	if c := p.Capacity; c[0].MilliCPU != 1000 || c[0].Pods < 1e9 || c[1].Pods != 4 || c[1].MilliCPU < 1e9 {
		t.Errorf("capacity %+v", c)
	}
	if _, _, _, err := inv.Problem(&traffic.Matrix{Edges: m.Edges[:1]}, traffic.Steady, delays); err == nil || !strings.Contains(err.Error(), "d/x and the like") {
		t.Errorf("a matrix of others: %v", err)
	}
	delays.Nodes = nil
	if _, _, _, err := inv.Problem(m, traffic.Steady, delays); err == nil || !strings.Contains(err.Error(), `node n2: its site "" has no row`) {
		t.Errorf("a node nowhere: %v", err)
	}
}

func TestInventoryFaults(t *testing.T) {
	for _, k := range []struct{ old, new, want string }{
		{`"pinned": true}]`, `"pinned": true}`, "line 7: "},
		{`"milliCPU": 10}`, `"milliCPU": "10"}`, "pods[0]: json: cannot unmarshal string"},
		{`{"pods": 4}`, `{"pods": 4, "gpu": 1}`, `nodes[1]: json: unknown field "gpu"`},
		{`"pinned": true}]}`, `"pinned": true}]} {}`, "line 7: there is more"},
		{`"n2", "capacity"`, `"n1", "capacity"`, "node n1: it is there twice"},
		{`{"pods": 4}`, `{}`, "node n2: capacity is missing"},
		{`{"pods": 4}`, `{"pods": -4}`, "is negative"},
		{`"x-2"`, `"x-1"`, "pod x-1: it is there twice"},
		{`"name": "y"`, `"name": ""`, "pod y-1: workload needs"},
		{`"node": "n2"`, `"node": "n3"`, "pod x-1: node n3 is not among the nodes"},
		{`"node": "n1", `, ``, "pod x-2: it is pinned, but to no node"},
		{`"memoryBytes": 5`, `"memoryBytes": -5`, "pod y-1: request"},
		{`"memoryBytes": 5`, `"memoryBytes": 99999999999999999`, "pod y-1: request"},
	} {
		bad := strings.Replace(inventory, k.old, k.new, 1)
		if bad == inventory {
			t.Fatalf("%s is not in the inventory", k.old)
		}
		if _, err := ReadInventory(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s for %s: %v, want %s", k.new, k.old, err, k.want)
		}
	}
	if _, err := ReadInventory(strings.NewReader(`{}`)); err == nil || strings.Count(err.Error(), "there is none") != 2 {
		t.Errorf("nothing: %v, want both faults", err)
	}
}

// The prices are what the cost would be, and crossings add up to the traffic
// between sites.
func TestExplainAndCrossingsAgreeWithTheCost(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		p := random(t, rng, 12, 5, 0.6)
		at := make(Assignment, len(p.Units))
		for u := range at {
			at[u] = rng.IntN(5)
		}
		total, wire := 0.0, 0.0
		last := math.Inf(1)
		for _, c := range p.Crossings(at) {
			if c.BytesPerS > last {
				t.Errorf("%v after %v", c.BytesPerS, last)
			}
			last = c.BytesPerS
			total, wire = total+c.BytesPerS, wire+c.WireBytes
		}
		sites, _ := p.CrossBytesPerS(at)
		if math.Abs(total-sites) > 1e-6*(1+sites) || math.Abs(wire-p.Cost(at).WireBytes) > 1e-6*(1+wire) {
			t.Errorf("crossings %v and %v, want %v and %v", total, wire, sites, p.Cost(at).WireBytes)
		}
		u := rng.IntN(len(at))
		prices, _ := p.Explain(at, u, 100)
		moved := append(Assignment(nil), at...)
		moved[u] = Unplaced
		without := p.Cost(moved)
		for i, x := range prices {
			moved[u] = x.Node
			c := p.Cost(moved)
			if d := c.WireBytes - without.WireBytes; math.Abs(d-x.WireBytes) > 1e-6*(1+d) {
				t.Errorf("node %d: %v, want %v", x.Node, x.WireBytes, d)
			}
			if i > 0 && (x.WireBytes < prices[i-1].WireBytes || x.Points > prices[i-1].Points) {
				t.Errorf("node %d is not in order", x.Node)
			}
			use := p.Units[u].Request
			for v, n := range at {
				if v != u && n == x.Node {
					use = use.plus(p.Units[v].Request)
				}
			}
			if x.Fits != (over(use, p.Capacity[x.Node]) == 0) {
				t.Errorf("node %d: fits %v", x.Node, x.Fits)
			}
		}
	}
}
