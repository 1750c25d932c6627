package flow

import "encoding/binary"

// Packet is what the classifier looks at in an IP packet.
type Packet struct {
	Key
	Version uint8 // 4 or 6
	DSCP    uint8
	// Length is the packet's by its own header, at most that of the bytes.
	Length int
	// Payload is the offset of the transport header, -1 where there is none: a
	// fragment but the first.
	Payload int
	// Fragment is any fragment, LaterFragment one without a transport header.
	Fragment, LaterFragment bool
	// DontFragment is IPv4's flag; IPv6 routers never fragment.
	DontFragment bool
	// Error is an ICMP error. Key is then that of the packet it speaks of,
	// reversed: it belongs to the flow that goes the error's way.
	Error bool
	// TCPFlags are those of TCP.
	TCPFlags uint8
}

// maxExtensions bounds the walk over IPv6 extension headers, as BPF's verifier asks.
const maxExtensions = 6

// Parse reads an IP packet. ok is false for what is not IP, is cut off before the
// ports, or whose length is more than there is.
func Parse(b []byte, p *Packet) (ok bool) {
	*p = Packet{}
	if len(b) < 1 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		ok = p.ipv4(b)
	case 6:
		ok = p.ipv6(b)
	}
	if !ok {
		return false
	}
	if p.LaterFragment {
		p.Payload = -1
		return true
	}
	return p.transport(b)
}

func (p *Packet) ipv4(b []byte) bool {
	if len(b) < 20 {
		return false
	}
	head := int(b[0]&0xf) * 4
	p.Length = int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || p.Length < head || p.Length > len(b) {
		return false
	}
	p.Version, p.DSCP, p.Proto = 4, b[1]>>2, b[9]
	frag := binary.BigEndian.Uint16(b[6:])
	p.DontFragment = frag&0x4000 != 0
	p.Fragment, p.LaterFragment = frag&0x3fff != 0, frag&0x1fff != 0
	mapped(&p.Src, b[12:])
	mapped(&p.Dst, b[16:])
	p.Payload = head
	return true
}

func mapped(a *[16]byte, v4 []byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], v4[:4])
}

func (p *Packet) ipv6(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	p.Length = 40 + int(binary.BigEndian.Uint16(b[4:]))
	if p.Length > len(b) {
		return false
	}
	p.Version, p.DSCP = 6, (b[0]<<4|b[1]>>4)>>2
	p.DontFragment = true
	copy(p.Src[:], b[8:])
	copy(p.Dst[:], b[24:])
	next, at := b[6], 40
	for range maxExtensions {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options (RFC 8200 4)
			if p.Length < at+8 {
				return false
			}
			next, at = b[at], at+int(b[at+1])*8+8
		case 44: // fragment
			if p.Length < at+8 {
				return false
			}
			off := binary.BigEndian.Uint16(b[at+2:])
			p.Fragment = p.Fragment || off&0xfff9 != 0
			p.LaterFragment = p.LaterFragment || off&0xfff8 != 0
			next, at = b[at], at+8
			if p.LaterFragment {
				p.Proto, p.Payload = next, at
				return true
			}
		default:
			p.Proto, p.Payload = next, at
			return at <= p.Length
		}
	}
	return false
}

func (p *Packet) transport(b []byte) bool {
	t := b[p.Payload:p.Length]
	switch p.Proto {
	case ProtoTCP:
		if len(t) < 20 {
			return false
		}
		p.TCPFlags = t[13]
		p.ports(t)
	case ProtoUDP, ProtoSCTP:
		if len(t) < 8 {
			return false
		}
		p.ports(t)
	case ProtoICMP:
		if p.Version != 4 {
			return true
		}
		if len(t) < 8 {
			return false
		}
		switch t[0] {
		case 0, 8: // echo reply and request (RFC 792)
			p.SrcPort = binary.BigEndian.Uint16(t[4:])
			p.DstPort = p.SrcPort
		case 3, 4, 5, 11, 12: // errors
			return p.embedded(t[8:])
		}
	case ProtoICMPv6:
		if p.Version != 6 {
			return true
		}
		if len(t) < 8 {
			return false
		}
		switch {
		case t[0] == 128 || t[0] == 129: // echo (RFC 4443 4)
			p.SrcPort = binary.BigEndian.Uint16(t[4:])
			p.DstPort = p.SrcPort
		case t[0] < 128: // errors (RFC 4443 2.1)
			return p.embedded(t[8:])
		}
	}
	return true
}

func (p *Packet) ports(t []byte) {
	p.SrcPort = binary.BigEndian.Uint16(t)
	p.DstPort = binary.BigEndian.Uint16(t[2:])
}

// embedded takes the key from the packet that an ICMP error speaks of. At least
// eight bytes of its transport header are there (RFC 792, RFC 4443 2.4 c).
func (p *Packet) embedded(b []byte) bool {
	p.Error = true
	var in Packet
	switch {
	case p.Version == 4 && len(b) >= 20 && b[0]>>4 == 4 && b[0]&0xf >= 5:
		in.Proto, in.Payload = b[9], int(b[0]&0xf)*4
		mapped(&in.Src, b[12:])
		mapped(&in.Dst, b[16:])
		in.LaterFragment = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
	case p.Version == 6 && len(b) >= 40 && b[0]>>4 == 6:
		in.Proto, in.Payload = b[6], 40
		copy(in.Src[:], b[8:])
		copy(in.Dst[:], b[24:])
	default:
		return false
	}
	if !in.LaterFragment {
		if len(b) < in.Payload+8 {
			return false
		}
		switch t := b[in.Payload:]; in.Proto {
		case ProtoTCP, ProtoUDP, ProtoSCTP:
			in.ports(t)
		case ProtoICMP, ProtoICMPv6:
			in.SrcPort = binary.BigEndian.Uint16(t[4:])
			in.DstPort = in.SrcPort
		}
	}
	p.Key = in.Key.Reverse(0)
	return true
}
