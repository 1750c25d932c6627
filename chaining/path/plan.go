package path

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// Match is one alternative of a chain's classifier, as a conjunction of lists; an
// empty list is any.
type Match struct {
	// Interfaces are ports of the ingress node.
	Interfaces []string
	Src, Dst   []Prefix
	SrcPorts   []Span
	DstPorts   []Span
	Protos     []uint8
	DSCPs      []uint8
}

// Spec is a chain to be planned.
type Spec struct {
	// Chain is "namespace/name".
	Chain     string
	Functions []string
	// Ingress is the node that classifies, Egress the one where plain packets go on.
	Ingress, Egress string
	// IngressPort and EgressPort are interfaces there by which packets leave at the
	// end of a path; "" leaves it to the kernel's routing.
	IngressPort, EgressPort string
	Matches                 []Match
	// Paths is over how many paths flows are spread at most; 0 is 1.
	Paths                int
	PerS, Mbps, BudgetMS float64
	Symmetric            bool
	// Open lets traffic pass unserved when there is no path; OpenFunctions are those
	// that may be left out alone.
	Open          bool
	OpenFunctions []string
	// ChangesTuple says that one of its functions is a NAT or the like: the way back
	// is then learned at the path's end only.
	ChangesTuple bool
	// Immediate moves flows at once when paths change, else they stay to their end.
	Immediate bool
	Branches  []Branch
	// Metadata is passed to functions that know NSH, see [NextHop]; "" is none.
	Metadata string
}

// Branch classifies a chain's packets again behind one of its functions.
type Branch struct {
	// After is the function, "" the path's beginning.
	After string
	Match Match
	// Chain is where matching packets go on.
	Chain string
}

// Path is a rendered service path of one direction.
type Path struct {
	Chain string
	SPI   uint32
	// Back is the SPI of the way back, 0 when there is none. Reversed is true for the
	// way back itself.
	Back     uint32
	Reversed bool
	Stops    []Stop
	// Ingress and Egress are the nodes at its ends, Port the interface at its end.
	Ingress, Egress, Port string
	// Weight is its share of flows.
	Weight    int
	LatencyMS float64
	PriceMS   float64
	// Metadata is the chain's, in both directions.
	Metadata string
}

// Stop is a place on a path: a function instance, or a branch.
type Stop struct {
	Function, Instance, Node string
	// Branches are set for a place where packets are classified again; nothing else
	// is then.
	Branches []Branch
}

// ReversedBit is set in the SPI of a way back, and only there: by it functions that
// know NSH tell the directions apart. The rest of the SPI is that of the way there.
const ReversedBit = 1 << 23

// SI is that of the path's i-th stop; the end is the stop past the last.
func SI(i int) uint8 { return uint8(nsh.FirstSI - i) }

// Chain is what the plan has for a chain.
type Chain struct {
	Spec
	SPIs []uint32
	// Refused says why there is no path, or fewer than wanted.
	Refused string
	// Bypassed are functions without a usable instance that were left out.
	Bypassed []string
}

// Plan is all paths of a domain.
type Plan struct {
	Generation uint64
	Chains     []Chain
	Paths      []Path
	// NextSPI is the next that was never used.
	NextSPI uint32
}

// Make plans chains on the network, which must be without earlier ones. A path
// that prev (nil at the start) had, of the same instances, keeps its SPI; others
// get SPIs that were never used, so that no packet under way is mistaken.
func Make(prev *Plan, specs []Spec, n *Network) *Plan {
	next := &Plan{Generation: 1, NextSPI: 1}
	kept := map[string]uint32{}
	if prev != nil {
		next.Generation, next.NextSPI = prev.Generation+1, prev.NextSPI
		for i := range prev.Paths {
			key := prev.Paths[i].key()
			if b := prev.Paths[i].Back; b != 0 {
				key += " / " + prev.Path(b).key()
			}
			kept[key] = prev.Paths[i].SPI
		}
	}
	m := &maker{plan: next, kept: kept, n: n}
	loops := branchLoops(specs)
	for _, s := range specs {
		c := Chain{Spec: s}
		if why := loops[s.Chain]; why != "" {
			c.Refused = why
		} else {
			m.chain(&c)
		}
		next.Chains = append(next.Chains, c)
	}
	return next
}

type maker struct {
	plan *Plan
	kept map[string]uint32
	n    *Network
}

func (m *maker) chain(c *Chain) {
	s := c.Spec
	var functions []string
	for _, f := range s.Functions {
		if slices.Contains(s.OpenFunctions, f) && !m.n.usable(f) {
			c.Bypassed = append(c.Bypassed, f)
			continue
		}
		functions = append(functions, f)
	}
	want := max(1, s.Paths)
	d := Demand{Name: s.Chain, Functions: functions, Ingress: s.Ingress, Egress: s.Egress,
		PerS: s.PerS / float64(want), Mbps: s.Mbps / float64(want), BudgetMS: s.BudgetMS, Symmetric: s.Symmetric}
	first := len(m.plan.Paths)
	for i := range want {
		p, err := m.place(d)
		if err != nil {
			c.Refused = err.Error()
			if i > 0 {
				c.Refused = fmt.Sprintf("%d of %d shares have a path: %v", i, want, err)
			}
			break
		}
		m.add(c, functions, p, first)
	}
}

// place is Network.Place, and the way without functions for a chain of which all
// are left out.
func (m *maker) place(d Demand) (*Placement, error) {
	if len(d.Functions) == 0 {
		return nil, fmt.Errorf("chain %s: all of its functions are left out", d.Name)
	}
	return m.n.Place(d)
}

func (n *Network) usable(function string) bool {
	return slices.ContainsFunc(n.of[function], func(i int) bool { return !n.instances[i].Down && !n.instances[i].Draining })
}

