// Package stream is the vocabulary between a protocol codec and an exchange: a
// connection is a codec, a codec yields streams, and a stream is the sequence
//
//	Head* Data* Trailers? End      (informational heads first)
//
// cut short by Reset at any point, with Window giving credit the other way.
// HTTP/1 is the case of one stream at a time, HTTP/2 that of many. The same
// events flow in (Decode) and out (Encode).
//
// A codec is pure: bytes in, events out; events in, bytes out. It never reads,
// writes, allocates in steady state or looks at a clock. Everything an event
// points to is borrowed from the bytes given to Decode, or from the codec, and
// is valid until the next call of that codec's Decode.
package stream

// ID names a stream of one connection, from 1; HTTP/1 counts its messages.
type ID uint32

// Kind says what an Event is.
type Kind uint8

// Kinds of events.
const (
	// None: the bytes so far hold no whole event.
	None Kind = iota
	// Head: a request's or response's head. Several may come on a stream of a
	// response: informational ones (1xx) before the final.
	Head
	// Data: a piece of the body.
	Data
	// Trailers: the trailer fields, after all Data.
	Trailers
	// End: the message is complete.
	End
	// Reset: the stream ends here, incomplete, for Event.Reason.
	Reset
	// Window: the receiver took Event.N bytes of the stream's Data and can take
	// as many more. HTTP/1 codecs ignore it: there, not reading is the window.
	Window
)

// Event is one step of a stream. The caller owns the struct and reuses it; which
// fields hold something follows from Kind.
type Event struct {
	Kind   Kind
	Stream ID
	Head   *Message // Head
	Data   []byte   // Data
	Fields []Field  // Trailers
	N      int      // Window: bytes
	Reason Reason   // Reset
}

// Field is one field line, its value without surrounding white space. Names keep
// the sender's case; compare with [Field.Is].
type Field struct {
	Name, Value []byte
}

// Body lengths that are not a number of bytes.
const (
	LengthUnknown = -1 // chunked, or until the connection closes
	LengthNone    = 0  // no body
)

// TunnelTCP stands in Message.Upgrade of a response that agrees to a plain CONNECT; it
// is on no wire.
const TunnelTCP = "tcp"

// Message is a request's or a response's head. Hop-by-hop fields (Connection and
// what it names, Keep-Alive, TE, Transfer-Encoding, Upgrade, Proxy-Connection,
// Trailer) and Content-Length, Host are not among Fields: the codec has turned
// them into the other members, and writes its own on Encode (RFC 9110 7.6.1).
type Message struct {
	// Request.
	Method    []byte
	Scheme    []byte // set by HTTP/2 and by absolute-form targets, else empty
	Authority []byte // Host, or :authority
	Path      []byte // origin-form target with its query, as received
	// Response.
	Status int

	Fields []Field
	// Length is the body's length in bytes, or LengthUnknown.
	Length int64
	// Expect100 reports that the client waits for 100 (Continue).
	Expect100 bool
	// NoBody reports that whatever Length says neither body nor trailers follow (answer
	// to HEAD, 204, 304, and of HTTP/2 any that ends with its head).
	NoBody bool
	// Upgrade is the protocol asked for or agreed to, empty when none or
	// when there is a choice: HTTP/1's Upgrade of a GET, HTTP/2's :protocol of a CONNECT.
	// A response
	// that agrees (101 in HTTP/1, 2xx to CONNECT in HTTP/2, where a plain CONNECT is told
	// by TunnelTCP) makes the
	// stream a tunnel: Data and End of each direction follow on their own, and the
	// request, whatever was said of its end, goes on.
	Upgrade []byte
	// TrailersOK reports that the sender of a request takes trailers (TE: trailers).
	TrailersOK bool
}

// Reason says why a stream was reset.
type Reason uint8

// Reasons of Reset and of connection errors.
const (
	ReasonNone Reason = iota
	// Refused: not processed at all; may be tried again anywhere.
	Refused
	// Cancelled: the other side lost interest.
	Cancelled
	// Malformed: the message breaks the protocol.
	Malformed
	// TooLarge: a limit on heads, fields or bodies was passed.
	TooLarge
	// Internal: the sender failed.
	Internal
	// Truncated: the connection ended inside the message.
	Truncated
)

// Codec is one connection's protocol, server side or client side.
//
// A decode error is final for the connection: the caller answers as
// [ProtocolError] says, flushes and closes.
type Codec interface {
	// Decode reads from the front of in, fills ev and returns how many bytes it
	// used. ev.Kind None means it needs more bytes than it left, or that the
	// response before is not encoded yet. It never keeps in: what it left comes
	// first in the next call's in, with newer bytes after it. The caller calls
	// again while it gets events and can take more. With an error ev is a Reset of
	// the stream that it concerns, where a server may answer.
	Decode(in []byte, ev *Event) (n int, err error)
	// EOF tells the codec that no more bytes will come, and asks for what that
	// means: End for a body that runs to the close, Reset (Truncated) inside a
	// message, None between messages.
	EOF(ev *Event) error
	// Encode appends ev's bytes to dst. A server encodes responses to streams it
	// decoded; a client encodes requests on streams from Open.
	Encode(dst []byte, ev *Event) ([]byte, error)
	// Open returns the next stream a client may start, false when it must wait
	// or use another connection.
	Open() (ID, bool)
	// Active counts streams that are not ended in both directions.
	Active() int
	// Reusable reports whether another stream may follow on this connection;
	// false once either side has said close or the framing was lost.
	Reusable() bool
	// Close makes the codec say on its next message that it is the last
	// (Connection: close, GOAWAY), and appends what can be said at once.
	Close(dst []byte) []byte
}

// ProtocolError is a fault of the peer with the status a server answers; to a
// backend's fault the answer is 502, whatever Status says.
type ProtocolError struct {
	Status int    // 400, 408, 413, 414, 417, 431, 501, 505
	What   string // fixed text, no peer bytes
	// Foreign says that the peer's first line names another protocol than HTTP: a
	// peer that has not spoken HTTP before would not understand an answer in it.
	Foreign bool
}

func (e *ProtocolError) Error() string { return e.What }

// Is reports whether the field's name equals lower, an ASCII name in lower case.
func (f Field) Is(lower string) bool {
	if len(f.Name) != len(lower) {
		return false
	}
	for i := 0; i < len(lower); i++ {
		c := f.Name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
