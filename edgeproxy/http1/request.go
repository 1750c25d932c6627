package http1

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// requestLine is a request line taken apart (RFC 9112 3). Slices borrow from the
// input, except for a path that an absolute-form target leaves out.
type requestLine struct {
	method, scheme, authority, path []byte
	old                             bool   // HTTP/1.0
	made                            []byte // holds a path that had to be made
}

var (
	slash      = []byte("/")
	asterisk   = []byte("*")
	options    = []byte("OPTIONS")
	connect    = []byte("CONNECT")
	headMethod = []byte("HEAD")
)

// parse reads the line at the front of in and returns where the next one starts.
// It may fail in any way where in ends early.
func (r *requestLine) parse(in []byte, maxTarget int) (int, *stream.ProtocolError) {
	r.scheme, r.authority, r.path = nil, nil, nil
	i := skip(in, 0, token)
	switch {
	case i == 0 || i == len(in) || in[i] != ' ':
		return 0, errMethod
	case i > maxMethod:
		return 0, errMethodLong
	}
	r.method = in[:i:i]
	i++
	start := i
	i = skip(in, i, target)
	t := in[start:i:i]
	switch {
	case len(t) > maxTarget:
		return 0, errTargetLong
	case lineEnds(in, i):
		return 0, errRequestLine // HTTP/0.9
	case len(t) == 0 || i == len(in) || in[i] != ' ':
		return 0, errTarget
	}
	i++
	const version = "HTTP/1.1\r\n"
	if len(in)-i < len(version) {
		return 0, lineFault(in[i:])
	}
	v := in[i : i+len(version)]
	switch {
	case string(v) == version:
		r.old = false
	case string(v) == "HTTP/1.0\r\n":
		r.old = true
	case string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]) && lineEnds(v, 8):
		return 0, errVersion
	default:
		return 0, lineFault(in[i:])
	}
	return i + len(version), r.target(t)
}

// lineFault tells a request line that is wrong behind its target from the first line of
// another protocol: that one speaks of HTTP nowhere in the rest.
func lineFault(rest []byte) *stream.ProtocolError {
	const name = "http/"
	rest, _, _ = bytes.Cut(rest, []byte("\n"))
	for ; len(rest) >= len(name); rest = rest[1:] {
		if fold(rest[:len(name)], name) {
			return errRequestLine
		}
	}
	return errNotHTTP
}

// target tells the four forms of a request target (RFC 9112 3.2) apart.
func (r *requestLine) target(t []byte) *stream.ProtocolError {
	switch {
	case bytes.Equal(r.method, connect):
		name, port := splitPort(t)
		if len(name) == 0 || len(port) == 0 || !stream.ValidAuthority(t) {
			return errTarget
		}
		r.authority = t
	case t[0] == '/':
		r.path = t
	case len(t) == 1 && t[0] == '*':
		if !bytes.Equal(r.method, options) {
			return errTarget
		}
		r.path = t
	default:
		return r.absolute(t)
	}
	return nil
}

func (r *requestLine) absolute(t []byte) *stream.ProtocolError {
	const http, https = "http://", "https://"
	var n int
	switch {
	case len(t) > len(http) && fold(t[:len(http)], http):
		n = len(http)
	case len(t) > len(https) && fold(t[:len(https)], https):
		n = len(https)
	default:
		return errTarget
	}
	r.scheme = t[: n-len("://") : n-len("://")]
	end := n
	for end < len(t) && t[end] != '/' && t[end] != '?' {
		end++
	}
	r.authority = t[n:end:end]
	if !stream.ValidAuthority(r.authority) {
		return errTarget
	}
	switch {
	case end == len(t) && bytes.Equal(r.method, options):
		r.path = asterisk // RFC 9112 3.2.4
	case end == len(t):
		r.path = slash
	case t[end] == '?':
		r.made = append(append(r.made[:0], '/'), t[end:]...)
		r.path = r.made
	default:
		r.path = t[end:]
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// splitPort cuts ":port" off; name keeps the brackets of an IPv6 address.
func splitPort(h []byte) (name, port []byte) {
	i := bytes.LastIndexByte(h, ':')
	if i < 0 || bytes.IndexByte(h[i:], ']') >= 0 {
		return h, nil
	}
	return h[:i], h[i+1:]
}
