package http1

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// tracer writes the events of a connection as text, pieces of Data joined, so
// that tables can state them and runs over other pieces must give the same.
type tracer struct {
	events []string
	inData bool
}

func (t *tracer) add(format string, args ...any) {
	t.events = append(t.events, fmt.Sprintf(format, args...))
	t.inData = false
}

func (t *tracer) String() string { return strings.Join(t.events, "; ") }

func fieldsText(fields []stream.Field) string {
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%s", f.Name, f.Value)
	}
	return "{" + b.String() + "}"
}

func headText(m *stream.Message) string {
	var b strings.Builder
	if m.Status == 0 {
		b.WriteString(string(m.Method) + " ")
		if len(m.Scheme) > 0 {
			b.WriteString(string(m.Scheme) + "://")
		}
		fmt.Fprintf(&b, "%s %s", m.Authority, m.Path)
	} else {
		fmt.Fprintf(&b, "%d", m.Status)
	}
	b.WriteString(" " + fieldsText(m.Fields))
	switch {
	case m.Length < 0:
		b.WriteString(" unknown")
	case m.Length > 0:
		fmt.Fprintf(&b, " %d", m.Length)
	}
	for _, flag := range []struct {
		on   bool
		text string
	}{{m.Expect100, " expect"}, {m.NoBody, " nobody"}, {m.TrailersOK, " te"}, {m.Upgrade != nil, " upgrade=" + string(m.Upgrade)}} {
		if flag.on {
			b.WriteString(flag.text)
		}
	}
	return b.String()
}

func (t *tracer) event(ev *stream.Event) {
	switch ev.Kind {
	case stream.Head:
		t.add("%s", headText(ev.Head))
	case stream.Data:
		if !t.inData {
			t.add("data ")
			t.inData = true
		}
		t.events[len(t.events)-1] += string(ev.Data)
	case stream.Trailers:
		t.add("trailers %s", fieldsText(ev.Fields))
	case stream.End:
		t.add("end")
	case stream.Reset:
		if ev.Reason == stream.Truncated {
			t.add("truncated")
		}
	}
}

// feed decodes what there is of buf, telling each event to next, and returns the
// rest; false after an error.
func (t *tracer) feed(tb testing.TB, c stream.Codec, buf []byte, next func(*stream.Event)) ([]byte, bool) {
	var ev stream.Event
	for range 10*len(buf) + 100 {
		n, err := c.Decode(buf, &ev)
		if n < 0 || n > len(buf) {
			tb.Fatalf("used %d of %d bytes", n, len(buf))
		}
		buf = buf[n:]
		t.event(&ev)
		if err != nil {
			var p *stream.ProtocolError
			if !errors.As(err, &p) {
				tb.Fatalf("error %v is no ProtocolError", err)
			}
			if ev.Kind != stream.Reset || ev.Reason != reasonOf(p) {
				tb.Fatalf("an error with event %v, reason %v", ev.Kind, ev.Reason)
			}
			if _, again := c.Decode(buf, &ev); again != err {
				tb.Fatalf("error %v is not final: %v", err, again)
			}
			t.add("!%d %s", p.Status, p.What)
			return buf, false
		}
		if ev.Kind == stream.None {
			return buf, true
		}
		if next != nil {
			next(&ev)
		}
	}
	tb.Fatal("decoding does not come to an end")
	return nil, false
}

// pieces cuts in at the given places.
func pieces(in string, cuts ...int) [][]byte {
	var out [][]byte
	at := 0
	for _, c := range append(cuts, len(in)) {
		out = append(out, []byte(in[at:c]))
		at = c
	}
	return out
}

// run feeds the pieces and says what came of it. Each piece comes in a fresh
// buffer together with what was left, and the old one is overwritten, so that a
// codec which keeps input is found out.
func run(tb testing.TB, t *tracer, c stream.Codec, in [][]byte, next func(*stream.Event)) string {
	var rest []byte
	for _, p := range in {
		buf := append(bytes.Clone(rest), p...)
		left, ok := t.feed(tb, c, buf, next)
		if !ok {
			return t.String()
		}
		rest = bytes.Clone(left)
		for i := range buf {
			buf[i] = '!'
		}
	}
	var ev stream.Event
	if err := c.EOF(&ev); err != nil {
		tb.Fatal(err)
	}
	t.event(&ev)
	if ev.Kind == stream.End && next != nil {
		next(&ev)
	}
	if len(rest) > 0 {
		t.add("left %d", len(rest))
	}
	return t.String()
}

// traceRequests runs a Server over the input, answering each request with an
// empty 404, and says after each whether the connection goes on.
func traceRequests(tb testing.TB, in [][]byte) string {
	s, t := NewServer(Limits{}), &tracer{}
	return run(tb, t, s, in, func(ev *stream.Event) {
		if ev.Kind != stream.End {
			return
		}
		goesOn := s.Reusable()
		if _, err := s.Encode(nil, &stream.Event{Kind: stream.Head, Stream: ev.Stream, Head: &stream.Message{Status: 404}}); err != nil {
			tb.Fatal(err)
		}
		if _, err := s.Encode(nil, &stream.Event{Kind: stream.End, Stream: ev.Stream}); err != nil {
			tb.Fatal(err)
		}
		if goesOn != s.Reusable() {
			tb.Fatal("Reusable changed its mind")
		}
		if !goesOn {
			t.add("close")
		}
	})
}

// traceResponse runs a Client over the answer to one request of the given method.
func traceResponse(tb testing.TB, method string, in [][]byte) string {
	c, t := NewClient(Limits{}), &tracer{}
	id, _ := c.Open()
	head := &stream.Message{Method: []byte(method), Authority: []byte("a"), Path: []byte("/")}
	for _, ev := range []stream.Event{{Kind: stream.Head, Stream: id, Head: head}, {Kind: stream.End, Stream: id}} {
		if _, err := c.Encode(nil, &ev); err != nil {
			tb.Fatal(err)
		}
	}
	return run(tb, t, c, in, func(ev *stream.Event) {
		if ev.Kind == stream.End && !c.Reusable() {
			t.add("close")
		}
	})
}
