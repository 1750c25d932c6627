package datapath

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Flags of hops, ports and rules, as in bpf/table.h and bpf/rule.h. Kinds of hops
// are chaining/path's.
const (
	kindBorder = 8 // a hop whose header needs a code that is made in userspace

	hopRemember = 1
	hopMAC      = 2
	hopLive     = 4
	hopPeer     = 8
	hopContext  = 16

	portClassify = 1
	portTunnel   = 2
	portEther    = 4
	portFlow     = 8
	portFixed    = 16
	portMAC      = 32
	portBorder   = 64

	ruleProto = 1
	ruleDSCP  = 2
	rulePorts = 4
	rulePass  = 8
	ruleOpen  = 16

	maxRules = 1024
	maxSlots = 65536
	firstSI  = 255
)

// image is what the maps shall hold: one compiled table in the programs' own terms.
// Rules are all lists one after the other, the classifier's first.
type image struct {
	hops       map[uint32]chainHop
	rules      []chainRule
	classifier int // rules of the first list
	slots      []uint32
	ports      map[uint32]chainPort
}

// device is what compile must know of an interface.
type device struct {
	index uint32
	// addresses are the node's there: what is sent to them is not for a chain. A
	// table's Port.Address goes first.
	addresses []netip.Addr
	// peer says that it is one end of a veth whose other end is in another namespace, with
	// all offloads on: frames may go straight to that end.
	peer bool
}

// compile writes a table in the programs' terms; find looks an interface up.
func compile(t *path.Table, find func(name string) (device, error)) (*image, error) {
	c := compiler{table: t, im: &image{hops: map[uint32]chainHop{}, ports: map[uint32]chainPort{}}}
	for i := range t.Ports {
		p := &t.Ports[i]
		dev, err := find(p.Interface)
		if err != nil {
			return nil, fmt.Errorf("port %s: %w", p.Interface, err)
		}
		c.ifindex = append(c.ifindex, dev.index)
		c.peers = append(c.peers, dev.peer)
		if err := c.port(dev, p); err != nil {
			return nil, err
		}
	}
	c.classes()
	c.rules(t.Rules)
	c.im.classifier = len(c.im.rules)
	for _, list := range t.Branches {
		c.branches = append(c.branches, span{len(c.im.rules), len(list)})
		c.rules(list)
	}
	for at, next := range t.Hops {
		if err := c.hop(at, next); err != nil {
			return nil, err
		}
	}
	for spi := range t.Paths {
		if _, ok := c.im.hops[spi<<8|firstSI]; !ok {
			return nil, fmt.Errorf("path %d begins here and has no hop %s", spi, pathString(spi<<8|firstSI))
		}
	}
	if len(c.im.rules) > maxRules {
		return nil, fmt.Errorf("%d rules, at most %d fit: merge prefixes or port ranges", len(c.im.rules), maxRules)
	}
	if len(c.im.slots) > maxSlots {
		return nil, fmt.Errorf("%d slots of classes, at most %d fit: fewer classes, or smaller Maglev tables", len(c.im.slots), maxSlots)
	}
	return c.im, nil
}

type span struct{ from, count int }

type compiler struct {
	table    *path.Table
	im       *image
	ifindex  []uint32 // by port
	peers    []bool   // by port
	slots    []span   // by class
	branches []span
}

func (c *compiler) port(dev device, p *path.Port) error {
	out := c.im.ports[dev.index] // an uplink may carry users' traffic and tunnels
	if p.Border {
		out.Flags |= portBorder
	}
	switch p.Role {
	case path.RoleIngress:
		out.Flags |= portClassify
		out.Zone = order16(p.Zone)
	case path.RoleUnderlay:
		out.Flags |= portTunnel
	case path.RoleAware:
		out.Flags |= portTunnel | portEther
	case path.RolePlain:
		switch p.State {
		case path.StateFlow:
			out.Flags |= portFlow
		case path.StateInterface:
			out.Flags |= portFixed
			out.Path = p.Fixed.SPI<<8 | uint32(p.Fixed.SI)
		case path.StateMAC:
			out.Flags |= portMAC
		default:
			return fmt.Errorf("port %s: state %d of a function's port is unknown", p.Interface, p.State)
		}
		out.Func = c.function(p.Function)
	default:
		return fmt.Errorf("port %s: role %d is unknown", p.Interface, p.Role)
	}
	for _, a := range append(dev.addresses, p.Address, p.Address6) {
		switch a = a.Unmap(); {
		case a.Is4():
			out.Addr4 = words(a)[3]
		case a.Is6():
			out.Addr6 = words(a)
		}
	}
	c.im.ports[dev.index] = out
	return nil
}

// function is a number that stays a function instance's over tables and restarts.
func (c *compiler) function(i uint16) uint32 {
	h := fnv.New32a()
	ref := c.table.Functions[i]
	_, _ = h.Write([]byte(ref.Function + "\x00" + ref.Instance)) // a hash never fails
	return h.Sum32()
}

func (c *compiler) classes() {
	for i := range c.table.Classes {
		class := &c.table.Classes[i]
		c.slots = append(c.slots, span{len(c.im.slots), len(class.Spread)})
		c.im.slots = append(c.im.slots, class.Spread...)
	}
}

