package flow

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// IP protocols that have something like ports.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// KeySize is the size of a key's bytes, see [Key.Bytes].
const KeySize = 40

// Key is a flow's 5-tuple and the zone in which it was seen. Addresses are in
// their 16-byte form, IPv4 as ::ffff:a.b.c.d. For ICMP echo both ports are the
// identifier, so that a reply's key is the reverse of its request's; for other
// protocols, and for fragments but the first, they are 0.
type Key struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
	Proto            uint8
	// Zone keeps equal tuples of different networks apart; 0 to 65535.
	Zone uint16
}

// Bytes is the key as BPF has it in memory:
//
//	offset 0  source address        16 bytes
//	      16  destination address   16 bytes
//	      32  source port            2 bytes, network order
//	      34  destination port       2 bytes, network order
//	      36  protocol               1 byte
//	      37  zero                   1 byte
//	      38  zone                   2 bytes, network order
func (k *Key) Bytes() (b [KeySize]byte) {
	copy(b[:], k.Src[:])
	copy(b[16:], k.Dst[:])
	binary.BigEndian.PutUint16(b[32:], k.SrcPort)
	binary.BigEndian.PutUint16(b[34:], k.DstPort)
	b[36] = k.Proto
	binary.BigEndian.PutUint16(b[38:], k.Zone)
	return b
}

// Reverse is the key of the answers, in the given zone.
func (k *Key) Reverse(zone uint16) Key {
	return Key{Src: k.Dst, Dst: k.Src, SrcPort: k.DstPort, DstPort: k.SrcPort, Proto: k.Proto, Zone: zone}
}

// Hash is the same for a flow and its answers and does not look at the zone: the
// words of the two ends, each end folded on its own, are added, which keeps no
// order. BPF computes the same (little-endian words of [Key.Bytes]).
func (k *Key) Hash() uint64 {
	src := end(&k.Src, k.SrcPort)
	dst := end(&k.Dst, k.DstPort)
	return Mix(src + dst + uint64(k.Proto))
}

// end folds one end of a flow. The port is taken in network order, as it lies in
// memory.
func end(a *[16]byte, port uint16) uint64 {
	h := Mix(binary.LittleEndian.Uint64(a[:]) ^ uint64(port>>8|port<<8))
	return Mix(h ^ binary.LittleEndian.Uint64(a[8:]))
}

// Mix is splitmix64's finaliser: every bit of z counts for every bit of the result.
func Mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Source is the flow's source address and port.
func (k *Key) Source() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(k.Src).Unmap(), k.SrcPort)
}

// Destination is the flow's destination address and port.
func (k *Key) Destination() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(k.Dst).Unmap(), k.DstPort)
}

// String prints protocol, source and destination.
func (k Key) String() string {
	return fmt.Sprintf("%s %v > %v", ProtoName(k.Proto), k.Source(), k.Destination())
}

// ProtoName is a protocol's name, or its number.
func ProtoName(p uint8) string {
	switch p {
	case ProtoICMP:
		return "icmp"
	case ProtoTCP:
		return "tcp"
	case ProtoUDP:
		return "udp"
	case ProtoICMPv6:
		return "icmp6"
	case ProtoSCTP:
		return "sctp"
	}
	return fmt.Sprintf("proto-%d", p)
}
