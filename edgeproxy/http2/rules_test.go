package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// raw makes a frame.
func raw(kind, flags uint8, id uint32, p string) string {
	return string(appendFrame(nil, len(p), kind, flags, id)) + p
}

func u32(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

// fields makes a header block of "name: value" lines.
func fields(lines ...string) string {
	var b []byte
	for _, l := range lines {
		n, v, _ := strings.Cut(strings.TrimPrefix(l, ":"), ": ")
		if l[0] == ':' {
			n = ":" + n
		}
		b = hpack.AppendLiteral(b, 0, []byte(n), []byte(v))
	}
	return string(b)
}

var get = fields(":method: GET", ":scheme: http", ":path: /", ":authority: x")

const endHead = flagEndHeaders | flagEndStream

var hello = Preface + raw(frameSettings, 0, 0, "")

// run feeds a codec and tells what it yields and says, a word each; its own
// settings and acknowledgements are left out.
func run(t *testing.T, c *Codec, in string) (words []string, err error) {
	t.Helper()
	rest := []byte(in)
	for err == nil {
		var ev stream.Event
		var n int
		n, err = c.Decode(rest, &ev)
		rest = rest[n:]
		if ev.Kind == stream.None {
			break
		}
		switch ev.Kind {
		case stream.Head:
			words = append(words, fmt.Sprintf("head %d", ev.Stream))
		case stream.Data:
			words = append(words, fmt.Sprintf("data %d %d", ev.Stream, len(ev.Data)))
		case stream.Trailers:
			words = append(words, fmt.Sprintf("trailers %d", ev.Stream))
		case stream.End:
			words = append(words, fmt.Sprintf("end %d", ev.Stream))
		case stream.Reset:
			words = append(words, fmt.Sprintf("lost %d %d", ev.Stream, ev.Reason))
		case stream.Window:
			if ev.N > 0 {
				words = append(words, fmt.Sprintf("window %d %d", ev.Stream, ev.N))
			}
		}
	}
	return append(words, said(c.Say(nil))...), err
}

func said(out []byte) (words []string) {
	for out = bytes.TrimPrefix(out, []byte(Preface)); len(out) > 0; {
		f := parseFrame(out)
		p := out[frameHead : frameHead+f.length]
		out = out[frameHead+f.length:]
		switch f.kind {
		case frameReset:
			words = append(words, fmt.Sprintf("RST_STREAM %d %d", f.id, binary.BigEndian.Uint32(p)))
		case frameGoAway:
			words = append(words, fmt.Sprintf("GOAWAY %d %d", binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])))
		case framePing:
			words = append(words, fmt.Sprintf("PING %x", f.flags))
		case frameWindow:
			words = append(words, fmt.Sprintf("WINDOW_UPDATE %d %d", f.id, binary.BigEndian.Uint32(p)))
		case frameHeaders:
			words = append(words, fmt.Sprintf("HEADERS %d %x", f.id, f.flags))
		case frameContinuation:
			words = append(words, fmt.Sprintf("CONTINUATION %d %x", f.id, f.flags))
		case frameData:
			words = append(words, fmt.Sprintf("DATA %d %x %d", f.id, f.flags, f.length))
		}
	}
	return words
}

// opening is what every server says first beside its settings.
const opening = "WINDOW_UPDATE 0 196609"

func without(words []string) string {
	words = slices.DeleteFunc(words, func(w string) bool { return w == opening })
	return strings.Join(words, ", ")
}

