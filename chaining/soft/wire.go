package soft

import (
	"encoding/binary"
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

const (
	ip4Size = 20
	ip6Size = 40
	udpSize = 8
	// outerTTL is the outer packet's TTL or hop limit.
	outerTTL = 64
)

// tunnel takes a VXLAN-GPE packet for the port's address on its way; all else
// passes. The outer header must say exactly how long the frame is: it is longer
// than any padding. Its checksums are not looked at, as BPF does not: what matters
// is protected by those of the packet inside (RFC 6935), or by RFC 9145.
func (t *turn) tunnel(p *path.Port, ether uint16) {
	b := t.in[ethSize:]
	size := ip4Size
	if ether == etherIPv4 {
		if len(b) < ip4Size || b[0]>>4 != 4 {
			t.drop(path.ReasonMalformed)
			return
		}
		if b[9] != flow.ProtoUDP || !p.Address.IsValid() || !p.Address.Is4() || p.Address.As4() != [4]byte(b[16:20]) {
			t.pass()
			return
		}
		frag := binary.BigEndian.Uint16(b[6:]) & 0x3fff
		if frag&0x1fff != 0 {
			t.pass() // The kernel puts it together, and nobody listens there.
			return
		}
		if b[0] != 0x45 {
			// With options the ports stand elsewhere; nobody sends VXLAN-GPE with them.
			t.pass()
			return
		}
		if len(b) < ip4Size+udpSize {
			t.drop(path.ReasonMalformed)
			return
		}
		if binary.BigEndian.Uint16(b[ip4Size+2:]) != nsh.GPEPort {
			t.pass()
			return
		}
		if frag != 0 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.drop(path.ReasonMalformed)
			return
		}
	} else {
		size = ip6Size
		if len(b) < ip6Size || b[0]>>4 != 6 {
			t.drop(path.ReasonMalformed)
			return
		}
		if b[6] != flow.ProtoUDP || !p.Address6.IsValid() || p.Address6.As16() != [16]byte(b[24:40]) {
			t.pass()
			return
		}
		if len(b) < ip6Size+udpSize {
			t.drop(path.ReasonMalformed)
			return
		}
		if binary.BigEndian.Uint16(b[ip6Size+2:]) != nsh.GPEPort {
			t.pass()
			return
		}
		if int(binary.BigEndian.Uint16(b[4:])) != len(b)-ip6Size {
			t.drop(path.ReasonMalformed)
			return
		}
	}
	if int(binary.BigEndian.Uint16(b[size+4:])) != len(b)-size {
		t.drop(path.ReasonMalformed)
		return
	}
	_, rest, err := nsh.ParseGPE(b[size+udpSize:])
	if err != nil {
		t.drop(path.ReasonMalformed)
		return
	}
	t.header(p, rest)
}

// ethernet writes an Ethernet header at the beginning of the caller's buffer and
// returns the buffer. A zero address stays the one that came in.
func (t *turn) ethernet(src, dst path.MAC, ether uint16) []byte {
	b := t.out
	copy(b, t.in[:12])
	if dst != (path.MAC{}) {
		copy(b, dst[:])
	}
	if src != (path.MAC{}) {
		copy(b[6:], src[:])
	}
	binary.BigEndian.PutUint16(b[12:], ether)
	return b
}

// bare makes the frame of the plain packet.
func (t *turn) bare(src, dst path.MAC) {
	ether := uint16(etherIPv4)
	if t.packet.Version == 6 {
		ether = etherIPv6
	}
	b := t.ethernet(src, dst, ether)
	t.res.Frame = b[:ethSize+copy(b[ethSize:], t.ip)]
}

// nshInto writes the packet's header for the hop, and returns its size. A header that
// is there keeps its context; a new one is of MD type 1, or carries the hop's metadata.
func (t *turn) nshInto(b []byte, hop path.Hop, metadata string) int {
	if t.head != nil {
		copy(b, t.head)
		nsh.Header(b).SetPath(hop.SPI, hop.SI)
		return len(t.head)
	}
	next := nsh.NextIPv4
	if t.packet.Version == 6 {
		next = nsh.NextIPv6
	}
	if metadata != "" {
		return len(nsh.PutMetadata(b, next, hop.SPI, hop.SI, metadata))
	}
	return len(nsh.Put(b, nsh.MD1, next, hop.SPI, hop.SI))
}

// encapsulate makes the frame of the packet in VXLAN-GPE.
func (t *turn) encapsulate(hop path.Hop, next *path.NextHop) {
	ether, size := uint16(etherIPv4), ip4Size
	if !next.Local.Is4() {
		ether, size = etherIPv6, ip6Size
	}
	frame := t.ethernet(next.SrcMAC, next.DstMAC, ether)
	b := frame[ethSize:]
	at := size + udpSize
	nsh.PutGPE(b[at:], t.table.VNI)
	at += nsh.GPESize
	n := t.nshInto(b[at:], hop, next.Metadata)
	if next.Border {
		h, err := t.integrity.Protect(b[at:at+nsh.MaxSize], n, t.ip, t.now)
		if err != nil {
			t.drop(path.ReasonIntegrity)
			return
		}
		n = len(h)
	}
	at += n
	at += copy(b[at:], t.ip)
	outer(b[:at], next.Local, next.Remote, sourcePort(t.packet.Hash()))
	t.res.Frame = frame[:ethSize+at]
}

// sourcePort carries the flow's hash, so that routers in between spread flows (RFC
// 7348 5), in the range for it (RFC 6335).
func sourcePort(hash uint64) uint16 {
	h := uint32(hash)
	h ^= h >> 16
	return 49152 + uint16(h&0x3fff)
}

// outer fills the IP and UDP headers at the beginning of b, all of which is the
// packet. The UDP checksum is 0 (RFC 6935).
func outer(b []byte, local, remote netip.Addr, port uint16) {
	size := ip4Size
	if local.Is4() {
		src, dst := local.As4(), remote.As4()
		clear(b[:ip4Size])
		b[0], b[6], b[8], b[9] = 0x45, 0x40, outerTTL, flow.ProtoUDP
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:], src[:])
		copy(b[16:], dst[:])
		binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:ip4Size]))
	} else {
		size = ip6Size
		src, dst := local.As16(), remote.As16()
		binary.BigEndian.PutUint32(b, 0x60000000)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ip6Size))
		b[6], b[7] = flow.ProtoUDP, outerTTL
		copy(b[8:], src[:])
		copy(b[24:], dst[:])
	}
	u := b[size:]
	binary.BigEndian.PutUint16(u, port)
	binary.BigEndian.PutUint16(u[2:], nsh.GPEPort)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	binary.BigEndian.PutUint16(u[6:], 0)
}

// sum is the Internet checksum's ones' complement sum (RFC 1071), not inverted,
// going on from start.
func sum(start uint32, b []byte) uint16 {
	s := start
	for len(b) >= 2 {
		s += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
