package clienthello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// recorder is a connection that keeps what crypto/tls writes first.
type recorder struct {
	net.Conn
	b bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error)      { return r.b.Write(p) }
func (r *recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
func (r *recorder) Close() error                     { return nil }

// hello is what crypto/tls sends first.
func hello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	var r recorder
	cfg.InsecureSkipVerify = true
	_ = tls.Client(&r, cfg).Handshake() // nobody answers
	if r.b.Len() == 0 {
		t.Fatal("no hello")
	}
	return r.b.Bytes()
}

// split puts the message of one record into records of at most n bytes.
func split(record []byte, n int) (out []byte) {
	for body := record[recordHead:]; len(body) > 0; {
		k := min(n, len(body))
		out = append(out, record[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(k))
		out = append(out, body[:k]...)
		body = body[k:]
	}
	return out
}

// TestAgainstCryptoTLS reads hellos of every version, whole, byte by byte and in
// records of every small size.
func TestAgainstCryptoTLS(t *testing.T) {
	var scratch [MaxBytes]byte
	for _, cfg := range []*tls.Config{
		{ServerName: "a.example.com"},
		{ServerName: "a.example.com", MaxVersion: tls.VersionTLS12},
		{ServerName: "a.example.com", NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13},
		{ServerName: "127.0.0.1"},
		{ServerName: ""},
		{ServerName: strings.Repeat("a.", 100) + "example"},
	} {
		want := cfg.ServerName
		if want == "127.0.0.1" {
			want = "" // RFC 6066: no literal addresses
		}
		record := hello(t, cfg)
		for _, size := range []int{1 << 14, 1000, 100, 7, 4, 3, 2, 1} {
			in := split(record, size)
			for n := range in {
				if _, ok, err := ServerName(in[:n], scratch[:]); ok || err != nil {
					t.Fatalf("%q in records of %d, %d of %d bytes: %v, %v", want, size, n, len(in), ok, err)
				}
			}
			name, ok, err := ServerName(append(in, "and more"...), scratch[:])
			if string(name) != want || !ok || err != nil {
				t.Fatalf("records of %d: %q, %v, %v, want %q", size, name, ok, err, want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	good := hello(t, &tls.Config{ServerName: "a.example.com"})
	at := bytes.Index(good, []byte("a.example.com"))
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		{"one byte", []byte("G"), ErrNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 0, 2}, ErrNotTLS},
		{"alert", []byte{21, 3, 1, 0, 2, 1, 0}, ErrNotTLS},
		{"version", []byte{22, 4}, ErrNotTLS},
		{"server hello", []byte{22, 3, 1, 0, 4, 2}, ErrNotTLS},
		{"empty record", []byte{22, 3, 1, 0, 0}, ErrMalformed},
		{"record too long", []byte{22, 3, 1, 0x40, 1}, ErrMalformed},
		{"hello too long", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, ErrTooLong},
		{"hello of no bytes", []byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, ErrMalformed},
		{"never complete", append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}, make([]byte, MaxBytes-9)...), ErrTooLong},
		{"name of another type", change(at-3, 1), ErrMalformed},
		{"name of no bytes", change(at-2, 0, 0), ErrMalformed},
		{"name too long", change(at-2, 0xff), ErrMalformed},
		{"NUL in the name", change(at, 0), ErrMalformed},
		{"blank in the name", change(at+2, ' '), ErrMalformed},
		{"session id too long", change(recordHead+handshakeHead+randomAndStart, 33), ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var scratch [MaxBytes]byte
			if name, ok, err := ServerName(tt.in, scratch[:]); !errors.Is(err, tt.want) || ok {
				t.Errorf("%q, %v, %v", name, ok, err)
			}
		})
	}
}

// FuzzServerName holds the parser against crypto/tls's server, which reads the
// same hello: where that sees a name this must see the same one.
func FuzzServerName(f *testing.F) {
	for _, cfg := range []*tls.Config{{ServerName: "a.example.com"}, {MaxVersion: tls.VersionTLS12, ServerName: "b"}, {}} {
		h := hello(f, cfg)
		f.Add(h, 1<<14)
		f.Add(h, 10)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if len(in) > recordHead && size > 0 && size < 1<<14 {
			in = split(in, size)
		}
		var scratch [MaxBytes]byte
		name, ok, err := ServerName(in, scratch[:])
		if ok && err != nil || len(name) > maxName {
			t.Fatalf("%q, %v, %v", name, ok, err)
		}
		theirs, seen := byCryptoTLS(in)
		if seen && err == nil && ok && theirs != strings.TrimSuffix(string(name), ".") && theirs != string(name) {
			t.Fatalf("%q, crypto/tls reads %q", name, theirs)
		}
		if seen && theirs != "" && !ok && err == nil {
			t.Fatalf("crypto/tls reads %q, here it is not complete", theirs)
		}
	})
}

type player struct {
	recorder
	in *bytes.Reader
}

func (p *player) Read(b []byte) (int, error) { return p.in.Read(b) }

func byCryptoTLS(in []byte) (name string, seen bool) {
	p := &player{in: bytes.NewReader(in)}
	s := tls.Server(p, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, seen = h.ServerName, true
		return nil, errors.New("enough")
	}})
	_ = s.Handshake()
	return name, seen
}

// TestMutations runs the fuzz property over random changes of real hellos.
func TestMutations(t *testing.T) {
	base := hello(t, &tls.Config{ServerName: "a.example.com"})
	r := rand.New(rand.NewPCG(1, 1))
	same := 0
	for range 20_000 {
		in := bytes.Clone(base)
		for range 1 + r.IntN(3) {
			in[r.IntN(len(in))] = byte(r.Uint32())
		}
		var scratch [MaxBytes]byte
		name, ok, err := ServerName(in, scratch[:])
		theirs, seen := byCryptoTLS(in)
		if seen && ok && theirs != strings.TrimSuffix(string(name), ".") {
			t.Fatalf("%x: %q, crypto/tls reads %q", in, name, theirs)
		}
		if seen && ok && err == nil {
			same++
		}
	}
	if same < 5000 {
		t.Errorf("only %d hellos were read by both", same)
	}
}