// add renders a placement, or adds its weight to the path that is the same.
func (m *maker) add(c *Chain, functions []string, pl *Placement, first int) {
	p := Path{Chain: c.Chain, Ingress: c.Ingress, Egress: c.Egress, Port: c.EgressPort, Weight: 1, LatencyMS: pl.LatencyMS, PriceMS: pl.PriceMS, Metadata: c.Metadata}
	p.Stops = append(p.Stops, branchStop(c.Branches, "", c.Ingress)...)
	for i, name := range pl.Instances {
		node := m.n.instances[pl.where[i]].Node
		p.Stops = append(p.Stops, Stop{Function: functions[i], Instance: name, Node: node})
		p.Stops = append(p.Stops, branchStop(c.Branches, functions[i], node)...)
	}
	for i := first; i < len(m.plan.Paths); i++ {
		if m.plan.Paths[i].key() == p.key() {
			m.plan.Paths[i].Weight++
			if b := m.plan.Paths[i].Back; b != 0 {
				m.plan.byBack(b).Weight++
			}
			return
		}
	}
	if !c.Symmetric {
		p.SPI = m.spi(p.key())
		c.SPIs = append(c.SPIs, p.SPI)
		m.plan.Paths = append(m.plan.Paths, p)
		return
	}
	back := Path{Chain: c.Chain, Reversed: true, Ingress: c.Egress, Egress: c.Ingress, Port: c.IngressPort, Weight: 1, LatencyMS: p.LatencyMS, PriceMS: p.PriceMS, Metadata: c.Metadata}
	for _, s := range slices.Backward(p.Stops) {
		if s.Branches == nil {
			back.Stops = append(back.Stops, s)
		}
	}
	p.SPI = m.spi(p.key() + " / " + back.key())
	back.SPI = p.SPI | ReversedBit
	c.SPIs = append(c.SPIs, p.SPI)
	p.Back, back.Back = back.SPI, p.SPI
	m.plan.Paths = append(m.plan.Paths, p, back)
}

func branchStop(bs []Branch, after, node string) []Stop {
	var at []Branch
	for _, b := range bs {
		if b.After == after {
			at = append(at, b)
		}
	}
	if at == nil {
		return nil
	}
	return []Stop{{Node: node, Branches: at}}
}

func (p *Plan) byBack(spi uint32) *Path {
	i := slices.IndexFunc(p.Paths, func(q Path) bool { return q.SPI == spi })
	return &p.Paths[i]
}

// Path is the path of an SPI, nil when there is none.
func (p *Plan) Path(spi uint32) *Path {
	for i := range p.Paths {
		if p.Paths[i].SPI == spi {
			return &p.Paths[i]
		}
	}
	return nil
}

// Find is the plan of a chain by "namespace/name", nil when there is none.
func (p *Plan) Find(chain string) *Chain {
	for i := range p.Chains {
		if p.Chains[i].Chain == chain {
			return &p.Chains[i]
		}
	}
	return nil
}

func (m *maker) spi(key string) uint32 {
	if spi, ok := m.kept[key]; ok {
		return spi
	}
	spi := m.plan.NextSPI
	m.plan.NextSPI++
	return spi
}

// key tells paths apart: two of the same key treat packets alike.
func (p *Path) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v %s %s %s", p.Chain, p.Reversed, p.Ingress, p.Egress, p.Port)
	for _, s := range p.Stops {
		fmt.Fprintf(&b, " %s@%s", s.Instance, s.Node)
		if s.Branches != nil {
			fmt.Fprintf(&b, "%v", s.Branches)
		}
	}
	if p.Metadata != "" {
		fmt.Fprintf(&b, " with %q", p.Metadata)
	}
	return b.String()
}

// branchLoops says of chains why their branches cannot be: a packet could go round
// for ever, or go nowhere.
func branchLoops(specs []Spec) map[string]string {
	to := map[string][]Branch{}
	known := map[string]bool{}
	for _, s := range specs {
		to[s.Chain], known[s.Chain] = s.Branches, true
	}
	out := map[string]string{}
	for _, s := range specs {
		for _, b := range s.Branches {
			if !known[b.Chain] {
				out[s.Chain] = fmt.Sprintf("chain %s: branches to %s, which is not there", s.Chain, b.Chain)
			}
			if b.After != "" && !slices.Contains(s.Functions, b.After) {
				out[s.Chain] = fmt.Sprintf("chain %s: branches after %s, which it does not have", s.Chain, b.After)
			}
		}
		var walk func(at string, way []string) bool
		walk = func(at string, way []string) bool {
			if slices.Contains(way, at) {
				out[s.Chain] = fmt.Sprintf("chain %s: branches lead round: %s", s.Chain, strings.Join(append(way, at), " -> "))
				return true
			}
			for _, b := range to[at] {
				if walk(b.Chain, append(way, at)) {
					return true
				}
			}
			return false
		}
		walk(s.Chain, nil)
	}
	return out
}

// BoundWeights lowers weights whose share of load is more than factor times their
// share of the weights (bounded load: Mirrokni et al. 2018, applied to the table,
// so that only new flows move). Weights and loads are by index; factor is above 1.
// The result has a scale of its own.
func BoundWeights(weights []int, load []float64, factor float64) []int {
	const scale = 100
	sumW, sumL := 0.0, 0.0
	for i, w := range weights {
		sumW += float64(w)
		sumL += load[i]
	}
	out := make([]int, len(weights))
	for i, w := range weights {
		out[i] = w * scale
		if w == 0 || sumL == 0 {
			continue
		}
		if over := load[i] / sumL / (factor * float64(w) / sumW); over > 1 {
			out[i] = max(1, int(float64(out[i])/over))
		}
	}
	return out
}
