package route

import (
	"bytes"
	"strings"
)

// maxHost is the longest host name looked up; DNS has no longer ones.
const maxHost = 255

// hosts finds what is registered for a host name, the most specific first.
type hosts[T any] struct {
	exact map[string]T
	wild  map[string]T // by the name without its asterisk: ".example.com"
	any   T
}

func newHosts[T any]() hosts[T] {
	return hosts[T]{exact: map[string]T{}, wild: map[string]T{}}
}

// get returns the entry of a pattern: "", "*.example.com" or a name.
func (h *hosts[T]) get(pattern string) T {
	switch {
	case pattern == "":
		return h.any
	case isWild(pattern):
		return h.wild[pattern[1:]]
	}
	return h.exact[pattern]
}

func (h *hosts[T]) set(pattern string, v T) {
	switch {
	case pattern == "":
		h.any = v
	case isWild(pattern):
		h.wild[pattern[1:]] = v
	default:
		h.exact[pattern] = v
	}
}

func isWild(pattern string) bool { return strings.HasPrefix(pattern, "*.") }

// canonical returns the name of a Host field's value: without port and trailing
// dot, in lower case. It borrows from host, or from buf when case has to change.
func canonical(host []byte, buf *[maxHost]byte) []byte {
	host = withoutPort(host)
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	for i, c := range host {
		if 'A' <= c && c <= 'Z' && len(host) <= maxHost {
			n := copy(buf[:], host)
			for ; i < n; i++ {
				if c := buf[i]; 'A' <= c && c <= 'Z' {
					buf[i] = c | 0x20
				}
			}
			return buf[:n]
		}
	}
	return host
}

// intersect returns the more specific of two patterns that share names (Gateway
// API, HTTPRoute hostnames), false when they share none.
func intersect(a, b string) (string, bool) {
	switch {
	case a == b || b == "":
		return a, true
	case a == "":
		return b, true
	case isWild(a) && strings.HasSuffix(b, a[1:]):
		return b, true
	case isWild(b) && strings.HasSuffix(a, b[1:]):
		return a, true
	}
	return "", false
}

func withoutPort(host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		if i := bytes.IndexByte(host, ']'); i >= 0 {
			return host[:i+1]
		}
	} else if i := bytes.IndexByte(host, ':'); i >= 0 {
		return host[:i]
	}
	return host
}
