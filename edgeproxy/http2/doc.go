// Package http2 is the HTTP/2 codec of both sides of the proxy (RFC 9113): a
// [stream.Codec] with many streams on a connection. It is pure: bytes in, events
// out, events in, bytes out; it knows no clock and allocates nothing in steady
// state.
//
// # What it says on its own
//
// Settings, acknowledgements, window updates, resets of streams that broke a rule
// and GOAWAY are no events. They gather in the codec: [Codec.Say] appends them,
// and every Encode puts them first. The caller asks after each run of Decode.
//
// # Flow control
//
// Towards the peer that sends, a Window event for Encode gives credit for a
// stream's bytes, and the connection's credit follows. Towards the peer that
// receives, [Codec.Sendable] says how much Data Encode takes on a stream now; a
// decoded Window event says that it may have grown, for all streams when
// Event.Stream is 0. The caller holds back the rest.
//
// # Strictness
//
// What RFC 9113 8 calls malformed is refused on its stream: uppercase or invalid
// names, values with controls or white space around them, fields of the
// connection, pseudo-fields that are unknown, repeated, missing or late, a Host
// that differs from :authority, content of another length than was said. So no
// request reaches an HTTP/1 backend that it could read in another way.
//
// # Tunnels
//
// CONNECT, plain or extended by :protocol (RFC 8441), makes a stream a tunnel once a
// response of 2xx agrees to it: then each direction carries Data and ends on its own,
// and neither has trailers. A client asks with Message.Upgrade, which the server has to
// have offered; [Codec.Extended] tells.
//
// # Attacks
//
// Each is a connection error ENHANCE_YOUR_CALM, counted without a clock: streams
// that the peer resets or has reset for its faults, less those that ended well
// (rapid reset, made-you-reset); frames that bring nothing (PING, SETTINGS,
// PRIORITY, WINDOW_UPDATE, empty DATA) between those that do; heads over the limit
// in decoded bytes or fields, however few bytes they came in; CONTINUATION frames.
package http2
