// Package oam reads and writes echo requests and replies for paths, in the manner of
// RFC 9516 (active OAM for service function chaining): an NSH with the O bit and
// next protocol SFC Active OAM carries a message; a node that the TTL ends at, or
// that the path ends at, replies with what it is. The package is pure.
package oam

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// Message types.
const (
	Request = 1
	Reply   = 2
)

// Codes of replies.
const (
	CodeNone    = 0
	CodeEnd     = 1 // the path's end
	CodeTTL     = 2 // the TTL ended here; the path goes on
	CodeUnknown = 3 // the node has no such hop
	CodeDead    = 4 // SI ran out
)

// CodeText is a code in words.
func CodeText(c uint8) string {
	switch c {
	case CodeEnd:
		return "end of the path"
	case CodeTTL:
		return "on the path"
	case CodeUnknown:
		return "no such hop here"
	case CodeDead:
		return "SI ran out"
	}
	return "no code"
}

// TLV types.
const (
	tlvReplyTo  = 1
	tlvNode     = 2
	tlvFunction = 3
	tlvInstance = 4
)

// Message is an echo request or reply.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---+-----------+---------------+-------------------------------+
//	| V |  Msg Type |  Return Code  |            Length             |
//	+---+-----------+---------------+-------------------------------+
//	|                        Sender's Handle                        |
//	+---------------------------------------------------------------+
//	|                        Sequence Number                        |
//	+---------------------------------------------------------------+
//	~               Time sent (8 bytes, ns), Time received (8)       ~
//	+---------------------------------------------------------------+
//	~   TLVs: type (1), reserved (1), length (2), value             ~
//	+---------------------------------------------------------------+
//
// Length counts the bytes behind it.
type Message struct {
	Type, Code       uint8
	Handle, Sequence uint32
	// Sent is by the requester's clock, Received by the replier's.
	Sent, Received time.Time
	// ReplyTo is where the reply goes, as a UDP datagram.
	ReplyTo netip.AddrPort
	// Node replied; Function and Instance are the stop it replied for, "" at the end.
	Node, Function, Instance string
}

const headSize = 28

// Errors of Parse.
var (
	ErrShort   = errors.New("oam: message is cut off")
	ErrVersion = errors.New("oam: message of an unknown version or type")
)

// Append writes the message behind b.
func (m *Message) Append(b []byte) []byte {
	start := len(b)
	b = append(b, m.Type&0x3f, m.Code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, m.Handle)
	b = binary.BigEndian.AppendUint32(b, m.Sequence)
	b = binary.BigEndian.AppendUint64(b, nanos(m.Sent))
	b = binary.BigEndian.AppendUint64(b, nanos(m.Received))
	if m.ReplyTo.IsValid() {
		text, _ := m.ReplyTo.MarshalBinary()
		b = appendTLV(b, tlvReplyTo, text)
	}
	for i, s := range [...]string{m.Node, m.Function, m.Instance} {
		if s != "" {
			b = appendTLV(b, tlvNode+byte(i), []byte(s[:min(len(s), 253)]))
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-4))
	return b
}

func appendTLV(b []byte, typ byte, v []byte) []byte {
	b = append(b, typ, 0, byte(len(v)>>8), byte(len(v)))
	return append(b, v...)
}

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func fromNanos(v uint64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(v))
}

// Parse reads a message.
func Parse(b []byte) (*Message, error) {
	if len(b) < headSize {
		return nil, ErrShort
	}
	size := int(binary.BigEndian.Uint16(b[2:])) + 4
	if size < headSize || size > len(b) {
		return nil, ErrShort
	}
	m := &Message{Type: b[0] & 0x3f, Code: b[1], Handle: binary.BigEndian.Uint32(b[4:]), Sequence: binary.BigEndian.Uint32(b[8:]),
		Sent: fromNanos(binary.BigEndian.Uint64(b[12:])), Received: fromNanos(binary.BigEndian.Uint64(b[20:]))}
	if b[0]>>6 != 0 || m.Type != Request && m.Type != Reply {
		return nil, ErrVersion
	}
	for b = b[headSize:size]; len(b) > 0; {
		if len(b) < 4 {
			return nil, ErrShort
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if 4+n > len(b) {
			return nil, ErrShort
		}
		v := b[4 : 4+n]
		switch b[0] {
		case tlvReplyTo:
			if m.ReplyTo.UnmarshalBinary(v) != nil || !m.ReplyTo.IsValid() {
				return nil, ErrShort
			}
		case tlvNode:
			m.Node = string(v)
		case tlvFunction:
			m.Function = string(v)
		case tlvInstance:
			m.Instance = string(v)
		}
		b = b[4+n:]
	}
	return m, nil
}

// Datagram is a message in NSH and VXLAN-GPE, as a UDP payload.
func (m *Message) Datagram(vni, spi uint32, si, ttl uint8) []byte {
	b := make([]byte, nsh.GPESize+nsh.MD1Size, 256)
	nsh.PutGPE(b, vni)
	h := nsh.Put(b[nsh.GPESize:], nsh.MD1, nsh.NextActiveOAM, spi, si)
	h.SetOAM()
	h.SetTTL(ttl)
	return m.Append(b)
}

// ParseDatagram reads a UDP payload.
func ParseDatagram(b []byte) (nsh.Header, *Message, error) {
	_, rest, err := nsh.ParseGPE(b)
	if err != nil {
		return nil, nil, err
	}
	h, payload, err := nsh.Parse(rest)
	if err != nil {
		return nil, nil, err
	}
	if !h.OAM() || h.Next() != nsh.NextActiveOAM {
		return nil, nil, ErrVersion
	}
	m, err := Parse(payload)
	return h, m, err
}
