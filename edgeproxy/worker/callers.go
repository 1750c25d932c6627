package worker

import (
	"math"
	"net/netip"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// A caller's place and one has to fit into down.caller.
var _ [math.MaxUint16 - upstream.MaxCallers]struct{}

// flow is where what an attempt carries is counted; nil where another proxy has
// counted it (a request from another site) and for copies, which nobody asked for.
func (w *Worker) flow(r *request, e *upstream.Endpoint) *upstream.Flow {
	if r.stays() {
		return nil
	}
	return e.Cells[w.id].Flow(w.caller(r))
}

// caller is who sent a request: whom its certificate names, else whose address it
// came from. Behind a trusted proxy that is the address which that proxy tells.
func (w *Worker) caller(r *request) int {
	if r.client.IsValid() {
		return w.callerAt(r.client)
	}
	d := r.d
	if epoch := w.shared.Registry.CallerEpoch(); d.caller == 0 || d.callerEpoch != epoch {
		d.callerEpoch = epoch
		if p := d.peer(); p != nil && p.Account.Leaf() {
			d.caller = 1 + uint16(w.shared.Registry.Caller(mesh.Workload{Namespace: p.Account.Namespace, Name: p.Account.Account}))
		} else {
			d.caller = 1 + uint16(w.callerAt(d.from.Addr()))
		}
	}
	return int(d.caller) - 1
}

// callerAt is the place of the workload of an address.
func (w *Worker) callerAt(a netip.Addr) int { return w.state.View.Caller(a).Index() }

// countHead counts a head that goes to the backend, of which room was the bound.
func (a *attempt) countHead(room int) {
	if a.flow != nil {
		a.flow.Requests.Add(1)
		a.flow.RequestBytes.Add(uint64(room - headRoom - framing + startLine))
	}
}

// countReply counts a head that came from the backend.
func (a *attempt) countReply(head *stream.Message) {
	if a.flow != nil {
		a.flow.ResponseBytes.Add(uint64(roomForFields(head.Fields) - framing + startLine))
	}
}

// startLine is about what HTTP/1.1's first line and last empty line add to a head.
const startLine = 20
