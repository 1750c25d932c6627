package http1

import "github.com/meridian-mesh/meridian/edgeproxy/stream"

// Limits bound what one message's sections may hold. A zero member takes its
// value from [DefaultLimits].
type Limits struct {
	Target   int // bytes of a request target
	Head     int // bytes of a head: start line, field lines and their line ends
	Fields   int // field lines of a head or a trailer section, hop-by-hop ones too
	Trailers int // bytes of a trailer section
	Interim  int // informational responses (1xx) before the final one
}

// DefaultLimits are the limits in force unless configured otherwise.
var DefaultLimits = Limits{Target: 8 << 10, Head: 64 << 10, Fields: 100, Trailers: 8 << 10, Interim: 16}

// Bounds that nobody needs to set.
const (
	maxMethod      = 32 // bytes; the longest registered method has 17
	maxOptions     = 32 // members of Connection, which are compared with all fields
	maxChunkDigits = 16
	maxChunkLine   = 256     // bytes of a chunk's size line
	maxExtensions  = 4 << 10 // bytes of chunk extensions in one body
)

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	if l.Target > 0 {
		d.Target = l.Target
	}
	if l.Head > 0 {
		d.Head = l.Head
	}
	if l.Fields > 0 {
		d.Fields = l.Fields
	}
	if l.Trailers > 0 {
		d.Trailers = l.Trailers
	}
	if l.Interim > 0 {
		d.Interim = l.Interim
	}
	return d
}

// line bounds a request line: what surrounds the target has a fixed size.
func (l Limits) line() int { return maxMethod + len(" ") + l.Target + len(" HTTP/1.1\r\n") }

func fault(status int, what string) *stream.ProtocolError {
	return &stream.ProtocolError{Status: status, What: what}
}

// Faults of a peer. Those of a request carry the status to answer with; a
// response's are always answered with 502, whatever their status says.
var (
	errMethod         = fault(400, "invalid method")
	errMethodLong     = fault(501, "method too long")
	errRequestLine    = fault(400, "invalid request line")
	errNotHTTP        = &stream.ProtocolError{Status: 400, What: "not HTTP", Foreign: true}
	errTarget         = fault(400, "invalid request target")
	errTargetLong     = fault(414, "request target too long")
	errVersion        = fault(505, "HTTP version not supported")
	errStatusLine     = fault(400, "invalid status line")
	errBareLF         = fault(400, "line ends in a bare LF")
	errHeadLong       = fault(431, "head too long")
	errFieldCount     = fault(431, "too many fields")
	errFieldName      = fault(400, "invalid field name")
	errFieldValue     = fault(400, "invalid field value")
	errFold           = fault(400, "folded field line")
	errHostMissing    = fault(400, "Host missing")
	errHostTwice      = fault(400, "Host repeated")
	errHost           = fault(400, "invalid Host")
	errLength         = fault(400, "invalid Content-Length")
	errLengthTwice    = fault(400, "Content-Length repeated")
	errLengthCoding   = fault(400, "Content-Length with Transfer-Encoding")
	errCoding         = fault(400, "invalid Transfer-Encoding")
	errCodingUnknown  = fault(501, "transfer coding not implemented")
	errCodingVersion  = fault(400, "Transfer-Encoding in HTTP/1.0")
	errOptions        = fault(400, "too many connection options")
	errExpect         = fault(417, "expectation not supported")
	errChunkSize      = fault(400, "invalid chunk size")
	errChunkLine      = fault(400, "invalid chunk line")
	errChunkExtension = fault(400, "chunk extensions too long")
	errChunkEnd       = fault(400, "chunk longer than its size")
	errTrailersLong   = fault(431, "trailers too long")
	errNoContent      = fault(400, "content in a response that has none")
	errInterim        = fault(400, "too many informational responses")
	errSwitch         = fault(400, "protocol switched without being asked")
	errUnsolicited    = fault(400, "response without a request")
)

// Misuse of Encode by its caller; the connection must be closed.
type encodeError string

func (e encodeError) Error() string { return "http1: " + string(e) }

const (
	errStream    encodeError = "event for a stream that is not open for it"
	errOrder     encodeError = "event out of order"
	errOverrun   encodeError = "more body than the head's length"
	errUnderrun  encodeError = "less body than the head's length"
	errBody      encodeError = "body where none is allowed"
	errBadField  encodeError = "field that cannot be written"
	errBadHead   encodeError = "head that cannot be written"
	errNotAsked  encodeError = "a switch of protocol that was not asked for"
	errNoTunnels encodeError = "tunnels are not supported"
)

func reasonOf(e *stream.ProtocolError) stream.Reason {
	switch e.Status {
	case 413, 414, 431:
		return stream.TooLarge
	}
	return stream.Malformed
}
