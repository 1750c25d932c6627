package http1

import (
	"slices"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// kind tells the fields that a message does not show among its Fields.
type kind uint8

const (
	ordinary kind = iota
	host
	contentLength
	transferEncoding
	connection
	te
	upgrade
	expect
	dropped   // hop-by-hop without a meaning for this codec
	disguised // a framing field's name with "_" for "-": CGI and its kin take it for that
)

// kindOf looks at the length first: most names end there.
func kindOf(name []byte) kind {
	switch len(name) {
	case 2:
		if fold(name, "te") {
			return te
		}
	case 4:
		if fold(name, "host") {
			return host
		}
	case 6:
		if fold(name, "expect") {
			return expect
		}
	case 7:
		if fold(name, "upgrade") {
			return upgrade
		}
		if fold(name, "trailer") {
			return dropped
		}
	case 10:
		if fold(name, "connection") {
			return connection
		}
		if fold(name, "keep-alive") {
			return dropped
		}
	case 14:
		if fold(name, "content-length") {
			return contentLength
		}
		if fold(name, "http2-settings") {
			return dropped
		}
		if fold(name, "content_length") {
			return disguised
		}
	case 16:
		if fold(name, "proxy-connection") {
			return dropped
		}
	case 17:
		if fold(name, "transfer-encoding") {
			return transferEncoding
		}
		if fold(name, "transfer_encoding") {
			return disguised
		}
	}
	return ordinary
}

// trailerAllowed reports whether a field may stand among trailers.
func trailerAllowed(f *stream.Field) bool { return kindOf(f.Name) == ordinary && f.MayTrail() }

// appendFields writes field lines. It refuses what would end a line early or
// speak about framing: the last guard against smuggling through a decoder of
// another protocol.
func appendFields(dst []byte, fields []stream.Field) ([]byte, error) {
	size := 0
	for i := range fields {
		size += len(fields[i].Name) + len(fields[i].Value) + len(": \r\n")
	}
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	at := start
	for i := range fields {
		f := &fields[i]
		if len(f.Name) == 0 || !all(f.Name, token) || !isText(f.Value) || kindOf(f.Name) != ordinary {
			return dst[:start], errBadField
		}
		at += copy(dst[at:], f.Name)
		dst[at], dst[at+1] = ':', ' '
		at += 2
		at += copy(dst[at:], f.Value)
		dst[at], dst[at+1] = '\r', '\n'
		at += 2
	}
	return dst, nil
}
