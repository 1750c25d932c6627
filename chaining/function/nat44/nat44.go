// Package nat44 translates source addresses and ports of IPv4 flows (RFC 4787, RFC
// 5382, RFC 5508): endpoint-independent mapping, address-and-port-dependent
// filtering, ports kept where they are free and of the same parity. The package is
// pure.
package nat44

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
)

// How long a mapping lives without a packet: RFC 4787 REQ-5 and RFC 5382 REQ-5.
const (
	idleUDP = 5 * time.Minute
	idleTCP = 2*time.Hour + 4*time.Minute
	// idleICMP is RFC 5508 REQ-1's.
	idleICMP = time.Minute
)

// firstPort is the lowest that is given out.
const firstPort = 1024

// NAT is the function.
type NAT struct {
	public []netip.Addr
	out    map[endpoint]*mapping // by inner endpoint
	in     map[endpoint]*mapping // by outer endpoint
	packet flow.Packet
	sweeps time.Duration
}

type endpoint struct {
	addr  [4]byte
	port  uint16
	proto uint8
}

type mapping struct {
	inner, outer endpoint
	// peers are who was spoken to, and until when they may answer.
	peers map[endpoint]time.Duration
	until time.Duration
}

// New makes a NAT that speaks for the given IPv4 addresses.
func New(public []netip.Addr) (*NAT, error) {
	if len(public) == 0 {
		return nil, fmt.Errorf("nat44: no public address: name at least one")
	}
	for _, a := range public {
		if !a.Is4() {
			return nil, fmt.Errorf("nat44: public address %v is not IPv4", a)
		}
	}
	return &NAT{public: public, out: make(map[endpoint]*mapping), in: make(map[endpoint]*mapping)}, nil
}

// Process implements function.Function. Forward packets get a public source, those
// on the way back the inner destination.
func (n *NAT) Process(b []byte, d function.Direction, now time.Duration) function.Result {
	p := &n.packet
	if !flow.Parse(b, p) {
		return function.Result{Drop: "malformed"}
	}
	switch {
	case p.Version != 4:
		return function.Result{Drop: "not-ipv4"}
	case p.Fragment:
		return function.Result{Drop: "fragment"}
	case p.Error:
		return n.icmpError(b, d, now)
	case p.Proto != flow.ProtoTCP && p.Proto != flow.ProtoUDP && p.Proto != flow.ProtoICMP:
		return function.Result{Drop: "protocol"}
	}
	src := endpoint{[4]byte(b[12:16]), p.SrcPort, p.Proto}
	dst := endpoint{[4]byte(b[16:20]), p.DstPort, p.Proto}
	if p.Proto == flow.ProtoICMP {
		// The identifier is the inner host's; a peer has none.
		if d == function.Forward {
			dst.port = 0
		} else {
			src.port = 0
		}
	}
	if d == function.Forward {
		m := n.outbound(src, now)
		if m == nil {
			return function.Result{Drop: "no-port"}
		}
		if !m.speaksTo(dst, now) {
			return function.Result{Drop: "peers"}
		}
		m.until = now + idle(p.Proto)
		m.peers[dst] = m.until
		n.rewrite(b, p, 12, 0, m.outer)
		return function.Result{Packet: b}
	}
	m := n.in[dst]
	if m == nil || now > m.until || now > m.peers[src] {
		return function.Result{Drop: "no-mapping"}
	}
	if p.Proto != flow.ProtoTCP {
		m.until = now + idle(p.Proto)
		m.peers[src] = m.until
	}
	n.rewrite(b, p, 16, 2, m.inner)
	return function.Result{Packet: b}
}

// maxPeers bounds whom one inner endpoint speaks to at a time.
const maxPeers = 4096

// speaksTo reports whether a mapping knows a peer or has room for it.
func (m *mapping) speaksTo(peer endpoint, now time.Duration) bool {
	if _, ok := m.peers[peer]; ok || len(m.peers) < maxPeers {
		return true
	}
	for e, until := range m.peers {
		if now > until {
			delete(m.peers, e)
		}
	}
	return len(m.peers) < maxPeers
}

func idle(proto uint8) time.Duration {
	switch proto {
	case flow.ProtoTCP:
		return idleTCP
	case flow.ProtoUDP:
		return idleUDP
	}
	return idleICMP
}

