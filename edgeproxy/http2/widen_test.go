package http2

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestWiden lets more of a stream come, and of its connection, while the stream is there.
func TestWiden(t *testing.T) {
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	c := NewServer(Limits{Window: 1000, ConnectionWindow: 70_000})
	if _, err := run(t, c, hello+raw(frameHeaders, flagEndHeaders, 1, post)); err != nil {
		t.Fatal(err)
	}
	c.Widen(1, 2000)
	want(t, "wider", said(c.Say(nil)), "WINDOW_UPDATE 1 2000, WINDOW_UPDATE 0 2000")
	c.Widen(3, 2000)
	want(t, "a stream that is not there", said(c.Say(nil)), "")
	words, err := run(t, c, raw(frameData, 0, 1, strings.Repeat("a", 3000)))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "three windows", words, "data 1 3000")
	words, _ = run(t, c, raw(frameData, 0, 1, "a"))
	want(t, "and no more", words, "lost 1 3, RST_STREAM 1 3")
	if c.lent != 0 || c.credit+c.owed != 70_000 {
		t.Errorf("the connection is wider by %d, its credit %d and %d", c.lent, c.credit, c.owed)
	}

	// The windows add up whatever happens.
	r := rand.New(rand.NewPCG(1, 2))
	c = NewServer(Limits{Window: 10_000, ConnectionWindow: 100_000, Resets: 1 << 20, Idle: 1 << 20})
	if _, err := run(t, c, hello); err != nil {
		t.Fatal(err)
	}
	next, wider := uint32(1), false
	for range 20_000 {
		if len(c.ids) < 5 {
			if _, err := run(t, c, raw(frameHeaders, flagEndHeaders, next, post)); err != nil {
				t.Fatal(err)
			}
			next += 2
		}
		i := r.IntN(len(c.ids))
		id := c.ids[i]
		switch r.IntN(8) {
		case 0:
			c.Widen(stream.ID(id), r.IntN(20_000))
		case 1:
			if r.IntN(10) == 0 {
				encode(t, c, stream.Event{Kind: stream.Reset, Stream: stream.ID(id), Reason: stream.Cancelled})
			}
		case 2, 3, 4:
			encode(t, c, stream.Event{Kind: stream.Window, Stream: stream.ID(id), N: r.IntN(10_000)})
		default:
			if n := min(c.flows[i].credit, c.credit, r.IntN(8_000)); n > 0 {
				if _, err := run(t, c, raw(frameData, 0, id, strings.Repeat("x", n))); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Say(nil)
		given, may := c.credit+c.owed, c.limits.ConnectionWindow+c.lent
		for i := range c.flows {
			s := &c.flows[i]
			given += s.unpaid
			may += s.extra
			if s.credit+s.owed+s.unpaid != c.limits.Window+s.extra {
				t.Fatalf("stream %d: %+v", c.ids[i], s)
			}
		}
		if given != may {
			t.Fatalf("the connection has given %d of %d", given, may)
		}
		wider = wider || c.lent > 0
	}
	if !wider {
		t.Error("no stream left the connection wider")
	}
	for len(c.ids) > 0 {
		encode(t, c, stream.Event{Kind: stream.Reset, Stream: stream.ID(c.ids[0]), Reason: stream.Cancelled})
	}
}