// TestRules feeds a server what a client may and may not send, in one piece and
// octet by octet.
func TestRules(t *testing.T) {
	post := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x")
	sized := fields(":method: POST", ":scheme: http", ":path: /", ":authority: x", "content-length: 5")
	request := func(lines ...string) string {
		return raw(frameHeaders, endHead, 1, fields(append([]string{":method: GET", ":scheme: http", ":path: /", ":authority: x"}, lines...)...))
	}
	broken := "lost 1 3, RST_STREAM 1 1"
	for _, tt := range []struct{ name, in, want string }{
		{"request", raw(frameHeaders, endHead, 1, get), "head 1, end 1"},
		{"body", raw(frameHeaders, flagEndHeaders, 1, sized) + raw(frameData, flagEndStream, 1, "12345"), "head 1, data 1 5, end 1"},
		{"padded", raw(frameHeaders, flagEndHeaders|flagPadded|flagPriority, 1, "\x03"+u32(0)+"\x00"+post+"\x00\x00\x00") + raw(frameData, flagEndStream|flagPadded, 1, "\x01a\x00"), "head 1, data 1 1, end 1"},
		{"all padding", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameData, flagEndStream|flagPadded, 1, "\x02\x00\x00"), "head 1, end 1"},
		{"trailers", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameData, 0, 1, "a") + raw(frameHeaders, endHead, 1, fields("x-sum: 1")), "head 1, data 1 1, trailers 1, end 1"},
		{"continued", raw(frameHeaders, flagEndStream, 1, get[:9]) + raw(frameContinuation, 0, 1, get[9:11]) + raw(frameContinuation, flagEndHeaders, 1, get[11:]), "head 1, end 1"},
		{"unknown frame", raw(0x20, 0xff, 7, "whatever") + raw(frameHeaders, endHead, 1, get), "head 1, end 1"},
		{"ping", raw(framePing, 0, 0, "12345678"), "PING 1"},
		{"priority", raw(framePriority, 0, 9, u32(3)+"\x01"), ""},
		{"window", raw(frameWindow, 0, 0, u32(10)), "window 0 10"},

		{"uppercase name", request("X-A: b"), broken},
		{"empty name", request(": b"), broken},
		{"space in name", request("x a: b"), broken},
		{"NUL in value", request("x-a: b\x00"), broken},
		{"CR in value", request("x-a: b\r\nc: d"), broken},
		{"space before value", request("x-a:  b"), broken},
		{"space after value", request("x-a: b "), broken},
		{"connection", request("connection: close"), broken},
		{"keep-alive", request("keep-alive: 1"), broken},
		{"proxy-connection", request("proxy-connection: close"), broken},
		{"transfer-encoding", request("transfer-encoding: chunked"), broken},
		{"upgrade", request("upgrade: websocket"), broken},
		{"te", request("te: gzip"), broken},
		{"te trailers", request("te: trailers"), "head 1, end 1"},
		{"disguised", request("content_length: 3"), broken},
		{"content-length twice", request("content-length: 0", "content-length: 0"), broken},
		{"content-length signed", request("content-length: +0"), broken},
		{"content-length without content", request("content-length: 1"), broken},
		{"other host", request("host: y"), broken},
		{"same host", request("host: X"), "head 1, end 1"},
		{"expect", request("expect: magic"), broken},
		{"late pseudo-field", request("a: b", ":path: /b"), broken},
		{"pseudo-field twice", request(":path: /b"), broken},
		{"unknown pseudo-field", request(":protocol: websocket"), broken},
		{"status", request(":status: 200"), broken},
		{"no path", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":authority: x")), broken},
		{"empty path", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: ", ":authority: x")), broken},
		{"absolute path", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: http://y/", ":authority: x")), broken},
		{"space in path", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: / HTTP/1.1", ":authority: x")), broken},
		{"space in method", raw(frameHeaders, endHead, 1, fields(":method: GET /", ":scheme: http", ":path: /", ":authority: x")), broken},
		{"other scheme", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: ftp", ":path: /", ":authority: x")), broken},
		{"no authority", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: /")), broken},
		{"host alone", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: /", "host: x")), "head 1, end 1"},
		{"user information", raw(frameHeaders, endHead, 1, fields(":method: GET", ":scheme: http", ":path: /", ":authority: a@x")), broken},
		{"less body", raw(frameHeaders, flagEndHeaders, 1, sized) + raw(frameData, flagEndStream, 1, "1234"), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"more body", raw(frameHeaders, flagEndHeaders, 1, sized) + raw(frameData, flagEndStream, 1, "123456"), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"less body, trailers", raw(frameHeaders, flagEndHeaders, 1, sized) + raw(frameHeaders, endHead, 1, fields("a: b")), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"trailers without end", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameHeaders, flagEndHeaders, 1, fields("a: b")), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"pseudo-field in trailers", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameHeaders, endHead, 1, fields(":path: /")), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"framing in trailers", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameHeaders, endHead, 1, fields("content-length: 1")), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"own parent", raw(frameHeaders, endHead|flagPriority, 1, u32(1)+"\x00"+get), broken},
		{"data after end", raw(frameHeaders, endHead, 1, get) + raw(frameData, 0, 1, "a"), "head 1, end 1, lost 1 3, RST_STREAM 1 5"},
		{"window of nothing", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameWindow, 0, 1, u32(0)), "head 1, lost 1 3, RST_STREAM 1 1"},
		{"window too large", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameWindow, 0, 1, u32(maxWindow)), "head 1, lost 1 3, RST_STREAM 1 3"},
		{"reset", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameReset, 0, 1, u32(8)) + raw(frameData, 0, 1, "a"), "head 1, lost 1 2, RST_STREAM 1 5"},

		{"not HTTP/2", "GET / HTTP/1.1\r\n\r\n", "GOAWAY 0 1"},
		{"no settings", Preface + raw(framePing, 0, 0, "12345678"), "GOAWAY 0 1"},
		{"large frame", string(appendFrame(nil, maxFrame+1, frameData, 0, 1)), "GOAWAY 0 6"},
		{"data on 0", raw(frameData, 0, 0, "a"), "GOAWAY 0 1"},
		{"data on an idle stream", raw(frameData, 0, 1, "a"), "GOAWAY 0 1"},
		{"padding over the frame", raw(frameHeaders, flagEndHeaders, 1, post) + raw(frameData, flagPadded, 1, "\x01"), "head 1, GOAWAY 1 1"},
		{"even stream", raw(frameHeaders, endHead, 2, get), "GOAWAY 0 1"},
		{"stream goes down", raw(frameHeaders, endHead, 5, get) + raw(frameHeaders, endHead, 3, get), "head 5, end 5, GOAWAY 5 1"},
		{"interrupted block", raw(frameHeaders, flagEndStream, 1, get) + raw(frameData, 0, 1, "a"), "GOAWAY 0 1"},
		{"lone continuation", raw(frameContinuation, flagEndHeaders, 1, get), "GOAWAY 0 1"},
		{"bad block", raw(frameHeaders, endHead, 1, "\x80"), "GOAWAY 0 9"},
		{"push", raw(framePush, 0, 1, u32(2)), "GOAWAY 0 1"},
		{"ping on a stream", raw(framePing, 0, 1, "12345678"), "GOAWAY 0 1"},
		{"short ping", raw(framePing, 0, 0, "1234567"), "GOAWAY 0 6"},
		{"settings on a stream", raw(frameSettings, 0, 1, ""), "GOAWAY 0 1"},
		{"settings of a wrong size", raw(frameSettings, 0, 0, "12345"), "GOAWAY 0 6"},
		{"acknowledgement with content", raw(frameSettings, flagAck, 0, "123456"), "GOAWAY 0 6"},
		{"push setting", raw(frameSettings, 0, 0, "\x00\x02"+u32(2)), "GOAWAY 0 1"},
		{"window setting", raw(frameSettings, 0, 0, "\x00\x04"+u32(1<<31)), "GOAWAY 0 3"},
		{"frame setting", raw(frameSettings, 0, 0, "\x00\x05"+u32(16383)), "GOAWAY 0 1"},
		{"connection window of nothing", raw(frameWindow, 0, 0, u32(0)), "GOAWAY 0 1"},
		{"connection window too large", raw(frameWindow, 0, 0, u32(maxWindow)), "GOAWAY 0 3"},
		{"window of an idle stream", raw(frameWindow, 0, 1, u32(1)), "GOAWAY 0 1"},
		{"short window", raw(frameWindow, 0, 0, "123"), "GOAWAY 0 6"},
		{"reset of an idle stream", raw(frameReset, 0, 1, u32(8)), "GOAWAY 0 1"},
		{"short reset", raw(frameReset, 0, 1, "123"), "GOAWAY 0 6"},
		{"reset on 0", raw(frameReset, 0, 0, u32(8)), "GOAWAY 0 1"},
		{"priority on 0", raw(framePriority, 0, 0, u32(3)+"\x01"), "GOAWAY 0 1"},
		{"short goaway", raw(frameGoAway, 0, 0, "1234"), "GOAWAY 0 6"},
		{"head of a closed stream", raw(frameHeaders, endHead, 1, get) + raw(frameReset, 0, 1, u32(8)) + raw(frameHeaders, endHead, 1, get), "head 1, end 1, lost 1 2, GOAWAY 1 5"},
	} {
		in := tt.in
		if !strings.HasPrefix(in, Preface) && in[0] != 'G' {
			in = hello + in
		}
		words, err := run(t, NewServer(Limits{}), in)
		if got := without(words); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		var fault *stream.ProtocolError
		if strings.Contains(tt.want, "GOAWAY") != (errors.As(err, &fault)) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := byOctets(NewServer(Limits{}), in); fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("%s: %v octet by octet, %v in one piece", tt.name, got, err)
		}
	}
}

