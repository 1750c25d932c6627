package http1

import (
	"strings"
	"testing"
)

const ok = "HTTP/1.1 200 OK\r\n"

// responses answer the method before the bar, GET where there is none.
var responses = []row{
	{"4 status line", ok + "Content-Length: 2\r\nX: y\r\n\r\nhi", "200 {X=y} 2; data hi; end"},
	{"4 empty reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 {}; end"},
	{"4 no reason and no space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 {}; end"},
	{"4 reason with tab and obs-text", "HTTP/1.1 200 O\tK\xe9\r\nContent-Length: 0\r\n\r\n", "200 {}; end"},
	{"4 status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "!400 invalid status line"},
	{"4 status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", "!400 invalid status line"},
	{"4 status with a sign", "HTTP/1.1 +20 OK\r\n\r\n", "!400 invalid status line"},
	{"4 status 099", "HTTP/1.1 099 OK\r\n\r\n", "!400 invalid status line"},
	{"4 status 600", "HTTP/1.1 600 OK\r\n\r\n", "!400 invalid status line"},
	{"4 two spaces", "HTTP/1.1  200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 space before", " HTTP/1.1 200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 control in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", "!400 invalid status line"},
	{"4 CR in the reason", "HTTP/1.1 200 O\rX: y\r\n\r\n", "!400 invalid status line"},
	{"4 HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 lower case", "http/1.1 200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 another protocol", "ICY 200 OK\r\n\r\n", "!400 invalid status line"},
	{"4 HTTP/0.9", "<html>\r\n\r\n", "!400 invalid status line"},
	{"4 empty line first", "\r\n" + ok + "\r\n", "!400 invalid status line"},
	{"4 bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "!400 line ends in a bare LF"},
	{"4 bare LF ends the head", ok + "Content-Length: 0\r\n\n", "!400 line ends in a bare LF"},
	{"4 line without end", "HTTP/1.1 200 " + strings.Repeat("a", 70000), "!431 head too long"},
	{"5.1 space before the colon", ok + "Content-Length : 0\r\n\r\n", "!400 invalid field name"},
	{"5.2 obs-fold", ok + "X: y\r\n z\r\n\r\n", "!400 folded field line"},
	{"5.5 NUL in a value", ok + "X: \x00\r\n\r\n", "!400 invalid field value"},
	{"header injection: CR", ok + "Location: /\rSet-Cookie: a=b\r\n\r\n", "!400 invalid field value"},
	{"many fields", ok + strings.Repeat("Set-Cookie: a=b\r\n", 101) + "\r\n", "!431 too many fields"},
	{"long head", ok + "X: " + strings.Repeat("y", 70000) + "\r\n\r\n", "!431 head too long"},
	{"hop-by-hop fields go", ok + "Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nTrailer: X\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", "200 {}; end"},

	{"6.3 until the close", ok + "\r\nhello", "200 {} unknown; data hello; end; close"},
	{"6.3 until the close, empty", ok + "\r\n", "200 {} unknown; end; close"},
	{"6.3 length", ok + "Content-Length: 5\r\n\r\nhello", "200 {} 5; data hello; end"},
	{"6.3 length cut short", ok + "Content-Length: 5\r\n\r\nhel", "200 {} 5; data hel; truncated"},
	{"6.3 chunked", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200 {} unknown; data abc; end"},
	{"6.3 chunked cut short", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "200 {} unknown; data abc; truncated"},
	{"6.3 chunked with trailers", ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: y\r\nSet-Cookie: a=b\r\n\r\n", "200 {} unknown; trailers {X=y}; end"},
	{"6.3 gzip, chunked", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "!501 transfer coding not implemented"},
	{"6.3 identity", ok + "Transfer-Encoding: identity\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"6.3 chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 Transfer-Encoding in HTTP/1.0"},
	{"response splitting: CL.TE", ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 Content-Length with Transfer-Encoding"},
	{"response splitting: CL.CL", ok + "Content-Length: 5\r\nContent-Length: 0\r\n\r\n", "!400 Content-Length repeated"},
	{"response splitting: equal lengths", ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "!400 Content-Length repeated"},
	{"response splitting: list", ok + "Content-Length: 5, 5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"response splitting: negative", ok + "Content-Length: -1\r\n\r\n", "!400 invalid Content-Length"},
	{"response splitting: bare LF in a chunk line", ok + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", "200 {} unknown; !400 line ends in a bare LF"},
	{"response splitting: bytes after the body", ok + "Content-Length: 2\r\n\r\nhi" + ok + "\r\n", "200 {} 2; data hi; end; !400 response without a request"},
	{"response splitting: empty line after the body", ok + "Content-Length: 2\r\n\r\nhi\r\n", "200 {} 2; data hi; end; !400 response without a request"},

	{"6.3 HEAD", "HEAD|" + ok + "Content-Length: 5\r\n\r\n", "200 {} 5 nobody; end"},
	{"6.3 HEAD without length", "HEAD|" + ok + "\r\n", "200 {} unknown nobody; end"},
	{"6.3 HEAD, chunked", "HEAD|" + ok + "Transfer-Encoding: chunked\r\n\r\n", "200 {} unknown nobody; end"},
	{"6.3 HEAD with a body", "HEAD|" + ok + "Content-Length: 5\r\n\r\nhello", "200 {} 5 nobody; end; !400 response without a request"},
	{"6.3 204", "HTTP/1.1 204 No Content\r\n\r\n", "204 {} nobody; end"},
	{"6.3 204 with a length of zero", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 {} nobody; end"},
	{"6.3 204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "!400 content in a response that has none"},
	{"6.1 204 with a coding", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 content in a response that has none"},
	{"6.3 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 {} 5 nobody; end"},
	{"6.3 304 without length", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "304 {ETag=x} unknown nobody; end"},
	{"6.3 205 is framed like the others", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "205 {}; end"},

	{"9110 15.2 continue", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", "100 {} nobody; 200 {}; end"},
	{"9110 15.2 early hints twice", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n",
		"103 {Link=a} nobody; 103 {Link=b} nobody; 200 {}; end"},
	{"9110 15.2 informational with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello", "!400 content in a response that has none"},
	{"9110 15.2 informational with a coding", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 content in a response that has none"},
	{"9110 15.2.2 switch unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "!400 protocol switched without being asked"},
	{"endless informational responses", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 17), strings.Repeat("100 {} nobody; ", 16) + "!400 too many informational responses"},
	{"informational, then nothing", "HTTP/1.1 100 Continue\r\n\r\n", "100 {} nobody; truncated"},

	{"9.6 close", ok + "Connection: close\r\nContent-Length: 0\r\n\r\n", "200 {}; end; close"},
	{"9.3 HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 {} 2; data hi; end; close"},
	{"9.3 HTTP/1.0 keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", "200 {} 2; data hi; end"},
	{"nothing", "", "truncated"},
	{"head cut short", ok, "truncated; left 17"},
}

func splitMethod(in string) (method, rest string) {
	if m, rest, ok := strings.Cut(in, "|"); ok {
		return m, rest
	}
	return "GET", in
}

func TestResponses(t *testing.T) {
	for _, r := range responses {
		t.Run(r.name, func(t *testing.T) {
			method, in := splitMethod(r.in)
			if got := traceResponse(t, method, pieces(in)); got != r.want {
				t.Errorf("got  %s\nwant %s", clip(got), clip(r.want))
			}
		})
	}
}

func TestResponsesSplit(t *testing.T) {
	for _, r := range responses {
		method, in := splitMethod(r.in)
		splits(t, r.name, in, func(p [][]byte) string { return traceResponse(t, method, p) })
	}
}
