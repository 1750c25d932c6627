package http1

import "encoding/binary"

// Classes of octets, one bit each.
const (
	token   = 1 << iota // tchar, RFC 9110 5.6.2
	text                // HTAB / SP / VCHAR / obs-text: what a field value holds
	target              // visible ASCII without " # < >
	regName             // what this codec takes as a host name
	literal             // inside the brackets of an IPv6 address
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		alnum := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		hex := '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
		if alnum {
			t[c] |= token | regName
		}
		if hex || c == ':' || c == '.' {
			t[c] |= literal
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
	for _, c := range "-._~" {
		t[c] |= regName
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

// textEnd returns the index of the first octet at or after i that may not stand
// in a field value, or len(b). It looks at eight octets at a time: values are
// most of a head.
func textEnd(b []byte, i int) int {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		// High bit set in each octet below 0x20, or equal to 0x7f; a borrow can
		// only add octets after a true hit.
		if ((w-0x20*ones)&^w|(del-ones)&^del)&high != 0 {
			for j := i; j < i+8; j++ {
				if class[b[j]]&text == 0 {
					return j
				}
			}
		}
	}
	for ; i < len(b); i++ {
		if class[b[i]]&text == 0 {
			return i
		}
	}
	return i
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
