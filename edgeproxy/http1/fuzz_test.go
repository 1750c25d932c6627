package http1

import (
	"bytes"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/internal/hostiletest"
)

// Decoders agree with the twin, whole and cut anywhere.

func FuzzRequests(f *testing.F) {
	for _, r := range append(requests, connections...) {
		f.Add([]byte(r.in), uint16(len(r.in)/2))
	}
	for _, m := range hostiletest.Requests() {
		f.Add([]byte(m.Raw), uint16(len(m.Raw)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		compareRequests(t, string(in), int(cut)%(len(in)+1))
	})
}

func FuzzChunked(f *testing.F) {
	for _, r := range chunks {
		f.Add([]byte(r.in), uint16(len(r.in)/2))
	}
	for _, m := range hostiletest.Requests() {
		if body, ok := strings.CutPrefix(m.Raw, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"); ok {
			f.Add([]byte(body), uint16(len(body)/2))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, cut uint16) {
		in := chunked + string(body)
		compareRequests(t, in, len(chunked)+int(cut)%(len(body)+1))
	})
}

func FuzzResponse(f *testing.F) {
	for _, r := range responses {
		method, in := splitMethod(r.in)
		f.Add(method == "HEAD", []byte(in), uint16(len(in)/2))
	}
	for _, m := range hostiletest.Responses() {
		f.Add(false, []byte(m.Raw), uint16(len(m.Raw)/2))
	}
	f.Fuzz(func(t *testing.T, isHead bool, in []byte, cut uint16) {
		method := "GET"
		if isHead {
			method = "HEAD"
		}
		compareResponse(t, method, string(in), int(cut)%(len(in)+1))
	})
}

// carried is what of a message both codecs must carry unchanged.
type carried struct {
	method, authority, path, name, value, body string
	status                                     uint16
	length                                     int8 // <0 unknown, 0 none, else that of the body
	flags                                      uint8
}

func (c *carried) message() *stream.Message {
	m := &stream.Message{
		Method: []byte(c.method), Authority: []byte(c.authority), Path: []byte(c.path), Status: int(c.status),
		Fields:     []stream.Field{field("A", "1"), field(c.name, c.value), field(c.name, "2")},
		TrailersOK: c.flags&1 != 0, Expect100: c.flags&2 != 0, NoBody: c.flags&4 != 0,
	}
	switch {
	case c.length < 0:
		m.Length = stream.LengthUnknown
	case c.length > 0:
		m.Length = int64(len(c.body))
	}
	return m
}

func (c *carried) events(m *stream.Message) []stream.Event {
	events := []stream.Event{head(m)}
	if m.Length != 0 && len(c.body) > 0 {
		half := len(c.body) / 2
		events = append(events, data(c.body[:half]), data(c.body[half:]))
	}
	if m.Length < 0 && c.flags&8 != 0 {
		events = append(events, trailers(field(c.name, c.value)))
	}
	return append(events, end)
}

// FuzzEncode: whatever the head, Encode refuses it or writes bytes that hold
// exactly this one message.
func FuzzEncode(f *testing.F) {
	f.Add("GET", "a", "/", "X", "y", "", uint16(200), int8(0), uint8(0))
	f.Add("POST", "a.b:80", "/p?q", "X-Y", "a\tb\xff", "hello", uint16(404), int8(1), uint8(1))
	f.Add("PUT", "[::1]", "/", "grpc-status", "0", "hello", uint16(500), int8(-1), uint8(8))
	f.Add("OPTIONS", "a", "*", "content-length", "5", "", uint16(204), int8(0), uint8(2))
	f.Add("HEAD", "a", "/\r\n", "X", "\r\n", "body", uint16(304), int8(1), uint8(4))
	f.Add("get", "a@b", "/#", "", " y ", "body", uint16(103), int8(-1), uint8(15))
	f.Fuzz(func(t *testing.T, method, authority, path, name, value, body string, status uint16, length int8, flags uint8) {
		c := &carried{method, authority, path, name, value, body, status, length, flags}
		c.request(t)
		c.response(t)
	})
}

func (c *carried) request(t *testing.T) {
	cl := NewClient(Limits{})
	id, _ := cl.Open()
	m := c.message()
	wire, err := encodeAll(cl, id, c.events(m)...)
	if err != nil {
		return
	}
	if len(wire) > 8000 || len(c.method) > maxMethod {
		return // limits are the decoder's business
	}
	want := &tracer{}
	m.Status, m.NoBody = 0, false
	m.Expect100 = m.Expect100 && m.Length != 0
	c.expect(want, m, false)
	got := &tracer{}
	rest, _ := got.feed(t, NewServer(Limits{}), []byte(wire), nil)
	if got.String() != want.String() || len(rest) > 0 {
		t.Fatalf("wire %q\ngot  %s, left %q\nwant %s", wire, got, rest, want)
	}
}

func (c *carried) response(t *testing.T) {
	rq := get + "\r\n"
	if c.flags&16 != 0 {
		rq = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
	}
	if c.flags&32 != 0 {
		rq = get + "Connection: close\r\n\r\n"
	}
	m := c.message()
	if m.Status < 200 {
		return
	}
	s := answering(t, rq)
	wire, err := encodeAll(s, 1, c.events(m)...)
	if err != nil || len(wire) > 8000 {
		return
	}
	cl := NewClient(Limits{})
	id, _ := cl.Open()
	rm := request("GET")
	if s.head {
		rm = request("HEAD")
	}
	if _, err := encodeAll(cl, id, head(rm), end); err != nil {
		t.Fatal(err)
	}
	want := &tracer{}
	m.Method, m.Expect100, m.TrailersOK = nil, false, false
	noBody := s.head || m.Status == 204 || m.Status == 304
	switch {
	case m.Status == 204:
		m.Length = 0
	case m.Status == 304 && m.Length == 0:
		m.Length = stream.LengthUnknown // none was written
	}
	m.NoBody = noBody
	c.expect(want, m, noBody)
	got := &tracer{}
	rest, _ := got.feed(t, cl, []byte(wire), nil)
	if got.String() != want.String() || len(rest) > 0 || cl.Reusable() != s.Reusable() {
		t.Fatalf("wire %q\ngot  %s, left %q\nwant %s", wire, got, rest, want)
	}
}

// expect writes the events that must come out.
func (c *carried) expect(want *tracer, m *stream.Message, noBody bool) {
	for i := range m.Fields {
		m.Fields[i].Value = bytes.Trim(m.Fields[i].Value, " \t")
	}
	ev := head(m)
	want.event(&ev)
	if !noBody && m.Length != 0 && c.body != "" {
		ev = data(c.body)
		want.event(&ev)
	}
	if !noBody && m.Length < 0 && c.flags&8 != 0 && trailerAllowed(&stream.Field{Name: []byte(c.name)}) {
		ev = trailers(m.Fields[1])
		want.event(&ev)
	}
	want.event(&end)
}
