package http2

import "github.com/meridian-mesh/meridian/edgeproxy/stream"

// Limits bound what one connection may hold. A zero member takes its value from
// [DefaultLimits].
type Limits struct {
	Head   int // decoded bytes of a head: names, values and four for each field
	Fields int // fields of a head or of trailers
	// Heads is what the heads of all open streams may take together, as Head counts: the
	// peer's compression makes many kilobytes of a few octets, and a peer that takes no
	// answer has them held. The stream beyond is refused, so that it may come again.
	Heads   int
	Streams int // open at one time, of those that the peer opens
	Window  int // bytes of a stream's body that may be on the way
	// ConnectionWindow is the same for all streams of a connection together.
	ConnectionWindow int
	Interim          int // informational responses before the final one
	// Resets is how many more streams may be reset than end well.
	Resets int
	// Idle is how many frames may come that bring nothing, more or less.
	Idle int
	// Extended has a server say that it takes extended CONNECT (RFC 8441). One that does
	// not say so finds :protocol malformed.
	Extended bool
}

// DefaultLimits are the limits in force unless configured otherwise.
var DefaultLimits = Limits{
	Head: 64 << 10, Fields: 100, Heads: 512 << 10, Streams: 100, Window: 64 << 10, ConnectionWindow: 256 << 10,
	Interim: 16, Resets: 100, Idle: 1000,
}

// Bounds that nobody needs to set.
const (
	maxFrame         = 16 << 10 // of what the peer sends (SETTINGS_MAX_FRAME_SIZE's least)
	maxContinuations = 64
	maxControl       = 32 << 10 // bytes of own frames that the caller has not fetched
	maxClosed        = 32       // ended streams that are remembered
	maxHost          = 261
	maxProtocol      = 32
	tableSize        = 4096
	// progress is how many idle frames one that brings something makes up for.
	progress = 64
)

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	d.Extended = l.Extended
	for _, m := range []struct{ from, to *int }{
		{&l.Head, &d.Head}, {&l.Fields, &d.Fields}, {&l.Heads, &d.Heads}, {&l.Streams, &d.Streams}, {&l.Window, &d.Window},
		{&l.ConnectionWindow, &d.ConnectionWindow}, {&l.Interim, &d.Interim}, {&l.Resets, &d.Resets}, {&l.Idle, &d.Idle},
	} {
		if *m.from > 0 {
			*m.to = *m.from
		}
	}
	return d
}

// code is an error code (RFC 9113 7).
type code uint32

const (
	noError code = iota
	protocolError
	internalError
	flowControlError
	settingsTimeout
	streamClosed
	frameSizeError
	refusedStream
	cancel
	compressionError
	connectError
	enhanceYourCalm
)

// fault is a connection error.
type fault struct {
	stream.ProtocolError
	code code
}

func connectionFault(c code, what string) *fault {
	return &fault{stream.ProtocolError{Status: 400, What: what}, c}
}

func (f *fault) Unwrap() error { return &f.ProtocolError }

// Connection errors. A server answers none of them: GOAWAY says the code.
var (
	errPreface       = connectionFault(protocolError, "not HTTP/2")
	errFirst         = connectionFault(protocolError, "the first frame is not SETTINGS")
	errFrameSize     = connectionFault(frameSizeError, "frame of a wrong size")
	errFrameStream   = connectionFault(protocolError, "frame on a wrong stream")
	errPadding       = connectionFault(protocolError, "more padding than frame")
	errIdle          = connectionFault(protocolError, "frame on an idle stream")
	errClosed        = connectionFault(streamClosed, "frame on a closed stream")
	errOrder         = connectionFault(protocolError, "stream identifiers go down")
	errContinuation  = connectionFault(protocolError, "header block not continued")
	errSettings      = connectionFault(protocolError, "invalid setting")
	errWindowSetting = connectionFault(flowControlError, "initial window out of range")
	errIncrement     = connectionFault(protocolError, "window update of nothing")
	errOverflow      = connectionFault(flowControlError, "window too large")
	errOverrun       = connectionFault(flowControlError, "data beyond the connection's window")
	errCompression   = connectionFault(compressionError, "invalid header block")
	errPush          = connectionFault(protocolError, "push was not asked for")
	errHeadLong      = connectionFault(enhanceYourCalm, "head too long")
	errFieldCount    = connectionFault(enhanceYourCalm, "too many fields")
	errResets        = connectionFault(enhanceYourCalm, "too many streams reset")
	errIdleFrames    = connectionFault(enhanceYourCalm, "too many frames that bring nothing")
	errControl       = connectionFault(enhanceYourCalm, "answers not read")
)

// Misuse of Encode by its caller; the connection must be closed.
type encodeError string

func (e encodeError) Error() string { return "http2: " + string(e) }

const (
	errStream   encodeError = "event for a stream that is not open for it"
	errSequence encodeError = "event out of order"
	errWindow   encodeError = "more data than the window"
	errTooMuch  encodeError = "more body than the head's length"
	errTooFew   encodeError = "less body than the head's length"
	errBadField encodeError = "field that cannot be written"
	errBadHead  encodeError = "head that cannot be written"
)

var codes = [...]code{
	stream.ReasonNone: noError, stream.Refused: refusedStream, stream.Cancelled: cancel, stream.Malformed: protocolError,
	stream.TooLarge: enhanceYourCalm, stream.Internal: internalError, stream.Truncated: internalError,
}

func reasonOf(c code) stream.Reason {
	switch c {
	case refusedStream:
		return stream.Refused
	case noError, cancel:
		return stream.Cancelled
	case protocolError, frameSizeError, flowControlError, streamClosed, compressionError:
		return stream.Malformed
	case enhanceYourCalm:
		return stream.TooLarge
	}
	return stream.Internal
}
