package http1

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Client is the side of a connection that writes requests and reads responses,
// one exchange at a time.
type Client struct {
	*scratch
	search search
	body   bodyReader
	out    bodyWriter
	id     stream.ID
	err    *stream.ProtocolError

	reading bool // the response's End is not decoded
	writing bool // the request's End is not encoded
	started bool // the request's head is encoded
	final   bool // the response's final head is decoded
	head    bool // the request is HEAD
	closing bool // the next head says that it is the last
	last    bool // no exchange follows this one
	interim int  // informational responses so far

	asked   [maxProtocol]byte // the protocol that the request asks to switch to
	askedLn int
}

var _ stream.Codec = (*Client)(nil)

// Reset makes the Client as good as new for another connection.
func (c *Client) Reset() { *c = Client{scratch: c.scratch} }

// Open starts an exchange; false while one is under way or when none may follow.
func (c *Client) Open() (stream.ID, bool) {
	if c.reading || c.writing || c.last || c.closing {
		return 0, false
	}
	c.id++
	c.reading, c.writing, c.started, c.final, c.interim = true, true, false, false, 0
	return c.id, true
}

// Encode writes a request; see [stream.Codec]. After an error dst is as it was.
func (c *Client) Encode(dst []byte, ev *stream.Event) ([]byte, error) {
	if ev.Kind == stream.None || ev.Kind == stream.Window {
		return dst, nil
	}
	if ev.Stream != c.id || !c.writing && !c.reading {
		return dst, errStream
	}
	if ev.Kind == stream.Reset {
		c.reading, c.writing, c.last = false, false, true
		return dst, nil
	}
	if !c.writing {
		return dst, errStream
	}
	if ev.Kind == stream.Head {
		return c.encodeHead(dst, ev.Head)
	}
	if !c.started {
		return dst, errOrder
	}
	switch ev.Kind {
	case stream.Data:
		return c.out.data(dst, ev.Data)
	case stream.Trailers:
		return c.out.trailers(dst, ev.Fields)
	}
	dst, err := c.out.end(dst)
	if err == nil {
		c.writing = false
	}
	return dst, err
}

