package http1

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// statusLine reads a status line (RFC 9112 4) and returns where the next line
// starts. The reason phrase is checked and dropped; its absence, even with the
// space before it, is common among backends and changes nothing.
func statusLine(in []byte) (status int, old bool, next int, err *stream.ProtocolError) {
	next = bytes.IndexByte(in, '\n') + 1
	line := in[:next-2]
	const start = len("HTTP/1.1 ")
	if len(line) < start+3 {
		return 0, false, 0, errStatusLine
	}
	switch string(line[:start]) {
	case "HTTP/1.1 ":
	case "HTTP/1.0 ":
		old = true
	default:
		return 0, false, 0, errStatusLine
	}
	for _, c := range line[start : start+3] {
		if !isDigit(c) {
			return 0, false, 0, errStatusLine
		}
		status = status*10 + int(c-'0')
	}
	reason := line[start+3:]
	if status < 100 || status > 599 || len(reason) > 0 && reason[0] != ' ' || !isText(reason) {
		return 0, false, 0, errStatusLine
	}
	return status, old, next, nil
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
}

var statusLines = func() (lines [600]string) {
	for s := 100; s < 600; s++ {
		lines[s] = "HTTP/1.1 " + string([]byte{byte('0' + s/100), byte('0' + s/10%10), byte('0' + s%10)}) + " " + reasons[s] + "\r\n"
	}
	return lines
}()

func appendStatus(dst []byte, status int) []byte { return append(dst, statusLines[status]...) }
