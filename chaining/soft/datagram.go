package soft

import (
	"encoding/binary"
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// OuterRoom is how much room Enframe needs before a datagram: Ethernet, IPv6 and UDP.
const OuterRoom = ethSize + ip6Size + udpSize

// Enframe is the frame in which a VXLAN-GPE datagram came, for a node that receives
// it by a socket: the kernel has taken the headers off, and Forward wants to see
// them. The datagram lies at buf[OuterRoom:]; the frame is a part of buf. Checksums
// are 0, since nobody looks at them.
func Enframe(buf []byte, from netip.AddrPort, to netip.Addr) []byte {
	src, dst := from.Addr().Unmap(), to.Unmap()
	if src.Is4() {
		f := buf[ip6Size-ip4Size:]
		clear(f[:ethSize+ip4Size+udpSize])
		binary.BigEndian.PutUint16(f[12:], etherIPv4)
		ip := f[ethSize:]
		ip[0], ip[8], ip[9] = 0x45, outerTTL, flow.ProtoUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		s, d := src.As4(), dst.As4()
		copy(ip[12:], s[:])
		copy(ip[16:], d[:])
		udpHeader(ip[ip4Size:], from.Port())
		return f
	}
	clear(buf[:OuterRoom])
	binary.BigEndian.PutUint16(buf[12:], etherIPv6)
	ip := buf[ethSize:]
	ip[0], ip[6], ip[7] = 0x60, flow.ProtoUDP, outerTTL
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ip6Size))
	s, d := src.As16(), dst.As16()
	copy(ip[8:], s[:])
	copy(ip[24:], d[:])
	udpHeader(ip[ip6Size:], from.Port())
	return buf
}

func udpHeader(b []byte, port uint16) {
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], nsh.GPEPort)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
}

// Datagram is the UDP payload of a frame that Forward made for VXLAN-GPE, nil of
// another.
func Datagram(frame []byte) []byte {
	if len(frame) < ethSize {
		return nil
	}
	size := OuterRoom
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		size = ethSize + ip4Size + udpSize
	case etherIPv6:
	default:
		return nil
	}
	if len(frame) <= size {
		return nil
	}
	return frame[size:]
}
