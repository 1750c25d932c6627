// Package function is what network functions have in common. Each lives in a room
// of its own below: firewall, nat44,
// policer, tagger, mirror. They are pure: a packet,
// a direction and a time give a result, and nothing else happens; chaining/host
// runs them as processes.
package function

import (
	"encoding/binary"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
)

// Direction is which way a packet goes along its chain.
type Direction uint8

// Directions.
const (
	Forward Direction = iota // as the chain is written
	Back                     // the way back
)

// Result is what a function did.
type Result struct {
	// Drop is why the packet is dropped, a name for a counter; "" lets it go on.
	Drop string
	// Packet goes on: the one that came in, changed or not, or another.
	Packet []byte
	// Tag is a name for the flow that functions behind this one may read, "" for none.
	Tag string
	// Copy says that a copy of the packet goes to the mirror's collector.
	Copy bool
}

// Function works on IP packets. Process may change the packet in place; it has the
// capacity to grow by [Room]. now is any monotonic clock. A Function belongs to one
// goroutine.
type Function interface {
	Process(packet []byte, d Direction, now time.Duration) Result
}

// Room is by how many bytes a function may make a packet longer.
const Room = 256

// Checksum16 is the Internet checksum's sum (RFC 1071), not inverted, over b, going
// on from start.
func Checksum16(start uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	for start > 0xffff {
		start = start&0xffff + start>>16
	}
	return uint16(start)
}

// Adjust is a checksum after the bytes old of what it covers became fresh (RFC 1624,
// equation 3). Both are of the same even length.
func Adjust(sum uint16, old, fresh []byte) uint16 {
	s := uint32(^sum)
	for i := 0; i+1 < len(old); i += 2 {
		s += uint32(^binary.BigEndian.Uint16(old[i:])) + uint32(binary.BigEndian.Uint16(fresh[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// TransportChecksum computes that of a TCP, UDP or ICMPv6 packet that was read, over
// pseudo header and payload, with the field taken as zero.
func TransportChecksum(packet []byte, p *flow.Packet) uint16 {
	t := packet[p.Payload:p.Length]
	addresses := packet[12:20]
	if p.Version == 6 {
		addresses = packet[8:40]
	}
	s := uint32(p.Proto) + uint32(len(t)) + uint32(Checksum16(0, addresses))
	at := ChecksumAt(p.Proto)
	s += uint32(Checksum16(0, t[:at])) + uint32(Checksum16(0, t[at+2:]))
	return ^Checksum16(s, nil)
}

// ChecksumAt is where in the transport header the checksum stands, -1 for protocols
// that are not known.
func ChecksumAt(proto uint8) int {
	switch proto {
	case flow.ProtoTCP:
		return 16
	case flow.ProtoUDP:
		return 6
	case flow.ProtoICMP, flow.ProtoICMPv6:
		return 2
	}
	return -1
}
