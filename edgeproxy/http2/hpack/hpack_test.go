package hpack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	xhpack "golang.org/x/net/http2/hpack"
)

// decode reads a whole block as "name: value" lines.
func decode(d *Decoder, block []byte) ([]string, error) {
	var lines []string
	var dst []byte
	d.Begin()
	for len(block) > 0 {
		var f Field
		n, out, err := d.Field(block, &f, dst)
		if err != nil {
			return lines, err
		}
		if dst, block = out, block[n:]; f.Name != nil {
			lines = append(lines, fmt.Sprintf("%s: %s", f.Name, f.Value))
		}
	}
	return lines, nil
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestExamples decodes the examples of RFC 7541 appendix C: each list is one
// connection's blocks.
func TestExamples(t *testing.T) {
	request := [][]string{
		{":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"},
		{":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"},
		{":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"},
	}
	response := [][]string{
		{":status: 302", "cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"},
		{":status: 307", "cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"},
		{":status: 200", "cache-control: private", "date: Mon, 21 Oct 2013 20:13:22 GMT", "location: https://www.example.com", "content-encoding: gzip",
			"set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"},
	}
	for _, tt := range []struct {
		name   string
		size   int
		blocks []string
		want   [][]string
		left   int // the table's size after the last
	}{
		{"C.3", 4096, []string{
			"828684410f7777772e6578616d706c652e636f6d",
			"828684be58086e6f2d6361636865",
			"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
		}, request, 164},
		{"C.4", 4096, []string{
			"828684418cf1e3c2e5f23a6ba0ab90f4ff",
			"828684be5886a8eb10649cbf",
			"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
		}, request, 164},
		{"C.5", 256, []string{
			"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
			"4803333037c1c0bf",
			"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
		}, response, 215},
		{"C.6", 256, []string{
			"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			"4883640effc1c0bf",
			"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
		}, response, 215},
	} {
		var d Decoder
		d.Reset(tt.size)
		for i, b := range tt.blocks {
			got, err := decode(&d, unhex(t, b))
			if err != nil || !slices.Equal(got, tt.want[i]) {
				t.Errorf("%s.%d: %q %v, want %q", tt.name, i+1, got, err, tt.want[i])
			}
		}
		if d.table.size != tt.left {
			t.Errorf("%s: table of %d bytes, want %d", tt.name, d.table.size, tt.left)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		block string
		want  error
	}{
		{"80", ErrIndex},
		{"be", ErrIndex},
		{"7f00", ErrIndex},
		{"ff", ErrTruncated},
		{"ffffffffff7f", ErrInteger},
		{"ff8080808080800f", ErrInteger},
		{"40", ErrTruncated},
		{"4003", ErrTruncated},
		{"40036162", ErrTruncated},
		{"4001610362", ErrTruncated},
		{"0001618300", ErrTruncated},
		{"000161821863", nil},            // "ai" in Huffman: 00011 00110 + 6 ones
		{"0001618118", ErrHuffman},       // padding of zeros
		{"00016184ffffffff", ErrHuffman}, // the end-of-string symbol
		{"000161821fff", ErrHuffman},     // 11 bits of padding
		{"3fe21f", ErrTableSize},         // 4,097
		{"3fe11f", nil},                  // 4,096
		{"203fe11f82", nil},              // the least, then the last
		{"8220", ErrTableSize},           // not at the beginning
	} {
		var d Decoder
		d.Reset(DefaultTableSize)
		if lines, err := decode(&d, unhex(t, tt.block)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %q %v, want %v", tt.block, lines, err, tt.want)
		}
	}
}

// words are few, so that they come again.
func words(r *rand.Rand) ([]byte, []byte) {
	names := []string{"accept", "content-type", "x-a", "x-bb", "cache-control", "server", "x-" + strings.Repeat("long", r.IntN(40)), ":path"}
	value := make([]byte, r.IntN(60))
	for i := range value {
		value[i] = byte(' ' + r.IntN(95))
	}
	if r.IntN(2) == 0 {
		value = fmt.Append(nil, "v", r.IntN(4))
	}
	if r.IntN(50) == 0 {
		value = bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(5000))
	}
	return []byte(names[r.IntN(len(names))]), value
}

// TestDecoderAgainstTwin decodes what another encoder writes, its table's size
// changing now and then.
func TestDecoderAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var block bytes.Buffer
		enc := xhpack.NewEncoder(&block)
		var d Decoder
		d.Reset(DefaultTableSize)
		for range 200 {
			block.Reset()
			if r.IntN(20) == 0 {
				enc.SetMaxDynamicTableSize(uint32(r.IntN(DefaultTableSize + 1)))
			}
			var want []string
			for range r.IntN(10) {
				n, v := words(r)
				if err := enc.WriteField(xhpack.HeaderField{Name: string(n), Value: string(v), Sensitive: r.IntN(5) == 0}); err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprintf("%s: %s", n, v))
			}
			if got, err := decode(&d, block.Bytes()); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
	}
}

