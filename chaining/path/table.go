package path

import (
	"net/netip"
	"slices"

	"github.com/meridian-mesh/meridian/chaining/flow"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Hop is a place on a path: SPI of 24 bits and SI.
type Hop struct {
	SPI uint32
	SI  uint8
}

// Kind is what a forwarder does with a packet at a hop. BPF uses the numbers.
type Kind uint8

// Kinds of next hops.
const (
	// KindPlain gives the plain packet to a local function that knows no NSH; the
	// state is kept by NextHop.State.
	KindPlain Kind = 1 + iota
	// KindGPE gives it to a local function that knows NSH, over VXLAN-GPE.
	KindGPE
	// KindEther gives it to a local function that knows NSH, as Ethernet type 0x894F.
	KindEther
	// KindNode sends it to another node over VXLAN-GPE, with (SPI, SI) as they are.
	KindNode
	// KindEnd is the path's end: the plain packet goes on.
	KindEnd
	// KindBranch classifies the plain packet again, by Table.Branches: the path may
	// go on as another one (RFC 7665 4.8, reclassification).
	KindBranch
)

// State is how (SPI, SI) are found again when a plain packet comes back from a
// function that knows no NSH.
type State uint8

// Kinds of state.
const (
	// StateMAC writes them into the source address (02:5f, SPI, SI): for functions
	// that are transparent on layer 2.
	StateMAC State = 1 + iota
	// StateInterface has an interface pair of its own for each place on a path: for
	// functions that change the 5-tuple.
	StateInterface
	// StateFlow remembers {function, 5-tuple}: for routed functions that keep it.
	StateFlow
)

// NextHop is an entry of the forwarding table.
type NextHop struct {
	Kind Kind
	// Port is where the packet goes out, an index into Table.Ports. KindEnd with
	// NoPort leaves it to the kernel's routing.
	Port uint16
	// Function is an index into Table.Functions, for kinds of local functions.
	Function uint16
	State    State
	// SrcMAC and DstMAC are the frame's addresses. StateMAC writes its own source. A
	// zero address stays what it was in the frame that came in, until the kernel's
	// neighbour table replaces it.
	SrcMAC, DstMAC MAC
	// Local and Remote are the outer addresses of KindGPE and KindNode.
	Local, Remote netip.Addr
	// Border says that the packet leaves the site: its header carries a code that
	// protects it (RFC 9145). BPF punts such packets to soft.
	Border bool
	// Branch is an index into Table.Branches, for KindBranch.
	Branch uint16
	// Metadata is what the header says that is put on here, of at most nsh.MaxMetadata
	// bytes; a header that the packet has already stays as it is.
	Metadata string
	// Reverse is the SPI of the path back that KindEnd learns for the packet's
	// reversed 5-tuple, in the zone of its Port; 0 learns nothing.
	Reverse uint32
	// ReverseZone is the zone in which answers come in.
	ReverseZone uint16
}

// NoPort stands for no port.
const NoPort = 0xffff

// Role is what packets that come in on a port are.
type Role uint8

// Roles of ports.
const (
	// RoleIngress carries plain packets that are classified.
	RoleIngress Role = 1 + iota
	// RolePlain carries plain packets that come back from Port.Function.
	RolePlain
	// RoleAware carries NSH, in GPE or on Ethernet, from Port.Function.
	RoleAware
	// RoleUnderlay carries VXLAN-GPE from other nodes, and other traffic, which passes.
	RoleUnderlay
)

// Port is an interface of the node that the forwarder watches or sends to.
type Port struct {
	Interface string
	Role      Role
	// Zone keeps flows of different networks apart.
	Zone uint16
	// Function is an index into Table.Functions, for RolePlain and RoleAware.
	Function uint16
	// State is the function's, for RolePlain; Fixed is the hop for StateInterface.
	State State
	Fixed Hop
	// MAC is the port's own address, MTU the largest IP packet on it.
	MAC MAC
	MTU int
	// Address and Address6 are the node's there, one of each family or invalid: the
	// source of ICMP errors, and where VXLAN-GPE arrives.
	Address, Address6 netip.Addr
	// Border says that headers which come in there must carry a valid code (RFC 9145).
	Border bool
}

// FunctionRef names a function instance in counters and traces.
type FunctionRef struct {
	Function, Instance string
}

// Span is a closed range of ports; {0, 65535} is any.
type Span struct{ From, To uint16 }

// AnyPort matches every port.
var AnyPort = Span{0, 65535}

// Contains reports whether the range holds p.
func (s Span) Contains(p uint16) bool { return s.From <= p && p <= s.To }

// AnyDSCP matches every code point.
const AnyDSCP = 0xff

// Rule is one conjunction of the classifier. The first that matches wins. A later
// fragment for which it depends on ports is dropped.
type Rule struct {
	// Port is an index into Table.Ports; NoPort is any with RoleIngress.
	Port uint16
	// Src and Dst are prefixes in 16-byte form (IPv4 a.b.c.d/n as ::ffff:a.b.c.d,
	// 96+n); the zero Prefix is any, of both families.
	Src, Dst         netip.Prefix
	SrcPort, DstPort Span
	// Proto is 0 for any.
	Proto uint8
	// DSCP is AnyDSCP for any.
	DSCP uint8
	// Class is an index into Table.Classes.
	Class uint16
}

// Matches reports whether a packet that came in on the port is the rule's. unsure is
// true for a later fragment of which only the ports, which it has not, could tell.
func (r *Rule) Matches(port uint16, p *flow.Packet) (match, unsure bool) {
	if r.Port != NoPort && r.Port != port ||
		r.Proto != 0 && r.Proto != p.Proto ||
		r.DSCP != AnyDSCP && r.DSCP != p.DSCP ||
		!in(r.Src, p.Src) || !in(r.Dst, p.Dst) {
		return false, false
	}
	if p.LaterFragment && (r.SrcPort != AnyPort || r.DstPort != AnyPort) {
		return false, true
	}
	return r.SrcPort.Contains(p.SrcPort) && r.DstPort.Contains(p.DstPort), false
}

func in(p netip.Prefix, a [16]byte) bool {
	return !p.IsValid() || p.Contains(netip.AddrFrom16(a)) || p.Bits() == 0
}

// Class is what is done with the packets of a rule. A later fragment, whose hash
// cannot be known, takes a path only where there is but one.
type Class struct {
	// Chain is the ServiceChain's "namespace/name", and "/reverse" for the way back.
	Chain string
	// Spread is a Maglev table of SPIs: a flow takes Spread[hash % len]. Empty when
	// no path can be had; then Open decides.
	Spread []uint32
	// Open lets packets pass that no path can take; else they are dropped.
	Open bool
	// Pass lets the packets pass without a chain, whatever else stands here.
	Pass bool
}

// Live says what the classifier may do with a path.
type Live struct {
	// MTU is the largest plain packet that fits through all of the path.
	MTU int
	// Class is an index into Table.Classes, for counters.
	Class uint16
}

// Table is all that the forwarder of one node reads.
type Table struct {
	Node       string
	Generation uint64
	// Ports, Functions, Rules and Classes are looked up by index or in order.
	Ports     []Port
	Functions []FunctionRef
	Rules     []Rule
	Classes   []Class
	// Branches are rule lists for KindBranch. A packet that none matches goes on
	// with its own path at SI-1.
	Branches [][]Rule
	// Hops is the forwarding table. An absent pair is a drop (RFC 8300 2.3).
	Hops map[Hop]NextHop
	// Paths are the SPIs on which flows may start or go on here. A flow that has an
	// SPI which is no longer here is classified anew; hops may outlive their path,
	// for packets under way.
	Paths map[uint32]Live
	// VNI is written into VXLAN-GPE.
	VNI uint32
}

// Choose is the class's path for a flow's hash; ok is false when it has none.
func (c *Class) Choose(hash uint64) (spi uint32, ok bool) {
	if len(c.Spread) == 0 {
		return 0, false
	}
	return c.Spread[hash%uint64(len(c.Spread))], true
}

// PortByName is a port's index.
func (t *Table) PortByName(name string) (uint16, bool) {
	i := slices.IndexFunc(t.Ports, func(p Port) bool { return p.Interface == name })
	return uint16(i), i >= 0
}

// maxFunctions is how many a path can have: SI starts at 255, each function takes
// one, and the end of the path needs one too.
const maxFunctions = 254
