package packetgrammar

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// Grammar makes frames. It belongs to one goroutine.
type Grammar struct {
	rng   *rand.Rand
	frame []byte
}

// MaxFrame is the longest frame that a grammar makes.
const MaxFrame = 2048

// New makes the grammar of a seed: the same frames in the same order each time.
func New(seed uint64) *Grammar {
	return &Grammar{rng: rand.New(rand.NewPCG(seed, 0x4d3)), frame: make([]byte, 0, MaxFrame)}
}

// Next makes a frame and says on which port of [Table] it comes in. The frame is
// valid until the next call and may be changed.
func (g *Grammar) Next() (port uint16, frame []byte) {
	g.frame = g.frame[:0]
	switch n := g.rng.IntN(100); {
	case n < 30:
		port = PortClient
		g.plainFrame(g.clientAddresses)
	case n < 40:
		port = PortServer
		g.plainFrame(g.serverAddresses)
	case n < 50:
		port = uint16(PortMAC + g.rng.IntN(3))
		g.plainFrame(g.clientAddresses)
		g.functionMAC()
	case n < 75:
		port = g.pick(PortUnderlay, PortUnderlay, PortGPE)
		g.gpeFrame()
	case n < 95:
		port = PortEther
		g.ether(0x894F)
		g.nsh()
	case n < 97:
		port = PortBorder
		g.gpeFrame()
	default:
		port = uint16(g.rng.IntN(portCount))
		switch g.rng.IntN(4) {
		case 0:
			g.ether(0x0806) // ARP
			g.bytes(28)
		case 1:
			g.ether(0x894F)
			g.nsh()
		case 2:
			g.gpeFrame()
		default:
			g.plainFrame(g.clientAddresses)
		}
	}
	if g.rng.IntN(25) == 0 {
		g.damage()
	}
	return port, g.frame
}

// damage cuts the frame or changes some of its bits.
func (g *Grammar) damage() {
	if g.rng.IntN(2) == 0 {
		g.frame = g.frame[:g.rng.IntN(len(g.frame)+1)]
		return
	}
	for range 1 + g.rng.IntN(3) {
		g.frame[g.rng.IntN(min(len(g.frame), 128))] ^= 1 << g.rng.IntN(8)
	}
}

func (g *Grammar) pick(of ...uint16) uint16 { return of[g.rng.IntN(len(of))] }

func (g *Grammar) bytes(n int) {
	for range n {
		g.frame = append(g.frame, byte(g.rng.Uint32()))
	}
}

func (g *Grammar) u16(v int) { g.frame = binary.BigEndian.AppendUint16(g.frame, uint16(v)) }

func (g *Grammar) ether(typ int) {
	g.frame = append(g.frame, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, byte(0x80+g.rng.IntN(4)))
	g.u16(typ)
}

// functionMAC is a source address by which a function of StateMAC gives a packet back.
func (g *Grammar) functionMAC() {
	if g.rng.IntN(20) == 0 || len(g.frame) < 14 {
		return
	}
	spi, si := g.hop()
	copy(g.frame[6:], []byte{2, 0x5f, byte(spi >> 16), byte(spi >> 8), byte(spi), si})
}

// hop is a place on a path of the table, or nearly.
func (g *Grammar) hop() (uint32, uint8) {
	spis := [...]uint32{spiForward, spiForward, spiForward, spiForward, spiSecond, spiSecond, spiReverse, spiBranch, spiLoop, spiIPv6, spiBorder, spiTold, spiTold, spiTold6}
	spi := spis[g.rng.IntN(len(spis))]
	switch g.rng.IntN(17) {
	case 0:
		return uint32(g.rng.IntN(nsh.MaxSPI)), uint8(g.rng.Uint32())
	case 1:
		return spi, uint8(g.rng.IntN(3)) // SI 0 to 2
	case 2, 3, 4:
		return spi, 255
	case 5:
		return spi, 0
	}
	return spi, uint8(248 + g.rng.IntN(8))
}

type addresses func() (src, dst [4]byte)

func (g *Grammar) clientAddresses() (src, dst [4]byte) {
	return [4]byte{10, byte(g.rng.IntN(3)), 0, byte(g.rng.IntN(200))}, [4]byte{10, 9, 0, byte(g.rng.IntN(4))}
}

func (g *Grammar) serverAddresses() (src, dst [4]byte) {
	dst, src = g.clientAddresses()
	return src, dst
}

func (g *Grammar) plainFrame(a addresses) {
	six := g.rng.IntN(4) == 0
	typ := 0x0800
	if six {
		typ = 0x86dd
	}
	if g.rng.IntN(200) == 0 {
		typ ^= 0x0800 ^ 0x86dd // the other family's
	}
	g.ether(typ)
	g.ip(six, a)
	if g.rng.IntN(8) == 0 {
		g.bytes(g.rng.IntN(20)) // Ethernet padding
	}
}

