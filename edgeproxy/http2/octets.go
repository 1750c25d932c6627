package http2

// Classes of octets, one bit each.
const (
	name    = 1 << iota // tchar without uppercase letters (RFC 9113 8.2.1)
	text                // what a field value holds
	target              // visible ASCII without " # < >
	host                // of a name, an address or its port
	anyName             // tchar
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		lower := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		upper := 'A' <= c && c <= 'Z'
		if lower {
			t[c] |= name
		}
		if lower || upper {
			t[c] |= host | anyName
		}
		if c == '\t' || c >= 0x20 && c != 0x7f {
			t[c] |= text
		}
		if 0x21 <= c && c <= 0x7e {
			t[c] |= target
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= name | anyName
	}
	for _, c := range "-._~" {
		t[c] |= host
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

// validValue takes a field value without white space around it.
func validValue(v []byte) bool {
	if n := len(v); n > 0 && (v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t') {
		return false
	}
	return all(v, text)
}

// decimal reads 1*DIGIT below 2^63.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int64(c-'0'); n < 0 {
			return 0, false
		}
	}
	return n, true
}
