package path

import (
	"fmt"
	"slices"
)

// Verify walks every path of a view through the tables of all nodes, by node name,
// as a packet would, and returns what is wrong: a hop that leads nowhere, an SI
// that runs out, a loop, an end at the wrong node. A view with faults must not be
// put in force.
func Verify(v *View, tables map[string]*Table) []error {
	var faults []error
	seen := map[uint32]bool{}
	for _, list := range [][]Path{v.Plan.Paths, v.AlsoHops, v.AlsoLive} {
		for i := range list {
			if !seen[list[i].SPI] {
				seen[list[i].SPI] = true
				if err := walk(&list[i], tables); err != nil {
					faults = append(faults, err)
				}
			}
		}
	}
	for _, t := range tables {
		for i := range t.Classes {
			for _, spi := range t.Classes[i].Spread {
				if !seen[spi] {
					faults = append(faults, fmt.Errorf("node %s: class %s leads to path %d, which is not in the plan", t.Node, t.Classes[i].Chain, spi))
					break
				}
			}
		}
	}
	return faults
}

func walk(p *Path, tables map[string]*Table) error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("chain %s, path %d: %s", p.Chain, p.SPI, fmt.Sprintf(format, args...))
	}
	hop, node := Hop{p.SPI, 255}, p.Ingress
	var passed []string
	type place struct {
		node string
		hop  Hop
	}
	seen := map[place]bool{}
	for {
		if at := (place{node, hop}); seen[at] {
			return fault("loop at node %s, SI %d", node, hop.SI)
		} else {
			seen[at] = true
		}
		t := tables[node]
		if t == nil {
			return fault("node %s has no table", node)
		}
		next, ok := t.Hops[hop]
		if !ok {
			return fault("dangling: node %s has no hop for SI %d after %v", node, hop.SI, passed)
		}
		switch next.Kind {
		case KindEnd:
			return p.arrived(node, passed, fault)
		case KindNode:
			to, ok := nodeByAddress(tables, next)
			if !ok {
				return fault("node %s sends SI %d to %v, where no node of the domain listens", node, hop.SI, next.Remote)
			}
			node = to
			continue
		case KindPlain, KindGPE, KindEther:
			if int(next.Function) >= len(t.Functions) {
				return fault("node %s: SI %d names function %d of %d", node, hop.SI, next.Function, len(t.Functions))
			}
			passed = append(passed, t.Functions[next.Function].Instance)
		case KindBranch:
		default:
			return fault("node %s: SI %d has kind %d", node, hop.SI, next.Kind)
		}
		if hop.SI == 0 {
			return fault("SI runs out at node %s after %v", node, passed)
		}
		hop.SI--
	}
}

func (p *Path) arrived(node string, passed []string, fault func(string, ...any) error) error {
	if node != p.Egress {
		return fault("ends at node %s instead of %s", node, p.Egress)
	}
	var want []string
	for _, s := range p.Stops {
		if s.Branches == nil {
			want = append(want, s.Instance)
		}
	}
	if !slices.Equal(passed, want) {
		return fault("passes %v instead of %v", passed, want)
	}
	return nil
}

func nodeByAddress(tables map[string]*Table, h NextHop) (string, bool) {
	for name, t := range tables {
		for _, p := range t.Ports {
			if p.Role == RoleUnderlay && p.Border == h.Border && (p.Address == h.Remote || p.Address6 == h.Remote) {
				return name, true
			}
		}
	}
	return "", false
}
