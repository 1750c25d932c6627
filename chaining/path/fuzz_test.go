package path

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
)

// FuzzPlan plans random chains on random domains and changes them: whatever is
// planned and compiled is whole at each step, and what cannot be says why.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d, links, ins := randomDomain(rng)
		specs := randomSpecs(rng, d)
		var old *Plan
		for range 3 {
			n, err := NewNetwork(nil, links, ins)
			if err != nil {
				t.Fatal(err)
			}
			plan := Make(old, specs, n)
			for _, c := range plan.Chains {
				if (len(c.SPIs) == 0) != (c.Refused != "") && len(c.SPIs) == 0 {
					t.Fatalf("chain %s has no path and no reason", c.Chain)
				}
			}
			for _, v := range Changes(old, plan) {
				tables := map[string]*Table{}
				for _, node := range d.Nodes {
					table, err := Compile(&v, d, node.Name)
					if err != nil {
						t.Fatalf("%s: %v", v.Name, err)
					}
					tables[node.Name] = table
				}
				if faults := Verify(&v, tables); faults != nil {
					t.Fatalf("%s: %v", v.Name, faults)
				}
			}
			old = plan
			for i := range ins {
				ins[i].Down = rng.IntN(4) == 0
			}
		}
	})
}

func randomDomain(rng *rand.Rand) (*Domain, []Link, []Instance) {
	d := &Domain{}
	var links []Link
	var ins []Instance
	for i := range 2 + rng.IntN(5) {
		name := strconv.Itoa(i)
		d.Nodes = append(d.Nodes, Node{Name: name, Underlay: "under", UnderlayMTU: 1500, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}),
			Ingress: []IngressPort{{Interface: "edge", MTU: 1500}}})
		if i > 0 {
			links = append(links, Link{A: name, B: strconv.Itoa(rng.IntN(i)), LatencyMS: rng.Float64(), Mbps: 100})
		}
	}
	for i := range 12 {
		a := Attachment{Instance: "i" + strconv.Itoa(i), Function: functionNames[i%4], Node: strconv.Itoa(rng.IntN(len(d.Nodes))),
			Kind: Kind(1 + rng.IntN(3)), Left: "l" + strconv.Itoa(i), Right: "r" + strconv.Itoa(i), MTU: 1500}
		if a.Kind == KindPlain {
			a.State = []State{StateMAC, StateFlow}[rng.IntN(2)]
		}
		if a.Kind == KindGPE {
			a.Local, a.Address = netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), netip.AddrFrom4([4]byte{10, 0, byte(i), 2})
		}
		d.Attachments = append(d.Attachments, a)
		ins = append(ins, Instance{Name: a.Instance, Function: a.Function, Node: a.Node, Slots: 1, ServiceMS: 1 + rng.Float64()})
	}
	return d, links, ins
}

func randomSpecs(rng *rand.Rand, d *Domain) (specs []Spec) {
	node := func() string { return d.Nodes[rng.IntN(len(d.Nodes))].Name }
	for i := range 1 + rng.IntN(6) {
		fs := slices.Clone(functionNames[:4])
		rng.Shuffle(4, func(a, b int) { fs[a], fs[b] = fs[b], fs[a] })
		s := Spec{Chain: "c" + strconv.Itoa(i), Functions: fs[:1+rng.IntN(4)], Ingress: node(), Egress: node(), Paths: 1 + rng.IntN(3),
			PerS: 300 * rng.Float64(), Mbps: 30 * rng.Float64(), Symmetric: rng.IntN(2) == 0, Immediate: rng.IntN(2) == 0, Open: rng.IntN(2) == 0,
			Matches: []Match{{DstPorts: []Span{{uint16(i), uint16(i)}}}}}
		if rng.IntN(3) == 0 {
			s.OpenFunctions = s.Functions[:1]
		}
		if rng.IntN(3) == 0 {
			s.BudgetMS = 20 * rng.Float64()
		}
		if i > 0 && rng.IntN(3) == 0 {
			s.Branches = []Branch{{After: s.Functions[0], Match: Match{DstPorts: []Span{{9, 9}}}, Chain: "c" + strconv.Itoa(rng.IntN(i+1))}}
		}
		specs = append(specs, s)
	}
	return specs
}
