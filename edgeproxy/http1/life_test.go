package http1

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func decode(t *testing.T, c stream.Codec, in string) (ev stream.Event, rest string) {
	t.Helper()
	n, err := c.Decode([]byte(in), &ev)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	return ev, in[n:]
}

func mustEncode(t *testing.T, c stream.Codec, id stream.ID, events ...stream.Event) string {
	t.Helper()
	out, err := encodeAll(c, id, events...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPipelineWaits: the next request is not touched before the response to the
// previous is complete, and the bytes stay with the caller.
func TestPipelineWaits(t *testing.T) {
	s := NewServer(Limits{})
	_, rest := decode(t, s, get+"\r\n"+get+"X: 2\r\n\r\n")
	if ev, _ := decode(t, s, rest); ev.Kind != stream.End || s.Active() != 1 {
		t.Fatalf("event %v, active %d", ev.Kind, s.Active())
	}
	blocked := func(when string) {
		t.Helper()
		if ev, left := decode(t, s, rest); ev.Kind != stream.None || left != rest {
			t.Fatalf("%s: event %v, left %q", when, ev.Kind, left)
		}
	}
	blocked("before the response")
	mustEncode(t, s, 1, head(&stream.Message{Status: 103}))
	blocked("after an informational response")
	mustEncode(t, s, 1, head(&stream.Message{Status: 200, Length: 1}), data("x"))
	blocked("in the response")
	mustEncode(t, s, 1, end)
	if s.Active() != 0 {
		t.Error("still active")
	}
	if ev, _ := decode(t, s, rest); ev.Kind != stream.Head || ev.Stream != 2 {
		t.Fatalf("event %v of stream %d", ev.Kind, ev.Stream)
	}
}

// TestEarlyResponse: a response may end before its request; the rest of the
// request is still decoded, and then the connection goes on.
func TestEarlyResponse(t *testing.T) {
	s := NewServer(Limits{})
	_, rest := decode(t, s, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhi")
	_, rest = decode(t, s, rest)
	mustEncode(t, s, 1, head(&stream.Message{Status: 413}), end)
	if s.Active() != 1 || !s.Reusable() || rest != "" {
		t.Fatalf("active %d, reusable %v, rest %q", s.Active(), s.Reusable(), rest)
	}
	_, rest = decode(t, s, "ho"+get+"\r\n")
	if ev, rest := decode(t, s, rest); ev.Kind != stream.End || s.Active() != 0 {
		t.Fatalf("event %v, active %d", ev.Kind, s.Active())
	} else if ev, _ = decode(t, s, rest); ev.Kind != stream.Head || ev.Stream != 2 {
		t.Fatalf("event %v of stream %d", ev.Kind, ev.Stream)
	}
}

// TestFaultIsAnswered: after a decode error one response can be written, which
// closes the connection.
func TestFaultIsAnswered(t *testing.T) {
	for _, c := range []struct {
		name, in string
		stream   stream.ID
		status   int
	}{
		{"in the first head", "GET / HTTP/1.1\r\n\r\n", 1, 400},
		{"in a later head", get + "\r\nGET / HTTP/1.1\r\n\r\n", 2, 400},
		{"in a body", chunked + "zz\r\n", 1, 400},
		{"in an HTTP/1.0 head", "HEAD / HTTP/1.0\r\nHost: \x00\r\n\r\n", 1, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, rest := NewServer(Limits{}), []byte(c.in)
			var ev stream.Event
			for {
				n, err := s.Decode(rest, &ev)
				rest = rest[n:]
				if ev.Kind == stream.End {
					mustEncode(t, s, ev.Stream, head(&stream.Message{Status: 200}), end)
				}
				var p *stream.ProtocolError
				if errors.As(err, &p) {
					if p.Status != c.status {
						t.Errorf("status %d", p.Status)
					}
					break
				}
			}
			if ev.Kind != stream.Reset || ev.Stream != c.stream || ev.Reason != stream.Malformed || s.Reusable() {
				t.Fatalf("event %+v, reusable %v", ev, s.Reusable())
			}
			want := "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad"
			if got := mustEncode(t, s, ev.Stream, head(&stream.Message{Status: 400, Length: 3}), data("bad"), end); got != want {
				t.Errorf("got %q", got)
			}
			if s.Active() != 0 {
				t.Error("still active")
			}
		})
	}
}

func TestServerClose(t *testing.T) {
	const closing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	t.Run("idle", func(t *testing.T) {
		s := NewServer(Limits{})
		s.Close(nil)
		decode(t, s, get+"\r\n") // a request on its way gets its answer
		decode(t, s, "")
		if got := mustEncode(t, s, 1, head(&stream.Message{Status: 200}), end); got != closing || s.Reusable() {
			t.Errorf("got %q, reusable %v", got, s.Reusable())
		}
		if ev, _ := decode(t, s, get+"\r\n"); ev.Kind != stream.None {
			t.Error("another request was decoded")
		}
	})
	t.Run("before the head", func(t *testing.T) {
		s := answering(t, get+"\r\n")
		s.Close(nil)
		if got := mustEncode(t, s, 1, head(&stream.Message{Status: 200}), end); got != closing {
			t.Errorf("got %q", got)
		}
	})
	t.Run("after the head", func(t *testing.T) {
		s := answering(t, get+"\r\n")
		mustEncode(t, s, 1, head(&stream.Message{Status: 200, Length: -1}))
		s.Close(nil)
		mustEncode(t, s, 1, end)
		if ev, _ := decode(t, s, get+"\r\n"); ev.Kind != stream.None || s.Reusable() {
			t.Errorf("event %v, reusable %v", ev.Kind, s.Reusable())
		}
	})
}

func TestServerEOF(t *testing.T) {
	s := answering(t, get+"\r\n")
	var ev stream.Event
	if err := s.EOF(&ev); err != nil || ev.Kind != stream.None {
		t.Fatalf("event %v, %v", ev.Kind, err)
	}
	// half closed: the answer still goes out
	want := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	if got := mustEncode(t, s, 1, head(&stream.Message{Status: 200}), end); got != want || s.Reusable() {
		t.Errorf("got %q", got)
	}
}

func TestClientTurns(t *testing.T) {
	c := NewClient(Limits{})
	for turn := stream.ID(1); turn <= 3; turn++ {
		id, ok := c.Open()
		if !ok || id != turn {
			t.Fatalf("turn %d: stream %d, %v", turn, id, ok)
		}
		if _, ok := c.Open(); ok {
			t.Fatal("opened twice")
		}
		mustEncode(t, c, id, head(request("GET")), end)
		_, rest := decode(t, c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
		_, rest = decode(t, c, rest)
		if ev, _ := decode(t, c, rest); ev.Kind != stream.End || ev.Stream != id {
			t.Fatalf("event %v of stream %d", ev.Kind, ev.Stream)
		}
		if c.Active() != 0 || !c.Reusable() {
			t.Fatalf("active %d, reusable %v", c.Active(), c.Reusable())
		}
	}
}

// TestAnswerBeforeTheRequestEnds: the request may be completed, but then the
// connection is over: a backend that did not read it all may take the rest for
// the next request.
func TestAnswerBeforeTheRequestEnds(t *testing.T) {
	c := NewClient(Limits{})
	id, _ := c.Open()
	m := request("POST")
	m.Length = 2
	mustEncode(t, c, id, head(m), data("h"))
	_, rest := decode(t, c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if !c.Reusable() {
		t.Error("given up at the response's head already")
	}
	if ev, _ := decode(t, c, rest); ev.Kind != stream.End || c.Active() != 1 {
		t.Fatalf("event %v, active %d", ev.Kind, c.Active())
	}
	mustEncode(t, c, id, data("i"), end)
	if _, ok := c.Open(); ok || c.Reusable() || c.Active() != 0 {
		t.Errorf("opened %v, reusable %v, active %d", ok, c.Reusable(), c.Active())
	}
}

func TestClientEnds(t *testing.T) {
	open := func() *Client {
		c := NewClient(Limits{})
		id, _ := c.Open()
		mustEncode(t, c, id, head(request("GET")), end)
		return c
	}
	t.Run("closed by the backend while idle", func(t *testing.T) {
		c := NewClient(Limits{})
		var ev stream.Event
		if err := c.EOF(&ev); err != nil || ev.Kind != stream.None || c.Reusable() {
			t.Errorf("event %v, reusable %v", ev.Kind, c.Reusable())
		}
		if _, ok := c.Open(); ok {
			t.Error("opened on a closed connection")
		}
	})
	t.Run("bytes while idle", func(t *testing.T) {
		c := NewClient(Limits{})
		var ev stream.Event
		if _, err := c.Decode([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n"), &ev); err != errUnsolicited || c.Reusable() {
			t.Errorf("%v, reusable %v", err, c.Reusable())
		}
	})
	t.Run("reset", func(t *testing.T) {
		c := open()
		mustReset := mustEncode(t, c, 1, stream.Event{Kind: stream.Reset})
		if mustReset != "" || c.Active() != 0 || c.Reusable() {
			t.Errorf("wrote %q, active %d, reusable %v", mustReset, c.Active(), c.Reusable())
		}
	})
	t.Run("fault", func(t *testing.T) {
		c := open()
		var ev stream.Event
		if _, err := c.Decode([]byte("nonsense\r\n\r\n"), &ev); err == nil || ev.Kind != stream.Reset || ev.Stream != 1 || c.Active() != 0 || c.Reusable() {
			t.Errorf("%v, %+v", err, ev)
		}
	})
	t.Run("close", func(t *testing.T) {
		c := open()
		c.Close(nil)
		if c.Reusable() {
			t.Error("reusable")
		}
		idle := NewClient(Limits{})
		idle.Close(nil)
		if _, ok := idle.Open(); ok || idle.Reusable() {
			t.Error("opened after Close")
		}
	})
}

// TestReset: a codec of the pool behaves as a new one, whatever it went through.
func TestReset(t *testing.T) {
	rows := requestRows()
	s := NewServer(Limits{})
	for i := range rows {
		new(tracer).feed(t, s, []byte(rows[i].in), nil)
		s.Reset()
		probe := &rows[(i*7)%len(rows)]
		got := (&tracer{})
		got.feed(t, s, []byte(probe.in), nil)
		want := &tracer{}
		want.feed(t, NewServer(Limits{}), []byte(probe.in), nil)
		if got.String() != want.String() {
			t.Fatalf("%s after %s: got %s, want %s", probe.name, rows[i].name, clip(got.String()), clip(want.String()))
		}
		s.Reset()
	}
	c := NewClient(Limits{})
	for i := range responses {
		drive := func(c *Client, r row) string {
			_, in := splitMethod(r.in)
			id, _ := c.Open()
			mustEncode(t, c, id, head(request("GET")), end)
			tr := &tracer{}
			tr.feed(t, c, []byte(in), nil)
			return tr.String()
		}
		drive(c, responses[i])
		c.Reset()
		probe := responses[(i*7)%len(responses)]
		if got, want := drive(c, probe), drive(NewClient(Limits{}), probe); got != want {
			t.Fatalf("%s after %s: got %s, want %s", probe.name, responses[i].name, clip(got), clip(want))
		}
		c.Reset()
	}
}

// TestSharedScratch: two connections of a loop may be in the middle of messages at
// the same time.
func TestSharedScratch(t *testing.T) {
	sc := NewScratch(Limits{})
	a, b := sc.NewServer(), sc.NewServer()
	c := sc.NewClient()
	id, _ := c.Open()
	mustEncode(t, c, id, head(request("GET")), end)
	inputs := []string{chunked + "3\r\nabc\r\n0\r\nX: y\r\n\r\n", get + "A: b\r\n\r\n", "HTTP/1.0 200 OK\r\nB: c\r\n\r\nhello"}
	codecs := []stream.Codec{a, b, c}
	tracers, rest := make([]tracer, 3), make([][]byte, 3)
	for at := range 100 {
		for i, in := range inputs {
			if at < len(in) {
				rest[i], _ = tracers[i].feed(t, codecs[i], append(rest[i], in[at]), nil)
			}
		}
	}
	for i, want := range []string{"POST a / {} unknown; data abc; trailers {X=y}; end", "GET a / {A=b}; end", "200 {B=c} unknown; data hello"} {
		if got := tracers[i].String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := mustEncode(t, a, 1, head(&stream.Message{Status: 200}), end); got != "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	if size := unsafe.Sizeof(*a); size > 256 {
		t.Errorf("a connection's state has %d bytes", size)
	}
}

func TestLimits(t *testing.T) {
	l := Limits{Target: 4, Head: 60, Fields: 2, Trailers: 12, Interim: 1}
	for in, want := range map[string]string{
		"GET /abc HTTP/1.1\r\nHost: a\r\n\r\n":                                                     "GET a /abc {}; end",
		"GET /abcd HTTP/1.1\r\nHost: a\r\n\r\n":                                                    "!414 request target too long",
		get + "X: y\r\nZ: z\r\n\r\n":                                                               "!431 too many fields",
		get + "X: " + "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n":                                     "!431 head too long",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n":        "POST a / {} unknown; trailers {X=y}; end",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: yyyyyyyy\r\n\r\n":  "PUT a / {} unknown; !431 trailers too long",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA:\r\nB:\r\nC:\r\n":   "PUT a / {} unknown; !431 too many fields",
		"PATCH / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: yyyyyyyyyyyyyyy": "PATCH a / {} unknown; !431 trailers too long",
	} {
		tr := &tracer{}
		tr.feed(t, NewServer(l), []byte(in), nil)
		if got := tr.String(); got != want {
			t.Errorf("%q\ngot  %s\nwant %s", in, got, want)
		}
	}
}
