package http2

import (
	"errors"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// attack feeds frames until the codec has had enough, and returns how many it took
// and with what it ended.
func attack(t *testing.T, frames int, next func(i int) string) (taken int, err error) {
	t.Helper()
	c := NewServer(Limits{})
	if _, err := run(t, c, hello); err != nil {
		t.Fatal(err)
	}
	for i := range frames {
		if _, err := run(t, c, next(i)); err != nil {
			return i, err
		}
	}
	return frames, nil
}

// TestAttacks floods a server: each flood ends the connection soon, with the code
// that says why.
func TestAttacks(t *testing.T) {
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	id := func(i int) uint32 { return uint32(2*i + 1) }
	// Four octets fill the decoder's table, one names the entry.
	big := "\x40\x01a" + string(hpack.AppendLiteral(nil, 15, nil, []byte(strings.Repeat("v", 4000))))[2:]
	for _, tt := range []struct {
		name string
		most int
		want *fault
		next func(i int) string
	}{
		{"rapid reset", 101, errResets, func(i int) string {
			return raw(frameHeaders, flagEndHeaders, id(i), post) + raw(frameReset, 0, id(i), u32(8))
		}},
		{"made you reset", 101, errResets, func(i int) string {
			return raw(frameHeaders, flagEndHeaders, id(i), post) + raw(frameWindow, 0, id(i), u32(0))
		}},
		{"malformed heads", 101, errResets, func(i int) string { return raw(frameHeaders, endHead, id(i), fields("a: b")) }},
		{"data on closed streams", 120, errResets, func(i int) string {
			if i == 0 {
				return raw(frameHeaders, endHead, 1, get) + raw(frameReset, 0, 1, u32(8))
			}
			return raw(frameData, 0, 1, "a")
		}},
		{"ping", 1001, errIdleFrames, func(int) string { return raw(framePing, 0, 0, "12345678") }},
		{"settings", 1001, errIdleFrames, func(int) string { return raw(frameSettings, 0, 0, "") }},
		{"priority", 1001, errIdleFrames, func(int) string { return raw(framePriority, 0, 3, u32(1)+"\x00") }},
		{"window updates", 1001, errIdleFrames, func(int) string { return raw(frameWindow, 0, 0, u32(1)) }},
		{"unknown frames", 1001, errIdleFrames, func(int) string { return raw(0x77, 0, 0, "x") }},
		{"empty data", 1070, errIdleFrames, func(i int) string {
			if i == 0 {
				return raw(frameHeaders, flagEndHeaders, 1, post)
			}
			return raw(frameData, 0, 1, "")
		}},
		{"continuations", 1, errHeadLong, func(int) string {
			return raw(frameHeaders, 0, 1, get) + strings.Repeat(raw(frameContinuation, 0, 1, ""), 100)
		}},
		{"long continuations", 1, errHeadLong, func(int) string {
			return raw(frameHeaders, 0, 1, get) + strings.Repeat(raw(frameContinuation, 0, 1, strings.Repeat("\x82", 10_000)), 10)
		}},
		{"table bomb", 1, errHeadLong, func(int) string {
			return raw(frameHeaders, endHead, 1, get+big+strings.Repeat("\xbe", 50))
		}},
		{"cookie bomb", 1, errFieldCount, func(int) string {
			return raw(frameHeaders, endHead, 1, get+"\x60\x01a"+strings.Repeat("\xbe", 3000))
		}},
		{"many fields", 1, errFieldCount, func(int) string { return raw(frameHeaders, endHead, 1, get+strings.Repeat("\x00\x01a\x01b", 100)) }},
	} {
		taken, err := attack(t, 5000, tt.next)
		if taken > tt.most || !errors.Is(err, &tt.want.ProtocolError) {
			t.Errorf("%s: %d taken, %v", tt.name, taken, err)
		}
	}
}

// TestHonestManners takes what honest clients do in numbers.
func TestHonestManners(t *testing.T) {
	c := NewServer(Limits{})
	if _, err := run(t, c, hello); err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 {
		id := uint32(2*i + 1)
		in := raw(frameHeaders, endHead, id, get) + raw(frameWindow, 0, 0, u32(100)) + raw(framePing, 0, 0, "12345678")
		if i%2 == 0 { // a user who scrolls by
			in += raw(frameReset, 0, id, u32(8))
		}
		words, err := run(t, c, in)
		if err != nil {
			t.Fatal(i, err, words)
		}
		if i%2 == 1 {
			encode(t, c,
				stream.Event{Kind: stream.Head, Stream: stream.ID(id), Head: &stream.Message{Status: 200, Length: -1}},
				stream.Event{Kind: stream.End, Stream: stream.ID(id)})
		}
	}
}

// TestUnreadAnswers bounds what a client can have waiting that does not read.
func TestUnreadAnswers(t *testing.T) {
	c := NewServer(Limits{Idle: 1 << 30})
	in := []byte(hello + strings.Repeat(raw(framePing, 0, 0, "12345678"), 10_000))
	var err error
	for len(in) > 0 && err == nil {
		var ev stream.Event
		var n int
		n, err = c.Decode(in, &ev)
		in = in[n:]
	}
	if !errors.Is(err, &errControl.ProtocolError) || cap(c.ctl) > 4*maxControl {
		t.Errorf("%v, %d bytes wait", err, len(c.ctl))
	}
}
