package http2

import (
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// FuzzServer feeds a server anything; what it takes it answers. Nothing may crash,
// events must keep their order, and the books must balance.
func FuzzServer(f *testing.F) {
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	for _, in := range []string{
		raw(frameHeaders, endHead, 1, get), raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameData, flagPadded, 1, "\x01ab"),
		raw(frameHeaders, 0, 1, get) + raw(frameContinuation, flagEndHeaders, 1, "\x82"), raw(frameSettings, 0, 0, "\x00\x04"+u32(5)),
		raw(framePing, 0, 0, "12345678") + raw(frameGoAway, 0, 0, u32(1)+u32(2)) + raw(frameWindow, 0, 0, u32(7)) + raw(frameReset, 0, 1, u32(3)),
		strings.Repeat(raw(framePriority, 0, 3, u32(1)+"\x00"), 3),
		raw(frameHeaders, flagEndHeaders, 1, chat()) + raw(frameData, 0, 1, "ab") + raw(frameHeaders, endHead, 1, fields("a: b")),
	} {
		f.Add([]byte(in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		fuzz(t, NewServer(Limits{Window: 1000, ConnectionWindow: 70_000, Extended: true}), append([]byte(hello), in...), int(step)+1, true)
	})
}

// FuzzClient feeds a client with open streams anything.
func FuzzClient(f *testing.F) {
	status := fields(":status: 200")
	for _, in := range []string{
		raw(frameHeaders, endHead, 1, status), raw(frameHeaders, flagEndHeaders, 1, status) + raw(frameData, flagEndStream, 1, "ab"),
		raw(frameHeaders, flagEndHeaders, 3, fields(":status: 100")) + raw(frameHeaders, flagEndHeaders, 3, status) + raw(frameHeaders, endHead, 3, fields("a: b")),
		raw(frameGoAway, 0, 0, u32(1)+u32(2)), raw(frameReset, 0, 1, u32(0)),
		raw(frameHeaders, flagEndHeaders, 7, status) + raw(frameData, flagEndStream, 7, "ab") + raw(frameReset, 0, 7, u32(0)),
	} {
		f.Add([]byte(in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		c := NewClient(Limits{Window: 1000, ConnectionWindow: 70_000})
		for i := range 4 {
			id, _ := c.Open()
			m := &stream.Message{Method: []byte("PUT"), Authority: []byte("x"), Path: []byte("/"), Length: -1}
			if i == 3 {
				m.Method, m.Path = []byte("CONNECT"), nil
			}
			if _, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: id, Head: m}); err != nil {
				t.Fatal(err)
			}
		}
		fuzz(t, c, append([]byte(raw(frameSettings, 0, 0, "")), in...), int(step)+1, false)
	})
}

func fuzz(t *testing.T, c *Codec, in []byte, step int, server bool) {
	state := map[stream.ID]stream.Kind{}
	if !server {
		state = map[stream.ID]stream.Kind{1: stream.None, 3: stream.None, 5: stream.None, 7: stream.None}
	}
	var rest []byte
	for len(in) > 0 {
		n := min(step, len(in))
		rest, in = append(rest, in[:n]...), in[n:]
		for {
			var ev stream.Event
			n, err := c.Decode(rest, &ev)
			if n > len(rest) {
				t.Fatal("more used than given")
			}
			rest = rest[n:]
			if err != nil {
				if _, again := c.Decode(rest, &ev); again == nil {
					t.Fatal("an error that is not final")
				}
				return
			}
			if ev.Kind == stream.None {
				break
			}
			at, open := state[ev.Stream]
			switch ev.Kind {
			case stream.Head:
				if server && open || !server && (!open || at != stream.None) {
					t.Fatalf("head of stream %d out of place", ev.Stream)
				}
				if server || ev.Head.Status >= 200 {
					state[ev.Stream] = stream.Head
				}
				if server && ev.Stream%4 == 1 {
					m := &stream.Message{Status: 200, Length: -1}
					if string(ev.Head.Method) == "CONNECT" {
						m.Upgrade = []byte("websocket")
					}
					if _, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: ev.Stream, Head: m}); err != nil {
						t.Fatal(err)
					}
				}
			case stream.Data, stream.Trailers, stream.End:
				if !open || at < stream.Head || at == stream.End || at == stream.Trailers && ev.Kind != stream.End {
					t.Fatalf("%d of stream %d after %d", ev.Kind, ev.Stream, at)
				}
				state[ev.Stream] = ev.Kind
				if ev.Kind == stream.Data {
					if _, err := c.Encode(nil, &stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)}); err != nil {
						t.Fatal(err)
					}
				}
			case stream.Reset:
				delete(state, ev.Stream)
			}
		}
		c.Say(nil)
	}
	if c.credit+c.owed > max(c.limits.ConnectionWindow, 0) || c.credit < 0 {
		t.Fatalf("the connection's window: %d to send, %d owed", c.credit, c.owed)
	}
	for i := range c.flows {
		if s := &c.flows[i]; s.credit < 0 || s.credit+s.owed+s.unpaid > c.limits.Window {
			t.Fatalf("stream %d: %+v", c.ids[i], *s)
		}
	}
}
