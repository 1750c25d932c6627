package lb

import "encoding/hex"

// TokenLen is the length of an endpoint's token.
const TokenLen = 16

// AppendToken writes what a session cookie says: an endpoint's id in hexadecimal,
// which does not show its address.
func AppendToken(dst []byte, id uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[id>>shift&15])
	}
	return dst
}

// ParseToken reads a token; anything but what [AppendToken] writes is refused.
func ParseToken(token []byte) (id uint64, ok bool) {
	if len(token) != TokenLen {
		return 0, false
	}
	for _, c := range token {
		if 'A' <= c && c <= 'F' {
			return 0, false
		}
	}
	var b [TokenLen / 2]byte
	if _, err := hex.Decode(b[:], token); err != nil {
		return 0, false
	}
	for _, x := range b {
		id = id<<8 | uint64(x)
	}
	return id, true
}

// Cookie finds the first cookie of the name in the value of a Cookie field (RFC
// 6265 4.2.1, as browsers send it) and returns its value, nil where there is none.
func Cookie(field []byte, name string) []byte {
	for len(field) > 0 {
		pair := field
		field = nil
		for i, c := range pair {
			if c == ';' {
				pair, field = pair[:i], pair[i+1:]
				break
			}
		}
		for len(pair) > 0 && (pair[0] == ' ' || pair[0] == '\t') {
			pair = pair[1:]
		}
		if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
			value := pair[len(name)+1:]
			for n := len(value); n > 0 && (value[n-1] == ' ' || value[n-1] == '\t'); n-- {
				value = value[:n-1]
			}
			return value
		}
	}
	return nil
}
