package http1

import (
	"errors"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func request(method string) *stream.Message {
	return &stream.Message{Method: []byte(method), Authority: []byte("a"), Path: []byte("/")}
}

func field(name, value string) stream.Field {
	return stream.Field{Name: []byte(name), Value: []byte(value)}
}

// encodeAll writes the events on the stream and stops at an error.
func encodeAll(c stream.Codec, id stream.ID, events ...stream.Event) (string, error) {
	var dst []byte
	var err error
	for _, ev := range events {
		ev.Stream = id
		before := string(dst)
		if dst, err = c.Encode(dst, &ev); err != nil {
			if string(dst) != before {
				return string(dst), errors.New("an error changed dst")
			}
			return string(dst), err
		}
	}
	return string(dst), nil
}

func head(m *stream.Message) stream.Event { return stream.Event{Kind: stream.Head, Head: m} }
func data(s string) stream.Event          { return stream.Event{Kind: stream.Data, Data: []byte(s)} }
func trailers(f ...stream.Field) stream.Event {
	return stream.Event{Kind: stream.Trailers, Fields: f}
}

var end = stream.Event{Kind: stream.End}

// answering returns a Server that has decoded the request.
func answering(t testing.TB, in string) *Server {
	t.Helper()
	s := NewServer(Limits{})
	if rest, _ := new(tracer).feed(t, s, []byte(in), nil); len(rest) > 0 || s.id != 1 {
		t.Fatalf("%q is not a request", in)
	}
	return s
}

func TestEncodeResponse(t *testing.T) {
	const (
		get10  = "GET / HTTP/1.0\r\n\r\n"
		keep10 = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
		headRq = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
		expect = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
	)
	for _, c := range []struct {
		name, request string
		events        []stream.Event
		want          string
		reusable      bool
	}{
		{"length", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: 5, Fields: []stream.Field{field("X", "y")}}), data("he"), data("llo"), end},
			"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello", true},
		{"no body", get + "\r\n", []stream.Event{head(&stream.Message{Status: 404}), end}, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true},
		{"chunked", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: -1}), data("hello"), data(""), data("0123456789abcdefg"), end},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n", true},
		{"chunked, empty", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: -1}), end}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
		{"trailers", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: -1}), data("x"), trailers(field("X-Sum", "1"), field("Set-Cookie", "a=b")), end},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", true},
		{"trailers without chunks", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: 1}), data("x"), trailers(field("X", "y")), end},
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", true},
		{"informational first", get + "\r\n", []stream.Event{head(&stream.Message{Status: 103, Fields: []stream.Field{field("Link", "x")}}), head(&stream.Message{Status: 200}), end},
			"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		{"informational to HTTP/1.0", keep10, []stream.Event{head(&stream.Message{Status: 103}), head(&stream.Message{Status: 200}), end},
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true},
		{"unregistered status", get + "\r\n", []stream.Event{head(&stream.Message{Status: 299}), end}, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", true},
		{"204", get + "\r\n", []stream.Event{head(&stream.Message{Status: 204, NoBody: true}), end}, "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"204 of unknown length", get + "\r\n", []stream.Event{head(&stream.Message{Status: 204, Length: -1}), end}, "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"304", get + "\r\n", []stream.Event{head(&stream.Message{Status: 304, Length: 7, NoBody: true}), end}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", true},
		{"304 of unknown length", get + "\r\n", []stream.Event{head(&stream.Message{Status: 304, Length: -1, NoBody: true}), end}, "HTTP/1.1 304 Not Modified\r\n\r\n", true},
		{"HEAD", headRq, []stream.Event{head(&stream.Message{Status: 200, Length: 7, NoBody: true}), end}, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", true},
		{"HEAD of unknown length", headRq, []stream.Event{head(&stream.Message{Status: 200, Length: -1, NoBody: true}), end}, "HTTP/1.1 200 OK\r\n\r\n", true},
		{"HEAD, body dropped", headRq, []stream.Event{head(&stream.Message{Status: 404, Length: 5}), data("hello"), trailers(field("X", "y")), end}, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n", true},
		{"HTTP/1.0", get10, []stream.Event{head(&stream.Message{Status: 200, Length: 2}), data("hi"), end}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", false},
		{"HTTP/1.0 keep-alive", keep10, []stream.Event{head(&stream.Message{Status: 200, Length: 2}), data("hi"), end}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", true},
		{"HTTP/1.0 never gets chunks", keep10, []stream.Event{head(&stream.Message{Status: 200, Length: -1}), data("hi"), trailers(field("X", "y")), end}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", false},
		{"close asked", get + "Connection: close\r\n\r\n", []stream.Event{head(&stream.Message{Status: 200}), end}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false},
		{"expect, refused without 100: the next bytes may be the body or not", expect, []stream.Event{head(&stream.Message{Status: 417}), end},
			"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false},
		{"expect, 100 sent", expect, []stream.Event{head(&stream.Message{Status: 100}), head(&stream.Message{Status: 200}), end},
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		{"expect, body came anyway", expect + "h", []stream.Event{head(&stream.Message{Status: 200}), end}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		{"window means nothing here", get + "\r\n", []stream.Event{{Kind: stream.Window, N: 5}, head(&stream.Message{Status: 200}), end}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		{"reset ends the connection", get + "\r\n", []stream.Event{head(&stream.Message{Status: 200, Length: -1}), data("x"), {Kind: stream.Reset}},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := answering(t, c.request)
			got, err := encodeAll(s, 1, c.events...)
			if err != nil || got != c.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
			}
			if s.Reusable() != c.reusable {
				t.Errorf("reusable %v", s.Reusable())
			}
		})
	}
}

func TestEncodeRequest(t *testing.T) {
	post := func(length int64, f ...stream.Field) *stream.Message {
		m := request("POST")
		m.Length, m.Fields = length, f
		return m
	}
	with := func(m *stream.Message, change func(*stream.Message)) *stream.Message { change(m); return m }
	for _, c := range []struct {
		name   string
		events []stream.Event
		want   string
	}{
		{"GET", []stream.Event{head(request("GET")), end}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"POST without content says so", []stream.Event{head(post(0)), end}, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
		{"length", []stream.Event{head(post(5, field("X", "y"))), data("hello"), end}, "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"},
		{"GET with content", []stream.Event{head(with(request("GET"), func(m *stream.Message) { m.Length = 2 })), data("hi"), end}, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"},
		{"chunked with trailers", []stream.Event{head(post(-1)), data("hello"), trailers(field("X", "y")), end},
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"},
		{"expect", []stream.Event{head(with(post(2), func(m *stream.Message) { m.Expect100 = true })), data("hi"), end},
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"},
		{"trailers taken", []stream.Event{head(with(request("GET"), func(m *stream.Message) { m.TrailersOK = true })), end}, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n"},
		{"asterisk", []stream.Event{head(with(request("OPTIONS"), func(m *stream.Message) { m.Path = []byte("*") })), end}, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"upgrade", []stream.Event{head(with(request("GET"), func(m *stream.Message) { m.Upgrade = []byte("websocket") })), end}, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"upgrade with a body", []stream.Event{head(with(request("PUT"), func(m *stream.Message) { m.Upgrade, m.Length = []byte("websocket"), 1 })), data("x"), end}, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"},
		{"upgrade to no protocol", []stream.Event{head(with(request("GET"), func(m *stream.Message) { m.Upgrade = []byte("a b\r\nX: y") })), end}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"scheme is the connection's matter", []stream.Event{head(with(request("GET"), func(m *stream.Message) { m.Scheme = []byte("http") })), end}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := NewClient(Limits{})
			id, _ := cl.Open()
			if got, err := encodeAll(cl, id, c.events...); err != nil || got != c.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
			}
		})
	}
	cl := NewClient(Limits{})
	id, _ := cl.Open()
	cl.Close(nil)
	want := "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
	if got, err := encodeAll(cl, id, head(with(request("GET"), func(m *stream.Message) { m.TrailersOK = true })), end); err != nil || got != want || cl.Reusable() {
		t.Errorf("closing: got %q, %v", got, err)
	}
}

// TestEncodeRefuses: what another codec let through must not break the framing
// here (the classes H2.CL, H2.TE and CRLF injection).
func TestEncodeRefuses(t *testing.T) {
	with := func(change func(*stream.Message)) *stream.Message {
		m := &stream.Message{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), Status: 200}
		change(m)
		return m
	}
	fields := func(f ...stream.Field) *stream.Message { return with(func(m *stream.Message) { m.Fields = f }) }
	long := strings.Repeat("a", 20)
	for _, c := range []struct {
		name   string
		m      *stream.Message
		client bool // only as a request
	}{
		{"CRLF in a value", fields(field("X", "a\r\nHost: b")), false},
		{"LF in a long value", fields(field("X", long+"\n")), false},
		{"NUL in a value", fields(field("X", "a\x00")), false},
		{"CRLF in a name", fields(field("X: a\r\nY", "b")), false},
		{"colon in a name", fields(field("X:", "b")), false},
		{"space in a name", fields(field("X ", "b")), false},
		{"pseudo field", fields(field(":path", "/b")), false},
		{"empty name", fields(field("", "b")), false},
		{"H2.CL", fields(field("content-length", "0")), false},
		{"H2.TE", fields(field("transfer-encoding", "chunked")), false},
		{"TE in disguise", fields(field("Transfer_Encoding", "chunked")), false},
		{"connection", fields(field("X", "y"), field("connection", "close")), false},
		{"second Host", fields(field("host", "b")), false},
		{"expect", fields(field("expect", "100-continue")), false},
		{"method", with(func(m *stream.Message) { m.Method = []byte("GET / HTTP/1.1\r\nX:") }), true},
		{"no method", with(func(m *stream.Message) { m.Method = nil }), true},
		{"CONNECT", with(func(m *stream.Message) { m.Method = []byte("CONNECT") }), true},
		{"space in the path", with(func(m *stream.Message) { m.Path = []byte("/ HTTP/1.1\r\nX: y") }), true},
		{"relative path", with(func(m *stream.Message) { m.Path = []byte("a") }), true},
		{"absolute path", with(func(m *stream.Message) { m.Path = []byte("http://b/") }), true},
		{"no path", with(func(m *stream.Message) { m.Path = nil }), true},
		{"asterisk of a GET", with(func(m *stream.Message) { m.Path = []byte("*") }), true},
		{"no authority", with(func(m *stream.Message) { m.Authority = nil }), true},
		{"CRLF in the authority", with(func(m *stream.Message) { m.Authority = []byte("a\r\nX: y") }), true},
		{"status 99", with(func(m *stream.Message) { m.Status = 99 }), false},
		{"status 600", with(func(m *stream.Message) { m.Status = 600 }), false},
		{"status 101", with(func(m *stream.Message) { m.Status = 101 }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.m.Status == 200 {
				cl := NewClient(Limits{})
				id, _ := cl.Open()
				if got, err := encodeAll(cl, id, head(c.m)); err == nil || got != "" {
					t.Errorf("request: %q, %v", got, err)
				}
			}
			if !c.client {
				if got, err := encodeAll(answering(t, get+"\r\n"), 1, head(c.m)); err == nil || got != "" {
					t.Errorf("response: %q, %v", got, err)
				}
			}
		})
	}
	s := answering(t, get+"\r\n")
	if _, err := encodeAll(s, 1, head(&stream.Message{Status: 200, Length: -1}), trailers(field("X", "\r\n"))); err == nil {
		t.Error("a trailer with CRLF was written")
	}
	s = answering(t, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := encodeAll(s, 1, head(&stream.Message{Status: 200})); err == nil {
		t.Error("a CONNECT was agreed to")
	}
}

func TestEncodeMisuse(t *testing.T) {
	final := func(length int64) stream.Event { return head(&stream.Message{Status: 200, Length: length}) }
	for _, c := range []struct {
		name   string
		events []stream.Event
		want   error
	}{
		{"data before the head", []stream.Event{data("x")}, errOrder},
		{"two final heads", []stream.Event{final(0), final(0)}, errOrder},
		{"too much data", []stream.Event{final(2), data("abc")}, errOverrun},
		{"too little data", []stream.Event{final(2), data("a"), end}, errUnderrun},
		{"data with 204", []stream.Event{head(&stream.Message{Status: 204}), data("a")}, errBody},
		{"data with 304", []stream.Event{head(&stream.Message{Status: 304}), data("a")}, errBody},
		{"data after trailers", []stream.Event{final(-1), trailers(), data("a")}, errOrder},
		{"trailers twice", []stream.Event{final(-1), trailers(), trailers()}, errOrder},
		{"anything after the end", []stream.Event{final(0), end, end}, errStream},
		{"a reset after the end", []stream.Event{final(0), end, {Kind: stream.Reset}}, errStream},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := encodeAll(answering(t, get+"\r\n"), 1, c.events...); err != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := encodeAll(answering(t, get+"\r\n"), 2, final(0)); err != errStream {
		t.Errorf("another stream: %v", err)
	}
	if _, err := encodeAll(NewServer(Limits{}), 0, final(0)); err != errStream {
		t.Errorf("a response without a request: %v", err)
	}
	if _, err := encodeAll(NewClient(Limits{}), 0, head(request("GET"))); err != errStream {
		t.Errorf("a request without Open: %v", err)
	}
}
