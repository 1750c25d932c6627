package http2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestHeads bounds what the heads of open streams take together, however few octets
// they came in: a stream beyond is refused, and there is room again once one ended.
func TestHeads(t *testing.T) {
	c := NewServer(Limits{Heads: 30_000})
	if _, err := run(t, c, hello); err != nil {
		t.Fatal(err)
	}
	// The first head defines a field of 4,000 octets and has it twice, later ones name it.
	define := "\x40\x01a" + string(hpack.AppendLiteral(nil, 15, nil, []byte(strings.Repeat("v", 4000))))[2:]
	refused := func(i int) bool {
		t.Helper()
		block := get + "\xbe\xbe"
		if i == 0 {
			block = get + define + "\xbe"
		}
		id := 2*i + 1
		words, err := run(t, c, raw(frameHeaders, endHead, uint32(id), block))
		if err != nil {
			t.Fatal(i, err)
		}
		return slices.Contains(words, fmt.Sprintf("RST_STREAM %d %d", id, refusedStream))
	}
	for i := range 6 {
		if got, want := refused(i), i >= 3; got != want { // three are a little more than 24,000
			t.Errorf("head %d: refused %v, want %v", i, got, want)
		}
	}
	encode(t, c, stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 200, Length: -1}}, stream.Event{Kind: stream.End, Stream: 1})
	if refused(6) {
		t.Error("refused though a stream ended")
	}
	if !refused(7) {
		t.Error("taken though there is no room")
	}
	for _, id := range []uint32{3, 5, 13} {
		if _, err := run(t, c, raw(frameReset, 0, id, u32(8))); err != nil {
			t.Fatal(err)
		}
	}
	if c.heads != 0 || c.Active() != 0 {
		t.Errorf("%d bytes of heads counted, %d streams open", c.heads, c.Active())
	}
	// The only stream of a connection has the room of one head.
	c = NewServer(Limits{Heads: 1000})
	if _, err := run(t, c, hello); err != nil {
		t.Fatal(err)
	}
	if refused(0) || !refused(1) {
		t.Error("one head has to fit, and another not")
	}
	c.Trust()
	if refused(2) {
		t.Error("refused though the peer is trusted")
	}
}
