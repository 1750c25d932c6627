package agent

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// An instance without a declared capacity is taken for one that works on this many
// packets at once, each for so long: a function in a kernel.
const (
	assumedSlots     = 1
	assumedServiceMS = 0.02
)

// makePlan plans all chains of the documents. down names instances that must not be
// used. The plan is the same on every node that has the same documents and knows
// the same instances down, SPIs included.
func makePlan(o *mesh.Objects, down map[string]bool) (*path.Plan, error) {
	var nodes []string
	var links []path.Link
	known := map[string]bool{}
	for _, n := range o.ChainNodes {
		nodes = append(nodes, n.Metadata.Name)
		known[n.Metadata.Name] = true
		for _, l := range n.Spec.Links {
			links = append(links, path.Link{A: n.Metadata.Name, B: l.To, LatencyMS: l.RTT.D().Seconds() * 1000 / 2, Mbps: l.Mbps})
		}
	}
	// Nodes that say nothing of each other are one fast network.
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			if !slices.ContainsFunc(links, func(l path.Link) bool { return l.A == a && l.B == b || l.A == b && l.B == a }) {
				links = append(links, path.Link{A: a, B: b, LatencyMS: 0.1})
			}
		}
	}
	var instances []path.Instance
	open, changes := map[string]bool{}, map[string]bool{}
	nodesByName := map[string]*mesh.ChainNode{}
	for _, n := range o.ChainNodes {
		nodesByName[n.Metadata.Name] = n
	}
	for _, f := range o.NetworkFunctions {
		name := fullName(f.Metadata)
		open[name], changes[name] = f.Spec.Failure == mesh.FailOpen, f.Spec.ChangesTuple
		slots, serviceMS := float64(assumedSlots), assumedServiceMS
		if c := f.Spec.Capacity; c != nil {
			slots, serviceMS = float64(c.Concurrency), c.ServiceTime.D().Seconds()*1000
		}
		for _, in := range f.Spec.Instances {
			instances = append(instances, path.Instance{
				Name: in.Name, Function: name, Node: in.Node, Slots: slots, ServiceMS: serviceMS,
				Down: down[in.Name], Draining: in.Drain,
			})
		}
	}
	n, err := path.NewNetwork(nodes, links, instances)
	if err != nil {
		return nil, err
	}
	var specs []path.Spec
	for _, c := range o.ServiceChains {
		s, err := specOf(c, nodesByName)
		if err != nil {
			return nil, fmt.Errorf("ServiceChain %s: %w", fullName(c.Metadata), err)
		}
		for _, f := range s.Functions {
			if open[f] {
				s.OpenFunctions = append(s.OpenFunctions, f)
			}
			s.ChangesTuple = s.ChangesTuple || changes[f]
		}
		specs = append(specs, s)
	}
	// Chains of requirements stay before the chain that they are made from, as OfPackets
	// has them.
	slices.SortStableFunc(specs, func(a, b path.Spec) int {
		return cmp.Compare(mesh.ChainOfRequirement(a.Chain), mesh.ChainOfRequirement(b.Chain))
	})
	p := path.Make(nil, specs, n)
	if err := nameByContent(p); err != nil {
		return nil, err
	}
	return p, nil
}

func fullName(m mesh.ObjectMeta) string { return m.Namespace + "/" + m.Name }

func specOf(c *mesh.ServiceChain, nodes map[string]*mesh.ChainNode) (path.Spec, error) {
	s := path.Spec{
		Chain: fullName(c.Metadata), Ingress: c.Spec.Ingress.Node, Egress: c.Spec.Egress.Node,
		IngressPort: c.Spec.Ingress.Interface, EgressPort: c.Spec.Egress.Interface, Paths: c.Spec.Paths,
		Symmetric: c.Spec.Symmetric == nil || *c.Spec.Symmetric, Open: c.Spec.Failure == mesh.FailOpen,
		Immediate: c.Spec.Update == mesh.UpdateImmediate, Metadata: c.SfcMetadata(),
	}
	for _, f := range c.Spec.Functions {
		s.Functions = append(s.Functions, c.Metadata.Namespace+"/"+f)
	}
	if d := c.Spec.Demand; d != nil {
		s.PerS, s.Mbps = d.PacketsPerSecond, d.Mbps
	}
	if c.Spec.Budget != nil {
		s.BudgetMS = c.Spec.Budget.D().Seconds() * 1000
	}
	for i, m := range c.Spec.Match {
		out, err := matchesOf(&m, nodes[c.Spec.Ingress.Node], true)
		if err != nil {
			return s, fmt.Errorf("match[%d]: %w", i, err)
		}
		s.Matches = append(s.Matches, out...)
	}
	for i, b := range c.Spec.Branches {
		out, err := matchesOf(&b.Match, nodes[c.Spec.Ingress.Node], false)
		if err != nil {
			return s, fmt.Errorf("branches[%d].match: %w", i, err)
		}
		after := b.After
		if after != "" {
			after = c.Metadata.Namespace + "/" + after
		}
		for _, m := range out {
			s.Branches = append(s.Branches, path.Branch{After: after, Match: m, Chain: c.Metadata.Namespace + "/" + b.Chain})
		}
	}
	return s, nil
}

