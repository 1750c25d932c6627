package http2

import (
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// couple is a client and a server codec with a wire between them.
type couple struct {
	t        testing.TB
	client   *Codec
	server   *Codec
	up, down []byte
	request  stream.Message
	response stream.Message
	body     []byte
	ev       stream.Event
	ended    int
}

func newCouple(t testing.TB) *couple {
	field := func(n, v string) stream.Field { return stream.Field{Name: []byte(n), Value: []byte(v)} }
	return &couple{
		t: t, client: NewClient(Limits{}), server: NewServer(Limits{}), body: make([]byte, 1024),
		request: stream.Message{Method: []byte("GET"), Authority: []byte("example.com"), Path: []byte("/a/path?with=query"), Fields: []stream.Field{
			field("User-Agent", "a client of some version"), field("Accept", "*/*"), field("X-Request-Id", "0123456789abcdef"),
		}},
		response: stream.Message{Status: 200, Length: 1024, Fields: []stream.Field{
			field("Content-Type", "application/json"), field("Server", "one of those"), field("Cache-Control", "no-store"),
		}},
	}
}

func (c *couple) encode(k *Codec, dst []byte, ev *stream.Event) []byte {
	dst, err := k.Encode(dst, ev)
	if err != nil {
		c.t.Fatal(err)
	}
	return dst
}

// round carries n requests at a time.
func (c *couple) round(n int) {
	c.ended = 0
	for range n {
		id, ok := c.client.Open()
		if !ok {
			c.t.Fatal("no stream")
		}
		c.ev = stream.Event{Kind: stream.Head, Stream: id, Head: &c.request}
		c.up = c.encode(c.client, c.up, &c.ev)
		c.ev = stream.Event{Kind: stream.End, Stream: id}
		c.up = c.encode(c.client, c.up, &c.ev)
	}
	for c.ended < n {
		c.up = c.turn(c.server, c.up, &c.down, true)
		c.down = c.turn(c.client, c.down, &c.up, false)
	}
}

func (c *couple) turn(k *Codec, in []byte, out *[]byte, server bool) []byte {
	used := 0
	for {
		n, err := k.Decode(in[used:], &c.ev)
		if err != nil {
			c.t.Fatal(err)
		}
		used += n
		id := c.ev.Stream
		switch {
		case c.ev.Kind == stream.None:
			*out = k.Say(*out)
			return in[:copy(in, in[used:])]
		case c.ev.Kind == stream.End && server:
			c.ev = stream.Event{Kind: stream.Head, Stream: id, Head: &c.response}
			*out = c.encode(k, *out, &c.ev)
			c.ev = stream.Event{Kind: stream.Data, Stream: id, Data: c.body}
			*out = c.encode(k, *out, &c.ev)
			c.ev = stream.Event{Kind: stream.End, Stream: id}
			*out = c.encode(k, *out, &c.ev)
		case c.ev.Kind == stream.End:
			c.ended++
		case c.ev.Kind == stream.Data:
			c.ev = stream.Event{Kind: stream.Window, Stream: id, N: len(c.ev.Data)}
			*out = c.encode(k, *out, &c.ev)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	c := newCouple(t)
	for range 100 {
		c.round(16)
	}
	if n := testing.AllocsPerRun(500, func() { c.round(16) }); n > 0 {
		t.Errorf("%v allocations in 16 requests", n)
	}
	if a, b := c.client.Active(), c.server.Active(); a+b > 0 {
		t.Errorf("%d and %d streams left", a, b)
	}
}

// BenchmarkRoundTrip is a request with a KiB of response through both codecs.
func BenchmarkRoundTrip(b *testing.B) {
	c := newCouple(b)
	b.ReportAllocs()
	for b.Loop() {
		c.round(1)
	}
}
