package http1

import (
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// statusLine is a status line taken apart (RFC 9112 4).
type statusLine struct {
	code int
	old  bool // HTTP/1.0
}

// parse reads the line at the front of in and returns where the next one starts.
// The reason phrase is checked and dropped; its absence, even with the space
// before it, is common among backends and changes nothing. It may fail in any way
// where in ends early.
func (s *statusLine) parse(in []byte) (int, *stream.ProtocolError) {
	const start = len("HTTP/1.1 ")
	if len(in) < start+3 {
		return 0, errStatusLine
	}
	switch string(in[:start]) {
	case "HTTP/1.1 ":
		s.old = false
	case "HTTP/1.0 ":
		s.old = true
	default:
		return 0, errStatusLine
	}
	s.code = 0
	for _, c := range in[start : start+3] {
		if !isDigit(c) {
			return 0, errStatusLine
		}
		s.code = s.code*10 + int(c-'0')
	}
	end := textEnd(in, start+3)
	if s.code < 100 || s.code > 599 || end > start+3 && in[start+3] != ' ' || !lineEnds(in, end) {
		return 0, errStatusLine
	}
	return end + 2, nil
}

// reasons of the status codes of RFC 9110 15 and the registered ones that mesh
// users meet; every other gets an empty phrase.
var reasons = map[int]string{
	100: "Continue", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 425: "Too Early", 426: "Upgrade Required",
	428: "Precondition Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
	451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported",
	508: "Loop Detected",
}

var statusLines = func() (lines [600]string) {
	for s := 100; s < 600; s++ {
		lines[s] = "HTTP/1.1 " + string([]byte{byte('0' + s/100), byte('0' + s/10%10), byte('0' + s%10)}) + " " + reasons[s] + "\r\n"
	}
	return lines
}()

func appendStatus(dst []byte, status int) []byte { return append(dst, statusLines[status]...) }