var protocols = map[string]uint8{"tcp": flow.ProtoTCP, "udp": flow.ProtoUDP, "sctp": flow.ProtoSCTP, "icmp": flow.ProtoICMP, "icmp6": flow.ProtoICMPv6}

func matchOf(m *mesh.ChainMatch) (out path.Match, err error) {
	out.Interfaces = m.Interfaces
	prefixes := func(list []string) (ps []netip.Prefix) {
		for _, s := range list {
			p, perr := netip.ParsePrefix(s)
			if perr != nil {
				err = perr
			}
			ps = append(ps, p)
		}
		return ps
	}
	spans := func(list []string) (ss []path.Span) {
		for _, s := range list {
			from, to, perr := mesh.PortRange(s)
			if perr != nil {
				err = perr
			}
			ss = append(ss, path.Span{From: from, To: to})
		}
		return ss
	}
	out.Src, out.Dst = prefixes(m.Sources), prefixes(m.Destinations)
	out.SrcPorts, out.DstPorts = spans(m.SourcePorts), spans(m.DestinationPorts)
	for _, p := range m.Protocols {
		n, ok := protocols[p]
		if !ok {
			return out, fmt.Errorf("protocol %q is unknown", p)
		}
		out.Protos = append(out.Protos, n)
	}
	for _, d := range m.DSCP {
		out.DSCPs = append(out.DSCPs, uint8(d))
	}
	return out, err
}

// nameByContent gives every path the SPI that its content says: all nodes then agree
// without a word, and an SPI never means another path than before. Two paths of one
// plan that would have the same take the next, in the order of their content.
func nameByContent(p *path.Plan) error {
	if len(p.Paths) >= nsh.MaxSPI/2 {
		return fmt.Errorf("%d paths are too many", len(p.Paths))
	}
	order := make([]int, len(p.Paths))
	keys := make([]string, len(p.Paths))
	for i := range p.Paths {
		order[i], keys[i] = i, content(&p.Paths[i])
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	taken, renamed := map[uint32]bool{0: true, probeSPI: true}, map[uint32]uint32{0: 0}
	for _, i := range order {
		if p.Paths[i].Reversed {
			continue // named after its way there
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(keys[i])) // a hash never fails
		spi := (h.Sum32() ^ h.Sum32()>>23) & (path.ReversedBit - 1)
		for taken[spi] {
			spi = (spi + 1) & (path.ReversedBit - 1)
		}
		taken[spi] = true
		renamed[p.Paths[i].SPI] = spi
		if back := p.Paths[i].Back; back != 0 {
			renamed[back] = spi | path.ReversedBit
		}
	}
	for i := range p.Paths {
		p.Paths[i].SPI, p.Paths[i].Back = renamed[p.Paths[i].SPI], renamed[p.Paths[i].Back]
	}
	for i := range p.Chains {
		for j, spi := range p.Chains[i].SPIs {
			p.Chains[i].SPIs[j] = renamed[spi]
		}
	}
	return nil
}

func content(p *path.Path) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v %s %s %s", p.Chain, p.Reversed, p.Ingress, p.Egress, p.Port)
	for _, s := range p.Stops {
		fmt.Fprintf(&b, " %s@%s%v", s.Instance, s.Node, s.Branches)
	}
	if p.Metadata != "" {
		fmt.Fprintf(&b, " with %q", p.Metadata)
	}
	return b.String()
}

// viewsTo leads from the plan in force to the next. Flows on paths through an
// instance that is down are not waited for.
func viewsTo(from, to *path.Plan, down map[string]bool) []path.View {
	views := path.Changes(from, to)
	for i := range views {
		views[i].AlsoLive = slices.DeleteFunc(slices.Clone(views[i].AlsoLive), func(p path.Path) bool {
			return slices.ContainsFunc(p.Stops, func(s path.Stop) bool { return down[s.Instance] })
		})
	}
	return views
}

// samePlan reports whether two plans have the same paths and weights.
func samePlan(a, b *path.Plan) bool {
	if a == nil || b == nil {
		return a == b
	}
	return fmt.Sprint(a.Chains, a.Paths) == fmt.Sprint(b.Chains, b.Paths)
}
