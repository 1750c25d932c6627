package grpcweb

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func TestTypes(t *testing.T) {
	for _, tt := range []struct {
		in          string
		web, text   bool
		grpc, reply string
	}{
		{"application/grpc-web", true, false, "application/grpc", "application/grpc-web"},
		{"application/grpc-web+proto", true, false, "application/grpc+proto", "application/grpc-web+proto"},
		{"Application/gRPC-Web-Text+proto", true, true, "application/grpc+proto", "application/grpc-web-text+proto"},
		{"application/grpc-web-text; charset=utf-8", true, true, "application/grpc; charset=utf-8", "application/grpc-web-text; charset=utf-8"},
		{"application/grpc", false, false, "", ""},
		{"application/grpc+proto", false, false, "", ""},
		{"application/grpc-website", false, false, "", ""},
		{"application/grpc-web-textual", false, false, "", ""},
		{"", false, false, "", ""},
	} {
		web, text, suffix := Request([]byte(tt.in))
		if web != tt.web || text != tt.text {
			t.Errorf("%q: %v %v", tt.in, web, text)
		}
		if !web {
			continue
		}
		got := AppendType(nil, suffix)
		if string(got) != tt.grpc {
			t.Errorf("%q: %q", tt.in, got)
		}
		if reply, ok := AppendResponse(nil, got, text); !ok || string(reply) != tt.reply {
			t.Errorf("%q: %q %v", tt.in, reply, ok)
		}
	}
	for _, other := range []string{"text/html", "application/grpcx", "application/grpc-web", ""} {
		if got, ok := AppendResponse(nil, []byte(other), false); ok {
			t.Errorf("%q: %q", other, got)
		}
	}
}

func TestWantsText(t *testing.T) {
	for _, tt := range []struct {
		accept      string
		asked, want bool
	}{
		{"", true, true}, {"", false, false}, {"*/*", true, true}, {"*/*", false, false},
		{"application/grpc-web-text", false, true}, {"application/json, application/grpc-web-text+proto;q=1", false, true},
		{"application/grpc-web+proto", true, false}, {"application/grpc-web", false, false},
	} {
		if got := WantsText([]byte(tt.accept), tt.asked); got != tt.want {
			t.Errorf("%q after %v: %v", tt.accept, tt.asked, got)
		}
	}
}

func TestTrailers(t *testing.T) {
	got := AppendTrailers([]byte("x"), []stream.Field{{Name: []byte("Grpc-Status"), Value: []byte("5")}, {Name: []byte("grpc-message"), Value: []byte("not%20there")}})
	if want := "x\x80\x00\x00\x00\x2bgrpc-status: 5\r\ngrpc-message: not%20there\r\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// texts encodes p with padding wherever a sender may have flushed.
func texts(r *rand.Rand, p []byte) []byte {
	var out []byte
	for len(p) > 0 {
		n := 1 + r.IntN(min(len(p), 40))
		out = AppendText(out, p[:n])
		p = p[n:]
	}
	return out
}

func TestDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := make([]byte, r.IntN(300))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		in := texts(r, p)
		var d Decoder
		var got []byte
		for len(in) > 0 {
			n := 1 + r.IntN(len(in))
			out, ok := d.Append(got, in[:n])
			if !ok {
				t.Fatalf("%q is refused", in[:n])
			}
			got, in = out, in[n:]
		}
		if !d.Whole() || !bytes.Equal(got, p) {
			t.Fatalf("%q, want %q", got, p)
		}
	}
	for _, bad := range []string{"****", "AA=A", "====", "A===", "AB==", "AAA\n", "AA A", "\r\n\r\n", "AAAAAA*A"} {
		if got, ok := new(Decoder).Append(nil, []byte(bad)); ok {
			t.Errorf("%q passed as %q", bad, got)
		}
	}
	var d Decoder
	if _, ok := d.Append(nil, []byte("AAAAA")); !ok || d.Whole() {
		t.Error("a body that breaks off is whole")
	}
}

// FuzzDecoder holds that pieces make no difference, and that what is taken is what the
// standard decoder makes of each padded part.
func FuzzDecoder(f *testing.F) {
	for _, s := range []string{"AAAA", "AA==AAA=AAAA", "AAA", "=A", "AB=="} {
		f.Add([]byte(s), uint8(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var one, many Decoder
		whole, ok := one.Append(nil, in)
		var got []byte
		good := true
		for rest := in; len(rest) > 0 && good; {
			n := min(int(step)+1, len(rest))
			got, good = many.Append(got, rest[:n])
			rest = rest[n:]
		}
		if good != ok || ok && (!bytes.Equal(got, whole) || one.Whole() != many.Whole()) {
			t.Fatalf("%q %v in one piece, %q %v in several", whole, ok, got, good)
		}
		if !ok || !one.Whole() {
			return
		}
		var want []byte
		for _, part := range strings.SplitAfter(string(in), "=") {
			part = strings.TrimRight(part, "=")
			b, err := base64.RawStdEncoding.Strict().DecodeString(part)
			if err != nil {
				t.Fatalf("%q was taken: %v", part, err)
			}
			want = append(want, b...)
		}
		if !bytes.Equal(whole, want) {
			t.Fatalf("%q, want %q", whole, want)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	p := bytes.Repeat([]byte("payload"), 1000)
	enc := AppendText(nil, p)
	dst := make([]byte, 0, 64<<10)
	fields := []stream.Field{{Name: []byte("grpc-status"), Value: []byte("0")}}
	if n := testing.AllocsPerRun(100, func() {
		var d Decoder
		if out, ok := d.Append(dst, enc[:1001]); !ok || len(out) == 0 {
			t.Fatal("refused")
		}
		AppendText(dst, p)
		AppendTrailers(dst, fields)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
