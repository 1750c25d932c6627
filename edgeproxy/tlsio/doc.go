// Package tlsio is TLS below the codec, for connections of event loops: the
// standard library's crypto/tls, whose handshake runs on a goroutine of its own and
// whose established session the loop feeds.
//
// A [Conn] is the transport of one connection. While the handshake lasts, the loop
// puts what it reads into a mailbox and sends what the goroutine leaves there; the
// goroutine holds a token of the [Handshakes] whenever it computes and none while it
// waits for bytes, so that loops never wait behind handshakes. Afterwards there is
// no goroutine: the session reads from the bytes that the loop has at hand, is told
// by an error that calls itself temporary that there are no more, and writes to a
// queue that takes everything (its errors would be for good), so that whoever gives
// it plaintext is held back before it.
//
// [Store] reads certificates from files, follows their changes and makes of them
// what a listener ([Server]) or a service ([Client]) needs. Between proxies of one mesh
// ([Mesh]) the certificate is the proxy's identity, which its site's controller issues
// and renews, and peers are judged by theirs.
package tlsio
