package soft

import (
	"encoding/binary"
	"errors"

	"github.com/meridian-mesh/meridian/chaining/flow"
)

// Unfinished says what a sender has left to hardware, as a packet socket tells it
// (struct virtio_net_hdr): offsets are into the frame.
type Unfinished struct {
	// Checksum says that the transport checksum has to be computed from Start on, and
	// written at Start+Offset, where the pseudo header's sum stands.
	Checksum      bool
	Start, Offset int
	// Segment is how much payload each segment shall carry, 0 for a packet that stays
	// whole.
	Segment int
	// UDP says that the segments are datagrams; else they are TCP's.
	UDP bool
}

// ErrUnfinished says that a frame is not what its sender says it is.
var ErrUnfinished = errors.New("frame does not fit what is left to do with it")

// Finish does what hardware would: it completes the frame's checksum, or cuts it into
// segments, each with its own headers and checksums (as RFC 9293 3.7 would have them
// sent), and gives each frame to emit, in order. out must have room for one of them:
// headers and Segment. What emit gets is valid until it returns.
func Finish(frame []byte, u Unfinished, out []byte, emit func([]byte)) error {
	if u.Segment == 0 {
		if u.Checksum {
			if u.Start < ethSize || u.Offset < 0 || u.Start+u.Offset+2 > len(frame) {
				return ErrUnfinished
			}
			complete(frame, u.Start, u.Offset)
		}
		emit(frame)
		return nil
	}
	s := segmenter{frame: frame, udp: u.UDP}
	if err := s.parse(); err != nil {
		return err
	}
	payload := frame[s.head:]
	for at := 0; at < len(payload); at += u.Segment {
		n := min(u.Segment, len(payload)-at)
		if s.head+n > len(out) {
			return ErrUnfinished
		}
		b := out[:s.head+n]
		copy(b, frame[:s.head])
		copy(b[s.head:], payload[at:at+n])
		s.headers(b, at, at+n == len(payload))
		emit(b)
	}
	return nil
}

// complete writes the ones' complement sum of all from start at start+offset.
func complete(b []byte, start, offset int) {
	c := ^sum(0, b[start:])
	if c == 0 && offset == 6 {
		c = 0xffff // of UDP, 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[start+offset:], c)
}

type segmenter struct {
	frame       []byte
	udp         bool
	ip4         bool
	trans, head int // where the transport header and the payload begin
	segment     uint16
}

func (s *segmenter) parse() error {
	b := s.frame
	var p flow.Packet
	if len(b) < ethSize || !flow.Parse(b[ethSize:], &p) || p.Payload < 0 {
		return ErrUnfinished
	}
	s.ip4, s.trans = p.Version == 4, ethSize+p.Payload
	switch {
	case s.udp && p.Proto == flow.ProtoUDP:
		s.head = s.trans + udpSize
	case !s.udp && p.Proto == flow.ProtoTCP && len(b) >= s.trans+20:
		s.head = s.trans + int(b[s.trans+12]>>4)*4
	default:
		return ErrUnfinished
	}
	if s.head > len(b) {
		return ErrUnfinished
	}
	return nil
}

// Flags of TCP that not all segments have (RFC 9293 3.1, RFC 3168 6.1.2).
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// headers makes the headers of a segment whose payload stood at offset at.
func (s *segmenter) headers(b []byte, at int, last bool) {
	ip := b[ethSize:]
	var pseudo uint32
	if s.ip4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+s.segment)
		head := ip[:s.trans-ethSize]
		binary.BigEndian.PutUint16(head[10:], 0)
		binary.BigEndian.PutUint16(head[10:], ^sum(0, head))
		pseudo = uint32(sum(0, ip[12:20]))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ip6Size))
		pseudo = uint32(sum(0, ip[8:40]))
	}
	s.segment++
	t := b[s.trans:]
	pseudo += uint32(len(t))
	if s.udp {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		binary.BigEndian.PutUint16(t[6:], 0)
		c := ^sum(pseudo+flow.ProtoUDP, t)
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(t[6:], c)
		return
	}
	binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(t[4:])+uint32(at))
	if !last {
		t[13] &^= tcpFIN | tcpPSH
	}
	if at > 0 {
		t[13] &^= tcpCWR
	}
	binary.BigEndian.PutUint16(t[16:], 0)
	binary.BigEndian.PutUint16(t[16:], ^sum(pseudo+flow.ProtoTCP, t))
}
