package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/internal/maglev"
)

// View is what the tables of one moment are compiled from: a plan, and paths of
// another one that are still, or already, forwarded and followed.
type View struct {
	Name string
	Plan *Plan
	// AlsoHops keep their entries, AlsoLive flows too.
	AlsoHops, AlsoLive []Path
}

// maxRules bounds the classifier: BPF walks it in order.
const maxRules = 1024

type compiler struct {
	domain *Domain
	node   *Node
	view   *View
	table  *Table
	ports  map[string]uint16
	// classes by chain; the reversed have a suffix.
	classes map[string]uint16
	pairs   map[pairKey]int
}

type pairKey struct {
	instance string
	spi      uint32
	at       int
}

// Compile makes a node's table. An error names what is missing or does not fit.
func Compile(v *View, d *Domain, node string) (*Table, error) {
	i := slices.IndexFunc(d.Nodes, func(n Node) bool { return n.Name == node })
	if i < 0 {
		return nil, fmt.Errorf("node %q is not in the domain", node)
	}
	c := &compiler{domain: d, node: &d.Nodes[i], view: v, ports: map[string]uint16{}, classes: map[string]uint16{}, pairs: map[pairKey]int{},
		table: &Table{Node: node, Generation: v.Plan.Generation, VNI: d.VNI, Hops: map[Hop]NextHop{}, Paths: map[uint32]Live{}}}
	c.addPorts()
	paths := c.hopPaths()
	if err := c.assignPairs(paths); err != nil {
		return nil, err
	}
	if err := c.addClasses(); err != nil {
		return nil, err
	}
	for i := range paths {
		if err := c.addHops(&paths[i]); err != nil {
			return nil, err
		}
	}
	c.addLive(v.Plan.Paths)
	c.addLive(v.AlsoLive)
	return c.table, nil
}

func (c *compiler) addPort(p Port) {
	c.ports[p.Interface] = uint16(len(c.table.Ports))
	c.table.Ports = append(c.table.Ports, p)
}

func (c *compiler) addPorts() {
	n := c.node
	for _, p := range n.Ingress {
		a, a6 := p.Address, p.Address6
		if !a.IsValid() {
			a = n.Address
		}
		if !a6.IsValid() {
			a6 = n.Address6
		}
		c.addPort(Port{Interface: p.Interface, Role: RoleIngress, Zone: p.Zone, MAC: p.MAC, MTU: p.MTU, Address: a, Address6: a6})
	}
	if n.Underlay != "" {
		c.addPort(Port{Interface: n.Underlay, Role: RoleUnderlay, MAC: n.UnderlayMAC, MTU: n.UnderlayMTU, Address: n.Address, Address6: n.Address6})
	}
	if n.Border != "" {
		p := Port{Interface: n.Border, Role: RoleUnderlay, MTU: n.BorderMTU, Border: true}
		if n.BorderAddress.Is4() {
			p.Address = n.BorderAddress
		} else {
			p.Address6 = n.BorderAddress
		}
		c.addPort(p)
	}
	for _, a := range c.domain.Attachments {
		if a.Node != n.Name {
			continue
		}
		f := uint16(len(c.table.Functions))
		c.table.Functions = append(c.table.Functions, FunctionRef{Function: a.Function, Instance: a.Instance})
		port := Port{Role: RolePlain, Function: f, State: a.State, MTU: a.MTU, Address: n.Address, Address6: n.Address6}
		if a.Kind != KindPlain {
			port.Role, port.State = RoleAware, 0
			if a.Local.Is4() {
				port.Address = a.Local
			} else if a.Local.IsValid() {
				port.Address6 = a.Local
			}
		}
		names := []string{a.Left, a.Right}
		for _, p := range a.Pairs {
			names = append(names, p.Left, p.Right)
		}
		for _, name := range names {
			if _, there := c.ports[name]; name != "" && !there {
				port.Interface = name
				c.addPort(port)
			}
		}
	}
}

// hopPaths are all paths whose entries the table has, each once.
func (c *compiler) hopPaths() []Path {
	seen := map[uint32]bool{}
	var out []Path
	for _, list := range [][]Path{c.view.Plan.Paths, c.view.AlsoHops, c.view.AlsoLive} {
		for _, p := range list {
			if !seen[p.SPI] {
				seen[p.SPI] = true
				out = append(out, p)
			}
		}
	}
	return out
}

func (c *compiler) attachment(instance string) (*Attachment, error) {
	for i := range c.domain.Attachments {
		if c.domain.Attachments[i].Instance == instance {
			return &c.domain.Attachments[i], nil
		}
	}
	return nil, fmt.Errorf("instance %s is attached to no node", instance)
}

