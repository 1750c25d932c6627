package http1

import (
	"bytes"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestTextEnd puts each octet at each place of inputs of several lengths, so that
// both the words and the tail are met.
func TestTextEnd(t *testing.T) {
	for n := 1; n <= 20; n++ {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte("a"), n)
				b[at] = byte(c)
				want := n
				if c < 0x20 && c != '\t' || c == 0x7f {
					want = at
				}
				for start := range at + 1 {
					if got := textEnd(b, start); got != want {
						t.Fatalf("octet %#x at %d of %d from %d: got %d, want %d", c, at, n, start, got, want)
					}
				}
				if isText(b) != (want == n) {
					t.Fatalf("octet %#x at %d of %d: text %v", c, at, n, isText(b))
				}
				// an allowed control before it must not hide it
				if at > 0 {
					b[at-1] = '\t'
					if got := textEnd(b, 0); got != want {
						t.Fatalf("octet %#x at %d after a tab: got %d, want %d", c, at, got, want)
					}
					if isText(b) != (want == n) {
						t.Fatalf("octet %#x at %d of %d after a tab: text %v", c, at, n, isText(b))
					}
				}
			}
		}
	}
}

// TestForbiddenTrailers lists RFC 9110 6.5.1's classes and what a mesh trusts.
func TestForbiddenTrailers(t *testing.T) {
	for _, n := range strings.Fields(`Transfer-Encoding Content-Length Host Connection Keep-Alive TE Trailer Upgrade Expect
		Proxy-Connection HTTP2-Settings Authorization Proxy-Authorization WWW-Authenticate Proxy-Authenticate Cookie Set-Cookie
		Content-Type Content-Encoding Content-Range Cache-Control Age Date Expires Vary Location Retry-After Range If-Match
		Max-Forwards Forwarded Via X-Forwarded-For X-Forwarded-Proto x-forwarded-anything X-Real-IP X-Request-ID Traceparent`) {
		if trailerAllowed(&stream.Field{Name: []byte(n)}) {
			t.Errorf("%s is let through", n)
		}
	}
	for _, n := range []string{"grpc-status", "grpc-message", "Server-Timing", "X-Checksum", "Digest", "ETag", "X-Forwarded"} {
		if !trailerAllowed(&stream.Field{Name: []byte(n)}) {
			t.Errorf("%s is dropped", n)
		}
	}
}

// TestSearchResumes: bytes that were searched for a head's end are not searched
// again, or a head sent byte by byte would cost its size squared.
func TestSearchResumes(t *testing.T) {
	in := []byte(get + "X: " + strings.Repeat("y", 60000) + "\r\n\r\n")
	s, c := NewServer(Limits{}), NewClient(Limits{})
	var ev stream.Event
	for i := range len(in) - 1 {
		if _, err := s.Decode(in[:i+1], &ev); err != nil || ev.Kind != stream.None {
			t.Fatalf("after %d bytes: %v, %v", i+1, ev.Kind, err)
		}
		if s.search.seen != i+1 {
			t.Fatalf("after %d bytes the search stands at %d", i+1, s.search.seen)
		}
	}
	id, _ := c.Open()
	if _, err := c.Encode(nil, &stream.Event{Kind: stream.Head, Stream: id, Head: request("GET")}); err != nil {
		t.Fatal(err)
	}
	in = []byte(ok + "X: " + strings.Repeat("y", 60000) + "\r\n\r\n")
	for i := range len(in) - 1 {
		if _, err := c.Decode(in[:i+1], &ev); err != nil || c.search.seen != i+1 {
			t.Fatalf("after %d bytes the search stands at %d: %v", i+1, c.search.seen, err)
		}
	}
}
