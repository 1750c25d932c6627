package nsh

import (
	"encoding/binary"
	"errors"
)

// Sizes in bytes. Length of the header counts words of four (2.2).
const (
	BaseSize = 8         // base header and service path header
	MD1Size  = 24        // with the four context words of MD type 1 (2.4)
	MaxSize  = 63 * 4    // Length has six bits
	MaxTTL   = 63        // TTL has six bits; the initial value too (2.2)
	FirstSI  = 255       // SI of a path's beginning (2.3)
	MaxSPI   = 1<<24 - 1 // SPI has 24 bits
)

// MD types (2.2, 9.1.3).
const (
	MDReserved   = 0x0 // dropped silently
	MD1          = 0x1 // four context words (2.4)
	MD2          = 0x2 // context headers of any length (2.5)
	MDExperiment = 0xF // dropped: nobody has asked for it
)

// NextProtocol says what follows the header (2.2; ActiveOAM is of RFC 9516, 10.1).
type NextProtocol uint8

// Values of NextProtocol.
const (
	NextIPv4      NextProtocol = 1
	NextIPv6      NextProtocol = 2
	NextEthernet  NextProtocol = 3
	NextNSH       NextProtocol = 4
	NextMPLS      NextProtocol = 5
	NextActiveOAM NextProtocol = 7
)

// Reasons for which a packet may not go on.
var (
	ErrShort       = errors.New("nsh: fewer bytes than the header says")
	ErrVersion     = errors.New("nsh: version is not 0")
	ErrLength      = errors.New("nsh: length does not fit the MD type")
	ErrMDType      = errors.New("nsh: MD type is reserved or for experiments")
	ErrTTL         = errors.New("nsh: TTL has run out")
	ErrSIUnderflow = errors.New("nsh: service index is below 0")
)

// Header is a checked header and, at its end, nothing else: its length is the
// header's.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---+-+-+-----------+-----------+-+-+-+-+-------+---------------+
//	|Ver|O|U|    TTL    |   Length  |U|U|U|U|MD Type| Next Protocol |  2.2
//	+---+-+-+-----------+-----------+-+-+-+-+-------+---------------+
//	|          Service Path Identifier (SPI)        | Service Index |  2.3
//	+-----------------------------------------------+---------------+
//	|     MD type 1: four context words (2.4)                       |
//	~     MD type 2: context headers, padded to words (2.5)         ~
//	+---------------------------------------------------------------+
type Header []byte

// Parse checks the header at the beginning of b and returns it and what follows.
// Both are parts of b.
func Parse(b []byte) (h Header, payload []byte, err error) {
	if len(b) < BaseSize {
		return nil, nil, ErrShort
	}
	if b[0]>>6 != 0 {
		return nil, nil, ErrVersion
	}
	size := int(b[1]&0x3f) * 4
	switch b[2] & 0x0f {
	case MD1:
		// "The Length MUST be of value 0x6 for MD Type 0x1" (2.2).
		if size != MD1Size {
			return nil, nil, ErrLength
		}
	case MD2:
		if size < BaseSize {
			return nil, nil, ErrLength
		}
	default:
		return nil, nil, ErrMDType
	}
	if len(b) < size {
		return nil, nil, ErrShort
	}
	return Header(b[:size:size]), b[size:], nil
}

// Put writes a new header into b, which must hold [MD1Size] bytes for MD type 1
// with its context words zero, or [BaseSize] for MD type 2, and returns it. TTL is
// [MaxTTL], flags are clear.
func Put(b []byte, mdType uint8, next NextProtocol, spi uint32, si uint8) Header {
	size := BaseSize
	if mdType == MD1 {
		size = MD1Size
	}
	h := Header(b[:size:size])
	clear(h)
	binary.BigEndian.PutUint16(h, MaxTTL<<6|uint16(size/4))
	h[2], h[3] = mdType, byte(next)
	h.SetPath(spi, si)
	return h
}

// OAM is the O bit: the packet is for operations (2.2, RFC 9451).
func (h Header) OAM() bool { return h[0]&0x20 != 0 }

// SetOAM sets the O bit. Only who makes the packet may do so.
func (h Header) SetOAM() { h[0] |= 0x20 }

// TTL is the number of forwarders that the packet may still pass.
func (h Header) TTL() uint8 { return (h[0]&0x0f)<<2 | h[1]>>6 }

// SetTTL writes the lower six bits of ttl; all other bits, the unassigned too, stay.
func (h Header) SetTTL(ttl uint8) {
	h[0] = h[0]&0xf0 | ttl>>2&0x0f
	h[1] = h[1]&0x3f | ttl<<6
}

// MDType is the kind of context that follows.
func (h Header) MDType() uint8 { return h[2] & 0x0f }

// Next says what follows the header.
func (h Header) Next() NextProtocol { return NextProtocol(h[3]) }

// SetNext says what follows the header.
func (h Header) SetNext(p NextProtocol) { h[3] = byte(p) }

// SPI identifies the path.
func (h Header) SPI() uint32 { return binary.BigEndian.Uint32(h[4:]) >> 8 }

// SI is the place on the path.
func (h Header) SI() uint8 { return h[7] }

// SetPath writes SPI, of which 24 bits count, and SI.
func (h Header) SetPath(spi uint32, si uint8) {
	binary.BigEndian.PutUint32(h[4:], spi<<8|uint32(si))
}

// Context is what follows the service path header: 16 bytes with MD type 1.
func (h Header) Context() []byte { return h[BaseSize:] }

// Forward is what a forwarder does before it looks (SPI, SI) up (2.2): it takes
// one from TTL, where a TTL of 0 that comes in counts as 64 (so that it leaves
// as 63), and refuses a packet whose TTL is then 0.
func (h Header) Forward() error {
	ttl := h.TTL()
	if ttl == 0 {
		ttl = MaxTTL + 1
	}
	if ttl--; ttl == 0 {
		return ErrTTL
	}
	h.SetTTL(ttl)
	return nil
}

// Serve is what a function, or the proxy of one that knows no NSH, does after its
// work (2.3): it takes one from SI. An SI of 0 has nothing to give.
func (h Header) Serve() error {
	if h[7] == 0 {
		return ErrSIUnderflow
	}
	h[7]--
	return nil
}