// TestEncoderAgainstTwin has another decoder read what the encoder writes, the
// table's size changing now and then.
func TestEncoderAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	indexed := 0
	for range 50 {
		var got []string
		dec := xhpack.NewDecoder(DefaultTableSize, func(f xhpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
		var e Encoder
		e.Reset([]int{0, 300, DefaultTableSize}[r.IntN(3)])
		for range 200 {
			if r.IntN(20) == 0 {
				n := r.IntN(2 * DefaultTableSize)
				e.Limit(n)
				dec.SetAllowedMaxDynamicTableSize(uint32(n))
			}
			var want []string
			got = nil
			block := e.AppendBegin(nil)
			for range r.IntN(10) {
				n, v := words(r)
				static := StaticName(n)
				from := len(block)
				switch r.IntN(4) {
				case 0:
					block = AppendLiteral(block, static, n, v)
				case 1:
					block = AppendSecret(block, static, n, v)
				default:
					block = e.AppendField(block, static, n, v)
				}
				if block[from] >= 0x80 {
					indexed++
				}
				want = append(want, fmt.Sprintf("%s: %s", n, v))
			}
			if _, err := dec.Write(block); err != nil {
				t.Fatal(err)
			}
			if err := dec.Close(); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
	}
	if indexed < 1000 {
		t.Errorf("%d fields were sent as an index: what comes again must be", indexed)
	}
}

// TestStaticTable compares with the twin's by decoding every index.
func TestStaticTable(t *testing.T) {
	dec := xhpack.NewDecoder(DefaultTableSize, nil)
	for i := 1; i <= len(statics); i++ {
		f, err := dec.DecodeFull(AppendIndexed(nil, i))
		if err != nil || f[0].Name != statics[i-1][0] || f[0].Value != statics[i-1][1] {
			t.Errorf("%d: %v %v, here %q", i, f, err, statics[i-1])
		}
		if first := int(staticTable[i].static); statics[first-1][0] != statics[i-1][0] || first > i {
			t.Errorf("%d: first of its name is %d", i, first)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var e Encoder
	e.Reset(DefaultTableSize)
	var d Decoder
	d.Reset(DefaultTableSize)
	dst, scratch, names := make([]byte, 0, 1<<12), make([]byte, 0, 1<<12), make([][]byte, 200)
	for i := range names {
		names[i] = fmt.Append(nil, "x-name-", i%70)
	}
	value := []byte("a value that is somewhat longer")
	i := 0
	round := func() {
		dst = e.AppendBegin(dst[:0])
		for range 5 {
			dst = e.AppendField(dst, 0, names[i%len(names)], value[:i%8+20])
			i++
		}
		out := scratch
		d.Begin()
		for in := dst; len(in) > 0; {
			var f Field
			n, o, err := d.Field(in, &f, out)
			if err != nil {
				t.Fatal(err)
			}
			in, out = in[n:], o
		}
	}
	for range 1000 {
		round()
	}
	if n := testing.AllocsPerRun(5000, round); n > 0 {
		t.Errorf("%v allocations per block", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"828684410f7777772e6578616d706c652e636f6d", "203fe11f82", "40016103626364be", "0001618218630f0f", "5f00be"} {
		f.Add(unhex(f, s), unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var d Decoder
		d.Reset(DefaultTableSize)
		var want []string
		twin := xhpack.NewDecoder(DefaultTableSize, func(f xhpack.HeaderField) { want = append(want, f.Name+": "+f.Value) })
		for _, block := range [][]byte{first, second} {
			want = nil
			got, err := decode(&d, block)
			_, theirs := twin.Write(block)
			if theirs == nil {
				theirs = twin.Close()
			}
			// The twin takes a change of size anywhere in a block's first fields and
			// larger integers; what both take must be the same.
			if err == nil && theirs == nil && !slices.Equal(got, want) {
				t.Fatalf("%q, twin %q", got, want)
			}
			if err == nil && theirs != nil {
				t.Fatalf("taken: %q, twin: %v", got, theirs)
			}
			if err != nil {
				return
			}
			if d.table.size > d.table.max || d.table.max > DefaultTableSize {
				t.Fatal("table over its size")
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	block := unhex(b, "828684418cf1e3c2e5f23a6ba0ab90f4ff5886a8eb10649cbf")
	var d Decoder
	d.Reset(DefaultTableSize)
	scratch := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out := scratch
		d.Begin()
		for in := block; len(in) > 0; {
			var f Field
			n, o, err := d.Field(in, &f, out)
			if err != nil {
				b.Fatal(err)
			}
			in, out = in[n:], o
		}
	}
}