func (c *compiler) rules(list []path.Rule) {
	for i := range list {
		r := &list[i]
		class, slots := &c.table.Classes[r.Class], c.slots[r.Class]
		out := chainRule{
			SportFrom: r.SrcPort.From, SportTo: r.SrcPort.To, DportFrom: r.DstPort.From, DportTo: r.DstPort.To,
			Slots: uint32(slots.from), Size: uint32(slots.count), Proto: r.Proto, Dscp: r.DSCP,
		}
		if r.Port != path.NoPort {
			out.Ifindex = c.ifindex[r.Port]
		}
		if r.Proto != 0 {
			out.Flags |= ruleProto
		}
		if r.DSCP != path.AnyDSCP {
			out.Flags |= ruleDSCP
		}
		if r.SrcPort != path.AnyPort || r.DstPort != path.AnyPort {
			out.Flags |= rulePorts
		}
		if class.Pass {
			out.Flags |= rulePass
		}
		if class.Open {
			out.Flags |= ruleOpen
		}
		out.Src, out.SrcMask = prefixWords(r.Src)
		out.Dst, out.DstMask = prefixWords(r.Dst)
		c.im.rules = append(c.im.rules, out)
	}
}

func (c *compiler) hop(at path.Hop, next path.NextHop) error {
	key := at.SPI<<8 | uint32(at.SI)
	out := chainHop{Kind: uint32(next.Kind), Dmac: next.DstMAC, Smac: next.SrcMAC, Reverse: next.Reverse, ReverseZone: order16(next.ReverseZone)}
	if next.Port != path.NoPort {
		p := &c.table.Ports[next.Port]
		out.Ifindex = c.ifindex[next.Port]
		out.Mtu = uint16(min(p.MTU, 0xffff))
		if next.DstMAC != (path.MAC{}) && next.SrcMAC == (path.MAC{}) {
			out.Smac = p.MAC
		}
	}
	switch next.Kind {
	case path.KindPlain:
		out.Func = c.function(next.Function)
		switch next.State {
		case path.StateFlow:
			out.Flags |= hopRemember
		case path.StateMAC:
			out.Flags |= hopMAC
			if next.DstMAC == (path.MAC{}) {
				return fmt.Errorf("hop %s: the path goes into the source address, so the destination address must be given", pathString(key))
			}
		}
	case path.KindGPE, path.KindNode:
		if !next.Local.IsValid() || !next.Remote.IsValid() || next.Local.Unmap().Is4() != next.Remote.Unmap().Is4() {
			return fmt.Errorf("hop %s: tunnel from %v to %v needs two addresses of one family", pathString(key), next.Local, next.Remote)
		}
		out.Tunnel.Local, out.Tunnel.Remote = tunnelWords(next.Local), tunnelWords(next.Remote)
		out.Tunnel.Vni = order32(c.table.VNI << 8)
		if next.Remote.Unmap().Is6() {
			out.Tunnel.V6 = 1
		}
		if next.Border {
			// The header's integrity (RFC 9145) is made in userspace.
			out.Kind = kindBorder
		}
	case path.KindBranch:
		out.Branch, out.BranchRules = uint16(c.branches[next.Branch].from), uint16(c.branches[next.Branch].count)
	case path.KindEther, path.KindEnd:
	default:
		return fmt.Errorf("hop %s: kind %d is unknown", pathString(key), next.Kind)
	}
	if (next.Kind == path.KindPlain || next.Kind == path.KindGPE) && next.Port != path.NoPort && c.peers[next.Port] {
		out.Flags |= hopPeer
	}
	if next.Port == path.NoPort && next.Kind != path.KindEnd && next.Kind != path.KindBranch {
		return fmt.Errorf("hop %s: no port to send to", pathString(key))
	}
	if next.Metadata != "" {
		if len(next.Metadata) > nsh.MaxMetadata {
			return fmt.Errorf("hop %s: metadata has %d bytes, at most %d fit", pathString(key), len(next.Metadata), nsh.MaxMetadata)
		}
		var b [nsh.MD1Size]byte
		for i, context := 0, nsh.PutMetadata(b[:], nsh.NextIPv4, 0, 0, next.Metadata).Context(); i < len(out.Context); i++ {
			out.Context[i] = binary.NativeEndian.Uint32(context[4*i:])
		}
		out.Flags |= hopContext
	}
	if live, ok := c.table.Paths[at.SPI]; ok && at.SI == firstSI {
		out.Flags |= hopLive
		out.PathMtu = uint16(min(live.MTU, 0xffff))
	}
	c.im.hops[key] = out
	return nil
}

// words is an address in its 16-byte form as the programs hold it.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// tunnelWords is words, but IPv4 stands in word 0, as in a header.
func tunnelWords(a netip.Addr) (w [4]uint32) {
	if a = a.Unmap(); a.Is4() {
		return [4]uint32{words(a)[3]}
	}
	return words(a)
}

// prefixWords is a prefix of the 16-byte form as address and mask; both are zero
// for any address.
func prefixWords(p netip.Prefix) (addr, mask [4]uint32) {
	if !p.IsValid() || p.Bits() == 0 {
		return addr, mask
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	var b [16]byte
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr = words(p.Masked().Addr())
	for i := range mask {
		mask[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return addr, mask
}

// order16 and order32 give a number in network order.
func order16(v uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})
}

func order32(v uint32) uint32 {
	return binary.NativeEndian.Uint32([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// pathString writes (SPI, SI) as people do.
func pathString(path uint32) string { return fmt.Sprintf("(%d, %d)", path>>8, path&0xff) }
