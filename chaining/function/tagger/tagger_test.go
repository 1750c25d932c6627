package tagger

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
)

// hello is what a real client of crypto/tls sends first.
func hello(t *testing.T, name string) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: name}).Handshake() }()
	buf := make([]byte, 4096)
	n, err := b.Read(buf)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	return bytes.Clone(buf[:n])
}

func TestServerName(t *testing.T) {
	h := hello(t, "Shop.example.com")
	const c, s = "10.0.0.1:4000", "10.9.0.1:443"
	for _, cut := range []int{0, 100, len(h) - 1} {
		f := New()
		if cut > 0 {
			if r := f.Process(ft.TCP(c, s, ft.ACK, 1000, h[:cut]), function.Forward, 0); r.Tag != "" {
				t.Errorf("cut at %d: tag %q from a part", cut, r.Tag)
			}
		}
		r := f.Process(ft.TCP(c, s, ft.ACK, 1000+uint32(cut), h[cut:]), function.Forward, 0)
		if r.Tag != "shop.example.com" {
			t.Errorf("cut at %d: tag %q", cut, r.Tag)
		}
		if r := f.Process(ft.TCP(s, c, ft.ACK, 1, []byte("data")), function.Back, time.Second); r.Tag != "shop.example.com" {
			t.Errorf("answers have tag %q", r.Tag)
		}
		if r := f.Process(ft.TCP(c, s, ft.ACK, 1, []byte("data")), function.Forward, 2*time.Hour); r.Tag != "" {
			t.Errorf("after hours the tag is %q", r.Tag)
		}
	}
	f := New()
	f.Process(ft.TCP(c, s, ft.ACK, 1000, h[:100]), function.Forward, 0)
	if r := f.Process(ft.TCP(c, s, ft.ACK, 1200, h[100:]), function.Forward, 0); r.Tag != "" {
		t.Errorf("a gap gives tag %q", r.Tag)
	}
}

// query and response are DNS messages with the question video.example and, in the
// response, a compressed alias and an address of each family.
var (
	query    = []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05Video\x07example\x00\x00\x01\x00\x01")
	response = []byte("\x00\x01\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00\x05Video\x07example\x00\x00\x01\x00\x01" +
		"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x0a\x00\x04\x01a\xc0\x12" +
		"\xc0\x2b\x00\x01\x00\x01\x00\x00\x00\x0a\x00\x04\x0a\x09\x00\x05" +
		"\xc0\x2b\x00\x1c\x00\x01\x00\x00\x00\x0a\x00\x10\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05")
)

func TestDNS(t *testing.T) {
	f := New()
	if r := f.Process(ft.UDP("10.0.0.1:5000", "10.9.0.1:53", query), function.Forward, 0); r.Tag != "video.example" {
		t.Errorf("query has tag %q", r.Tag)
	}
	f.Process(ft.UDP("10.9.0.1:53", "10.0.0.1:5000", response), function.Back, 0)
	for _, to := range []string{"10.9.0.5:8080", "[2001:db8::5]:8080"} {
		from := "10.0.0.1:6000"
		if to[0] == '[' {
			from = "[2001:db8::1]:6000"
		}
		if r := f.Process(ft.UDP(from, to, []byte("x")), function.Forward, 30*time.Second); r.Tag != "video.example" {
			t.Errorf("a flow to %s has tag %q", to, r.Tag)
		}
		if r := f.Process(ft.UDP(from, to, []byte("x")), function.Forward, 2*time.Minute); r.Tag != "" {
			t.Errorf("the name of %s outlived its time: %q", to, r.Tag)
		}
	}
}

func FuzzTagger(f *testing.F) {
	f.Add(ft.UDP("10.0.0.1:5000", "10.9.0.1:53", query), false)
	f.Add(ft.UDP("10.9.0.1:53", "10.0.0.1:5000", response), true)
	f.Add(ft.TCP("10.0.0.1:5000", "10.9.0.1:443", ft.ACK, 1, []byte("\x16\x03\x01\x00\x05hello")), false)
	f.Fuzz(func(t *testing.T, b []byte, back bool) {
		d := function.Forward
		if back {
			d = function.Back
		}
		if r := New().Process(b, d, 0); len(r.Tag) > maxName {
			t.Fatalf("tag of %d bytes", len(r.Tag))
		}
	})
}
