package http1

import (
	"bytes"
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Server is the side of a connection that reads requests and writes responses.
// Pipelined requests are decoded one at a time: the next only when the response
// to the previous is encoded whole.
type Server struct {
	*scratch
	search search
	body   bodyReader
	out    bodyWriter
	id     stream.ID
	err    *stream.ProtocolError

	reading bool // the request's End is not decoded
	writing bool // the response's End is not encoded
	started bool // the response's final head is encoded
	blank   bool // an empty line before the request line was skipped
	head    bool // the request is HEAD
	connect bool // the request is CONNECT
	asked   bool // the request asks to switch protocols
	old     bool // the request is HTTP/1.0
	waiting bool // the client waits for 100 (Continue) before its body
	closing bool // the next final head says that it is the last
	last    bool // no request is decoded after this one
}

var _ stream.Codec = (*Server)(nil)

// Reset makes the Server as good as new for another connection.
func (s *Server) Reset() { *s = Server{scratch: s.scratch} }

// Decode reads requests; see [stream.Codec]. On an error ev is a Reset of the
// stream to answer on: Encode takes one response there unless one was begun.
func (s *Server) Decode(in []byte, ev *stream.Event) (int, error) {
	ev.Kind = stream.None
	if s.err != nil {
		return 0, s.err
	}
	if s.reading {
		ev.Stream = s.id
		n, err := s.body.decode(in, ev, s.scratch)
		if err != nil {
			return n, s.fail(err, ev)
		}
		if n > 0 {
			s.waiting = false
		}
		if ev.Kind == stream.End {
			s.reading = false
		}
		return n, nil
	}
	if s.writing || s.last || len(in) == 0 {
		return 0, nil
	}
	skip := 0
	if in[0] == '\r' && !s.blank {
		if len(in) == 1 {
			return 0, nil
		}
		if in[1] != '\n' {
			return 0, s.fail(errMethod, ev)
		}
		s.blank = true // RFC 9112 2.2: one at most, left over by old clients after a body
		skip, in = 2, in[2:]
		if len(in) == 0 {
			return skip, nil
		}
	}
	if class[in[0]]&token == 0 {
		return skip, s.fail(errMethod, ev)
	}
	n, err := 0, (*stream.ProtocolError)(nil)
	whole := s.search.seen == 0
	if whole {
		n, err = s.parseHead(in)
		whole = err == nil && n <= s.limits.Head
	}
	if !whole {
		n, err = s.search.end(in, 1, s.limits.line(), s.limits.Head, s.limits.Fields)
		if err == nil && n == 0 {
			return skip, nil
		}
		if err == nil {
			_, err = s.parseHead(in[:n])
		} else if err == errTargetLong {
			err = longLine(in)
		}
	}
	if err != nil {
		return skip, s.fail(err, ev)
	}
	s.begin()
	ev.Kind, ev.Stream, ev.Head = stream.Head, s.id, &s.msg
	return skip + n, nil
}

// longLine says what makes a request line too long.
func longLine(in []byte) *stream.ProtocolError {
	i := 0
	for i <= maxMethod && class[in[i]]&token != 0 {
		i++
	}
	switch {
	case i > maxMethod:
		return errMethodLong
	case in[i] != ' ':
		return errMethod
	}
	return errTargetLong
}

func (s *Server) parseHead(in []byte) (int, *stream.ProtocolError) {
	n, err := s.request.parse(in, s.limits.Target)
	if err != nil {
		return 0, err
	}
	if n, err = s.parse(in, n); err != nil {
		return 0, err
	}
	switch old := s.request.old; {
	case s.host == nil && !old:
		return 0, errHostMissing
	case s.host != nil && !stream.ValidAuthority(s.host):
		return 0, errHost
	case s.chunked && old:
		return 0, errCodingVersion
	}
	return n, nil
}

// begin starts the exchange whose head was parsed.
func (s *Server) begin() {
	r := &s.request
	if r.authority == nil {
		r.authority = s.host // else RFC 9112 3.2.2: the target's counts
	}
	length := max(s.length, 0)
	if s.chunked {
		length = stream.LengthUnknown
	}
	s.msg = stream.Message{
		Method: r.method, Scheme: r.scheme, Authority: r.authority, Path: r.path,
		Fields: s.fields, Length: length, TrailersOK: s.trailersOK,
		// RFC 9110 10.1.1: ignored without content and from HTTP/1.0.
		Expect100: s.expect100 && length != 0 && !r.old,
	}
	if s.options&optUpgrade != 0 && !r.old {
		s.msg.Upgrade = s.upgrade
	}
	s.asked = len(s.msg.Upgrade) > 0 && length == 0
	s.body.start(s.chunked, s.length)
	s.id++
	s.reading, s.writing, s.started, s.blank = true, true, false, false
	s.head, s.connect = bytes.Equal(r.method, headMethod), bytes.Equal(r.method, connect)
	s.old, s.waiting = r.old, s.msg.Expect100
	// With CONNECT may come the first bytes of the tunnel it will not get, which
	// another party may have chosen: they are no request.
	s.last = s.connect || s.options&optClose != 0 || r.old && s.options&optKeepAlive == 0
}

// fail ends decoding for good and leaves one response to encode.
func (s *Server) fail(err *stream.ProtocolError, ev *stream.Event) error {
	if !s.reading { // in a head: nothing of it is known
		s.id++
		s.writing, s.started = true, false
		s.head, s.connect, s.old, s.waiting = false, false, false, false
	}
	s.err, s.reading, s.last = err, false, true
	ev.Kind, ev.Stream, ev.Reason = stream.Reset, s.id, reasonOf(err)
	return err
}

// EOF is the client's half close; see [stream.Codec]. A response may still be encoded.
func (s *Server) EOF(ev *stream.Event) error {
	ev.Kind = stream.None
	s.last = true
	if !s.reading {
		return nil
	}
	s.reading = false
	ev.Kind, ev.Stream = stream.End, s.id
	if s.body.phase != bodyEnd && s.body.phase != bodyClose {
		ev.Kind, ev.Reason = stream.Reset, stream.Truncated
	}
	return nil
}

// Encode writes a response; see [stream.Codec]. A body that comes for a HEAD
// request is dropped, so that callers need not treat HEAD apart. After an error
// dst is as it was.
func (s *Server) Encode(dst []byte, ev *stream.Event) ([]byte, error) {
	if ev.Kind == stream.None || ev.Kind == stream.Window {
		return dst, nil
	}
	if ev.Stream != s.id || !s.writing && !s.reading {
		return dst, errStream
	}
	if ev.Kind == stream.Reset {
		// There is no word for it in HTTP/1: the connection ends here.
		s.reading, s.writing, s.last = false, false, true
		return dst, nil
	}
	if !s.writing {
		return dst, errStream
	}
	if ev.Kind == stream.Head {
		return s.encodeHead(dst, ev.Head)
	}
	if !s.started {
		return dst, errOrder
	}
	switch ev.Kind {
	case stream.Data:
		return s.out.data(dst, ev.Data)
	case stream.Trailers:
		return s.out.trailers(dst, ev.Fields)
	}
	dst, err := s.out.end(dst)
	if err == nil {
		s.writing = false
		s.last = s.last || s.out.framing == frameClose
	}
	return dst, err
}

func (s *Server) encodeHead(dst []byte, m *stream.Message) ([]byte, error) {
	switch {
	case s.started:
		return dst, errOrder
	case m.Status < 100 || m.Status > 599:
		return dst, errBadHead
	case m.Status == 101 && (!s.asked || !validProtocol(m.Upgrade)):
		return dst, errNotAsked
	case s.connect && m.Status/100 == 2:
		return dst, errNoTunnels
	case m.Status < 200 && s.old:
		return dst, nil // RFC 9110 15.2
	}
	start := len(dst)
	dst = appendStatus(dst, m.Status)
	dst, err := appendFields(dst, m.Fields)
	if err != nil {
		return dst[:start], err
	}
	if m.Status == 101 {
		s.out, s.body.phase = bodyWriter{framing: frameClose}, bodyClose
		s.started, s.reading, s.last = true, true, true
		return append(appendSwitch(dst, m.Upgrade), "\r\n"...), nil
	}
	if m.Status < 200 {
		s.waiting = s.waiting && m.Status != 100
		return append(dst, "\r\n"...), nil
	}
	// A client that waits for 100 may or may not send its body after a final
	// status: the next bytes could be either, so none are read.
	last := s.last || s.closing || s.waiting
	out := bodyWriter{}
	switch {
	case m.Status == 204:
	case m.Status == 304 || s.head:
		if s.head {
			out.framing = frameDiscard
		}
		// Of a 304 a zero is left out: it may stand for "not said".
		if m.Length > 0 || m.Length == 0 && m.Status != 304 {
			dst = appendLength(dst, m.Length)
		}
	case m.Length >= 0:
		out = bodyWriter{framing: frameLength, left: m.Length}
		dst = appendLength(dst, m.Length)
	case s.old:
		out.framing, last = frameClose, true
	default:
		out.framing = frameChunked
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	if last {
		dst = append(dst, "Connection: close\r\n"...)
	} else if s.old {
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	s.out, s.last, s.started = out, last, true
	return append(dst, "\r\n"...), nil
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

// Open is for clients: a server starts no streams.
func (s *Server) Open() (stream.ID, bool) { return 0, false }

// Active is 1 from a request's head until both it and its response are complete.
func (s *Server) Active() int {
	if s.reading || s.writing {
		return 1
	}
	return 0
}

// Reusable reports whether another request may follow.
func (s *Server) Reusable() bool { return !s.last && !s.closing }

// Close makes the next response say "Connection: close". One whose head is
// written already stays as it is; the connection ends after it all the same.
func (s *Server) Close(dst []byte) []byte {
	s.closing = true
	if s.writing && s.started {
		s.last = true
	}
	return dst
}
