// Package grpcweb translates between gRPC-Web and gRPC, as the protocol's description has
// it (PROTOCOL-WEB in the gRPC repository): what a browser can neither send nor read,
// trailers, is the last frame of a response's body, and in text mode both bodies are
// base64. It is pure: bytes in, bytes out, without allocation but for what dst grows by.
package grpcweb

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

const (
	grpc     = "application/grpc"
	web      = "application/grpc-web"
	text     = "application/grpc-web-text"
	trailers = 0x80 // flag of the frame that holds them
	// TrailerHead is what a frame has before its content.
	TrailerHead = 5
)

// Request tells what the content type of a request asks for: whether it is gRPC-Web, and
// in text mode. suffix is what follows the type's name: a format, parameters, or nothing.
func Request(contentType []byte) (isWeb, isText bool, suffix []byte) {
	if rest, ok := typed(contentType, text); ok {
		return true, true, rest
	}
	rest, ok := typed(contentType, web)
	return ok, false, rest
}

// typed cuts a type's name off, in any case of letters.
func typed(v []byte, name string) (rest []byte, ok bool) {
	if len(v) < len(name) {
		return nil, false
	}
	for i := range len(name) {
		c := v[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return nil, false
		}
	}
	rest = v[len(name):]
	if len(rest) > 0 && rest[0] != '+' && rest[0] != ';' && rest[0] != ' ' && rest[0] != ',' {
		return nil, false
	}
	return rest, true
}

// AppendType appends gRPC's content type with a suffix.
func AppendType(dst, suffix []byte) []byte { return append(append(dst, grpc...), suffix...) }

// AppendResponse appends the content type by which a response of gRPC goes to a client of
// gRPC-Web, false where it is no response of gRPC.
func AppendResponse(dst, contentType []byte, isText bool) ([]byte, bool) {
	suffix, ok := typed(contentType, grpc)
	if !ok {
		return dst, false
	}
	name := web
	if isText {
		name = text
	}
	return append(append(dst, name...), suffix...), true
}

// WantsText reports whether a client accepts a response in text mode; who says nothing of
// it gets the mode of its request.
func WantsText(accept []byte, asked bool) bool {
	if len(accept) == 0 {
		return asked
	}
	known := false
	for len(accept) > 0 {
		i := 0
		for i < len(accept) && accept[i] != ',' {
			i++
		}
		member := accept[:i]
		accept = accept[min(i+1, len(accept)):]
		for len(member) > 0 && (member[0] == ' ' || member[0] == '\t') {
			member = member[1:]
		}
		if _, ok := typed(member, text); ok {
			return true
		}
		if _, ok := typed(member, web); ok {
			known = true
		}
	}
	return asked && !known
}

// AppendTrailers appends the frame that holds trailers, their names in lower case.
func AppendTrailers(dst []byte, fields []stream.Field) []byte {
	start := len(dst)
	dst = append(dst, trailers, 0, 0, 0, 0)
	for i := range fields {
		f := &fields[i]
		for _, c := range f.Name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
		dst = append(dst, ": "...)
		dst = append(append(dst, f.Value...), "\r\n"...)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-TrailerHead))
	return dst
}

// AppendText appends a piece of a body in text mode, padded: pieces follow each other.
func AppendText(dst, p []byte) []byte { return base64.StdEncoding.AppendEncode(dst, p) }

// Decoder reads a body in text mode that comes in pieces of any length, with padding
// wherever its sender flushed. The zero value is at the start.
type Decoder struct {
	held [4]byte
	n    uint8
}

// Append appends what a piece of the body holds, false where it is not base64.
func (d *Decoder) Append(dst, in []byte) ([]byte, bool) {
	for len(in) > 0 {
		if d.n == 0 {
			whole := len(in) &^ 3
			for i := 0; i < whole; i++ {
				if in[i] == '=' { // what follows is another piece
					whole = i &^ 3
					break
				}
			}
			if whole > 0 {
				out, err := base64.StdEncoding.Strict().AppendDecode(dst, in[:whole])
				if err != nil || len(out)-len(dst) != whole/4*3 {
					return dst, false
				}
				dst, in = out, in[whole:]
				continue
			}
		}
		d.held[d.n] = in[0]
		in = in[1:]
		if d.n++; d.n < 4 {
			continue
		}
		d.n = 0
		var three [3]byte
		n, err := base64.StdEncoding.Strict().Decode(three[:], d.held[:])
		if err != nil || n == 0 {
			return dst, false
		}
		dst = append(dst, three[:n]...)
	}
	return dst, true
}

// Whole reports whether the body may end here.
func (d *Decoder) Whole() bool { return d.n == 0 }
