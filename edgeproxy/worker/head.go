package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/loadheader"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

var nameRequestID = []byte("x-request-id")

// inBand reports whether a field belongs to what Meridian's proxies tell each
// other, which neither clients may send nor backends see, or to what endpoints say
// of their load, which is no client's business.
func inBand(f *stream.Field) bool {
	const prefix = "meridian"
	if len(f.Name) == len(loadheader.ORCA) && f.Is(loadheader.ORCA) {
		return true
	}
	if len(f.Name) <= len(prefix) || f.Name[0]|0x20 != 'm' {
		return false
	}
	if c := f.Name[len(prefix)]; c != '-' && c != '_' { // CGI and its kin take one for the other
		return false
	}
	return stream.Field{Name: f.Name[:len(prefix)]}.Is(prefix)
}

// inbound keeps the fields of another site's request and returns what the site
// said of it, borrowed.
func (w *Worker) inbound(r *request, head *stream.Message) (service, source []byte) {
	peer := r.d.peer()
	// A node speaks for those behind it, a workload for nobody.
	vouches := peer != nil && peer.Mesh.Node()
	certificates := -1
	for i := range head.Fields {
		f := &head.Fields[i]
		switch {
		case len(f.Name) == len(nameForwardedCert) && f.Is("x-forwarded-client-cert"):
			if vouches { // who is nobody vouches for nobody
				certificates = w.appendElement(r, certificates, nameForwardedCert, f.Value)
			}
		case !inBand(f):
			r.fields = append(r.fields, r.store.field(w, f))
		case f.Is(inband.HeaderService):
			service = f.Value
		case f.Is(inband.HeaderSource):
			source = f.Value
		case f.Is(inband.HeaderClient):
			if peer == nil || vouches {
				r.clientText = r.store.copy(w, f.Value)
			}
		}
	}
	if peer != nil {
		if certificates >= 0 {
			r.vouched = r.fields[certificates].Value
		}
		w.appendElement(r, certificates, nameForwardedCert, peer.Forwarded)
		source = peer.Site // whatever it says of itself
	}
	r.head.Fields = r.fields
	return service, source
}

const hexDigits = "0123456789abcdef"

// requestID makes 32 hex digits.
func (w *Worker) requestID(r *request) []byte {
	b := r.store.grab(w, 32)
	for i := 0; i < 32; i += 16 {
		n := w.random()
		for k := range 16 {
			b[i+k] = hexDigits[n&15]
			n >>= 4
		}
	}
	return b
}
