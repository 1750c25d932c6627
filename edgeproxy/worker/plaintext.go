package worker

import (
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// detailsPlaintext is why a request of another site is refused that came without TLS.
const detailsPlaintext = "mtls_required"

// inTheClear counts a request that another site sent without TLS to a listener that has
// it, and reports whether it is refused: what holds is only known with the service, which
// comes after the connection. port is the service's, 0 where it is not said.
func (w *Worker) inTheClear(r *request, s *view.Service, port int) bool {
	if r.d.socket.TLS == nil || r.d.tls() != nil {
		return false
	}
	to, refused := w.shared.Unrouted, w.state.View.PeerMode.MTLS == mesh.MTLSStrict
	if s != nil {
		to, refused = s.Service, s.Strict(s.ServicePort(port))
	}
	if !refused {
		to.Cells[w.id].Plain.Add(1)
		return false
	}
	to.Cells[w.id].PlainRefused.Add(1)
	r.none, r.log.details = exchange.Denied, detailsPlaintext
	return true
}
