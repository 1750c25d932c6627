package http2

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Scratch is the memory that heads are decoded into. Codecs of one event loop can
// share it, so that a connection costs little more than its state; then what an
// event points to is valid until the next Decode of any of them.
type Scratch struct{ scratch }

// NewScratch returns memory for codecs under the given limits.
func NewScratch(l Limits) *Scratch {
	return &Scratch{scratch{limits: l.withDefaults(), fields: make([]stream.Field, 0, 32), text: make([]byte, 0, 4<<10)}}
}

// NewServer returns the server side of a new connection. The codec shares s.
func (s *Scratch) NewServer() *Codec { return newCodec(&s.scratch, true) }

// NewClient returns the client side of a new connection. The codec shares s.
func (s *Scratch) NewClient() *Codec { return newCodec(&s.scratch, false) }

type scratch struct {
	limits Limits
	msg    stream.Message
	fields []stream.Field
	text   []byte // decoded strings
	size   int    // of the last block, as Limits.Head counts
	joined []byte // a header block that came in several frames
	split  []byte // one that goes in several: what was decoded may lie in joined
	cookie []byte
}

// section says what a header block is.
type section uint8

const (
	requestHead section = iota
	responseHead
	trailers
	ignored // decoded for the table's sake
)

// pseudo-fields, one bit each.
const (
	hasMethod = 1 << iota
	hasScheme
	hasAuthority
	hasPath
	hasStatus
	hasProtocol
)

// block decodes a header block into the scratch memory. broken says what is wrong
// with the message, "" when nothing; a fault is the connection's.
func (c *Codec) block(in []byte, kind section) (broken string, f *fault) {
	s := c.scratch
	s.fields, s.text, s.msg = s.fields[:0], s.text[:0], stream.Message{Length: stream.LengthUnknown}
	h := head{kind: kind, s: s}
	lines := 0
	s.size = 0
	c.dec.Begin()
	for len(in) > 0 {
		var field hpack.Field
		n, text, err := c.dec.Field(in, &field, s.text)
		if err != nil {
			return "", errCompression
		}
		s.text, in = text, in[n:]
		if field.Name == nil {
			continue
		}
		lines++
		s.size += len(field.Name) + len(field.Value) + 4
		if s.size > s.limits.Head {
			return "", errHeadLong
		}
		if lines > s.limits.Fields {
			return "", errFieldCount
		}
		if kind != ignored && h.broken == "" {
			h.add(&field)
		}
	}
	if kind != ignored && h.broken == "" {
		h.finish()
	}
	return h.broken, nil
}

// head gathers a message's fields.
type head struct {
	s       *scratch
	kind    section
	seen    uint8
	ordinal int    // ordinary fields so far
	host    []byte // of Host
	length  bool
	cookies int
	broken  string
}

func (h *head) add(f *hpack.Field) {
	if f.Static > 0 && f.Static <= hpack.LastPseudo || len(f.Name) > 0 && f.Name[0] == ':' {
		h.pseudo(f)
		return
	}
	h.ordinal++
	if f.Static == 0 && (len(f.Name) == 0 || !all(f.Name, name)) {
		h.broken = "invalid field name"
		return
	}
	if h.kind == responseHead {
		// RFC 9113 8.2.1 forbids it, but servers pass on what applications set.
		f.Value = bytes.Trim(f.Value, " \t")
	}
	if !validValue(f.Value) {
		h.broken = "invalid field value"
		return
	}
	s := h.s
	switch kindOf(f.Name) {
	case forbidden:
		h.broken = "field of the connection"
	case dropped:
	case te:
		if string(f.Value) != "trailers" {
			h.broken = "TE other than trailers"
		}
		s.msg.TrailersOK = true
	case hostField:
		if h.host != nil || h.kind != requestHead {
			h.broken = "Host repeated or out of place"
		}
		h.host = f.Value
	case contentLength:
		n, ok := decimal(f.Value)
		if !ok || h.length || h.kind == trailers {
			h.broken = "invalid Content-Length"
		}
		h.length, s.msg.Length = true, n
	case expect:
		if string(f.Value) != "100-continue" || h.kind != requestHead {
			h.broken = "expectation not supported"
		}
		s.msg.Expect100 = true
	case cookie:
		if h.kind == trailers {
			return
		}
		h.cookies++
		s.fields = append(s.fields, stream.Field{Name: f.Name, Value: f.Value})
	default:
		if field := (stream.Field{Name: f.Name, Value: f.Value}); h.kind != trailers || field.MayTrail() {
			s.fields = append(s.fields, field)
		}
	}
}