// assignPairs gives each place of a StateInterface function on this node a pair of
// its own, a path and its way back together. It is the same in every compilation
// as long as the paths are.
func (c *compiler) assignPairs(paths []Path) error {
	used := map[string]int{}
	for i := range paths {
		p := &paths[i]
		if p.Reversed {
			continue
		}
		for at, s := range p.Stops {
			if s.Node != c.node.Name || s.Branches != nil {
				continue
			}
			a, err := c.attachment(s.Instance)
			if err != nil {
				return fmt.Errorf("chain %s: %w", p.Chain, err)
			}
			if a.Kind != KindPlain || a.State != StateInterface {
				continue
			}
			k := used[s.Instance]
			if k >= len(a.Pairs) {
				return fmt.Errorf("chain %s: instance %s has %d interface pairs and all are taken: each place on a path needs one; attach more pairs or instances", p.Chain, s.Instance, len(a.Pairs))
			}
			used[s.Instance]++
			c.pairs[pairKey{s.Instance, p.SPI, at}] = k
			pair := a.Pairs[k]
			c.table.Ports[c.ports[pair.Right]].Fixed = Hop{p.SPI, SI(at)}
			if p.Back != 0 {
				rev := reversedPlace(p, at)
				c.pairs[pairKey{s.Instance, p.Back, rev}] = k
				c.table.Ports[c.ports[pair.Left]].Fixed = Hop{p.Back, SI(rev)}
			}
		}
	}
	return nil
}

// reversedPlace is where the way back has the stop that p has at i: branches are
// left out of it.
func reversedPlace(p *Path, i int) int {
	after := 0
	for _, s := range p.Stops[i+1:] {
		if s.Branches == nil {
			after++
		}
	}
	return after
}

// addHops adds the entries of a path that packets can need here.
func (c *compiler) addHops(p *Path) error {
	here := c.node.Name
	// A packet of the path is at this node with the SI of a stop if the stop before is
	// here, if the stop itself is, or if paths begin here.
	for i := 0; i <= len(p.Stops); i++ {
		node := p.Egress
		if i < len(p.Stops) {
			node = p.Stops[i].Node
		}
		switch {
		case node == here:
		case i > 0 && p.Stops[i-1].Node == here:
		case i == 0 && (p.Ingress == here || c.branchesTo(p.Chain)):
		default:
			continue
		}
		hop, err := c.hop(p, i, node)
		if err != nil {
			return fmt.Errorf("chain %s, path %d, SI %d: %w", p.Chain, p.SPI, SI(i), err)
		}
		if len(p.Metadata) > nsh.MaxMetadata {
			return fmt.Errorf("chain %s: metadata has %d bytes; use at most %d", p.Chain, len(p.Metadata), nsh.MaxMetadata)
		}
		switch hop.Kind {
		case KindGPE, KindEther, KindNode:
			hop.Metadata = p.Metadata
		}
		c.table.Hops[Hop{p.SPI, SI(i)}] = hop
	}
	return nil
}

// branchesTo reports whether a path with a stop on this node leads to the chain.
func (c *compiler) branchesTo(chain string) bool {
	for _, p := range c.hopPaths() {
		for _, s := range p.Stops {
			if s.Node == c.node.Name && slices.ContainsFunc(s.Branches, func(b Branch) bool { return b.Chain == chain }) {
				return true
			}
		}
	}
	return false
}

func (c *compiler) hop(p *Path, i int, node string) (NextHop, error) {
	if node != c.node.Name {
		return c.remote(node)
	}
	if i == len(p.Stops) {
		return c.end(p)
	}
	s := &p.Stops[i]
	if s.Branches != nil {
		return c.branch(s)
	}
	a, err := c.attachment(s.Instance)
	if err != nil {
		return NextHop{}, err
	}
	if a.Node != node {
		return NextHop{}, fmt.Errorf("instance %s is attached to node %s, the path expects it at %s", s.Instance, a.Node, node)
	}
	f := uint16(slices.IndexFunc(c.table.Functions, func(r FunctionRef) bool { return r.Instance == s.Instance }))
	in, mac := a.Left, a.LeftMAC
	switch {
	case a.Kind == KindPlain && a.State == StateInterface:
		pair := a.Pairs[c.pairs[pairKey{s.Instance, p.SPI, i}]]
		in, mac = pair.Left, pair.LeftMAC
		if p.Reversed {
			in, mac = pair.Right, pair.RightMAC
		}
	case a.Kind == KindPlain && p.Reversed && a.Right != "":
		in, mac = a.Right, a.RightMAC
	}
	port, ok := c.ports[in]
	if !ok {
		return NextHop{}, fmt.Errorf("instance %s has no interface %q", s.Instance, in)
	}
	h := NextHop{Kind: a.Kind, Port: port, Function: f, State: a.State, SrcMAC: c.table.Ports[port].MAC, DstMAC: mac}
	switch a.Kind {
	case KindPlain:
		if a.State < StateMAC || a.State > StateFlow {
			return h, fmt.Errorf("instance %s knows no NSH and says not how its state is kept", s.Instance)
		}
	case KindGPE:
		h.State, h.Local, h.Remote = 0, a.Local, a.Address
		if !h.Local.IsValid() || !h.Remote.IsValid() || h.Local.Is4() != h.Remote.Is4() {
			return h, fmt.Errorf("instance %s speaks VXLAN-GPE: it and its node need addresses of one family, have %v and %v", s.Instance, h.Remote, h.Local)
		}
	case KindEther:
		h.State = 0
	default:
		return h, fmt.Errorf("instance %s is attached in an unknown way (%d)", s.Instance, a.Kind)
	}
	return h, nil
}