// outbound finds or makes the mapping of an inner endpoint, nil when no port is left.
func (n *NAT) outbound(inner endpoint, now time.Duration) *mapping {
	if m := n.out[inner]; m != nil {
		if now <= m.until {
			return m
		}
		n.forget(m)
	}
	if now >= n.sweeps {
		n.sweeps = now + time.Second
		for _, m := range n.out {
			if now > m.until {
				n.forget(m)
			}
		}
	}
	// One inner address keeps one public address (RFC 4787 REQ-2).
	key := flow.Mix(uint64(binary.BigEndian.Uint32(inner.addr[:])))
	addr := n.public[key%uint64(len(n.public))].As4()
	const span = 65536 - firstPort
	start := int(inner.port)
	if start < firstPort {
		start = firstPort + start
	}
	for i := range span {
		// The parity stays (RFC 4787 REQ-4) as long as there is one of it.
		step := 2 * i
		if step >= span {
			step = 2*(i-span/2) + 1
		}
		outer := endpoint{addr, uint16(firstPort + (start-firstPort+step)%span), inner.proto}
		if n.in[outer] == nil {
			m := &mapping{inner: inner, outer: outer, peers: make(map[endpoint]time.Duration)}
			n.out[inner], n.in[outer] = m, m
			return m
		}
	}
	return nil
}

func (n *NAT) forget(m *mapping) {
	delete(n.out, m.inner)
	delete(n.in, m.outer)
}

// rewrite puts an endpoint in place of the address at b[addrAt:] and of the port,
// at portAt of the transport header, and mends the checksums.
func (n *NAT) rewrite(b []byte, p *flow.Packet, addrAt, portAt int, to endpoint) {
	var old, fresh [4]byte
	copy(old[:], b[addrAt:])
	fresh = to.addr
	copy(b[addrAt:], fresh[:])
	binary.BigEndian.PutUint16(b[10:], function.Adjust(binary.BigEndian.Uint16(b[10:]), old[:], fresh[:]))
	t := b[p.Payload:]
	if p.Proto == flow.ProtoICMP {
		portAt = 4 // the identifier, both ways
	}
	var was [2]byte
	copy(was[:], t[portAt:])
	binary.BigEndian.PutUint16(t[portAt:], to.port)
	at := function.ChecksumAt(p.Proto)
	sum := binary.BigEndian.Uint16(t[at:])
	if p.Proto == flow.ProtoUDP && sum == 0 {
		return // The sender computed none.
	}
	if p.Proto != flow.ProtoICMP {
		sum = function.Adjust(sum, old[:], fresh[:])
	}
	sum = function.Adjust(sum, was[:], t[portAt:portAt+2])
	if p.Proto == flow.ProtoUDP && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}

// icmpError translates an error and the packet it speaks of (RFC 5508 REQ-3 to 5).
func (n *NAT) icmpError(b []byte, d function.Direction, now time.Duration) function.Result {
	p := &n.packet
	// Key is of the packet the error speaks of, reversed: the error goes to Dst.
	var m *mapping
	if d == function.Back {
		dst := netip.AddrFrom16(p.Dst).Unmap().As4()
		m = n.in[endpoint{dst, p.DstPort, p.Proto}]
	} else {
		src := netip.AddrFrom16(p.Src).Unmap().As4()
		m = n.out[endpoint{src, p.SrcPort, p.Proto}]
	}
	if m == nil || now > m.until {
		return function.Result{Drop: "unrelated-error"}
	}
	icmp := b[p.Payload:p.Length]
	quoted := icmp[8:]
	head := int(quoted[0]&15) * 4
	to, outer, quotedAddr, quotedPort := m.inner, 16, 12, 0
	if d == function.Forward {
		to, outer, quotedAddr, quotedPort = m.outer, 12, 16, 2
	}
	if p.Proto == flow.ProtoICMP {
		quotedPort = 4
	}
	// The packet quoted was sent by the mapping (Back) or to it (Forward).
	copy(quoted[quotedAddr:], to.addr[:])
	binary.BigEndian.PutUint16(quoted[10:], 0)
	binary.BigEndian.PutUint16(quoted[10:], ^function.Checksum16(0, quoted[:head]))
	binary.BigEndian.PutUint16(quoted[head+quotedPort:], to.port)
	// Its transport checksum is left: a quote is cut off, so nobody can check it.
	binary.BigEndian.PutUint16(icmp[2:], 0)
	binary.BigEndian.PutUint16(icmp[2:], ^function.Checksum16(0, icmp))
	if d == function.Back || [4]byte(b[12:16]) == m.inner.addr {
		copy(b[outer:], to.addr[:])
	}
	head = int(b[0]&15) * 4
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], ^function.Checksum16(0, b[:head]))
	return function.Result{Packet: b}
}

// Mappings is how many there are.
func (n *NAT) Mappings() int { return len(n.out) }