// ip appends an IP packet.
func (g *Grammar) ip(six bool, a addresses) {
	src, dst := a()
	switch g.rng.IntN(60) {
	case 0:
		dst = [4]byte{224, 0, 0, 5}
	case 1:
		dst = [4]byte{192, 0, 2, 1} // the node
	}
	start := len(g.frame)
	var protos []uint16
	icmp := uint16(flow.ProtoICMP)
	if six {
		icmp = flow.ProtoICMPv6
	}
	protos = []uint16{flow.ProtoTCP, flow.ProtoTCP, flow.ProtoTCP, flow.ProtoUDP, flow.ProtoUDP, icmp, flow.ProtoSCTP, 47}
	proto := byte(g.pick(protos...))
	tos := byte(0)
	if g.rng.IntN(12) == 0 {
		tos = 46 << 2
	}
	var frag int
	switch g.rng.IntN(20) {
	case 0:
		frag = 0x2000
	case 1:
		frag = 1 + g.rng.IntN(100)
	}
	if six {
		g.frame = append(g.frame, 0x60|tos>>4, tos<<4, 0, 0)
		g.u16(0)
		next := proto
		ext := g.rng.IntN(15)
		switch {
		case frag != 0:
			next = 44
		case ext == 0:
			next = byte(g.pick(0, 43, 60))
		}
		g.frame = append(g.frame, next, byte(1+g.rng.IntN(64)))
		g.ip6Address(src, 1)
		g.ip6Address(dst, 2)
		switch {
		case frag != 0:
			g.frame = append(g.frame, proto, 0)
			g.u16((frag&0x1fff)<<3 | frag>>13)
			g.bytes(4)
		case ext == 0:
			g.frame = append(g.frame, proto, 1)
			g.bytes(14)
		}
	} else {
		options := 0
		if g.rng.IntN(20) == 0 {
			options = 1 + g.rng.IntN(10)
		}
		g.frame = append(g.frame, 0x45+byte(options), tos)
		g.u16(0)
		g.u16(g.rng.IntN(65536))
		if frag == 0 && g.rng.IntN(2) == 0 {
			frag = 0x4000
		}
		g.u16(frag)
		g.frame = append(g.frame, byte(1+g.rng.IntN(64)), proto)
		g.u16(0)
		g.frame = append(g.frame, src[:]...)
		g.frame = append(g.frame, dst[:]...)
		for range options {
			g.frame = append(g.frame, 1, 1, 1, 1) // no operation
		}
	}
	g.transport(proto, six, a)
	if g.rng.IntN(6) == 0 {
		g.bytes(g.rng.IntN(600))
	} else {
		g.bytes(g.rng.IntN(30))
	}
	n := len(g.frame) - start
	if g.rng.IntN(300) == 0 {
		n += g.rng.IntN(40) - 20
	}
	if six {
		binary.BigEndian.PutUint16(g.frame[start+4:], uint16(n-40))
	} else {
		binary.BigEndian.PutUint16(g.frame[start+2:], uint16(n))
	}
}