func (c *compiler) remote(node string) (NextHop, error) {
	i := slices.IndexFunc(c.domain.Nodes, func(n Node) bool { return n.Name == node })
	if i < 0 {
		return NextHop{}, fmt.Errorf("node %s is not in the domain", node)
	}
	from, to := c.node, &c.domain.Nodes[i]
	if from.Site != to.Site && from.Border != "" && to.Border != "" {
		h := NextHop{Kind: KindNode, Port: c.ports[from.Border], Local: from.BorderAddress, Remote: to.BorderAddress, Border: true}
		if !h.Local.IsValid() || !h.Remote.IsValid() || h.Local.Is4() != h.Remote.Is4() {
			return h, fmt.Errorf("nodes %s and %s have no border addresses of one family", from.Name, node)
		}
		return h, nil
	}
	port, ok := c.ports[from.Underlay]
	if from.Underlay == "" || !ok {
		return NextHop{}, fmt.Errorf("node %s has no underlay to reach %s by", from.Name, node)
	}
	h := NextHop{Kind: KindNode, Port: port, SrcMAC: from.UnderlayMAC, DstMAC: from.Gateway}
	switch {
	case from.Address.IsValid() && to.Address.IsValid():
		h.Local, h.Remote = from.Address, to.Address
	case from.Address6.IsValid() && to.Address6.IsValid():
		h.Local, h.Remote = from.Address6, to.Address6
	default:
		return h, fmt.Errorf("nodes %s and %s have no addresses of one family", from.Name, node)
	}
	return h, nil
}

func (c *compiler) end(p *Path) (NextHop, error) {
	h := NextHop{Kind: KindEnd, Port: NoPort}
	if p.Port != "" {
		port, ok := c.ports[p.Port]
		i := slices.IndexFunc(c.node.Ingress, func(in IngressPort) bool { return in.Interface == p.Port })
		if !ok || i < 0 {
			return h, fmt.Errorf("node %s has no port %q for the path's end", c.node.Name, p.Port)
		}
		h.Port, h.SrcMAC, h.DstMAC = port, c.node.Ingress[i].MAC, c.node.Ingress[i].Peer
		h.ReverseZone = c.node.Ingress[i].Zone
	}
	if !p.Reversed {
		// Only here: if both directions taught each other, a flow could never leave.
		h.Reverse = p.Back
	}
	return h, nil
}

func (c *compiler) branch(s *Stop) (NextHop, error) {
	var rules []Rule
	for _, b := range s.Branches {
		class, ok := c.classes[b.Chain]
		if !ok {
			return NextHop{}, fmt.Errorf("branches to %s, which is not in the plan", b.Chain)
		}
		more, err := c.rules(b.Match, class, false)
		if err != nil {
			return NextHop{}, fmt.Errorf("branch to %s: %w", b.Chain, err)
		}
		rules = append(rules, more...)
	}
	c.table.Branches = append(c.table.Branches, rules)
	return NextHop{Kind: KindBranch, Port: NoPort, Branch: uint16(len(c.table.Branches) - 1)}, nil
}