// byOctets feeds a codec as slowly as can be.
func byOctets(c *Codec, in string) error {
	var rest []byte
	for i := range len(in) {
		rest = append(rest, in[i])
		for {
			var ev stream.Event
			n, err := c.Decode(rest, &ev)
			if err != nil {
				return err
			}
			if rest = rest[n:]; ev.Kind == stream.None {
				break
			}
		}
	}
	return nil
}

// TestMessages shows what becomes of fields.
func TestMessages(t *testing.T) {
	c := NewServer(Limits{})
	in := []byte(hello + raw(frameHeaders, endHead, 1, fields(":method: OPTIONS", ":scheme: https", ":path: *", "host: Example:80",
		"cookie: a=b", "x-a: ", "cookie: c=d", "te: trailers", "trailer: x", "cookie: e=f")))
	var ev stream.Event
	for ev.Kind != stream.Head {
		n, err := c.Decode(in, &ev)
		if err != nil {
			t.Fatal(err)
		}
		in = in[n:]
	}
	m := ev.Head
	got := fmt.Sprintf("%s %s %s %s %d %v", m.Method, m.Scheme, m.Authority, m.Path, m.Length, m.TrailersOK)
	for _, f := range m.Fields {
		got += fmt.Sprintf(" %s=%q", f.Name, f.Value)
	}
	if want := `OPTIONS https Example:80 * 0 true cookie="a=b; c=d; e=f" x-a=""`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var fields []stream.Field
	for _, f := range []string{"X-Mixed", "set-cookie"} {
		fields = append(fields, stream.Field{Name: []byte(f), Value: []byte("v")})
	}
	out, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 302, Length: 3, Fields: fields}})
	if err != nil {
		t.Fatal(err)
	}
	var d hpack.Decoder
	d.Reset(4096)
	block := out[bytes.LastIndex(out, []byte{0, 0, 0, 1})+4:]
	got = ""
	for len(block) > 0 {
		var f hpack.Field
		n, _, err := d.Field(block, &f, nil)
		if err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%s=%s ", f.Name, f.Value)
		block = block[n:]
	}
	if want := ":status=302 x-mixed=v set-cookie=v content-length=3 "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, bad := range []stream.Field{
		{Name: []byte("connection"), Value: []byte("x")}, {Name: []byte("Transfer-Encoding"), Value: []byte("chunked")},
		{Name: []byte("a b"), Value: []byte("x")}, {Name: []byte("a"), Value: []byte("x\r\ny")}, {Value: []byte("x")},
		{Name: []byte("Content-Length"), Value: []byte("1")}, {Name: []byte("Host"), Value: []byte("1")},
	} {
		c := NewServer(Limits{})
		if _, err := run(t, c, hello+raw(frameHeaders, endHead, 1, get)); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: 1, Head: &stream.Message{Status: 200, Fields: []stream.Field{bad}}}); err == nil {
			t.Errorf("%s: %s was written", bad.Name, out)
		}
	}
}
