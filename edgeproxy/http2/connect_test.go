package http2

import (
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

var (
	offering = Limits{Extended: true}
	offered  = raw(frameSettings, 0, 0, "\x00\x08"+u32(1))
)

func chat(lines ...string) string {
	return fields(append([]string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /chat", ":authority: x"}, lines...)...)
}

// TestConnectRules feeds a server that offers extended CONNECT heads which ask for it.
func TestConnectRules(t *testing.T) {
	broken := "lost 1 3, RST_STREAM 1 1"
	for _, tt := range []struct{ name, head, want string }{
		{"extended", chat(), "head 1"},
		{"plain", fields(":method: CONNECT", ":authority: x:1"), "head 1"},
		{"versioned", fields(":method: CONNECT", ":protocol: irc/6.9", ":scheme: http", ":path: /", ":authority: x"), "head 1"},
		{"GET", fields(":method: GET", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"no scheme", fields(":method: CONNECT", ":protocol: websocket", ":path: /", ":authority: x"), broken},
		{"no path", fields(":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: x"), broken},
		{"no authority", fields(":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /", "host: x"), broken},
		{"no protocol", fields(":method: CONNECT", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"twice", chat(":protocol: websocket"), broken},
		{"empty", fields(":method: CONNECT", ":protocol: ", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"two words", fields(":method: CONNECT", ":protocol: web socket", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"slashes", fields(":method: CONNECT", ":protocol: a/b/c", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"long", fields(":method: CONNECT", ":protocol: a123456789a123456789a123456789abc", ":scheme: http", ":path: /", ":authority: x"), broken},
		{"asterisk", fields(":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: *", ":authority: x"), broken},
		{"other scheme", fields(":method: CONNECT", ":protocol: websocket", ":scheme: wss", ":path: /", ":authority: x"), broken},
		{"length", chat("content-length: 0"), broken},
		{"connection", chat("connection: upgrade"), broken},
		{"upgrade", chat("upgrade: websocket"), broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := run(t, NewServer(offering), hello+raw(frameHeaders, flagEndHeaders, 1, tt.head))
			if err != nil || without(got) != tt.want {
				t.Errorf("%s, %v, want %s", without(got), err, tt.want)
			}
		})
	}
	t.Run("not offered", func(t *testing.T) {
		if got, err := run(t, NewServer(Limits{}), hello+raw(frameHeaders, flagEndHeaders, 1, chat())); err != nil || without(got) != broken {
			t.Errorf("%s, %v", without(got), err)
		}
	})
	t.Run("message", func(t *testing.T) {
		c := NewServer(offering)
		in := []byte(hello + raw(frameHeaders, flagEndHeaders, 1, chat("sec-websocket-version: 13")))
		for ev := (stream.Event{}); ; {
			n, err := c.Decode(in, &ev)
			in = in[n:]
			if err != nil || ev.Kind == stream.None {
				t.Fatalf("no head, %v", err)
			}
			if m := ev.Head; m != nil {
				if string(m.Method) != "CONNECT" || string(m.Upgrade) != "websocket" || string(m.Path) != "/chat" || string(m.Scheme) != "https" || m.Length >= 0 || len(m.Fields) != 1 {
					t.Errorf("%+v", m)
				}
				return
			}
		}
	})
}

// TestConnectSetting has a client believe what a server says of extended CONNECT, and
// no other than that.
func TestConnectSetting(t *testing.T) {
	for _, tt := range []struct {
		name, in     string
		takes, known bool
		fails        bool
	}{
		{"nothing yet", "", false, false, false},
		{"no word", raw(frameSettings, 0, 0, ""), false, true, false},
		{"offered", offered, true, true, false},
		{"zero", raw(frameSettings, 0, 0, "\x00\x08"+u32(0)), false, true, false},
		{"two", raw(frameSettings, 0, 0, "\x00\x08"+u32(2)), false, true, true},
		{"taken back", offered + raw(frameSettings, 0, 0, "\x00\x08"+u32(0)), true, true, true},
		{"later", raw(frameSettings, 0, 0, "") + offered, true, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewClient(Limits{})
			_, err := run(t, c, tt.in)
			if takes, known := c.Extended(); takes != tt.takes || known != tt.known || (err != nil) != tt.fails {
				t.Errorf("takes %v, known %v, %v", takes, known, err)
			}
		})
	}
}

// ask is a client that has asked for a tunnel on stream 1.
func ask(t *testing.T, m *stream.Message) *Codec {
	t.Helper()
	c := NewClient(Limits{})
	if _, err := run(t, c, offered); err != nil {
		t.Fatal(err)
	}
	id, _ := c.Open()
	want(t, "the request", encode(t, c, stream.Event{Kind: stream.Head, Stream: id, Head: m}), "HEADERS 1 4")
	return c
}

var (
	wantsChat = &stream.Message{Method: []byte("GET"), Upgrade: []byte("websocket"), Authority: []byte("x"), Path: []byte("/chat")}
	wantsTCP  = &stream.Message{Method: []byte("CONNECT"), Authority: []byte("x:1"), Length: stream.LengthUnknown}
)

// TestConnectClient makes tunnels from the client's side and ends them in every order.
func TestConnectClient(t *testing.T) {
	head := raw(frameHeaders, flagEndHeaders, 1, fields(":status: 200", "content-length: 7"))
	for _, m := range []*stream.Message{wantsChat, wantsTCP} {
		c := ask(t, m)
		got, _ := run(t, c, head+raw(frameData, 0, 1, "0123456789"))
		want(t, "agreed", got, "head 1, data 1 10")
		want(t, "own", encode(t, c, stream.Event{Kind: stream.Data, Stream: 1, Data: []byte("abc")}), "DATA 1 0 3")
		got, _ = run(t, c, raw(frameData, flagEndStream, 1, ""))
		want(t, "the server ends", got, "end 1")
		want(t, "own after that", encode(t, c, stream.Event{Kind: stream.Data, Stream: 1, Data: []byte("abc")}), "DATA 1 0 3")
		want(t, "own end", encode(t, c, stream.Event{Kind: stream.End, Stream: 1}), "DATA 1 1 0")
		if c.Active() != 0 {
			t.Error("a stream that has ended both ways is open")
		}

		c = ask(t, m)
		_, _ = run(t, c, head)
		want(t, "end first", encode(t, c, stream.Event{Kind: stream.End, Stream: 1}), "DATA 1 1 0")
		got, _ = run(t, c, raw(frameData, flagEndStream, 1, "rest"))
		want(t, "the rest", got, "data 1 4, end 1")
		if c.Active() != 0 {
			t.Error("a stream that has ended both ways is open")
		}

		c = ask(t, m)
		got, _ = run(t, c, head+raw(frameHeaders, endHead, 1, fields("x-a: b")))
		want(t, "trailers", got, "head 1, lost 1 3, RST_STREAM 1 1")

		c = ask(t, m)
		got, _ = run(t, c, head+raw(frameData, flagEndStream, 1, "")+raw(frameReset, 0, 1, u32(0)))
		want(t, "reset without an error", got, "head 1, end 1, lost 1 2")

		c = ask(t, m)
		got, _ = run(t, c, raw(frameHeaders, endHead, 1, fields(":status: 200")))
		want(t, "ended at once", got, "head 1, end 1")
		if c.Active() != 1 {
			t.Error("the own direction is over")
		}

		c = ask(t, m)
		got, _ = run(t, c, raw(frameHeaders, flagEndHeaders, 1, fields(":status: 403"))+raw(frameData, flagEndStream, 1, "no"))
		want(t, "refused", got, "head 1, data 1 2, end 1, RST_STREAM 1 0")

		c = ask(t, m)
		got, _ = run(t, c, raw(frameHeaders, flagEndHeaders, 1, fields(":status: 101")))
		want(t, "101", got, "lost 1 3, RST_STREAM 1 1")
	}
}

// TestConnectClientRefuses has a client not say what it may not.
func TestConnectClientRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		m          stream.Message
	}{
		{"not offered", raw(frameSettings, 0, 0, ""), *wantsChat},
		{"not known", "", *wantsChat},
		{"unknown protocol", offered, stream.Message{Upgrade: []byte("irc"), Authority: []byte("x"), Path: []byte("/")}},
		{"no path", offered, stream.Message{Upgrade: []byte("websocket"), Authority: []byte("x")}},
		{"plain with a path", offered, stream.Message{Method: []byte("CONNECT"), Authority: []byte("x"), Path: []byte("/")}},
		{"no authority", offered, stream.Message{Method: []byte("CONNECT")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewClient(Limits{})
			if _, err := run(t, c, tt.peer); err != nil {
				t.Fatal(err)
			}
			id, _ := c.Open()
			if out, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: id, Head: &tt.m}); err == nil {
				t.Errorf("wrote %v", said(out))
			}
		})
	}
	c := ask(t, wantsChat)
	if _, err := c.Encode(nil, &stream.Event{Kind: stream.Trailers, Stream: 1, Fields: []stream.Field{{Name: []byte("a")}}}); err == nil {
		t.Error("trailers on a tunnel")
	}
}

// TestConnectServer agrees to tunnels and ends them in every order.
func TestConnectServer(t *testing.T) {
	asked := hello + raw(frameHeaders, flagEndHeaders, 1, chat())
	begin := func(head *stream.Message) *Codec {
		c := NewServer(offering)
		got, err := run(t, c, asked)
		if err != nil || without(got) != "head 1" {
			t.Fatalf("%v, %v", got, err)
		}
		want(t, "the answer", encode(t, c, stream.Event{Kind: stream.Head, Stream: 1, Head: head}), "HEADERS 1 4")
		return c
	}
	yes := &stream.Message{Status: 200, Upgrade: []byte("websocket"), Length: 5}
	c := begin(yes)
	want(t, "end first", encode(t, c, stream.Event{Kind: stream.Data, Stream: 1, Data: []byte("0123456789")}, stream.Event{Kind: stream.End, Stream: 1}), "DATA 1 0 10, DATA 1 1 0")
	got, _ := run(t, c, raw(frameData, flagEndStream, 1, "rest"))
	want(t, "the rest", got, "data 1 4, end 1")
	if c.Active() != 0 {
		t.Error("a stream that has ended both ways is open")
	}
	c = begin(yes)
	got, _ = run(t, c, raw(frameData, flagEndStream, 1, ""))
	want(t, "the client ends", got, "end 1")
	want(t, "own after that", encode(t, c, stream.Event{Kind: stream.Data, Stream: 1, Data: []byte("abc")}, stream.Event{Kind: stream.End, Stream: 1}), "DATA 1 0 3, DATA 1 1 0")
	if c.Active() != 0 {
		t.Error("a stream that has ended both ways is open")
	}
	c = begin(yes)
	got, _ = run(t, c, raw(frameHeaders, endHead, 1, fields("x-a: b")))
	want(t, "trailers", got, "lost 1 3, RST_STREAM 1 1")

	c = begin(&stream.Message{Status: 403, Length: stream.LengthUnknown})
	want(t, "refused", encode(t, c, stream.Event{Kind: stream.End, Stream: 1}), "DATA 1 1 0, RST_STREAM 1 0")

	c = NewServer(offering)
	_, _ = run(t, c, asked)
	if out, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 200}}); err == nil {
		t.Errorf("a success that agrees to nothing: %v", said(out))
	}
}
