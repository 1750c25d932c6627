package nsh

import (
	"encoding/binary"
	"errors"
)

// Classes and types of context headers (2.5.1) that Meridian writes or reads.
// Class 0 is the IETF's.
const (
	ClassIETF = 0x0000
	// TypeMAC2 carries a message authentication code that covers the whole header
	// and the packet behind it (RFC 9145 5.2, "MAC and Encrypted Metadata #2").
	TypeMAC2 = 0x03
	// TypeTenant and TypeFlow are of RFC 9263 (4.2, 4.5).
	TypeTenant = 0x05
	TypeFlow   = 0x08

	// ClassMeridian is in the range for experiments (9.1.4: 0xfff6 to 0xfffe).
	ClassMeridian = 0xfff6
	// TypeMetadata is the text of an AfSfcRequirement's metadata (3GPP TS 29.514),
	// passed to functions as it is.
	TypeMetadata = 0x01
	// TypeTag is a name that a tagging function gave the flow.
	TypeTag = 0x02
	// TypePad fills a header up and says nothing.
	TypePad = 0x7e
)

// MaxMetadata is how many bytes of text [PutMetadata] takes.
const MaxMetadata = MD1Size - BaseSize - 4

// ErrContext says that context headers do not fill the header's length exactly.
var ErrContext = errors.New("nsh: context headers do not end where the header does")

// ErrFull says that no room is left in the header's 252 bytes.
var ErrFull = errors.New("nsh: context header does not fit")

// ContextHeader is one context header of MD type 2.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+---------------+-+-------------+
//	|        Metadata Class         |      Type     |U|    Length   |  2.5.1
//	+-------------------------------+---------------+-+-------------+
//	|        Value, padded with zeros to a multiple of 4            |
//	+---------------------------------------------------------------+
type ContextHeader struct {
	Class uint16
	Type  uint8
	// Value is part of the packet, without padding, at most 127 bytes.
	Value []byte
}

// NextContext reads the context header at the beginning of rest, which is
// [Header.Context] or what the last call left, of a header of MD type 2. ok is
// false at the end; an error says that the bytes are no context header.
func NextContext(rest []byte) (c ContextHeader, after []byte, ok bool, err error) {
	if len(rest) == 0 {
		return c, nil, false, nil
	}
	if len(rest) < 4 {
		return c, nil, false, ErrContext
	}
	n := int(rest[3] & 0x7f)
	padded := 4 + (n+3)&^3
	if len(rest) < padded {
		return c, nil, false, ErrContext
	}
	c = ContextHeader{Class: binary.BigEndian.Uint16(rest), Type: rest[2], Value: rest[4 : 4+n : 4+n]}
	return c, rest[padded:], true, nil
}

// Find returns the first context header of the class and type, ok false when a
// header of MD type 2 has none, and an error when its context cannot be read. A
// header of MD type 1 has none.
func (h Header) Find(class uint16, typ uint8) (value []byte, ok bool, err error) {
	if h.MDType() != MD2 {
		return nil, false, nil
	}
	for rest := h.Context(); ; {
		c, after, more, err := NextContext(rest)
		if err != nil || !more {
			return nil, false, err
		}
		if c.Class == class && c.Type == typ {
			return c.Value, true, nil
		}
		rest = after
	}
}

// AppendContext writes a context header behind h, which must be of MD type 2 and
// have the bytes for it in its buffer b (h begins where b does), and returns the
// longer header.
func AppendContext(b []byte, h Header, c ContextHeader) (Header, error) {
	padded := 4 + (len(c.Value)+3)&^3
	size := len(h) + padded
	if len(c.Value) > 127 || size > MaxSize || size > len(b) {
		return h, ErrFull
	}
	at := b[len(h):size]
	clear(at)
	binary.BigEndian.PutUint16(at, c.Class)
	at[2], at[3] = c.Type, byte(len(c.Value))
	copy(at[4:], c.Value)
	h = Header(b[:size:size])
	h[1] = h[1]&0xc0 | byte(size/4)
	return h, nil
}

// PutMetadata writes a new header of MD type 2 into b that carries text, as
// [TypeMetadata], and returns it; TTL and flags are as of [Put]. The header is always
// [MD1Size] bytes long, a header of [TypePad] behind short text: kernels then move and
// segment its packets as those of MD type 1 (docs/adr/0050). Text has at most
// [MaxMetadata] bytes, which who makes tables sees to; further ones are left out.
func PutMetadata(b []byte, next NextProtocol, spi uint32, si uint8, text string) Header {
	text = text[:min(len(text), MaxMetadata)]
	_ = Put(b, MD2, next, spi, si)
	h := Header(b[:MD1Size:MD1Size])
	clear(h[BaseSize:])
	h[1] = h[1]&0xc0 | MD1Size/4
	binary.BigEndian.PutUint16(h[BaseSize:], ClassMeridian)
	h[BaseSize+2], h[BaseSize+3] = TypeMetadata, byte(len(text))
	copy(h[BaseSize+4:], text)
	if pad := BaseSize + 4 + (len(text)+3)&^3; pad < MD1Size {
		binary.BigEndian.PutUint16(h[pad:], ClassMeridian)
		h[pad+2], h[pad+3] = TypePad, byte(MD1Size-pad-4)
	}
	return h
}
