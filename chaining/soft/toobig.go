package soft

import (
	"encoding/binary"
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/path"
)

const (
	// quote4 and quote6 are how much of a packet the answer repeats: more than RFC 792
	// and RFC 4443 2.4 c ask for, since the kernel refuses to cut a packet before its
	// transport checksum while that is still to be computed.
	quote4   = 64
	quote6   = 80
	icmpSize = 8
)

// tooBig answers a packet that does not fit through its path with "fragmentation
// needed" (RFC 1191) or "packet too big" (RFC 4443 3.2), or drops it where it may
// not be answered (RFC 1122 3.2.2) or where its sender allows fragments, which
// nobody on the path makes.
// A path whose MTU is below quote6 answers nothing.
func (t *turn) tooBig(p *path.Port, mtu int) {
	q := &t.packet
	if len(t.ip) < quote6 || !q.DontFragment || q.Error || q.LaterFragment || !answerable(q) {
		t.drop(path.ReasonTooBig)
		return
	}
	b := t.out
	copy(b, t.in[6:12])
	copy(b[6:], t.in[:6])
	copy(b[12:], t.in[12:14])
	if q.Version == 4 {
		if !p.Address.IsValid() || !p.Address.Is4() {
			t.drop(path.ReasonTooBig)
			return
		}
		const size = ip4Size + icmpSize + quote4
		ip := b[ethSize : ethSize+size]
		clear(ip)
		ip[0], ip[8], ip[9] = 0x45, outerTTL, flow.ProtoICMP
		binary.BigEndian.PutUint16(ip[2:], size)
		src := p.Address.As4()
		copy(ip[12:], src[:])
		copy(ip[16:], t.ip[12:16])
		binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ip4Size]))
		icmp := ip[ip4Size:]
		icmp[0], icmp[1] = 3, 4
		binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
		copy(icmp[icmpSize:], t.ip[:quote4])
		binary.BigEndian.PutUint16(icmp[2:], ^sum(0, icmp))
		t.res.Frame = b[:ethSize+size]
	} else {
		if !p.Address6.IsValid() {
			t.drop(path.ReasonTooBig)
			return
		}
		const size = ip6Size + icmpSize + quote6
		ip := b[ethSize : ethSize+size]
		clear(ip)
		ip[0], ip[6], ip[7] = 0x60, flow.ProtoICMPv6, outerTTL
		binary.BigEndian.PutUint16(ip[4:], icmpSize+quote6)
		src := p.Address6.As16()
		copy(ip[8:], src[:])
		copy(ip[24:], t.ip[8:24])
		icmp := ip[ip6Size:]
		icmp[0] = 2
		binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
		copy(icmp[icmpSize:], t.ip[:quote6])
		// The pseudo header (RFC 8200 8.1) has addresses, length and protocol.
		pseudo := uint32(icmpSize+quote6) + flow.ProtoICMPv6 + uint32(sum(0, ip[8:ip6Size]))
		binary.BigEndian.PutUint16(icmp[2:], ^sum(pseudo, icmp))
		t.res.Frame = b[:ethSize+size]
	}
	t.res.Verdict = path.VerdictAnswer
}

// answerable reports whether the packet's source is one host and so is its
// destination.
func answerable(q *flow.Packet) bool {
	src, dst := netip.AddrFrom16(q.Src).Unmap(), netip.AddrFrom16(q.Dst).Unmap()
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !src.IsUnspecified() && !src.IsMulticast() && !dst.IsMulticast() && src != broadcast && dst != broadcast
}
