package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestReadHeads(t *testing.T) {
	h, ok, err := Read([]byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Served-By:  north\t\r\nConnection: Close\r\n\r\nhello"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if n, err := h.Status(); n != 200 || err != nil {
		t.Errorf("status %d, %v", n, err)
	}
	if v, _ := h.Get(ServedByHeader); string(v) != "north" || h.Length != 12 || !h.Close {
		t.Errorf("served by %q, length %d, close %v", v, h.Length, h.Close)
	}
	if h.Size != len("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Served-By:  north\t\r\nConnection: Close\r\n\r\n") {
		t.Errorf("size %d", h.Size)
	}
	if h, ok, err := Read([]byte("GET / HTTP/1.1\r\n\r\n")); !ok || err != nil || string(h.Start) != "GET / HTTP/1.1" || h.Length != 0 {
		t.Errorf("%+v %v %v", h, ok, err)
	}
	if _, ok, err := Read([]byte("GET / HTTP/1.1\r\nHost: a\r\n")); ok || err != nil {
		t.Errorf("an incomplete head: %v %v", ok, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n": ErrFraming,
		"GET / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n":        ErrMalformed,
		"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n":         ErrMalformed,
		strings.Repeat("x", MaxHead+1):                         ErrHeadTooLarge,
	} {
		if _, _, err := Read([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", in, err, want)
		}
	}
	for _, start := range []string{"HTTP/1.1", "HTTP/1.1 20", "HTTP/2.0 200 OK", "HTTP/1.1 abc", "HTTP/1.1 099"} {
		if n, err := (&Head{Start: []byte(start)}).Status(); err == nil {
			t.Errorf("%q has status %d", start, n)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-served-by: a\r\n\r\nok"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost:\r\n\r\n"))
	f.Add([]byte("\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok, err := Read(b)
		if ok && err != nil {
			t.Fatal("both read and refused")
		}
		if ok && (h.Size > len(b) || h.Length < 0) {
			t.Fatalf("%+v from %d bytes", h, len(b))
		}
		_, _ = h.Status()
	})
}