func (g *Grammar) ip6Address(a [4]byte, site byte) {
	switch a[0] {
	case 192:
		g.frame = append(g.frame, 0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
		return
	case 224:
		g.frame = append(g.frame, byte(g.pick(0xff, 0xfe)), 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a[3])
		return
	}
	g.frame = append(g.frame, 0x20, 0x01, 0x0d, 0xb8, 0, site, a[1], 0, 0, 0, 0, 0, 0, 0, 0, a[3])
}

func (g *Grammar) transport(proto byte, six bool, a addresses) {
	src := int(g.pick(1000, 1500, 40000, 40001, 443, 80, 8080))
	dst := int(g.pick(80, 443, 22, 23, 25, 8000, 8080, 8081, 8082, 8999, 5000, 7, 4500, 53, 9000))
	switch proto {
	case flow.ProtoTCP:
		g.u16(src)
		g.u16(dst)
		g.bytes(8)
		g.frame = append(g.frame, 0x50, byte(g.rng.IntN(64)))
		g.bytes(6)
	case flow.ProtoUDP, flow.ProtoSCTP:
		g.u16(src)
		g.u16(dst)
		g.bytes(4)
	case flow.ProtoICMP, flow.ProtoICMPv6:
		echo := g.pick(8, 0)
		failure := g.pick(3, 4, 5, 11, 12)
		if six {
			echo, failure = g.pick(128, 129, 135), g.pick(1, 2, 3, 4)
			if g.rng.IntN(2) == 0 {
				g.frame[len(g.frame)-33] = 255 // the hop limit, where no extension is
			}
		}
		if g.rng.IntN(2) == 0 {
			g.frame = append(g.frame, byte(echo), 0)
			g.bytes(2)
			g.u16(g.rng.IntN(50))
			g.bytes(2)
			return
		}
		g.frame = append(g.frame, byte(failure), 0)
		g.bytes(6)
		g.quote(six, a)
	}
}

// quote is the packet that an ICMP error speaks of: header and eight bytes.
func (g *Grammar) quote(six bool, a addresses) {
	dst, src := a()
	proto := byte(g.pick(flow.ProtoTCP, flow.ProtoUDP, flow.ProtoUDP))
	if six {
		g.frame = append(g.frame, 0x60, 0, 0, 0, 0, 100, proto, 60)
		g.ip6Address(src, 2)
		g.ip6Address(dst, 1)
	} else {
		g.frame = append(g.frame, 0x45, 0, 0, 100, 0, 0, 0, 0, 60, proto, 0, 0)
		g.frame = append(g.frame, src[:]...)
		g.frame = append(g.frame, dst[:]...)
	}
	g.u16(int(g.pick(80, 443, 8080)))
	g.u16(int(g.pick(1000, 1500, 40000)))
	g.bytes(4)
}

// nsh appends a header and what is behind it.
func (g *Grammar) nsh() {
	start := len(g.frame)
	six := g.rng.IntN(4) == 0
	next := nsh.NextIPv4
	if six {
		next = nsh.NextIPv6
	}
	md := uint8(nsh.MD1)
	if g.rng.IntN(6) == 0 {
		md = nsh.MD2
	}
	spi, si := g.hop()
	b := make([]byte, nsh.MaxSize)
	h := nsh.Put(b, md, next, spi, si)
	if md == nsh.MD1 {
		binary.BigEndian.PutUint32(h[8:], g.rng.Uint32())
	} else {
		for range g.rng.IntN(3) {
			h, _ = nsh.AppendContext(b, h, nsh.ContextHeader{Class: nsh.ClassMeridian, Type: uint8(g.rng.IntN(4)), Value: make([]byte, g.rng.IntN(24))})
		}
	}
	h.SetTTL(uint8(g.pick(63, 63, 62, 10, 2, 1, 0)))
	if g.rng.IntN(5) == 0 {
		h[0] |= 0x10 // unassigned bits
		h[2] |= byte(g.rng.IntN(16)) << 4
	}
	switch g.rng.IntN(40) {
	case 0:
		h[0] |= byte(1+g.rng.IntN(3)) << 6
	case 1:
		h[1] = h[1]&0xc0 | byte(g.rng.IntN(10))
	case 2:
		h[2] = h[2]&0xf0 | byte(g.pick(0, 15, 3))
	case 3:
		h.SetNext(nsh.NextProtocol(g.pick(0, 3, 4, 5, 7, 254)))
	case 4:
		h.SetOAM()
	case 5, 6:
		h.SetOAM()
		h.SetNext(nsh.NextActiveOAM)
	}
	g.frame = append(g.frame, h...)
	if g.rng.IntN(60) == 0 {
		six = !six
	}
	g.ip(six, g.clientAddresses)
	if g.rng.IntN(60) == 0 {
		g.frame = g.frame[:start+g.rng.IntN(len(g.frame)-start)]
	}
}

// gpeFrame is an NSH in VXLAN-GPE for the node, or nearly.
func (g *Grammar) gpeFrame() {
	six := g.rng.IntN(4) == 0
	if six {
		g.ether(0x86dd)
	} else {
		g.ether(0x0800)
	}
	start := len(g.frame)
	b := make([]byte, 40)
	if six {
		b[0], b[6], b[7] = 0x60, flow.ProtoUDP, 64
		copy(b[8:], []byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2})
		copy(b[24:], []byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	} else {
		b = b[:20]
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, flow.ProtoUDP
		copy(b[12:], []byte{198, 51, 100, 2, 192, 0, 2, 1})
	}
	switch g.rng.IntN(60) {
	case 0:
		b[len(b)-1]++ // for somebody else
	case 1:
		if !six {
			b[6] |= 0x20 // a fragment
		}
	case 2:
		if !six {
			b[0]++ // options
		}
	}
	size := len(b)
	g.frame = append(g.frame, b...)
	g.u16(49152 + g.rng.IntN(16384))
	g.u16(nsh.GPEPort)
	g.u16(0)
	g.u16(0)
	gpe := []byte{0x0c, 0, 0, nsh.GPENextNSH, 0, 0, 7, 0}
	if g.rng.IntN(60) == 0 {
		gpe[g.rng.IntN(4)] ^= 1 << g.rng.IntN(8)
	}
	g.frame = append(g.frame, gpe...)
	g.nsh()
	n := len(g.frame) - start
	if g.rng.IntN(80) == 0 {
		n += g.rng.IntN(8) - 4
	}
	if six {
		binary.BigEndian.PutUint16(g.frame[start+4:], uint16(n-40))
	} else {
		binary.BigEndian.PutUint16(g.frame[start+2:], uint16(n))
	}
	binary.BigEndian.PutUint16(g.frame[start+size+4:], uint16(n-size))
	if g.rng.IntN(60) == 0 {
		binary.BigEndian.PutUint16(g.frame[start+size+2:], 4789)
	}
}
