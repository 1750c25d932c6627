package http1

import (
	"bytes"
	"math"
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// phase is where in a body a reader stands.
type phase uint8

const (
	bodyDone     phase = iota // End has been given
	bodyEnd                   // complete, End is next
	bodyLength                // left octets to come
	bodySize                  // at a chunk's size line
	bodyChunk                 // left octets of a chunk to come
	bodyChunkEnd              // at the CRLF after a chunk
	bodyTrailers              // in the trailer section
	bodyClose                 // until the connection closes
)

// bodyReader decodes a message body (RFC 9112 6 and 7).
type bodyReader struct {
	search
	phase      phase
	left       int64
	extensions int
}

func (b *bodyReader) start(chunked bool, length int64) {
	b.left, b.extensions = length, 0
	switch {
	case chunked:
		b.phase = bodySize
	case length > 0:
		b.phase = bodyLength
	default:
		b.phase = bodyEnd
	}
}

// decode gives the next event of the body; see [stream.Codec].
func (b *bodyReader) decode(in []byte, ev *stream.Event, s *scratch) (n int, err *stream.ProtocolError) {
	for {
		rest := in[n:]
		switch b.phase {
		case bodyEnd:
			b.phase = bodyDone
			ev.Kind = stream.End
			return n, nil
		case bodyLength, bodyChunk:
			if len(rest) == 0 {
				return n, nil
			}
			take := int(min(b.left, int64(len(rest))))
			ev.Kind, ev.Data = stream.Data, rest[:take:take]
			if b.left -= int64(take); b.left == 0 {
				if b.phase == bodyLength {
					b.phase = bodyEnd
				} else {
					b.phase = bodyChunkEnd
				}
			}
			return n + take, nil
		case bodyChunkEnd:
			if len(rest) > 0 && rest[0] != '\r' || len(rest) > 1 && rest[1] != '\n' {
				return n, errChunkEnd
			}
			if len(rest) < 2 {
				return n, nil
			}
			n += 2
			b.phase = bodySize
		case bodySize:
			line, err := b.sizeLine(rest)
			if line == 0 || err != nil {
				return n, err
			}
			n += line
			if b.phase = bodyChunk; b.left == 0 {
				b.phase = bodyTrailers
			}
		case bodyTrailers:
			end, err := b.end(rest, 0, s.limits.Trailers, s.limits.Trailers, s.limits.Fields)
			if end == 0 || err != nil {
				if err == errTargetLong {
					err = errTrailersLong
				}
				return n, err
			}
			if err := s.parseTrailers(rest[:end]); err != nil {
				return n, err
			}
			b.phase = bodyEnd
			n += end
			if len(s.fields) > 0 {
				ev.Kind, ev.Fields = stream.Trailers, s.fields
				return n, nil
			}
		case bodyClose:
			if len(rest) > 0 {
				ev.Kind, ev.Data = stream.Data, rest
			}
			return len(in), nil
		default:
			return n, nil
		}
	}
}

// sizeLine reads a chunk's size line into left and returns its length, 0 while
// it is incomplete. Extensions are dropped: RFC 9112 7.1.1 asks recipients to
// ignore the unknown, and this codec knows none.
func (b *bodyReader) sizeLine(in []byte) (int, *stream.ProtocolError) {
	lf := bytes.IndexByte(in[:min(len(in), maxChunkLine)], '\n')
	if lf < 0 {
		if len(in) >= maxChunkLine {
			return 0, errChunkLine
		}
		return 0, nil
	}
	if lf == 0 || in[lf-1] != '\r' {
		return 0, errBareLF
	}
	line := in[:lf-1]
	var size uint64
	i := 0
	for ; i < len(line); i++ {
		d, ok := hexDigit(line[i])
		if !ok {
			break
		}
		size = size<<4 | uint64(d)
	}
	if i == 0 || i > maxChunkDigits || size > math.MaxInt64 {
		return 0, errChunkSize
	}
	b.left = int64(size)
	if ext := line[i:]; len(ext) > 0 {
		if b.extensions += len(ext); b.extensions > maxExtensions {
			return 0, errChunkExtension
		}
		if t := trim(ext); len(t) == 0 || t[0] != ';' || !all(ext, text) {
			return 0, errChunkLine
		}
	}
	return lf + 1, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// framing is how a body is written.
type framing uint8

const (
	frameNone    framing = iota // no body allowed
	frameDiscard                // the body a HEAD request did not ask for
	frameLength                 // left octets to come
	frameChunked
	frameClose // until the connection closes
)

// bodyWriter encodes a message body.
type bodyWriter struct {
	framing  framing
	left     int64
	finished bool // chunked: the last chunk is written
}

func (w *bodyWriter) data(dst, p []byte) ([]byte, error) {
	if len(p) == 0 {
		return dst, nil // an empty chunk would end the body
	}
	switch w.framing {
	case frameNone:
		return dst, errBody
	case frameLength:
		if int64(len(p)) > w.left {
			return dst, errOverrun
		}
		w.left -= int64(len(p))
		return append(dst, p...), nil
	case frameChunked:
		if w.finished {
			return dst, errOrder
		}
		dst = strconv.AppendUint(dst, uint64(len(p)), 16)
		dst = append(dst, "\r\n"...)
		dst = append(dst, p...)
		return append(dst, "\r\n"...), nil
	case frameClose:
		return append(dst, p...), nil
	}
	return dst, nil
}

// trailers writes the trailer section where the framing has one and drops it
// elsewhere, as RFC 9110 6.5.1 lets an intermediary do.
func (w *bodyWriter) trailers(dst []byte, fields []stream.Field) ([]byte, error) {
	if w.framing != frameChunked {
		return dst, nil
	}
	if w.finished {
		return dst, errOrder
	}
	w.finished = true
	start := len(dst)
	dst = append(dst, "0\r\n"...)
	var err error
	for i := range fields {
		if !trailerAllowed(&fields[i]) {
			continue
		}
		if dst, err = appendFields(dst, fields[i:i+1]); err != nil {
			return dst[:start], err
		}
	}
	return dst, nil
}

func (w *bodyWriter) end(dst []byte) ([]byte, error) {
	switch w.framing {
	case frameLength:
		if w.left > 0 {
			return dst, errUnderrun
		}
	case frameChunked:
		if !w.finished {
			dst = append(dst, "0\r\n"...)
		}
		return append(dst, "\r\n"...), nil
	}
	return dst, nil
}
