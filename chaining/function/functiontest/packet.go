// Package functiontest makes IP packets with right checksums, for tests of
// functions, and says whether those of a packet still are.
package functiontest

import (
	"encoding/binary"
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
)

// TCP flags.
const (
	FIN = 1
	SYN = 2
	RST = 4
	ACK = 16
)

// UDP makes a packet from one address and port to another.
func UDP(from, to string, payload []byte) []byte {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	t := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint16(t[4:], uint16(8+len(payload)))
	return IP(src.Addr(), dst.Addr(), flow.ProtoUDP, append(t, payload...))
}

// TCP makes a segment.
func TCP(from, to string, flags byte, seq uint32, payload []byte) []byte {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	t := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint32(t[4:], seq)
	t[12], t[13] = 0x50, flags
	return IP(src.Addr(), dst.Addr(), flow.ProtoTCP, append(t, payload...))
}

// IP makes a packet of either family, with [function.Room] to grow.
func IP(src, dst netip.Addr, proto byte, transport []byte) []byte {
	var b []byte
	if src.Is4() {
		b = make([]byte, 20, 20+len(transport)+function.Room)
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(transport)))
		s, d := src.As4(), dst.As4()
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^function.Checksum16(0, b))
	} else {
		b = make([]byte, 40, 40+len(transport)+function.Room)
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(transport)))
		s, d := src.As16(), dst.As16()
		copy(b[8:], s[:])
		copy(b[24:], d[:])
	}
	b = append(b, transport...)
	var p flow.Packet
	if !flow.Parse(b, &p) {
		panic("made a packet that cannot be read")
	}
	if at := function.ChecksumAt(proto); at >= 0 {
		var sum uint16
		if proto == flow.ProtoICMP {
			sum = ^function.Checksum16(0, b[p.Payload:])
		} else {
			sum = function.TransportChecksum(b, &p)
		}
		binary.BigEndian.PutUint16(b[p.Payload+at:], sum)
	}
	return b
}

// Sound reports whether a packet can be read and its checksums are right.
func Sound(b []byte) bool {
	var p flow.Packet
	if !flow.Parse(b, &p) {
		return false
	}
	if p.Version == 4 && function.Checksum16(0, b[:int(b[0]&15)*4]) != 0xffff {
		return false
	}
	outer := b[9]
	if p.Version == 6 {
		outer = b[6]
	}
	if outer == flow.ProtoICMP {
		return function.Checksum16(0, b[p.Payload:p.Length]) == 0xffff
	}
	at := function.ChecksumAt(outer)
	return at < 0 || binary.BigEndian.Uint16(b[p.Payload+at:]) == function.TransportChecksum(b, &p)
}