func (c *Client) encodeHead(dst []byte, m *stream.Message) ([]byte, error) {
	switch {
	case c.started:
		return dst, errOrder
	case len(m.Method) == 0 || !all(m.Method, token) || !stream.ValidAuthority(m.Authority) || !validPath(m):
		return dst, errBadHead
	case bytes.Equal(m.Method, connect):
		return dst, errNoTunnels
	}
	start := len(dst)

	dst = append(dst, m.Method...)
	dst = append(dst, ' ')
	dst = append(dst, m.Path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, m.Authority...)
	dst = append(dst, "\r\n"...)
	dst, err := appendFields(dst, m.Fields)
	if err != nil {
		return dst[:start], err
	}
	c.out = bodyWriter{}
	switch {
	case m.Length < 0:
		c.out.framing = frameChunked
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case m.Length > 0 || expectsContent(m.Method):
		c.out.framing, c.out.left = frameLength, m.Length
		dst = appendLength(dst, m.Length)
	}
	if m.Expect100 && m.Length != 0 {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	c.askedLn = 0
	if m.Length == 0 && validProtocol(m.Upgrade) { // with a body the request's end would not be clear
		c.askedLn = copy(c.asked[:], m.Upgrade)
	}
	switch {
	case c.askedLn > 0:
		dst = appendSwitch(dst, c.asked[:c.askedLn])
	case m.TrailersOK && c.closing:
		dst = append(dst, "TE: trailers\r\nConnection: TE, close\r\n"...)
	case m.TrailersOK:
		dst = append(dst, "TE: trailers\r\nConnection: TE\r\n"...)
	case c.closing:
		dst = append(dst, "Connection: close\r\n"...)
	}
	c.started, c.last = true, c.last || c.closing
	c.head = bytes.Equal(m.Method, headMethod)
	return append(dst, "\r\n"...), nil
}

// validPath takes an origin-form target, or the asterisk of OPTIONS.
func validPath(m *stream.Message) bool {
	p := m.Path
	if len(p) == 0 {
		return false
	}
	return p[0] == '/' && all(p, target) || len(p) == 1 && p[0] == '*' && bytes.Equal(m.Method, options)
}

// expectsContent tells the methods that say a length of zero (RFC 9110 8.6).
func expectsContent(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// Decode reads responses; see [stream.Codec]. On an error ev is a Reset of the stream.
func (c *Client) Decode(in []byte, ev *stream.Event) (int, error) {
	ev.Kind = stream.None
	if c.err != nil {
		return 0, c.err
	}
	ev.Stream = c.id
	if !c.reading || !c.started {
		if len(in) > 0 {
			return 0, c.fail(errUnsolicited, ev)
		}
		return 0, nil
	}
	if !c.final {
		return c.decodeHead(in, ev)
	}
	n, err := c.body.decode(in, ev, c.scratch)
	if err != nil {
		return n, c.fail(err, ev)
	}
	if ev.Kind == stream.End {
		// A backend that has answered before the request was complete may take the
		// rest of it for the next request (the class CL.0).
		c.reading, c.last = false, c.last || c.writing
	}
	return n, nil
}

func (c *Client) decodeHead(in []byte, ev *stream.Event) (int, error) {
	n, err := 0, (*stream.ProtocolError)(nil)
	whole := c.search.seen == 0
	if whole {
		n, err = c.parseHead(in)
		whole = err == nil && n <= c.limits.Head
	}
	if !whole {
		n, err = c.search.end(in, 1, c.limits.Head, c.limits.Head, c.limits.Fields)
		if err == nil && n == 0 {
			return 0, nil
		}
		if err == nil {
			_, err = c.parseHead(in[:n])
		} else if err == errTargetLong {
			err = errHeadLong
		}
	}
	if err == nil {
		err = c.begin()
	}
	if err != nil {
		return 0, c.fail(err, ev)
	}
	ev.Kind, ev.Head = stream.Head, &c.msg
	return n, nil
}

func (c *Client) parseHead(in []byte) (int, *stream.ProtocolError) {
	n, err := c.status.parse(in)
	if err != nil {
		return 0, err
	}
	if n, err = c.parse(in, n); err != nil {
		return 0, err
	}
	switch {
	case c.chunked && c.status.old:
		return 0, errCodingVersion
	case (c.status.code < 200 || c.status.code == 204) && (c.chunked || c.length > 0):
		// RFC 9112 6.1 and RFC 9110 8.6 forbid both; a length of zero is common
		// and does no harm.
		return 0, errNoContent
	case c.status.code == 101 && (c.askedLn == 0 || c.options&optUpgrade == 0 || !foldEqual(c.upgrade, c.asked[:c.askedLn])):
		return 0, errSwitch
	}
	return n, nil
}

// begin takes over the response head that was parsed.
func (c *Client) begin() *stream.ProtocolError {
	c.msg = stream.Message{Status: c.status.code, Fields: c.fields, Length: c.length}
	m := &c.msg
	if m.Status == 101 {
		m.Length, m.Upgrade = stream.LengthUnknown, c.upgrade
		c.final, c.last, c.writing = true, true, true
		c.body.phase, c.out = bodyClose, bodyWriter{framing: frameClose}
		return nil
	}
	if m.Status < 200 {
		m.Length, m.NoBody = 0, true
		if c.interim++; c.interim > c.limits.Interim {
			return errInterim
		}
		return nil
	}
	c.final = true
	c.last = c.last || c.options&optClose != 0 || c.status.old && c.options&optKeepAlive == 0
	switch {
	case m.Status == 204:
		m.Length, m.NoBody = 0, true
		c.body.start(false, 0)
	case m.Status == 304 || c.head:
		m.NoBody = true
		c.body.start(false, 0)
	case c.chunked || c.length >= 0:
		c.body.start(c.chunked, c.length)
	default:
		c.last = true
		c.body.phase = bodyClose
	}
	return nil
}

func (c *Client) fail(err *stream.ProtocolError, ev *stream.Event) error {
	c.err, c.reading, c.writing, c.last = err, false, false, true
	ev.Kind, ev.Stream, ev.Reason = stream.Reset, c.id, reasonOf(err)
	return err
}

// EOF is the backend's close; see [stream.Codec].
func (c *Client) EOF(ev *stream.Event) error {
	ev.Kind, c.last = stream.None, true
	if !c.reading {
		return nil
	}
	c.reading = false
	ev.Kind, ev.Stream = stream.End, c.id
	if !c.final || c.body.phase != bodyEnd && c.body.phase != bodyClose {
		ev.Kind, ev.Reason = stream.Reset, stream.Truncated
	}
	return nil
}

// Active is 1 from Open until both request and response are complete.
func (c *Client) Active() int {
	if c.reading || c.writing {
		return 1
	}
	return 0
}

// Reusable reports whether another exchange may follow.
func (c *Client) Reusable() bool { return !c.last && !c.closing }

// Close makes a request whose head is not written yet say "Connection: close",
// and lets no other follow.
func (c *Client) Close(dst []byte) []byte {
	c.closing = true
	return dst
}
