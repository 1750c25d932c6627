package view

import (
	"bytes"
	"net/netip"
)

// Client finds the client's address in the way that a trusted peer tells:
// X-Forwarded-For's value or, with forwarded, that of Forwarded (RFC 7239), both
// with the nearest hop last. With a number of trusted hops the client is that many
// from the right, and where there are fewer the peer itself, because then it did
// not come by all of them. Without, it is the first from the right that is not of
// the trusted networks, or the leftmost. An element that is no address ends the
// search at the peer: what is left of it cannot be relied on.
func (f *Forwarding) Client(peer netip.Addr, way []byte, forwarded bool) netip.Addr {
	peer = peer.Unmap()
	client, hop := peer, 0
	for len(way) > 0 {
		var element []byte
		way, element = lastElement(way)
		if forwarded {
			element = forParameter(element)
		}
		address, ok := parseNode(element)
		if !ok {
			return peer
		}
		client = address
		if hop++; f.hops > 0 {
			if hop == f.hops {
				return client
			}
		} else if !f.within(client) {
			return client
		}
	}
	if f.hops > 0 {
		return peer
	}
	return client
}

// lastElement cuts the last element of a list off, at a comma outside of quotes.
func lastElement(list []byte) (rest, element []byte) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch {
		case list[i] == '"' && (i == 0 || list[i-1] != '\\'):
			quoted = !quoted
		case list[i] == ',' && !quoted:
			return list[:i], trim(list[i+1:])
		}
	}
	return nil, trim(list)
}

// forParameter is the value of an element's for, without quotes; nil where it has none.
func forParameter(element []byte) []byte {
	for len(element) > 0 {
		var pair []byte
		if i := bytes.IndexByte(element, ';'); i >= 0 {
			pair, element = element[:i], element[i+1:]
		} else {
			pair, element = element, nil
		}
		if pair = trim(pair); len(pair) > 4 && bytes.EqualFold(pair[:4], forEquals) {
			return bytes.Trim(pair[4:], `"`)
		}
	}
	return nil
}

var forEquals = []byte("for=")

func trim(b []byte) []byte { return bytes.Trim(b, " \t") }

// parseNode reads an address with or without a port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1], [2001:db8::1]:80. It allocates nothing, since it is
// done for each request.
func parseNode(b []byte) (netip.Addr, bool) {
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || end+1 < len(b) && !isPort(b[end+1:]) {
			return netip.Addr{}, false
		}
		return parse6(b[1:end])
	}
	switch first := bytes.IndexByte(b, ':'); {
	case first < 0:
		return parse4(b)
	case bytes.IndexByte(b[first+1:], ':') >= 0:
		return parse6(b)
	default:
		if !isPort(b[first:]) {
			return netip.Addr{}, false
		}
		return parse4(b[:first])
	}
}

// isPort reports whether b is a colon and a port, in digits or obfuscated
// (RFC 7239 6).
func isPort(b []byte) bool {
	if len(b) < 2 || b[0] != ':' {
		return false
	}
	for _, c := range b[1:] {
		if (c < '0' || c > '9') && b[1] != '_' {
			return false
		}
	}
	return true
}

func parse4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	for i := range a {
		if i > 0 {
			if len(b) == 0 || b[0] != '.' {
				return netip.Addr{}, false
			}
			b = b[1:]
		}
		n, v := 0, 0
		for n < len(b) && n < 3 && '0' <= b[n] && b[n] <= '9' {
			v = 10*v + int(b[n]-'0')
			n++
		}
		if n == 0 || v > 255 || n > 1 && b[0] == '0' {
			return netip.Addr{}, false
		}
		a[i], b = byte(v), b[n:]
	}
	return netip.AddrFrom4(a), len(b) == 0
}

// parse6 reads RFC 4291's text forms, without a zone.
func parse6(b []byte) (netip.Addr, bool) {
	var a [16]byte
	at, gap := 0, -1
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if at == 16 {
			return netip.Addr{}, false
		}
		n, v := 0, 0
		for n < len(b) && n < 4 {
			d, ok := hex(b[n])
			if !ok {
				break
			}
			v = v<<4 | d
			n++
		}
		if n > 0 && n < len(b) && b[n] == '.' || n == 0 {
			break
		}
		a[at], a[at+1] = byte(v>>8), byte(v)
		at += 2
		if b = b[n:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return netip.Addr{}, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap, b = at, b[1:]
		}
	}
	if len(b) > 0 { // the last four bytes as of version 4
		v4, ok := parse4(b)
		if !ok || at > 12 {
			return netip.Addr{}, false
		}
		tail := v4.As4()
		at += copy(a[at:], tail[:])
	}
	switch {
	case gap < 0 && at < 16, gap >= 0 && at == 16:
		return netip.Addr{}, false
	case gap >= 0:
		n := at - gap
		copy(a[16-n:], a[gap:at])
		clear(a[gap : 16-n])
	}
	return netip.AddrFrom16(a).Unmap(), true
}

func hex(c byte) (int, bool) {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10, true
	}
	return 0, false
}
