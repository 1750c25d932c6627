package path

import "net/netip"

// Prefix is an address prefix as people write it.
type Prefix = netip.Prefix

// Attachment is how an instance hangs on its node.
type Attachment struct {
	Instance, Function, Node string
	// Kind is KindPlain, KindGPE or KindEther; State is for KindPlain.
	Kind  Kind
	State State
	// Left is the interface of the node by which packets of a path go in, Right the
	// one by which they come out; the way back goes in at Right. The same for a
	// function with one arm. An aware one has Left only.
	Left, Right string
	// LeftMAC and RightMAC are the function's own; not those of a bridge, which must
	// not see itself addressed: there the far port's.
	LeftMAC, RightMAC MAC
	// Address is where an aware function of KindGPE listens, Local the node's there.
	Address, Local netip.Addr
	// Pairs are the interface pairs of StateInterface: each serves one place on a
	// path, in both directions. Left and Right are then empty.
	Pairs []Pair
	// MTU is that of its interfaces.
	MTU int
}

// Pair are two interfaces of one place.
type Pair struct {
	Left, Right       string
	LeftMAC, RightMAC MAC
}

// Node is a forwarder and what it watches.
type Node struct {
	Name, Site string
	// Ingress are the ports whose packets are classified.
	Ingress []IngressPort
	// Underlay is the interface towards other nodes.
	Underlay    string
	UnderlayMAC MAC
	UnderlayMTU int
	// Address and Address6 are the node's on the underlay; either may be invalid.
	Address, Address6 netip.Addr
	// Gateway is the next hop's address on the underlay, zero for the kernel's.
	Gateway MAC
	// Border is the interface towards nodes of other sites, "" where the underlay is
	// trusted that far. Headers there carry a code (RFC 9145).
	Border        string
	BorderMTU     int
	BorderAddress netip.Addr
}

// IngressPort is an interface towards clients, servers or another network.
type IngressPort struct {
	Interface string
	Zone      uint16
	MAC       MAC
	// Peer is the address of who is behind it, zero for the kernel's neighbours.
	Peer              MAC
	MTU               int
	Address, Address6 netip.Addr
}

// Domain is where plans are compiled for.
type Domain struct {
	Nodes       []Node
	Attachments []Attachment
	VNI         uint32
}

// Overheads of encapsulation in bytes.
const (
	overheadGPE4  = 20 + 8 + 8 + 24
	overheadGPE6  = 40 + 8 + 8 + 24
	overheadEther = 24
	// overheadCode is what the code of RFC 9145 takes, with the longest key name and
	// context words kept.
	overheadCode = 52
)

func (d *Domain) node(name string) *Node {
	for i := range d.Nodes {
		if d.Nodes[i].Name == name {
			return &d.Nodes[i]
		}
	}
	return nil
}

// mtu is the largest plain packet that fits through all of a path.
func (d *Domain) mtu(p *Path) int {
	least := 65535
	fits := func(mtu, overhead int) {
		if mtu > 0 {
			least = min(least, mtu-overhead)
		}
	}
	at := p.Ingress
	cross := func(to string) {
		if to == at {
			return
		}
		a, b := d.node(at), d.node(to)
		for _, n := range [...]*Node{a, b} {
			switch {
			case a == nil || b == nil:
			case a.Site != b.Site && a.Border != "" && b.Border != "":
				overhead := overheadGPE4
				if n.BorderAddress.Is6() {
					overhead = overheadGPE6
				}
				fits(n.BorderMTU, overhead+overheadCode)
			case n.Address.IsValid():
				fits(n.UnderlayMTU, overheadGPE4)
			default:
				fits(n.UnderlayMTU, overheadGPE6)
			}
		}
		at = to
	}
	for _, s := range p.Stops {
		cross(s.Node)
		for _, a := range d.Attachments {
			if a.Instance != s.Instance || s.Branches != nil {
				continue
			}
			switch {
			case a.Kind == KindEther:
				fits(a.MTU, overheadEther)
			case a.Kind == KindGPE && a.Address.Is6():
				fits(a.MTU, overheadGPE6)
			case a.Kind == KindGPE:
				fits(a.MTU, overheadGPE4)
			default:
				fits(a.MTU, 0)
			}
		}
	}
	cross(p.Egress)
	for _, n := range d.Nodes {
		for _, in := range n.Ingress {
			if n.Name == p.Egress && in.Interface == p.Port {
				fits(in.MTU, 0)
			}
		}
	}
	return least
}
