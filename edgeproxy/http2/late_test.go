package http2

import (
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestLateEnd: the end of a stream that was reset meanwhile is a frame without content;
// what comes behind it is read all the same.
func TestLateEnd(t *testing.T) {
	c := NewServer(DefaultLimits)
	in := Preface + raw(frameSettings, 0, 0, "") + raw(frameHeaders, flagEndHeaders, 1, fields(":method: POST", ":scheme: http", ":authority: a", ":path: /"))
	if _, err := run(t, c, in); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encode(nil, &stream.Event{Kind: stream.Reset, Stream: 1, Reason: stream.Cancelled}); err != nil {
		t.Fatal(err)
	}
	late := raw(frameData, flagEndStream, 1, "") + raw(framePing, 0, 0, "12345678")
	var ev stream.Event
	if n, err := c.Decode([]byte(late), &ev); n != len(late) || err != nil || ev.Kind != stream.None {
		t.Errorf("%d of %d octets are read, event %d, %v", n, len(late), ev.Kind, err)
	}
	if c.Silent() {
		t.Error("the PING behind it is not answered")
	}
}
