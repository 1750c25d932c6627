package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
)

// serialSpell is how long a site's gateway that agreed on HTTP/1.1 is asked for nothing
// else. The first connection after it finds out whether it was replaced.
const serialSpell = time.Minute

// between is how a request goes to another site: by HTTP/2 on a connection that it shares,
// where that site's gateway takes it. In the clear nobody agrees on anything; every gateway
// of a mesh takes HTTP/2 at once (RFC 9113 3.3). A WebSocket whose client and backend both
// speak HTTP/1.1 goes by that all the way: the handshake is theirs.
func (w *Worker) between(r *request, a *attempt) *protocol {
	switch {
	case r.asksTunnel() && !r.extended && !r.http2, a.endpoint.Cells[w.id].SerialUntil > w.Loop.Now():
		return w.speaks.serial
	}
	return w.speaks.mux
}

// falls makes an HTTP/1.1 connection of one whose handshake agreed on nothing better. The
// first request that waits for it gets it; the others, and those to come, get their own.
// A whole connection has no way over HTTP/1.1.
func (u *up) falls() {
	w := u.w
	w.pool.Remove(&u.idle)
	u.speaks, u.mux = w.speaks.serial, nil
	u.codec, u.key.Protocol = u.speaks.client(), u.speaks.id
	u.key.Endpoint.Cells[w.id].SerialUntil = w.Loop.Now() + int64(serialSpell)
	first := u.attempts
	for first != nil && first.r.relays {
		first = first.next
	}
	if first != nil {
		first.speaks = u.speaks
	}
	for {
		a := u.attempts
		if a != nil && a == first {
			a = a.next
		}
		if a == nil {
			break
		}
		u.forget(a)
		a.up = nil
		if a.r.relays {
			w.shared.Handshakes.Failed(tlsio.ClientSide, tlsio.Nothing)
			a.r.log.unsecured = "upstream_tls_" + tlsio.Nothing.String()
			w.connectFailed(a)
			continue
		}
		a.speaks = u.speaks
		w.connect(a, false)
	}
	u.established()
}
