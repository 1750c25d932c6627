package stream

import "bytes"

const maxHost = 261 // a 255 byte name, a colon and a port

// Classes of octets in an authority.
const (
	regName = 1 << iota // what codecs take as a host name
	literal             // inside the brackets of an IPv6 address
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		hex := '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
		if hex || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' {
			t[c] |= regName
		}
		if hex || c == ':' || c == '.' {
			t[c] |= literal
		}
	}
	for _, c := range "-._~" {
		t[c] |= regName
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

// ValidAuthority reports whether h is a plain host name or address with an optional
// port. User information, sub-delimiters and percent-encoding are refused: routes
// never contain them.
func ValidAuthority(h []byte) bool {
	if len(h) == 0 || len(h) > maxHost {
		return false
	}
	name := h
	if h[0] == '[' {
		end := bytes.IndexByte(h, ']')
		if end < 0 {
			return false
		}
		inner := h[1:end]
		if bytes.Count(inner, []byte(":")) < 2 || !all(inner, literal) {
			return false
		}
		if name = h[:end+1]; len(name) == len(h) {
			return true
		}
	} else {
		i := bytes.IndexByte(h, ':')
		if i >= 0 {
			name = h[:i]
		}
		if len(name) == 0 || !all(name, regName) {
			return false
		}
		if i < 0 {
			return true
		}
	}
	rest := h[len(name):]
	if rest[0] != ':' || len(rest) < 2 || len(rest) > 6 {
		return false
	}
	port := 0
	for _, c := range rest[1:] {
		if c < '0' || c > '9' {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port <= 65535
}