// addClasses adds the classes of all chains, since branches may need them, and the
// rules of those that begin here, or come back here.
func (c *compiler) addClasses() error {
	for i := range c.view.Plan.Chains {
		ch := &c.view.Plan.Chains[i]
		there, back := c.spread(ch)
		c.classes[ch.Chain] = uint16(len(c.table.Classes))
		c.table.Classes = append(c.table.Classes, Class{Chain: ch.Chain, Spread: there, Open: ch.Open})
		if ch.Symmetric {
			c.classes[ch.Chain+"/reverse"] = uint16(len(c.table.Classes))
			c.table.Classes = append(c.table.Classes, Class{Chain: ch.Chain + "/reverse", Spread: back, Open: ch.Open})
		}
		for _, m := range ch.Matches {
			if ch.Ingress == c.node.Name {
				rules, err := c.rules(m, c.classes[ch.Chain], false)
				if err != nil {
					return fmt.Errorf("chain %s: %w", ch.Chain, err)
				}
				c.table.Rules = append(c.table.Rules, rules...)
			}
			if ch.Symmetric && !ch.ChangesTuple && ch.Egress == c.node.Name {
				back := m
				back.Interfaces = nil
				if ch.EgressPort != "" {
					back.Interfaces = []string{ch.EgressPort}
				}
				rules, err := c.rules(back, c.classes[ch.Chain+"/reverse"], true)
				if err != nil {
					return fmt.Errorf("chain %s, way back: %w", ch.Chain, err)
				}
				c.table.Rules = append(c.table.Rules, rules...)
			}
		}
	}
	if len(c.table.Rules) > maxRules {
		return fmt.Errorf("node %s: the chains' matches are %d rules; use at most %d: fewer alternatives in lists, or prefixes and ranges instead", c.node.Name, len(c.table.Rules), maxRules)
	}
	return nil
}

// spread is the Maglev table of a chain's paths, and the same with their ways back.
func (c *compiler) spread(ch *Chain) (there, back []uint32) {
	if len(ch.SPIs) == 0 {
		return nil, nil
	}
	weights, ids := make([]int, len(ch.SPIs)), make([]uint64, len(ch.SPIs))
	paths := make([]*Path, len(ch.SPIs))
	for i, spi := range ch.SPIs {
		paths[i] = c.view.Plan.Path(spi)
		weights[i], ids[i] = paths[i].Weight, nameHash(paths[i].key())
	}
	if len(paths) == 1 {
		// One entry: fragments too can then take the path.
		return []uint32{paths[0].SPI}, []uint32{paths[0].Back}
	}
	for _, k := range maglev.Table(weights, ids) {
		there = append(there, paths[k].SPI)
		back = append(back, paths[k].Back)
	}
	return there, back
}

// nameHash is 64-bit FNV-1a, mixed: the same for a path in every plan.
func nameHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return maglev.Mix(h)
}

// rules expands a match to conjunctions, with source and destination exchanged for
// the way back.
func (c *compiler) rules(m Match, class uint16, reversed bool) ([]Rule, error) {
	if reversed {
		m.Src, m.Dst, m.SrcPorts, m.DstPorts = m.Dst, m.Src, m.DstPorts, m.SrcPorts
	}
	ports := []uint16{NoPort}
	if len(m.Interfaces) > 0 {
		ports = ports[:0]
		for _, name := range m.Interfaces {
			i, ok := c.ports[name]
			if !ok || c.table.Ports[i].Role != RoleIngress {
				return nil, fmt.Errorf("node %s has no ingress interface %q: it has %s", c.node.Name, name, strings.Join(c.ingressNames(), ", "))
			}
			ports = append(ports, i)
		}
	}
	var out []Rule
	for _, port := range ports {
		for _, src := range or(m.Src, Prefix{}) {
			for _, dst := range or(m.Dst, Prefix{}) {
				if src.IsValid() && dst.IsValid() && src.Addr().Is4() != dst.Addr().Is4() {
					continue // No packet is of both families.
				}
				for _, sp := range or(m.SrcPorts, AnyPort) {
					for _, dp := range or(m.DstPorts, AnyPort) {
						for _, proto := range or(m.Protos, 0) {
							for _, dscp := range or(m.DSCPs, AnyDSCP) {
								out = append(out, Rule{Port: port, Src: as16(src), Dst: as16(dst), SrcPort: sp, DstPort: dp, Proto: proto, DSCP: dscp, Class: class})
							}
						}
					}
				}
			}
		}
		if len(out) > maxRules {
			return nil, fmt.Errorf("a match is more than %d rules: use fewer alternatives in its lists", maxRules)
		}
	}
	return out, nil
}

func (c *compiler) ingressNames() (names []string) {
	for _, p := range c.node.Ingress {
		names = append(names, p.Interface)
	}
	return names
}

func or[T any](list []T, otherwise T) []T {
	if len(list) == 0 {
		return []T{otherwise}
	}
	return list
}

func as16(p Prefix) Prefix {
	if !p.IsValid() || !p.Addr().Is4() {
		return p
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), 96+p.Bits())
}

// addLive adds the paths on which flows may be here: those that begin here.
func (c *compiler) addLive(paths []Path) {
	for i := range paths {
		p := &paths[i]
		if p.Ingress != c.node.Name {
			continue
		}
		name := p.Chain
		if p.Reversed {
			name += "/reverse"
		}
		c.table.Paths[p.SPI] = Live{MTU: c.domain.mtu(p), Class: c.classes[name]}
	}
}
