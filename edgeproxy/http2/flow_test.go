package http2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func encode(t testing.TB, c *Codec, evs ...stream.Event) []string {
	t.Helper()
	var out []byte
	for i := range evs {
		var err error
		if out, err = c.Encode(out, &evs[i]); err != nil {
			t.Fatal(err)
		}
	}
	return said(c.Say(out))
}

func want(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if s := without(got); s != want {
		t.Errorf("%s: %s, want %s", what, s, want)
	}
}

var okHead = stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 200, Length: -1}}

// TestWindows follows both directions' credit.
func TestWindows(t *testing.T) {
	c := NewServer(Limits{Window: 1000, ConnectionWindow: 100_000})
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	words, err := run(t, c, hello+raw(frameHeaders, flagEndHeaders, 1, post)+raw(frameData, 0, 1, strings.Repeat("a", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "within the window", words, "head 1, data 1 1000, WINDOW_UPDATE 0 34465")
	words, _ = run(t, c, raw(frameData, 0, 1, "a"))
	want(t, "beyond the stream's window", words, "lost 1 3, RST_STREAM 1 3")

	c = NewServer(Limits{Window: 1000, ConnectionWindow: 100_000})
	if _, err = run(t, c, hello+raw(frameHeaders, flagEndHeaders, 1, post)+raw(frameData, flagPadded, 1, "\xff"+strings.Repeat("a", 500)+strings.Repeat("\x00", 255))); err != nil {
		t.Fatal(err)
	}
	if s := &c.flows[0]; s.credit != 1000-756 || s.owed != 256 || s.unpaid != 500 {
		t.Errorf("padding is the sender's own affair: %+v", s)
	}
	want(t, "taken", encode(t, c, stream.Event{Kind: stream.Window, Stream: 1, N: 244}), "WINDOW_UPDATE 1 500")
	if s := &c.flows[0]; s.credit != 744 || s.unpaid != 256 {
		t.Errorf("%+v", s)
	}
	if c.owed != 500 {
		t.Errorf("the connection owes %d", c.owed)
	}
	want(t, "reset", encode(t, c, stream.Event{Kind: stream.Reset, Stream: 1, Reason: stream.Internal}), "RST_STREAM 1 2")
	if c.owed != 756 {
		t.Errorf("a reset stream's bytes are not given back: %d", c.owed)
	}
	words, _ = run(t, c, raw(frameData, 0, 1, "late"))
	want(t, "data that was on the way", words, "")
	if c.owed != 760 {
		t.Errorf("late bytes are not given back: %d", c.owed)
	}

	// Towards the client.
	c = NewServer(Limits{})
	if _, err = run(t, c, hello+raw(frameSettings, 0, 0, "\x00\x04"+u32(10))+raw(frameHeaders, endHead, 1, get)); err != nil {
		t.Fatal(err)
	}
	data := func(n int) stream.Event {
		return stream.Event{Kind: stream.Data, Stream: 1, Data: bytes.Repeat([]byte("x"), n)}
	}
	encode(t, c, okHead, data(6))
	if n := c.Sendable(1); n != 4 {
		t.Errorf("%d bytes may go, want 4", n)
	}
	if _, err := c.Encode(nil, &[]stream.Event{data(5)}[0]); err == nil {
		t.Error("data beyond the window was written")
	}
	for _, tt := range []struct {
		in   string
		want int
	}{
		{raw(frameWindow, 0, 1, u32(3)), 7},
		{raw(frameSettings, 0, 0, "\x00\x04"+u32(2)), 0},
		{raw(frameWindow, 0, 1, u32(2)), 1},
		{raw(frameSettings, 0, 0, "\x00\x04"+u32(1<<20)), defaultWindow - 6},
		{raw(frameWindow, 0, 0, u32(50)), defaultWindow - 6 + 50},
	} {
		if _, err := run(t, c, tt.in); err != nil {
			t.Fatal(err)
		}
		if n := c.Sendable(1); n != tt.want {
			t.Errorf("%d bytes may go, want %d", n, tt.want)
		}
	}
}

// TestEnds shows how a response ends.
func TestEnds(t *testing.T) {
	end := stream.Event{Kind: stream.End, Stream: 1}
	data := stream.Event{Kind: stream.Data, Stream: 1, Data: []byte("12345")}
	trail := stream.Event{Kind: stream.Trailers, Stream: 1, Fields: []stream.Field{{Name: []byte("a"), Value: []byte("b")}}}
	head := func(status int, length int64) stream.Event {
		return stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: status, Length: length}}
	}
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	rpc := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x", "te: trailers")
	headed := fields(":method: HEAD", ":scheme: http", ":path: /", ":authority: x")
	for _, tt := range []struct {
		name, request string
		flags         uint8
		evs           []stream.Event
		want          string
	}{
		{"known length", get, endHead, []stream.Event{head(200, 5), data, end}, "HEADERS 1 4, DATA 1 1 5"},
		{"unknown length", get, endHead, []stream.Event{head(200, -1), data, end}, "HEADERS 1 4, DATA 1 0 5, DATA 1 1 0"},
		{"empty", get, endHead, []stream.Event{head(200, 0), end}, "HEADERS 1 5"},
		{"204", get, endHead, []stream.Event{head(204, -1), end}, "HEADERS 1 5"},
		{"304", get, endHead, []stream.Event{head(304, 5), data, end}, "HEADERS 1 5"},
		{"HEAD", headed, endHead, []stream.Event{head(200, 5), data, end}, "HEADERS 1 5"},
		{"trailers", get, endHead, []stream.Event{head(200, -1), data, trail, end}, "HEADERS 1 4, DATA 1 0 5, HEADERS 1 5"},
		{"trailers after known length", rpc, endHead, []stream.Event{head(200, 5), data, trail, end}, "HEADERS 1 4, DATA 1 0 5, HEADERS 1 5"},
		{"trailers that nobody asked for", get, endHead, []stream.Event{head(200, 5), data, trail, end}, "HEADERS 1 4, DATA 1 1 5"},
		{"informational", get, endHead, []stream.Event{head(103, -1), head(200, 0), end}, "HEADERS 1 4, HEADERS 1 5"},
		{"before the request's end", post, flagEndHeaders, []stream.Event{head(200, 5), data, end}, "HEADERS 1 4, DATA 1 1 5, RST_STREAM 1 0"},
	} {
		c := NewServer(Limits{})
		if _, err := run(t, c, hello+raw(frameHeaders, tt.flags, 1, tt.request)); err != nil {
			t.Fatal(err)
		}
		want(t, tt.name, encode(t, c, tt.evs...), tt.want)
		if c.Active() != 0 {
			t.Errorf("%s: still active", tt.name)
		}
	}
	for name, evs := range map[string][]stream.Event{
		"more than said": {head(200, 4), data}, "less than said": {head(200, 6), data, end},
		"no head": {data}, "two heads": {head(200, -1), head(200, -1)}, "101": {head(101, 0)}, "end of no head": {end}, "after the end": {head(200, 0), end, end},
	} {
		c := NewServer(Limits{})
		if _, err := run(t, c, hello+raw(frameHeaders, endHead, 1, get)); err != nil {
			t.Fatal(err)
		}
		var err error
		var out []byte
		for i := range evs {
			if out, err = c.Encode(out, &evs[i]); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// TestLongHead writes a head of several frames.
func TestLongHead(t *testing.T) {
	c := NewServer(Limits{})
	if _, err := run(t, c, hello+raw(frameHeaders, endHead, 1, get)); err != nil {
		t.Fatal(err)
	}
	long := stream.Field{Name: []byte("x-long"), Value: bytes.Repeat([]byte("v"), 20_000)}
	got := encode(t, c, stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 200, Length: -1, Fields: []stream.Field{long, long}}})
	want(t, "40,000 bytes", got, "HEADERS 1 0, CONTINUATION 1 0, CONTINUATION 1 4")
}

// TestFarewell: a server says that it goes, takes what was on the way, and says
// which stream was the last once the client has heard it.
func TestFarewell(t *testing.T) {
	c := NewServer(Limits{})
	if _, err := run(t, c, hello+raw(frameHeaders, endHead, 1, get)); err != nil {
		t.Fatal(err)
	}
	c.Close(nil)
	c.Close(nil)
	want(t, "close", said(c.Say(nil)), fmt.Sprintf("GOAWAY %d 0, PING 0", everyStream))
	words, _ := run(t, c, raw(frameHeaders, endHead, 3, get))
	want(t, "on the way", words, "head 3, end 3")
	if !c.Reusable() {
		t.Error("no stream may follow, while the client may have sent one")
	}
	words, _ = run(t, c, raw(framePing, flagAck, 0, farewellPing))
	want(t, "heard", words, "GOAWAY 3 0")
	if c.Reusable() {
		t.Error("a stream may follow")
	}
	words, err := run(t, c, raw(frameHeaders, endHead, 5, get)+raw(frameData, 0, 5, "x"))
	want(t, "too late", words, "")
	if err != nil || c.Active() != 2 {
		t.Errorf("%v, %d active", err, c.Active())
	}

	// The other side.
	k := NewClient(Limits{})
	for range 3 {
		id, _ := k.Open()
		encode(t, k, stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("GET"), Authority: []byte("x"), Path: []byte("/")}})
	}
	words, _ = run(t, k, raw(frameSettings, 0, 0, "")+raw(frameGoAway, 0, 0, u32(3)+u32(0)))
	want(t, "client", words, "lost 5 1")
	if _, ok := k.Open(); ok || k.Reusable() || k.Active() != 2 {
		t.Errorf("%v %v %d", ok, k.Reusable(), k.Active())
	}
	var ev stream.Event
	for range 2 {
		if err := k.EOF(&ev); err != nil || ev.Kind != stream.Reset || ev.Reason != stream.Truncated {
			t.Error(ev, err)
		}
	}
	if err := k.EOF(&ev); err != nil || ev.Kind != stream.None {
		t.Error(ev, err)
	}
}

// TestConcurrency bounds streams both ways.
func TestConcurrency(t *testing.T) {
	c := NewServer(Limits{Streams: 2})
	words, err := run(t, c, hello+raw(frameHeaders, endHead, 1, get)+raw(frameHeaders, endHead, 3, get)+raw(frameHeaders, endHead, 5, get))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "third", words, "head 1, end 1, head 3, end 3, lost 5 1, RST_STREAM 5 7")
	k := NewClient(Limits{})
	if _, err := run(t, k, raw(frameSettings, 0, 0, "\x00\x03"+u32(1))); err != nil {
		t.Fatal(err)
	}
	id, ok := k.Open()
	if _, again := k.Open(); !ok || again {
		t.Error(ok, again)
	}
	encode(t, k, stream.Event{Kind: stream.Reset, Stream: id, Reason: stream.Cancelled})
	if _, ok := k.Open(); !ok {
		t.Error("no stream after the first was reset")
	}
}
