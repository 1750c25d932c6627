package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// wait puts an attempt among those that wait for the connection.
func (u *up) wait(a *attempt) {
	a.up, a.stream = u, 0
	a.next, u.attempts = u.attempts, a
	u.carried++
}

// keeps reports whether a dial goes on when the attempt that asked for it is over, for
// whoever comes before it is done. Else each stream of a client that opens and resets
// them (rapid reset) would cost the backend a connection.
func (u *up) keeps() bool { return u.mux == nil && u.tls == nil && !u.speaks.bytes }

// abandon fails all who wait for a connection that does not come about.
func (u *up) abandon() {
	u.close()
	for u.attempts != nil {
		a := u.attempts
		u.forget(a)
		a.up = nil
		u.w.connectFailed(a)
	}
}

func (w *Worker) connectFailed(a *attempt) {
	w.Counters.ConnectFailures.Add(1)
	a.endpoint.Cells[w.id].ConnectFailures.Add(1)
	a.how = upstream.Unreachable
	w.failed(a, exchange.ConnectFailure)
}
