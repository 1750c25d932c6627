package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// mayTunnel reports whether a request to switch protocols is passed on. Only
// WebSocket is (RFC 6455, RFC 8441): h2c in particular would let requests by that
// nothing here has judged.
func mayTunnel(head *stream.Message) bool {
	return stream.Field{Name: head.Upgrade}.Is(protocolWebSocket) &&
		(string(head.Method) == "CONNECT" || head.Length == 0 && string(head.Method) == "GET")
}

// asksTunnel reports whether the request asks for a tunnel that is passed on.
func (r *request) asksTunnel() bool { return len(r.head.Upgrade) > 0 }

// owesNothing reports whether the request is for bytes either way, so that its client
// may be silent.
func (r *request) owesNothing() bool { return r.relays || r.asksTunnel() }

// tunnel makes two streams that became a tunnel carry bytes until both directions have
// ended or nothing came for too long. A connection that carries no other stream ends
// with it.
func (w *Worker) tunnel(r *request, a *attempt) {
	d := r.d
	now := w.Loop.Now()
	w.Counters.Tunnels.Add(1)
	w.Counters.TunnelsTotal.Add(1)
	r.took = time.Duration(now - r.start)
	w.Loop.Wheel.Clear(&r.timer)
	w.Loop.Wheel.Clear(&a.timer)
	if a.up != nil && a.up.mux == nil { // else it is the timer of the other streams, too
		w.Loop.Wheel.Clear(&a.up.timer)
	}
	if d != nil && d.conn.Closed() {
		return
	}
	if a.up != nil && a.up.mux == nil { // nobody else is asked to switch
		a.up.conn.HalfClosable()
	}
	if d == nil || d.many {
		r.moved = now
		w.Loop.Wheel.Set(&r.timer, now+int64(r.idle))
		return
	}
	d.socket = nil // nothing is routed any more, so no old routes are kept
	d.unpaid = 0
	d.pace.held = false
	d.conn.HalfClosable()
	d.await(tunnelling, r.idle)
	d.conn.Resume()
}

// carries notes that a tunnel has carried something, or was taken something from.
func (r *request) carries() {
	if r.x.Tunnel() {
		r.moved = r.w.Loop.Now()
	}
}

// endTunnel closes the backend's side: by a reset where the tunnel was cut, else
// once what the client sent is out.
func (u *up) endTunnel(ok bool) {
	switch {
	case !ok:
		u.w.pool.Remove(&u.idle)
		u.w.Loop.Wheel.Clear(&u.timer)
		u.conn.Reset()
	case u.conn.Unsent() == 0:
		u.close()
	default:
		u.closing = true
		u.w.Loop.Wheel.Set(&u.timer, u.w.Loop.Now()+int64(u.w.shared.Times.Stall))
		u.conn.Dirty()
	}
}
