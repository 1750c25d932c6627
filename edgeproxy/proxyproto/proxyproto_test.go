package proxyproto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

const v2start = "0d0a0d0a000d0a515549540a"

// vectors are headers as the specification lays them out.
var vectors = []struct {
	name     string
	in       []byte
	from, to string // empty: local
}{
	{"v1 TCP4", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), "192.0.2.1:56324", "198.51.100.2:443"},
	{"v1 TCP6", []byte("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"), "[2001:db8::1]:1", "[2001:db8::2]:65535"},
	{"v1 longest", []byte("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n"), "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535"},
	{"v1 unknown", []byte("PROXY UNKNOWN\r\n"), "", ""},
	{"v1 unknown with more", []byte("PROXY UNKNOWN ffff:: a b c\r\n"), "", ""},
	{"v2 TCP4", unhex(v2start + "21 11 000c c0000201 c6336402 dc04 01bb"), "192.0.2.1:56324", "198.51.100.2:443"},
	{"v2 TCP4 with extensions", unhex(v2start + "21 11 0014 c0000201 c6336402 dc04 01bb 04 0001 aa 03 0001 bb"), "192.0.2.1:56324", "198.51.100.2:443"},
	{"v2 TCP6", unhex(v2start + "21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff"), "[2001:db8::1]:1", "[2001:db8::2]:65535"},
	{"v2 local", unhex(v2start + "20 00 0000"), "", ""},
	{"v2 local with more", unhex(v2start + "20 11 000c c0000201 c6336402 dc04 01bb"), "", ""},
	{"v2 unspecified", unhex(v2start + "21 00 0003 aabbcc"), "", ""},
}

func TestParse(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			for n := range v.in {
				if _, k, err := Parse(v.in[:n]); k != 0 || err != nil {
					t.Fatalf("%d of %d bytes: %d, %v", n, len(v.in), k, err)
				}
			}
			h, n, err := Parse(append(bytes.Clone(v.in), "GET"...))
			if err != nil || n != len(v.in) || h.Local != (v.from == "") {
				t.Fatalf("%+v, %d, %v", h, n, err)
			}
			if !h.Local && (h.From.String() != v.from || h.To.String() != v.to) {
				t.Errorf("from %s to %s", h.From, h.To)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want error
	}{
		{"GET / HTTP/1.1\r\n", ErrNotThere},
		{"\x16\x03\x01", ErrNotThere},
		{"PROXYx", ErrNotThere},
		{"PROXY \r\n", ErrMalformed},
		{"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", ErrMalformed},
		{"PROXY TCP4\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", ErrMalformed},
		{"PROXY TCP4 ::1 ::1 1 2\r\n", ErrMalformed},
		{"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", ErrMalformed},
		{"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", ErrMalformed},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n" + strings.Repeat(" ", 107), ErrMalformed},
		{string(unhex(v2start + "11 11 000c c0000201 c6336402 dc04 01bb")), ErrMalformed},
		{string(unhex(v2start + "22 11 000c c0000201 c6336402 dc04 01bb")), ErrMalformed},
		{string(unhex(v2start + "21 11 000b c0000201 c6336402 dc04 01")), ErrMalformed},
		{string(unhex(v2start + "21 12 000c c0000201 c6336402 dc04 01bb")), ErrMalformed},
		{string(unhex(v2start + "21 41 0000")), ErrMalformed},
		{string(unhex(v2start + "21 11 000f c0000201 c6336402 dc04 01bb 04 0001")), ErrMalformed},
		{string(unhex(v2start + "21 11 1001")), ErrTooLong},
	} {
		if h, n, err := Parse([]byte(tt.in)); !errors.Is(err, tt.want) || n != 0 {
			t.Errorf("%q: %+v, %d, %v", tt.in, h, n, err)
		}
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct{ from, to, v1, v2 string }{
		{"192.0.2.1:56324", "198.51.100.2:443", string(vectors[0].in), string(vectors[5].in)},
		{"[2001:db8::1]:1", "[2001:db8::2]:65535", string(vectors[1].in), string(vectors[7].in)},
		{"[::ffff:192.0.2.1]:56324", "198.51.100.2:443", string(vectors[0].in), string(vectors[5].in)},
		{"", "198.51.100.2:443", "PROXY UNKNOWN\r\n", string(vectors[8].in)},
	} {
		var from netip.AddrPort
		if tt.from != "" {
			from = netip.MustParseAddrPort(tt.from)
		}
		to := netip.MustParseAddrPort(tt.to)
		if got := string(Append(nil, 1, from, to)); got != tt.v1 {
			t.Errorf("v1 %q, want %q", got, tt.v1)
		}
		if got := string(Append(nil, 2, from, to)); got != tt.v2 {
			t.Errorf("v2 %x, want %x", got, tt.v2)
		}
	}
	six, four := netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("1.2.3.4:5")
	for _, v := range []int{1, 2} {
		b := Append(nil, v, six, four)
		h, n, err := Parse(b)
		if err != nil || n != len(b) || h.From != six || h.To != four || len(b) > MaxWritten {
			t.Errorf("two families, v%d: %q, %+v, %v", v, b, h, err)
		}
	}
}

// FuzzParse: what is read is written and read again as the same, and a header is
// never longer than what was there.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, n, err := Parse(in)
		if n > len(in) || err != nil && n != 0 {
			t.Fatalf("%+v, %d, %v", h, n, err)
		}
		if n == 0 || h.Local {
			return
		}
		for _, v := range []int{1, 2} {
			b := Append(nil, v, h.From, h.To)
			again, k, err := Parse(b)
			if err != nil || k != len(b) || again != h || k > MaxWritten {
				t.Fatalf("v%d: %+v became %q, %+v, %v", v, h, b, again, err)
			}
		}
	})
}
