package http1

import (
	"encoding/binary"
	"math/bits"
)

// Classes of octets, one bit each.
const (
	token  = 1 << iota // tchar, RFC 9110 5.6.2
	text               // HTAB / SP / VCHAR / obs-text: what a field value holds
	target             // visible ASCII without " # < >
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		alnum := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if alnum {
			t[c] |= token
		}
		if c == '\t' || c >= 0x20 && c != 0x7f {
			t[c] |= text
		}
		if 0x21 <= c && c <= 0x7e {
			t[c] |= target
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= token
	}
	for _, c := range "\"#<>" {
		t[c] &^= target
	}
	return t
}()

func all(b []byte, c uint8) bool {
	for _, o := range b {
		if class[o]&c == 0 {
			return false
		}
	}
	return true
}

// skip returns the index of the first octet at or after i that is not of class c,
// or len(b).
func skip(b []byte, i int, c uint8) int {
	for i < len(b) && class[b[i]]&c != 0 {
		i++
	}
	return i
}

const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// suspects marks, by their high bits, octets of w that are below 0x20 or 0x7f. The
// lowest mark is right; a borrow may add marks above a right one.
func suspects(w uint64) uint64 {
	del := w ^ 0x7f*ones
	return ((w-0x20*ones)&^w | (del-ones)&^del) & high
}

// textEnd returns the index of the first octet at or after i that may not stand
// in a field value, or len(b). It looks at eight octets at a time: values are
// most of a head.
func textEnd(b []byte, i int) int {
	for i+8 <= len(b) {
		m := suspects(binary.LittleEndian.Uint64(b[i:]))
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for ; i < len(b); i++ {
		if class[b[i]]&text == 0 {
			return i
		}
	}
	return i
}

// isText reports whether all of b may stand in a field value. The last eight
// octets are looked at together, even when some were seen before.
func isText(b []byte) bool {
	n := len(b)
	if n < 8 {
		return all(b, text)
	}
	for i := 0; i < n-8; i += 8 {
		if suspects(binary.LittleEndian.Uint64(b[i:])) != 0 {
			return all(b, text)
		}
	}
	return suspects(binary.LittleEndian.Uint64(b[n-8:])) == 0 || all(b, text)
}

// fold reports whether b equals lower, ignoring ASCII case; lower is lower case.
func fold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		d := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if 'A' <= d && d <= 'Z' {
			d |= 0x20
		}
		if c != d {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// member cuts the first member of a comma-separated list; members are trimmed
// and may be empty (RFC 9110 5.6.1).
func member(list []byte) (first, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}
