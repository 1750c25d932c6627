package http1

import (
	"strings"
	"testing"
)

type row struct {
	name, in, want string
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n"

// requests are messages by the section of RFC 9112 (or 9110, where said) or by
// the class of attack; "!" marks a refusal.
var requests = []row{
	// Request line, RFC 9112 3.
	{"3 origin form", "GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "GET www.example.org /where?q=now {}; end"},
	{"3 asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a * {}; end"},
	{"3 asterisk only for OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3 asterisk with more", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3 authority form", "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n", "CONNECT a.b:443  {}; end; close"},
	{"3 authority form, IPv6", "CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT [::1]:443  {}; end; close"},
	{"3 authority form without port", "CONNECT a.b HTTP/1.1\r\nHost: a.b\r\n\r\n", "!400 invalid request target"},
	{"3 authority form, IPv6 without port", "CONNECT [::1] HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3 authority form without host", "CONNECT :443 HTTP/1.1\r\nHost: a.b\r\n\r\n", "!400 invalid request target"},
	{"3 CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: a.b\r\n\r\n", "!400 invalid request target"},
	{"3 authority form for GET", "GET a.b:80 HTTP/1.1\r\nHost: a.b\r\n\r\n", "!400 invalid request target"},
	{"3.2.2 absolute form", "GET http://b.c:81/p?q HTTP/1.1\r\nHost: b.c:81\r\n\r\n", "GET http://b.c:81 /p?q {}; end"},
	{"3.2.2 absolute form beats Host", "GET http://b.c/p HTTP/1.1\r\nHost: other\r\n\r\n", "GET http://b.c /p {}; end"},
	{"3.2.2 absolute form needs Host", "GET http://b.c/p HTTP/1.1\r\n\r\n", "!400 Host missing"},
	{"3.2.2 absolute form, scheme in upper case", "GET HTTPS://b.c/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET HTTPS://b.c / {}; end"},
	{"3.2.2 absolute form without path", "GET http://b.c HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://b.c / {}; end"},
	{"3.2.2 absolute form, query without path", "GET http://b.c?x=/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://b.c /?x=/ {}; end"},
	{"3.2.4 absolute form of the asterisk", "OPTIONS http://b.c HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS http://b.c * {}; end"},
	{"absolute form with user information", "GET http://u@b.c/ HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"absolute form without host", "GET http:///p HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"absolute form of another scheme", "GET ftp://b.c/ HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"absolute form cut short", "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.1 any token is a method", "M-SEARCH!#$%&'*+.^_`|~1 / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH!#$%&'*+.^_`|~1 a / {}; end"},
	{"3.1 methods are case-sensitive", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "get a / {}; end"},
	{"3.1 method with a colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid method"},
	{"3.1 no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid method"},
	{"3.1 method of 33 octets", strings.Repeat("M", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", "!501 method too long"},
	{"3 two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3 tab for space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid method"},
	{"3 space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"3 two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"3 space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"3.2 fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 quote", "GET /\"a HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 what browsers leave in queries", "GET /?a[]=|{}^`\\ HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /?a[]=|{}^`\\ {}; end"},
	{"3.2 raw UTF-8", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 NUL", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 CR in the target", "GET /\rX HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 relative path", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", "!400 invalid request target"},
	{"3.2 dots are the router's business", "GET /../%2e HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /../%2e {}; end"},
	{"3.2 target at the limit", "GET /" + strings.Repeat("a", 8191) + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /" + strings.Repeat("a", 8191) + " {}; end"},
	{"3.2 target over the limit", "GET /" + strings.Repeat("a", 8192) + " HTTP/1.1\r\nHost: a\r\n\r\n", "!414 request target too long"},
	{"3.2 target without end", "GET /" + strings.Repeat("a", 9000), "!414 request target too long"},
	{"3.1 method without end", strings.Repeat("M", 9000), "!501 method too long"},
	{"3.1 line without end and with a bad method", "G(T /" + strings.Repeat("a", 9000), "!400 invalid method"},
	{"2.3 HTTP/0.9", "GET /\r\n\r\n", "!400 invalid request line"},
	{"2.3 HTTP/0.9 with a version", "GET / HTTP/0.9\r\n\r\n", "!505 HTTP version not supported"},
	{"2.3 HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "!505 HTTP version not supported"},
	{"2.3 HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "!505 HTTP version not supported"},
	{"2.3 HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505 HTTP version not supported"},
	{"2.3 HTTP/1", "GET / HTTP/1\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"2.3 HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"2.3 HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"2.3 http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", "!400 invalid request line"},
	{"2.3 another protocol", "GET / RTSP/1.1\r\nHost: a\r\n\r\n", "!400 not HTTP"},
	{"2.3 another protocol, short", "A b C\r\n\r\n", "!400 not HTTP"},
	{"2.3 no protocol", "GET /a b\r\nHost: HTTP/1.1\r\n\r\n", "!400 not HTTP"},
	{"2.3 TLS on a cleartext port", "\x16\x03\x01\x02\x00\x01", "!400 invalid method"},
	{"2.2 one empty line before", "\r\n" + get + "\r\n", "GET a / {}; end"},
	{"2.2 two empty lines before", "\r\n\r\n" + get + "\r\n", "!400 invalid method"},
	{"2.2 bare LF before", "\n" + get + "\r\n", "!400 invalid method"},
	{"2.2 bare CR before", "\r" + get + "\r\n", "!400 invalid method"},
	{"2.2 white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "!400 folded field line"},
	{"2.2 bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "!400 line ends in a bare LF"},
	{"2.2 bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", "!400 line ends in a bare LF"},
	{"2.2 bare LF as the empty line", get + "\n", "!400 line ends in a bare LF"},
	{"2.2 CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "!400 invalid field value"},
	{"2.2 CR CR LF as the empty line", get + "\r\r\n\r\n", "!400 invalid field name"},

	// Host, RFC 9112 3.2 and 9110 7.2.
	{"Host missing", "GET / HTTP/1.1\r\n\r\n", "!400 Host missing"},
	{"Host twice", get + "Host: a\r\n\r\n", "!400 Host repeated"},
	{"Host twice in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "!400 Host repeated"},
	{"Host twice, the first empty", "GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n\r\n", "!400 Host repeated"},
	{"Host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "!400 invalid Host"},
	{"Host of only a port", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "!400 invalid Host"},
	{"Host with port", "GET / HTTP/1.1\r\nHost: a.b:8080\r\n\r\n", "GET a.b:8080 / {}; end"},
	{"Host, IPv4", "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", "GET 192.0.2.1 / {}; end"},
	{"Host, IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "GET [2001:db8::1]:80 / {}; end"},
	{"Host, IPv6 without brackets", "GET / HTTP/1.1\r\nHost: 2001:db8::1\r\n\r\n", "!400 invalid Host"},
	{"Host, IPv6 with zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", "!400 invalid Host"},
	{"Host, IPv6 without end", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "!400 invalid Host"},
	{"Host, IPv6 and more", "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", "!400 invalid Host"},
	{"Host with empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "!400 invalid Host"},
	{"Host with port out of range", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "!400 invalid Host"},
	{"Host with port in letters", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", "!400 invalid Host"},
	{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", "!400 invalid Host"},
	{"Host with user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "!400 invalid Host"},
	{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "!400 invalid Host"},
	{"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "!400 invalid Host"},
	{"Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "!400 invalid Host"},
	{"Host percent-encoded", "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", "!400 invalid Host"},
	{"Host too long", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 262) + "\r\n\r\n", "!400 invalid Host"},
	{"Host with obs-text", "GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n", "!400 invalid Host"},

	// Field lines, RFC 9112 5.
	{"5 field", get + "X: y\r\n\r\n", "GET a / {X=y}; end"},
	{"5 white space around the value", get + "X: \t y\t \r\n\r\n", "GET a / {X=y}; end"},
	{"5 no white space", get + "X:y\r\n\r\n", "GET a / {X=y}; end"},
	{"5 empty value", get + "X:\r\nY: \r\n\r\n", "GET a / {X=, Y=}; end"},
	{"5 order and repetition stay", get + "B: 1\r\nA: 2\r\nB: 3\r\n\r\n", "GET a / {B=1, A=2, B=3}; end"},
	{"5 tab and obs-text inside", get + "X: a\tb\xe9\r\n\r\n", "GET a / {X=a\tb\xe9}; end"},
	{"5.1 space before the colon", get + "X : y\r\n\r\n", "!400 invalid field name"},
	{"5.1 space before the colon of Content-Length", get + "Content-Length : 5\r\n\r\n", "!400 invalid field name"},
	{"5.1 tab before the colon", get + "X\t: y\r\n\r\n", "!400 invalid field name"},
	{"5.1 empty name", get + ": y\r\n\r\n", "!400 invalid field name"},
	{"5.1 no colon", get + "Xy\r\n\r\n", "!400 invalid field name"},
	{"5.1 space in the name", get + "X Y: z\r\n\r\n", "!400 invalid field name"},
	{"5.1 NUL in the name", get + "X\x00: y\r\n\r\n", "!400 invalid field name"},
	{"5.1 obs-text in the name", get + "X\xe9: y\r\n\r\n", "!400 invalid field name"},
	{"5.1 separators in the name", get + "X(y): z\r\n\r\n", "!400 invalid field name"},
	{"5.2 obs-fold", get + "X: y\r\n z\r\n\r\n", "!400 folded field line"},
	{"5.2 obs-fold with tab", get + "X: y\r\n\tz\r\n\r\n", "!400 folded field line"},
	{"5.2 obs-fold of Transfer-Encoding", get + "Transfer-Encoding:\r\n chunked\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"5.2 line of white space", get + " \r\n\r\n", "!400 folded field line"},
	{"5.5 NUL in a value", get + "X: a\x00b\r\n\r\n", "!400 invalid field value"},
	{"5.5 CR in a value", get + "X: a\rb\r\n\r\n", "!400 invalid field value"},
	{"5.5 CR before a field", get + "\rX: b\r\n\r\n", "!400 invalid field name"},
	{"5.5 LF in a value", get + "X: a\nY: b\r\n\r\n", "!400 line ends in a bare LF"},
	{"5.5 DEL in a value", get + "X: aaaaaaaa\x7fb\r\n\r\n", "!400 invalid field value"},
	{"5.5 vertical tab in a value", get + "X: \x0by\r\n\r\n", "!400 invalid field value"},
	{"5.4 100 fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 99) + "\r\n", "GET a / {" + strings.Repeat("X=y, ", 98) + "X=y}; end"},
	{"5.4 101 fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 100) + "\r\n", "!431 too many fields"},
	{"cookie bomb", get + strings.Repeat("Cookie: a=b\r\n", 100) + "\r\n", "!431 too many fields"},
	{"5.4 head at the limit", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", 65536-25-3-4) + "\r\n\r\n", "GET a / {X=" + strings.Repeat("y", 65536-25-3-4) + "}; end"},
	{"5.4 head over the limit", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", 65536-25-3-3) + "\r\n\r\n", "!431 head too long"},
	{"5.4 field without end", get + "X: " + strings.Repeat("y", 70000), "!431 head too long"},

	// Content-Length, RFC 9112 6.2 and 9110 8.6.
	{"6.2 body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST a / {} 5; data hello; end"},
	{"6.2 empty body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST a / {}; end"},
	{"6.2 leading zeros", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello", "POST a / {} 5; data hello; end"},
	{"6.2 body of a GET", "GET / HTTP/1.1\r\nHost: a\r\ncontent-length: 2\r\n\r\nhi", "GET a / {} 2; data hi; end"},
	{"6.2 cut short", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", "POST a / {} 5; data hel; truncated"},
	{"6.2 sign", get + "Content-Length: +5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 negative", get + "Content-Length: -5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 hexadecimal", get + "Content-Length: 0x5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 list", get + "Content-Length: 5, 5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 empty", get + "Content-Length:\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 with a space", get + "Content-Length: 1 5\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 overflow", get + "Content-Length: 18446744073709551621\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 overflow of 63 bits", get + "Content-Length: 9223372036854775808\r\n\r\nhello", "!400 invalid Content-Length"},
	{"6.2 largest", get + "Content-Length: 9223372036854775807\r\n\r\nh", "GET a / {} 9223372036854775807; data h; truncated"},
	{"CL.CL different", get + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "!400 Content-Length repeated"},
	{"CL.CL equal", get + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "!400 Content-Length repeated"},
	{"CL.CL in other case", get + "Content-Length: 0\r\ncONTENT-lENGTH: 5\r\n\r\nhello", "!400 Content-Length repeated"},

	// Transfer-Encoding, RFC 9112 6.1.
	{"6.1 chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "POST a / {} unknown; data hello; end"},
	{"6.1 chunked in other case", "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: ChunkeD\r\n\r\n0\r\n\r\n", "POST a / {} unknown; end"},
	{"CL.TE", get + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 Content-Length with Transfer-Encoding"},
	{"TE.CL", get + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "!400 Content-Length with Transfer-Encoding"},
	{"CL.TE with a length of zero", get + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 Content-Length with Transfer-Encoding"},
	{"TE.TE twice", get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE.TE with another", get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE.TE chunked twice in a list", get + "Transfer-Encoding: chunked, chunked\r\n\r\n", "!501 transfer coding not implemented"},
	{"6.1 gzip, chunked", get + "Transfer-Encoding: gzip, chunked\r\n\r\n", "!501 transfer coding not implemented"},
	{"6.1 gzip", get + "Transfer-Encoding: gzip\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"6.1 identity", get + "Transfer-Encoding: identity\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"6.1 chunked not last", get + "Transfer-Encoding: chunked, gzip\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: xchunked", get + "Transfer-Encoding: xchunked\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: quoted", get + "Transfer-Encoding: \"chunked\"\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: vertical tab", get + "Transfer-Encoding: \x0bchunked\r\n\r\n", "!400 invalid field value"},
	{"TE obfuscated: obs-text", get + "Transfer-Encoding: chunked\xa0\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: parameter", get + "Transfer-Encoding: chunked;q=1\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: comma before", get + "Transfer-Encoding: , chunked\r\n\r\n", "!501 transfer coding not implemented"},
	{"TE obfuscated: empty", get + "Transfer-Encoding:\r\n\r\n", "!400 invalid Transfer-Encoding"},
	{"TE obfuscated: space before the colon", get + "Transfer-Encoding : chunked\r\n\r\n", "!400 invalid field name"},
	{"TE obfuscated: NUL in the name", get + "Transfer-Encoding\x00: chunked\r\n\r\n", "!400 invalid field name"},
	{"TE in disguise", get + "Transfer_Encoding: chunked\r\n\r\n", "!400 invalid field name"},
	{"CL in disguise", get + "Content_length: 5\r\n\r\n", "!400 invalid field name"},
	{"other names may have underscores", get + "api_key: x\r\n\r\n", "GET a / {api_key=x}; end"},
	{"TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!400 Transfer-Encoding in HTTP/1.0"},
}

const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

// chunks are what may follow the head in chunked.
var chunks = []row{
	{"7.1 two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "data abcde; end"},
	{"7.1 size in hexadecimal of either case", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "data 01234567890123456789a; end"},
	{"7.1 leading zeros", "0003\r\nabc\r\n000\r\n\r\n", "data abc; end"},
	{"7.1 17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n", "!400 invalid chunk size"},
	{"7.1 overflow", "FFFFFFFFFFFFFFFF\r\nabc", "!400 invalid chunk size"},
	{"7.1 overflow to a small size", "10000000000000003\r\nabc\r\n0\r\n\r\n", "!400 invalid chunk size"},
	{"7.1 largest", "7FFFFFFFFFFFFFFF\r\nabc", "data abc; truncated"},
	{"7.1 negative", "-1\r\nabc", "!400 invalid chunk size"},
	{"7.1 sign", "+3\r\nabc\r\n", "!400 invalid chunk size"},
	{"7.1 0x", "0x3\r\nabc\r\n", "!400 invalid chunk line"},
	{"7.1 no size", "\r\nabc\r\n", "!400 invalid chunk size"},
	{"7.1 only an extension", ";a\r\nabc\r\n", "!400 invalid chunk size"},
	{"7.1 space before the size", " 3\r\nabc\r\n", "!400 invalid chunk size"},
	{"7.1 space after the size", "3 \r\nabc\r\n", "!400 invalid chunk line"},
	{"7.1 space before the extension", "3 ;a=b\r\nabc\r\n0\r\n\r\n", "data abc; end"},
	{"7.1 not hexadecimal", "g\r\nabc\r\n", "!400 invalid chunk size"},
	{"7.1 underscore", "1_0\r\nabc\r\n", "!400 invalid chunk line"},
	{"7.1 comma", "3,3\r\nabc\r\n", "!400 invalid chunk line"},
	{"7.1 bare LF after the size", "3\nabc\r\n0\r\n\r\n", "!400 line ends in a bare LF"},
	{"7.1 bare CR after the size", "3\rabc\r\n0\r\n\r\n", "!400 invalid chunk line"},
	{"CVE-2025-22871: bare LF in a chunk line", "3;a\nabc\r\n0\r\n\r\n", "!400 line ends in a bare LF"},
	{"CVE-2025-55315: bare CR in an extension", "3;\rabc\r\n0\r\n\r\n", "!400 invalid chunk line"},
	{"7.1 bare LF after the data", "3\r\nabc\n0\r\n\r\n", "!400 chunk longer than its size"},
	{"7.1 data longer than the size", "3\r\nabcd\r\n0\r\n\r\n", "!400 chunk longer than its size"},
	{"7.1 CR without LF after the data", "3\r\nabc\rx\r\n0\r\n\r\n", "!400 chunk longer than its size"},
	{"7.1 data shorter than the size", "5\r\nabc\r\n0\r\n\r\n", "!400 chunk longer than its size"},
	{"7.1 cut in a size", "3\r\nabc\r\n5", "data abc; truncated; left 1"},
	{"7.1 cut in the data", "3\r\nab", "data ab; truncated"},
	{"7.1 cut before the last chunk", "3\r\nabc\r\n", "data abc; truncated"},
	{"7.1 cut after the last chunk", "3\r\nabc\r\n0\r\n", "data abc; truncated"},
	{"7.1.1 extensions are dropped", "3;a;b=c;d=\"e f\"\r\nabc\r\n0;last\r\n\r\n", "data abc; end"},
	{"7.1.1 NUL in an extension", "3;a\x00\r\nabc\r\n0\r\n\r\n", "!400 invalid chunk line"},
	{"7.1.1 extension of 300 octets", "3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n", "!400 invalid chunk line"},
	{"7.1.1 size line without end", strings.Repeat("0", 300), "!400 invalid chunk line"},
	{"CVE-2023-39326: many extensions", strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 21) + "0\r\n\r\n", "!400 chunk extensions too long"},
	{"7.1.2 trailers", "0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", "trailers {X-Sum=1, Y=2}; end"},
	{"7.1.2 forbidden trailers are dropped", "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nAuthorization: x\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\nX-Sum: 1\r\nContent-Type: a/b\r\n\r\n", "trailers {X-Sum=1}; end"},
	{"7.1.2 framing in disguise is dropped", "0\r\nContent_Length: 5\r\nX: y\r\n\r\n", "trailers {X=y}; end"},
	{"7.1.2 nothing but forbidden trailers", "0\r\nHost: evil\r\nTrailer: X\r\n\r\n", "end"},
	{"7.1.2 bare LF in trailers", "0\r\nX: y\n\r\n", "!400 line ends in a bare LF"},
	{"7.1.2 bare LF ends the trailers", "0\r\n\n", "!400 line ends in a bare LF"},
	{"7.1.2 folded trailer", "0\r\nX: y\r\n z\r\n\r\n", "!400 folded field line"},
	{"7.1.2 invalid trailer name", "0\r\nX y: z\r\n\r\n", "!400 invalid field name"},
	{"7.1.2 invalid trailer value", "0\r\nX: \x00\r\n\r\n", "!400 invalid field value"},
	{"7.1.2 CR before the end", "0\r\n\r\r\n\r\n", "!400 invalid field name"},
	{"7.1.2 long trailers", "0\r\nX: " + strings.Repeat("y", 9000) + "\r\n\r\n", "!431 trailers too long"},
	{"7.1.2 many trailers", "0\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n", "!431 too many fields"},
	{"7.1.2 trailers cut short", "0\r\nX: y\r\n", "truncated; left 6"},
}

// connections are about what lies around a message.
var connections = []row{
	{"9.3 pipelining", get + "\r\n" + get + "X: 2\r\n\r\n", "GET a / {}; end; GET a / {X=2}; end"},
	{"9.3 pipelining after bodies", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" + chunked + "1\r\nx\r\n0\r\n\r\n" + get + "\r\n",
		"POST a / {} 2; data hi; end; POST a / {} unknown; data x; end; GET a / {}; end"},
	{"9.3 empty line between", get + "\r\n\r\n" + get + "\r\n", "GET a / {}; end; GET a / {}; end"},
	{"smuggled body is a request of its own", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdGET", "GET a / {} 3; data abc; end; left 4"},
	{"9.6 close", get + "Connection: close\r\n\r\n" + get + "\r\n", "GET a / {}; end; close; left 27"},
	{"9.6 close in a list and other case", get + "Connection: foo , CLOSE\r\n\r\n", "GET a / {}; end; close"},
	{"9.6 close beats keep-alive", get + "Connection: keep-alive\r\nConnection: close\r\n\r\n", "GET a / {}; end; close"},
	{"9.3 HTTP/1.0 closes", "GET / HTTP/1.0\r\n\r\n", "GET  / {}; end; close"},
	{"9.3 HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n" + get + "\r\n", "GET a / {}; end; GET a / {}; end"},
	{"HTTP/1.0 with an invalid Host", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n", "!400 invalid Host"},
	{"9110 7.6.1 hop-by-hop fields go", get + "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: gzip\r\nTrailer: X\r\nX: 1\r\n\r\n", "GET a / {X=1}; end"},
	{"9110 7.6.1 nominated fields go", get + "X-Hop: 1\r\nX: 2\r\nConnection: x-hop, nothing\r\nx-HOP: 3\r\n\r\n", "GET a / {X=2}; end"},
	{"Connection: X-Forwarded-For", get + "X-Forwarded-For: 1.2.3.4\r\nConnection: close, X-Forwarded-For\r\n\r\n", "GET a / {}; end; close"},
	{"Connection: Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nhi", "POST a / {} 2; data hi; end"},
	{"Connection: Transfer-Encoding", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding, Host\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST a / {} unknown; end"},
	{"Connection with many members", get + "Connection: " + strings.Repeat("a,", 33) + "\r\n\r\n", "!400 too many connection options"},
	{"Connection with empty members", get + "Connection: , ,x,, close\r\nX: 1\r\n\r\n", "GET a / {}; end; close"},
	{"9110 10.1.4 TE: trailers", get + "TE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n\r\n", "GET a / {} te; end"},
	{"9110 7.8 upgrade", get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET a / {} upgrade=websocket; end"},
	{"9110 7.8 upgrade that Connection does not name", get + "Upgrade: websocket\r\n\r\n", "GET a / {}; end"},
	{"h2c smuggling", get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "GET a / {}; end"},
	{"h2c smuggling without naming the settings", get + "Connection: Upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "GET a / {}; end"},
	{"h2c hidden in a list", get + "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", "GET a / {}; end"},
	{"9110 7.8 upgrade to one of two", get + "Connection: upgrade\r\nUpgrade: foo\r\nUpgrade: websocket\r\n\r\n", "GET a / {}; end"},
	{"upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET a / {}; end; close"},
	{"9110 10.1.1 expect", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi", "POST a / {} 2 expect; data hi; end"},
	{"9110 10.1.1 expect without content", get + "Expect: 100-continue\r\n\r\n", "GET a / {}; end"},
	{"9110 10.1.1 expect in HTTP/1.0", "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", "POST  / {} 2; data hi; end; close"},
	{"9110 10.1.1 another expectation", get + "Expect: 200-ok\r\n\r\n", "!417 expectation not supported"},
	{"Expect desync: two values", get + "Expect: 100-continue, x\r\n\r\n", "!417 expectation not supported"},
	{"Expect desync: obfuscated", get + "Expect: y 100-continue\r\n\r\n", "!417 expectation not supported"},
	{"nothing at all", "", ""},
	{"only an empty line", "\r\n", ""},
	{"head cut short", get, "left 25"},
	{"half an empty line", "\r", "left 1"},
}

func requestRows() []row {
	rows := append(append([]row{}, requests...), connections...)
	for _, c := range chunks {
		rows = append(rows, row{c.name, chunked + c.in, "POST a / {} unknown; " + c.want})
	}
	return rows
}

func TestRequests(t *testing.T) {
	for _, r := range requestRows() {
		t.Run(r.name, func(t *testing.T) {
			if strings.HasPrefix(r.want, "POST a / {} unknown; ") && strings.Contains(r.want, "!") {
				// Data before the fault may or may not have been given; the table
				// leaves it out.
				got := traceRequests(t, pieces(r.in))
				if i := strings.LastIndex(got, "!"); i < 0 || !strings.HasSuffix(r.want, got[i:]) {
					t.Errorf("got  %s\nwant %s", got, r.want)
				}
				return
			}
			if got := traceRequests(t, pieces(r.in)); got != r.want {
				t.Errorf("got  %s\nwant %s", clip(got), clip(r.want))
			}
		})
	}
}

func clip(s string) string {
	if len(s) > 400 {
		return s[:200] + " ... " + s[len(s)-200:]
	}
	return s
}

// TestRequestsSplit: wherever a connection's bytes are cut, the events are the same.
func TestRequestsSplit(t *testing.T) {
	for _, r := range requestRows() {
		splits(t, r.name, r.in, func(p [][]byte) string { return traceRequests(t, p) })
	}
}

// splits cuts in at each place (long inputs at each of a hundred), and into single bytes.
func splits(t *testing.T, name, in string, trace func([][]byte) string) {
	t.Helper()
	whole := trace(pieces(in))
	step := max(1, len(in)/100)
	if len(in) < 600 {
		step = 1
	}
	for i := 0; i <= len(in); i += step {
		if got := trace(pieces(in, i)); got != whole {
			t.Errorf("%s: cut at %d\ngot  %s\nwant %s", name, i, clip(got), clip(whole))
			return
		}
	}
	if len(in) > 12000 {
		return
	}
	var every []int
	for i := range len(in) {
		every = append(every, i)
	}
	if got := trace(pieces(in, every...)); got != whole {
		t.Errorf("%s: byte by byte\ngot  %s\nwant %s", name, clip(got), clip(whole))
	}
}