func (h *head) pseudo(f *hpack.Field) {
	m := &h.s.msg
	bit, to := uint8(0), (*[]byte)(nil)
	switch string(f.Name) {
	case ":method":
		bit, to = hasMethod, &m.Method
	case ":scheme":
		bit, to = hasScheme, &m.Scheme
	case ":authority":
		bit, to = hasAuthority, &m.Authority
	case ":path":
		bit, to = hasPath, &m.Path
	case ":protocol":
		bit, to = hasProtocol, &m.Upgrade
	case ":status":
		bit = hasStatus
		if n, ok := decimal(f.Value); ok && len(f.Value) == 3 {
			m.Status = int(n)
		}
	}
	switch {
	case bit == 0 || (bit == hasStatus) != (h.kind == responseHead) || h.kind == trailers:
		h.broken = "unknown pseudo-field"
	case h.ordinal > 0:
		h.broken = "pseudo-field after other fields"
	case h.seen&bit != 0:
		h.broken = "pseudo-field repeated"
	}
	h.seen |= bit
	if to != nil {
		*to = f.Value
	}
}

// finish checks the message as a whole.
func (h *head) finish() {
	s := h.s
	m := &s.msg
	switch h.kind {
	case requestHead:
		h.request()
	case responseHead:
		if m.Status < 100 || m.Status > 599 || m.Status == 101 {
			h.broken = "invalid status" // RFC 9113 8.6: 101 is no status of HTTP/2
		}
	}
	if h.cookies > 1 {
		s.joinCookies()
	}
	m.Fields = s.fields
}

func (h *head) request() {
	s := h.s
	m := &s.msg
	connect := string(m.Method) == "CONNECT"
	want := uint8(hasMethod | hasScheme | hasPath)
	tunnel := h.seen&hasProtocol != 0
	switch {
	case connect && tunnel: // RFC 8441 4
		want |= hasAuthority | hasProtocol
	case connect: // RFC 9113 8.5
		want = hasMethod | hasAuthority
	}
	switch {
	case h.seen&want != want || connect && h.seen != want:
		h.broken = "pseudo-field missing"
	case len(m.Method) == 0 || len(m.Method) > 32 || !all(m.Method, anyName):
		h.broken = "invalid :method"
	case tunnel && (!connect || !s.limits.Extended || h.length || !validProtocol(m.Upgrade)):
		h.broken = "invalid :protocol"
	case (!connect || tunnel) && !validPath(m.Method, m.Path):
		h.broken = "invalid :path"
	case (!connect || tunnel) && string(m.Scheme) != "http" && string(m.Scheme) != "https":
		h.broken = "invalid :scheme"
	case h.seen&hasAuthority == 0 && h.host == nil:
		h.broken = ":authority missing"
	case h.seen&hasAuthority != 0 && h.host != nil && !bytes.EqualFold(m.Authority, h.host):
		h.broken = "Host differs from :authority"
	}
	if h.seen&hasAuthority == 0 {
		m.Authority = h.host
	}
	if h.broken == "" && !stream.ValidAuthority(m.Authority) {
		h.broken = "invalid :authority"
	}
}

// validPath takes an origin-form target, or the asterisk of OPTIONS.
func validPath(method, p []byte) bool {
	if len(p) == 0 {
		return false
	}
	return p[0] == '/' && all(p, target) || len(p) == 1 && p[0] == '*' && string(method) == "OPTIONS"
}

// joinCookies makes one field of the crumbs (RFC 9113 8.2.3).
func (s *scratch) joinCookies() {
	s.cookie = s.cookie[:0]
	kept, at := s.fields[:0], -1
	for _, f := range s.fields {
		if string(f.Name) != "cookie" {
			kept = append(kept, f)
			continue
		}
		if at < 0 {
			at = len(kept)
			kept = append(kept, f)
		} else {
			s.cookie = append(s.cookie, "; "...)
		}
		s.cookie = append(s.cookie, f.Value...)
	}
	s.fields = kept
	s.fields[at].Value = s.cookie
}

type fieldKind uint8

const (
	ordinary fieldKind = iota
	forbidden
	dropped
	te
	hostField
	contentLength
	expect
	cookie
)

// kindOf looks at the length first: most names end there.
func kindOf(name []byte) fieldKind {
	switch len(name) {
	case 2:
		if string(name) == "te" {
			return te
		}
	case 4:
		if string(name) == "host" {
			return hostField
		}
	case 6:
		switch string(name) {
		case "cookie":
			return cookie
		case "expect":
			return expect
		}
	case 7:
		switch string(name) {
		case "upgrade":
			return forbidden
		case "trailer":
			return dropped
		}
	case 10:
		if s := string(name); s == "connection" || s == "keep-alive" {
			return forbidden
		}
	case 14:
		switch string(name) {
		case "content-length":
			return contentLength
		case "content_length":
			return forbidden // CGI and its kin take it for the other
		case "http2-settings":
			return dropped
		}
	case 16:
		if string(name) == "proxy-connection" {
			return forbidden
		}
	case 17:
		if s := string(name); s == "transfer-encoding" || s == "transfer_encoding" {
			return forbidden
		}
	}
	return ordinary
}
