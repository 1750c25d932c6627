// Package proxyproto reads and writes PROXY protocol headers, versions 1 and 2:
// what a balancer in front says of the client before the first byte of its
// connection (the HAProxy specification of 2020, "The PROXY protocol").
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
)

const (
	// MaxWritten is the most that Append writes.
	MaxWritten = maxV1
	// maxV1 is the longest line of version 1, CRLF included.
	maxV1 = 107
	// maxV2 bounds a version 2 header with its extensions.
	maxV2 = 4 << 10
)

// Faults of a header.
var (
	ErrNotThere  = errors.New("the connection does not begin with a PROXY header")
	ErrMalformed = errors.New("the PROXY header is malformed")
	ErrTooLong   = errors.New("the PROXY header is longer than 4 KiB")
)

// Header is what a balancer says of a connection.
type Header struct {
	// Local says that the connection is the balancer's own, or that it does not
	// know the client: the socket's addresses count.
	Local bool
	// From is the client's address, To the one it connected to.
	From, To netip.AddrPort
}

var (
	startV1 = []byte("PROXY ")
	startV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// Parse reads a header from the front of in and returns its length, 0 while it
// is incomplete.
func Parse(in []byte) (h Header, n int, err error) {
	switch {
	case len(in) == 0:
		return Header{}, 0, nil
	case begins(in, startV2):
		return parseV2(in)
	case begins(in, startV1):
		return parseV1(in)
	}
	return Header{}, 0, ErrNotThere
}

// begins reports whether in begins with start, as far as it goes.
func begins(in, start []byte) bool {
	n := min(len(in), len(start))
	return bytes.Equal(in[:n], start[:n])
}

func parseV1(in []byte) (h Header, n int, err error) {
	end := bytes.Index(in[:min(len(in), maxV1)], []byte("\r\n"))
	if end < 0 {
		if len(in) >= maxV1 {
			return Header{}, 0, ErrMalformed
		}
		return Header{}, 0, nil
	}
	n = end + 2
	if end <= len(startV1) {
		return Header{}, 0, ErrMalformed
	}
	line := in[len(startV1):end]
	family, rest, _ := bytes.Cut(line, []byte{' '})
	switch string(family) {
	case "UNKNOWN": // what follows is to be ignored
		return Header{Local: true}, n, nil
	case "TCP4", "TCP6":
	default:
		return Header{}, 0, ErrMalformed
	}
	var word [4][]byte
	for i := range word {
		var more bool
		if word[i], rest, more = bytes.Cut(rest, []byte{' '}); more != (i < 3) {
			return Header{}, 0, ErrMalformed
		}
	}
	six := family[3] == '6'
	var ok1, ok2 bool
	h.From, ok1 = address(word[0], word[2], six)
	h.To, ok2 = address(word[1], word[3], six)
	if !ok1 || !ok2 {
		return Header{}, 0, ErrMalformed
	}
	return h, n, nil
}

func address(ip, port []byte, six bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(ip))
	if err != nil || a.Is4() == six || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || port[0] == '+' || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// Version 2: the start, then version and command, family and protocol, length.
const (
	headV2     = 16
	version2   = 0x20
	cmdLocal   = 0
	cmdProxy   = 1
	famUnspec  = 0x00
	famTCP4    = 0x11
	famTCP6    = 0x21
	famUnix    = 0x31
	lengthTCP4 = 12
	lengthTCP6 = 36
)

func parseV2(in []byte) (h Header, n int, err error) {
	if len(in) >= 13 && (in[12]&0xf0 != version2 || in[12]&0x0f > cmdProxy) {
		return Header{}, 0, ErrMalformed
	}
	if len(in) < headV2 {
		return Header{}, 0, nil
	}
	length := int(binary.BigEndian.Uint16(in[14:]))
	if length > maxV2 {
		return Header{}, 0, ErrTooLong
	}
	n = headV2 + length
	if len(in) < n {
		return Header{}, 0, nil
	}
	b := in[headV2:n]
	if in[12]&0x0f == cmdLocal {
		return Header{Local: true}, n, nil
	}
	switch in[13] {
	case famTCP4:
		if length < lengthTCP4 {
			return Header{}, 0, ErrMalformed
		}
		h.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
	case famTCP6:
		if length < lengthTCP6 {
			return Header{}, 0, ErrMalformed
		}
		h.From = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
	case famUnspec, famUnix:
		h.Local = true
	default:
		return Header{}, 0, ErrMalformed
	}
	if !extensions(b, in[13]) {
		return Header{}, 0, ErrMalformed
	}
	return h, n, nil
}

// extensions reports whether what follows the addresses is well formed.
func extensions(b []byte, family byte) bool {
	switch family {
	case famTCP4:
		b = b[lengthTCP4:]
	case famTCP6:
		b = b[lengthTCP6:]
	default:
		return true
	}
	for len(b) > 0 {
		if len(b) < 3 {
			return false
		}
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < n {
			return false
		}
		b = b[n:]
	}
	return true
}

// Append writes the header of a connection. Version 1 is a line of text, version
// 2 is binary. Addresses of two families are written as IPv6 ones; without both
// the header says that the client is not known.
func Append(dst []byte, version int, from, to netip.AddrPort) []byte {
	known := from.IsValid() && to.IsValid()
	src, dest := from.Addr().Unmap(), to.Addr().Unmap()
	four := known && src.Is4() && dest.Is4()
	if version == 1 {
		if !known {
			return append(dst, "PROXY UNKNOWN\r\n"...)
		}
		dst = append(dst, "PROXY TCP"...)
		if four {
			dst = append(dst, "4 "...)
		} else {
			dst = append(dst, "6 "...)
		}
		dst = append(text(dst, src, four), ' ')
		dst = append(text(dst, dest, four), ' ')
		dst = append(strconv.AppendUint(dst, uint64(from.Port()), 10), ' ')
		return append(strconv.AppendUint(dst, uint64(to.Port()), 10), "\r\n"...)
	}
	dst = append(dst, startV2...)
	switch {
	case !known:
		return append(dst, version2|cmdLocal, famUnspec, 0, 0)
	case four:
		dst = append(dst, version2|cmdProxy, famTCP4, 0, lengthTCP4)
		a, b := src.As4(), dest.As4()
		dst = append(append(dst, a[:]...), b[:]...)
	default:
		dst = append(dst, version2|cmdProxy, famTCP6, 0, lengthTCP6)
		a, b := src.As16(), dest.As16()
		dst = append(append(dst, a[:]...), b[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, from.Port())
	return binary.BigEndian.AppendUint16(dst, to.Port())
}

func text(dst []byte, a netip.Addr, four bool) []byte {
	if !four && a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	return a.WithZone("").AppendTo(dst)
}
