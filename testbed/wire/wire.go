// Package wire is the HTTP/1.1 that the testbed's load generator and backends
// speak to the proxies between them: the fields of their own, and just enough
// reading of heads. It is pure. Bodies are framed by Content-Length only: both
// ends are ours, and the proxy passes framing through.
package wire

import (
	"bytes"
	"errors"
	"strconv"
)

// Fields that the testbed's requests and responses carry.
const (
	// GeoHeader is the request field with the user's position (RFC 5870).
	GeoHeader = "x-user-location"
	// WorkHeader is the request field with its work in mean service times.
	WorkHeader = "x-demo-work"
	// ServedByHeader is the response field with the serving site's name.
	ServedByHeader = "x-served-by"
)

// MaxHead bounds a head in bytes.
const MaxHead = 16 << 10

// Faults of a message.
var (
	ErrHeadTooLarge = errors.New("head is over 16 KiB")
	ErrMalformed    = errors.New("malformed head")
	ErrFraming      = errors.New("body is not framed by Content-Length")
)

// Head is a message's head, borrowed from the bytes it was read from.
type Head struct {
	// Start is the request or status line, lines the fields with their line ends.
	Start, lines []byte
	// Length is the Content-Length, 0 without one.
	Length int
	// Size is how many bytes the head took, its empty line too.
	Size int
	// Close says that the sender closes after this message.
	Close bool
}

// Read parses the head at the start of b; ok is false while it is incomplete.
func Read(b []byte) (h Head, ok bool, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > MaxHead {
			return Head{}, false, ErrHeadTooLarge
		}
		return Head{}, false, nil
	}
	h.Size = end + 4
	h.Start, h.lines, _ = bytes.Cut(b[:end+2], []byte("\r\n"))
	if _, set := h.Get("transfer-encoding"); set {
		return Head{}, false, ErrFraming
	}
	if v, set := h.Get("content-length"); set {
		n, err := strconv.ParseUint(string(v), 10, 31)
		if err != nil {
			return Head{}, false, ErrMalformed
		}
		h.Length = int(n)
	}
	if v, set := h.Get("connection"); set {
		h.Close = bytes.EqualFold(v, []byte("close"))
	}
	return h, true, nil
}

// Get returns a field's value, the first of several.
func (h *Head) Get(name string) ([]byte, bool) {
	for rest := h.lines; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.Trim(line[len(name)+1:], " \t"), true
		}
	}
	return nil, false
}

// Status is a response's status code.
func (h *Head) Status() (int, error) {
	// "HTTP/1.1 200 OK"; the reason may be missing (RFC 9112 section 4).
	if len(h.Start) < 12 || !bytes.HasPrefix(h.Start, []byte("HTTP/1.")) || h.Start[8] != ' ' {
		return 0, ErrMalformed
	}
	n, err := strconv.Atoi(string(h.Start[9:12]))
	if err != nil || n < 100 {
		return 0, ErrMalformed
	}
	return n, nil
}
