package http2

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// testStream is a stream of an echoing peer.
type testStream struct {
	method, path string
	body         []byte // received, or still to be sent
	trailers     []stream.Field
	answering    bool
}

// echo serves a connection with a server codec, one goroutine: every request is
// answered with its method, path and body. /large answers with 300,000 bytes,
// /trailers with trailers, /early before the body came, /reset with a reset.
func echo(c net.Conn, codec *Codec) error {
	defer c.Close()
	streams := map[stream.ID]*testStream{}
	var in []byte
	buf := make([]byte, 32<<10)
	var out []byte
	encode := func(ev *stream.Event) error {
		var err error
		out, err = codec.Encode(out, ev)
		return err
	}
	pump := func(id stream.ID, s *testStream) error {
		for len(s.body) > 0 {
			n := min(codec.Sendable(id), len(s.body), 16<<10)
			if n == 0 {
				return nil
			}
			if err := encode(&stream.Event{Kind: stream.Data, Stream: id, Data: s.body[:n]}); err != nil {
				return err
			}
			s.body = s.body[n:]
		}
		if s.trailers != nil {
			if err := encode(&stream.Event{Kind: stream.Trailers, Stream: id, Fields: s.trailers}); err != nil {
				return err
			}
		}
		delete(streams, id)
		return encode(&stream.Event{Kind: stream.End, Stream: id})
	}
	answer := func(id stream.ID, s *testStream) error {
		s.answering = true
		m := &stream.Message{Status: 200, Length: stream.LengthUnknown, Fields: []stream.Field{
			{Name: []byte("Content-Type"), Value: []byte("text/plain")}, {Name: []byte("x-method"), Value: []byte(s.method)},
		}}
		switch s.path {
		case "/":
			s.body = append([]byte("hello "), s.body...)
		case "/large":
			s.body = bytes.Repeat([]byte("large "), 50_000)
		case "/trailers":
			s.trailers = []stream.Field{{Name: []byte("Grpc-Status"), Value: []byte("0")}}
		case "/known":
			m.Length = int64(len(s.body))
		case "/reset":
			delete(streams, id)
			return encode(&stream.Event{Kind: stream.Reset, Stream: id, Reason: stream.Internal})
		}
		if err := encode(&stream.Event{Kind: stream.Head, Stream: id, Head: m}); err != nil {
			return err
		}
		return pump(id, s)
	}
	for {
		n, rerr := c.Read(buf)
		in = append(in, buf[:n]...)
		used := 0
		var fatal error
		for fatal == nil {
			var ev stream.Event
			k, err := codec.Decode(in[used:], &ev)
			used += k
			if err != nil {
				fatal = err
				break
			}
			if ev.Kind == stream.None {
				break
			}
			s := streams[ev.Stream]
			switch ev.Kind {
			case stream.Head:
				s = &testStream{method: string(ev.Head.Method), path: string(ev.Head.Path)}
				streams[ev.Stream] = s
				if s.path == "/early" {
					fatal = answer(ev.Stream, s)
				}
			case stream.Data:
				if s != nil && !s.answering {
					s.body = append(s.body, ev.Data...)
				}
				fatal = encode(&stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)})
			case stream.End:
				if s != nil && !s.answering {
					fatal = answer(ev.Stream, s)
				}
			case stream.Reset:
				delete(streams, ev.Stream)
			case stream.Window:
				for id, s := range streams {
					if s.answering && fatal == nil {
						fatal = pump(id, s)
					}
				}
			}
		}
		in = append(in[:0], in[used:]...)
		out = codec.Say(out)
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		if fatal != nil {
			// The other side shall read the last words before the end.
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}
			return fatal
		}
		if rerr != nil {
			return nil
		}
	}
}

// serveEcho listens on loopback until the test ends.
func serveEcho(t testing.TB, l Limits) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = echo(c, NewServer(l)) }()
		}
	}()
	return ln.Addr().String()
}
