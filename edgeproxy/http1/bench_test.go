package http1

import (
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// request20 is a browser's request with 20 fields.
const request20 = "GET /shop/items/4711?sort=price&page=2 HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\"\r\n" +
	"sec-ch-ua-mobile: ?0\r\n" +
	"sec-ch-ua-platform: \"Linux\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"Sec-Fetch-User: ?1\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Referer: https://shop.example.com/shop/items\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-AU,en;q=0.9,de;q=0.8\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"X-Forwarded-For: 203.0.113.7\r\n" +
	"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
	"X-Request-Id: 7b1f8c1e-2f0a-4d0e-9a57-0c3a7d9b4c11\r\n" +
	"\r\n"

const response10 = "HTTP/1.1 200 OK\r\n" +
	"Server: backend/1.0\r\n" +
	"Date: Mon, 27 Jul 2026 10:00:00 GMT\r\n" +
	"Content-Type: application/json\r\n" +
	"Content-Length: 16\r\n" +
	"Cache-Control: no-store\r\n" +
	"ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"X-Request-Id: 7b1f8c1e-2f0a-4d0e-9a57-0c3a7d9b4c11\r\n" +
	"X-Content-Type-Options: nosniff\r\n" +
	"Connection: keep-alive\r\n" +
	"\r\n0123456789abcdef"

// turn is one proxied exchange through both codecs.
type turn struct {
	s          *Server
	c          *Client
	up, down   []byte
	ev         stream.Event
	req, reply []byte
}

func newTurn() *turn {
	return &turn{s: NewServer(Limits{}), c: NewClient(Limits{}), req: []byte(request20), reply: []byte(response10)}
}

func (t *turn) run(tb testing.TB) {
	id, ok := t.c.Open()
	if !ok {
		tb.Fatal("client not open")
	}
	t.up, t.down = t.up[:0], t.down[:0]
	t.up = pass(tb, t.s, t.c, t.req, t.up, id, &t.ev)
	t.down = pass(tb, t.c, t.s, t.reply, t.down, t.s.id, &t.ev)
}

func pass(tb testing.TB, from, to stream.Codec, in, dst []byte, id stream.ID, ev *stream.Event) []byte {
	for {
		n, err := from.Decode(in, ev)
		if err != nil {
			tb.Fatal(err)
		}
		in = in[n:]
		ev.Stream = id
		if dst, err = to.Encode(dst, ev); err != nil {
			tb.Fatal(err)
		}
		if ev.Kind == stream.End {
			return dst
		}
		if ev.Kind == stream.None {
			tb.Fatal("incomplete")
		}
	}
}

func TestNoAllocations(t *testing.T) {
	x := newTurn()
	x.run(t)
	if n := testing.AllocsPerRun(1000, func() { x.run(t) }); n != 0 {
		t.Errorf("an exchange allocates %v times", n)
	}
	s, c := NewServer(Limits{}), NewClient(Limits{})
	if n := testing.AllocsPerRun(100, func() {
		s.Reset()
		c.Reset()
		x.s, x.c = s, c
		x.run(t)
	}); n != 0 {
		t.Errorf("an exchange on codecs of the pool allocates %v times", n)
	}
}

func BenchmarkDecodeRequest20(b *testing.B) {
	s, in := NewServer(Limits{}), []byte(request20)
	var ev stream.Event
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		s.reading, s.writing = false, false
		if n, err := s.Decode(in, &ev); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkDecodeResponse10(b *testing.B) {
	c, in := NewClient(Limits{}), []byte(response10)
	var ev stream.Event
	b.ReportAllocs()
	for b.Loop() {
		c.reading, c.started, c.final = true, true, false
		if _, err := c.Decode(in, &ev); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExchange is everything the codecs do for one proxied request.
func BenchmarkExchange(b *testing.B) {
	x := newTurn()
	b.ReportAllocs()
	for b.Loop() {
		x.run(b)
	}
}
