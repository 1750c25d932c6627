// Package http1 is the HTTP/1.1 codec of both sides of the proxy (RFC 9110, RFC
// 9112): [Server] reads requests and writes responses, [Client] writes requests
// and reads responses. Both are a [stream.Codec] with one stream at a time, and
// pure: bytes in, events out, events in, bytes out.
//
// # Strictness
//
// A proxy and the server behind it must see the same messages in the same bytes,
// so wherever RFC 9112 lets a recipient choose between repairing and refusing,
// this codec refuses, towards clients and backends alike:
//
//   - lines end in CRLF; a bare LF or CR, a NUL or another control is refused,
//     and so are obs-fold, white space before the colon and empty names;
//   - Content-Length with Transfer-Encoding is refused, and so is a repeated
//     Content-Length even when the values agree: honest senders write one, and
//     two are how framing attacks start;
//   - Transfer-Encoding must be exactly "chunked", once, in HTTP/1.1;
//   - Host must be there exactly once (HTTP/1.1) and be a plain name or address
//     with an optional port; user information, sub-delimiters and percent-encoding
//     are refused because routes never contain them;
//   - a target holds visible ASCII without " # < >.
//
// What passes is decoded to [stream.Message] and written anew by the other side:
// no byte of framing is ever copied through. Encode in turn refuses fields that
// would break the framing (a control in a value, a framing field among Fields),
// so that no decoder of another protocol can smuggle through it.
//
// # Upgrade
//
// A request's Upgrade is reported in Message.Upgrade and not passed on; h2c is
// dropped. CONNECT is decoded; a 2xx answer to it, 101, and CONNECT as a client
// are refused by Encode and Decode.
//
// # Input
//
// Bytes that Decode left must come first in the next call's input, followed by
// newer ones: the codec remembers how far it searched them, so a head that comes
// byte by byte costs no more than one that comes whole. A head and a trailer
// section are decoded when they are complete, so the caller's buffer must be able
// to hold [Limits].Head bytes.
//
// # Memory
//
// The codecs of one loop may share what heads are parsed into: see [Scratch].
package http1
