package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// mayTunnel reports whether a request to switch protocols is passed on. Only
// WebSocket is (RFC 6455): h2c in particular would let requests by that nothing
// here has judged.
func mayTunnel(head *stream.Message) bool {
	return head.Length == 0 && string(head.Method) == "GET" && stream.Field{Name: head.Upgrade}.Is("websocket")
}

// tunnel makes two connections whose streams became a tunnel carry bytes until
// both directions have ended or nothing came for too long.
func (w *Worker) tunnel(r *request, a *attempt) {
	d := r.d
	now := w.Loop.Now()
	w.Counters.Tunnels.Add(1)
	w.Counters.TunnelsTotal.Add(1)
	r.took = time.Duration(now - r.start)
	w.Loop.Wheel.Clear(&r.timer)
	w.Loop.Wheel.Clear(&a.timer)
	w.Loop.Wheel.Clear(&a.up.timer)
	if d.conn.Closed() {
		return
	}
	d.socket = nil // nothing is routed any more, so no old routes are kept
	if !d.many {   // as is the backend's: nobody else is asked to switch
		d.unpaid = 0
		d.pace.held = false
		a.up.conn.HalfClosable()
		d.conn.HalfClosable()
	}
	d.await(tunnelling, r.idle)
	d.conn.Resume()
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
