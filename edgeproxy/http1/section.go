package http1

import (
	"bytes"
	"slices"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// option is what a message's Connection fields say, one bit each.
type option uint8

const (
	optClose option = 1 << iota
	optKeepAlive
	optUpgrade
)

// Scratch is the memory that a head or a trailer section is parsed into. Codecs of
// one event loop can share it, so that a connection costs little more than its
// state; then what an event points to is valid until the next Decode of any of
// them. It holds nothing between calls.
type Scratch struct{ scratch }

// NewScratch returns memory for codecs under the given limits.
func NewScratch(l Limits) *Scratch {
	return &Scratch{scratch{limits: l.withDefaults(), fields: make([]stream.Field, 0, 24)}}
}

// NewServer returns the server side of a new connection. The codec shares s.
func (s *Scratch) NewServer() *Server { return &Server{scratch: &s.scratch} }

// NewClient returns the client side of a new connection. The codec shares s.
func (s *Scratch) NewClient() *Client { return &Client{scratch: &s.scratch} }

// NewServer returns the server side of a new connection, with memory of its own.
func NewServer(l Limits) *Server { return NewScratch(l).NewServer() }

// NewClient returns the client side of a new connection, with memory of its own.
func NewClient(l Limits) *Client { return NewScratch(l).NewClient() }

type scratch struct {
	limits  Limits
	request requestLine
	status  statusLine
	msg     stream.Message

	// Of the field lines. Slices borrow from the input.
	fields     []stream.Field
	connection [][]byte // values of Connection
	options    option
	host       []byte
	length     int64 // Content-Length, -1 when absent
	chunked    bool
	expect100  bool
	trailersOK bool
	upgrade    []byte
	offers     int // protocols that Upgrade fields name
}

// search looks for the end of a section that did not come whole. A head that is
// there at once is parsed at once. Where that fails, be it for want of bytes, the
// search looks for the empty line, remembering how far it got, and only then the
// whole is parsed again: so faults are the same however the bytes came.
type search struct {
	seen, line, lines int // octets seen, start of the line that seen is in, lines seen
}

// end returns the length of the section at the front of in, 0 while it is
// incomplete. start is the number of lines before the first field line (a start
// line or none), first the most octets the first line may have, max those of all
// lines and fields the most field lines.
func (s *search) end(in []byte, start, first, max, fields int) (int, *stream.ProtocolError) {
	tooLong := errHeadLong
	if start == 0 {
		tooLong = errTrailersLong
	}
	for {
		n := bytes.IndexByte(in[s.seen:], '\n')
		if n < 0 {
			s.seen = len(in)
		} else {
			s.seen += n + 1
		}
		switch {
		case s.lines == 0 && s.seen > first:
			return 0, errTargetLong
		case s.seen > max:
			return 0, tooLong
		case n < 0:
			return 0, nil
		}
		length := s.seen - s.line
		if length < 2 || in[s.seen-2] != '\r' {
			return 0, errBareLF
		}
		if length == 2 && s.lines >= start {
			end := s.seen
			*s = search{}
			return end, nil
		}
		s.line = s.seen
		s.lines++
		if s.lines > start+fields {
			return 0, errFieldCount
		}
	}
}

// fieldLine takes the field line at in[i:] apart into f and returns where the
// next one starts. It may fail in any way where in ends early.
func fieldLine(in []byte, i int, f *stream.Field) (next int, err *stream.ProtocolError) {
	start := i
	i = skip(in, i, token)
	if i == len(in) || in[i] != ':' || i == start {
		if start < len(in) && (in[start] == ' ' || in[start] == '\t') {
			return 0, errFold
		}
		return 0, errFieldName
	}
	f.Name = in[start:i:i]
	i++
	for i < len(in) && (in[i] == ' ' || in[i] == '\t') {
		i++
	}
	end := textEnd(in, i)
	if !lineEnds(in, end) {
		return 0, errFieldValue
	}
	next = end + 2
	for end > i && (in[end-1] == ' ' || in[end-1] == '\t') {
		end--
	}
	f.Value = in[i:end:end]
	return next, nil
}

// lineEnds reports a CRLF at in[i:].
func lineEnds(in []byte, i int) bool { return i+1 < len(in) && in[i] == '\r' && in[i+1] == '\n' }

// parse reads the field lines of in[i:] up to the empty one, after which it
// returns, into fields and into the members that stand for the fields a message
// does not show. It may fail in any way where in ends before the empty line.
func (s *scratch) parse(in []byte, i int) (end int, err *stream.ProtocolError) {
	s.fields, s.connection = s.fields[:0], s.connection[:0]
	s.options, s.host, s.length, s.upgrade, s.offers = 0, nil, -1, nil, 0
	s.chunked, s.expect100, s.trailersOK = false, false, false
	for lines := 0; !lineEnds(in, i); lines++ {
		if lines == s.limits.Fields {
			return 0, errFieldCount
		}
		n := len(s.fields)
		if n == cap(s.fields) {
			s.fields = slices.Grow(s.fields, n+1)
		}
		s.fields = s.fields[:n+1]
		f := &s.fields[n]
		if i, err = fieldLine(in, i, f); err != nil {
			return 0, err
		}
		if k := kindOf(f.Name); k != ordinary {
			s.fields = s.fields[:n]
			if err := s.control(k, f.Value); err != nil {
				return 0, err
			}
		}
	}
	if s.chunked && s.length >= 0 {
		return 0, errLengthCoding
	}
	if s.offers != 1 || fold(s.upgrade, "h2c") {
		s.upgrade = nil // of several the backend might choose one that nobody here allowed
	}
	if len(s.connection) > 0 {
		err = s.nominated()
	}
	return i + 2, err
}

func (s *scratch) control(k kind, v []byte) *stream.ProtocolError {
	switch k {
	case disguised:
		return errFieldName
	case host:
		if s.host != nil {
			return errHostTwice
		}
		s.host = v
	case contentLength:
		if s.length >= 0 {
			return errLengthTwice
		}
		n, ok := decimal(v)
		if !ok {
			return errLength
		}
		s.length = n
	case transferEncoding:
		if s.chunked || !fold(v, "chunked") {
			return badCoding(v)
		}
		s.chunked = true
	case connection:
		s.connection = append(s.connection, v)
	case expect:
		if !fold(v, "100-continue") {
			return errExpect
		}
		s.expect100 = true
	case te:
		for len(v) > 0 {
			var m []byte
			m, v = member(v)
			s.trailersOK = s.trailersOK || fold(m, "trailers")
		}
	case upgrade:
		for len(v) > 0 {
			var m []byte
			if m, v = member(v); len(m) > 0 {
				s.upgrade = m
				s.offers++
			}
		}
	}
	return nil
}

// badCoding tells a coding that this codec lacks from one that frames nothing.
func badCoding(v []byte) *stream.ProtocolError {
	var last []byte
	n := 0
	for len(v) > 0 {
		last, v = member(v)
		n++
	}
	if n > 1 && fold(last, "chunked") {
		return errCodingUnknown
	}
	return errCoding
}

// nominated reads the Connection fields and removes the fields they name.
func (s *scratch) nominated() *stream.ProtocolError {
	n := 0
	for _, v := range s.connection {
		for len(v) > 0 {
			var m []byte
			m, v = member(v)
			if n++; n > maxOptions {
				return errOptions
			}
			switch {
			case len(m) == 0:
			case fold(m, "close"):
				s.options |= optClose
			case fold(m, "keep-alive"):
				s.options |= optKeepAlive
			case fold(m, "upgrade"):
				s.options |= optUpgrade
			default:
				kept := s.fields[:0]
				for _, f := range s.fields {
					if !foldEqual(f.Name, m) {
						kept = append(kept, f)
					}
				}
				s.fields = kept
			}
		}
	}
	return nil
}

// parseTrailers reads a whole trailer section and drops what may not stand there.
func (s *scratch) parseTrailers(in []byte) *stream.ProtocolError {
	s.fields = s.fields[:0]
	for i := 0; !lineEnds(in, i); {
		var f stream.Field
		var err *stream.ProtocolError
		if i, err = fieldLine(in, i, &f); err != nil {
			return err
		}
		if trailerAllowed(&f) {
			s.fields = append(s.fields, f)
		}
	}
	return nil
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
