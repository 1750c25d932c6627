package worker

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// protocolTLS is that of a connection whose handshake brought nothing else.
const protocolTLS = "TLS"

var valueHTTPS = []byte("https")

// greet waits for a request, or for a TLS handshake first.
func (d *down) greet() {
	switch {
	case d.socket.TLS == nil:
		d.await(resting, d.w.keepAlive())
	case d.socket.Permissive:
		d.peeks = true
		d.await(resting, d.w.shared.Times.Head)
	default:
		d.secure(d.socket.TLS)
	}
}

// handshakeRecord begins every TLS session (RFC 8446 5.1), and no request.
const handshakeRecord = 22

// peek finds out by the first byte whether a connection is TLS that need not be.
func (d *down) peek(in []byte) int {
	d.peeks = false
	if s := d.socket.TLS; s != nil && in[0] == handshakeRecord {
		d.secure(s)
		d.hello(in)
		return len(in)
	}
	d.await(resting, d.w.keepAlive())
	return d.Input(in)
}

// secure waits for a TLS handshake.
func (d *down) secure(s *tlsio.Server) {
	d.conn.Secure(tlsio.NewServer(&d.w.secure, &d.conn, d, s, d.w.shared.Handshakes))
	d.await(securing, d.w.shared.Times.Head)
}

// tls is the connection's session, nil of a plain one.
func (d *down) tls() *tlsio.Conn {
	t, _ := d.conn.Transport().(*tlsio.Conn)
	return t
}

// peer is who the client is by its certificate, nil where it showed none.
func (d *down) peer() *tlsio.Peer {
	if t := d.tls(); t != nil {
		return t.Peer()
	}
	return nil
}

// hello hands on what was read behind a PROXY header.
func (d *down) hello(in []byte) {
	if _, err := d.tls().Feed(in); err != nil {
		d.unsecured(tlsio.ReasonOf(err))
	}
}

// Secured goes on to the first request.
func (d *down) Secured(err error) {
	if err != nil {
		d.unsecured(tlsio.ReasonOf(err))
		return
	}
	if d.plain {
		d.relay()
		return
	}
	p := d.tls().Protocol()
	d.agreed, d.many = p != "", p == tlsio.HTTP2
	d.await(resting, d.w.keepAlive())
}

// unsecured ends a connection whose handshake brought no session. Where the client
// is there it gets to know why; one that has said nothing at all is not worth a word.
func (d *down) unsecured(why tlsio.Reason) {
	w := d.w
	if !d.tls().Heard() {
		d.phase = lingering
		d.lost()
		return
	}
	w.shared.Handshakes.Failed(tlsio.ServerSide, why)
	f := exchange.ClientProtocol
	switch why {
	case tlsio.TimedOut:
		f = exchange.ClientTimeout
	case tlsio.Gone:
		f = exchange.ClientDisconnected
	case tlsio.Busy:
		f = exchange.Overload
	}
	w.count(w.shared.Unrouted, 0, f, 0)
	w.logRefused(d, 0, f, "tls_"+why.String())
	d.phase = lingering
	if f == exchange.ClientProtocol {
		d.close(true)
	} else {
		d.lost()
	}
}

// ended hears that nothing more comes from a client in the middle of a handshake. What
// came before may say why: the handshake looks at it first.
func (d *down) ended(err error) {
	if !d.tls().Ended() {
		d.unsecured(tlsio.ReasonOf(err))
	}
}

// asksElse reports whether another socket, for the name that this client asked for,
// asks something else of clients than this one did.
func (d *down) asksElse(next *view.Socket) bool {
	t := d.tls()
	switch {
	case d.phase == securing:
		return false
	case t == nil:
		return next.TLS != nil && !next.Permissive
	case next.TLS == nil || d.socket.TLS == nil:
		return true
	}
	name := t.ServerName()
	return next.TLS.Policy(next.TLS.Pick(name)) != d.socket.TLS.Policy(d.socket.TLS.Pick(name))
}

// misdirected reports whether a request is for a host that another listener of the
// port would have served: what that one asks of its clients, nobody has asked here.
func (d *down) misdirected(host []byte) bool {
	s := d.socket.TLS
	if s == nil || !s.Several() {
		return false
	}
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	return s.Pick(string(host)) != s.Pick(d.tls().ServerName())
}

// scheme is how the client asked.
func (d *down) scheme() []byte {
	if d.conn.Secured() {
		return valueHTTPS
	}
	return valueHTTP
}

// secure begins the TLS handshake of a connection that was made. The bound of
// connecting goes on.
func (u *up) secure() {
	t := tlsio.NewClient(&u.w.secure, &u.conn, u, u.tls, u.w.shared.Handshakes)
	u.conn.Secure(t)
	if err := t.Start(); err != nil {
		u.unsecured(tlsio.ReasonOf(err))
	}
}

// Secured goes on to the first stream.
func (u *up) Secured(err error) {
	if err != nil {
		u.unsecured(tlsio.ReasonOf(err))
		return
	}
	if t, ok := u.conn.Transport().(*tlsio.Conn); u.mux != nil && (!ok || t.Protocol() != tlsio.HTTP2) {
		if u.tls.Falls() {
			u.falls()
			return
		}
		u.unsecured(tlsio.Nothing) // it speaks HTTP/1.1 only
		return
	}
	u.established()
}

// unsecured gives up on a connection whose handshake brought no session.
func (u *up) unsecured(why tlsio.Reason) {
	u.w.shared.Handshakes.Failed(tlsio.ClientSide, why)
	text := "upstream_tls_" + why.String()
	for a := u.attempts; a != nil; a = a.next {
		a.r.log.unsecured = text
	}
	u.abandon()
}

// securing reports whether a handshake is under way.
func (u *up) securing() bool { return u.dialing && u.conn.Secured() }

// client is what an attempt's connection needs for TLS, nil where it is plain.
func (a *attempt) client() *tlsio.Client {
	switch {
	case a.clients == nil:
		return nil
	case a.speaks.many:
		return a.clients.For(tlsio.HTTP2)
	}
	return a.clients.For(tlsio.HTTP1)
}

var (
	_ tlsio.Owner = (*down)(nil)
	_ tlsio.Owner = (*up)(nil)
)
