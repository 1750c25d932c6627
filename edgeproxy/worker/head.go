package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

var (
	nameRequestID    = []byte("x-request-id")
	nameForwardedFor = []byte("x-forwarded-for")
	nameProto        = []byte("x-forwarded-proto")
	valueHTTP        = []byte("http")
)

// inBand reports whether a field belongs to what Meridian's proxies tell each
// other, which neither clients may send nor backends see.
func inBand(f *stream.Field) bool {
	const prefix = "meridian"
	if len(f.Name) <= len(prefix) || f.Name[0]|0x20 != 'm' {
		return false
	}
	if c := f.Name[len(prefix)]; c != '-' && c != '_' { // CGI and its kin take one for the other
		return false
	}
	return stream.Field{Name: f.Name[:len(prefix)]}.Is(prefix)
}

// ingress keeps the fields of a client's request, with those of this hop: the
// client's address last in x-forwarded-for, the protocol it used, and a request
// id where it brought none.
func (w *Worker) ingress(r *request, head *stream.Message) {
	forwarded := -1
	id := false
	for i := range head.Fields {
		f := &head.Fields[i]
		switch len(f.Name) {
		case len("x-request-id"):
			id = id || f.Is("x-request-id")
		case len("x-forwarded-for"):
			if f.Is("x-forwarded-for") {
				if forwarded >= 0 { // one line from now on
					w.appendForwarded(r, forwarded, f.Value)
				} else {
					forwarded = len(r.fields)
					r.fields = append(r.fields, r.store.field(w, f))
				}
				continue
			}
		case len("x-forwarded-proto"):
			if f.Is("x-forwarded-proto") {
				continue
			}
		}
		if !inBand(f) {
			r.fields = append(r.fields, r.store.field(w, f))
		}
	}
	if !id {
		r.fields = append(r.fields, stream.Field{Name: nameRequestID, Value: w.requestID(r)})
	}
	peer := r.d.peer[:r.d.peerLen]
	if forwarded >= 0 {
		w.appendForwarded(r, forwarded, peer)
	} else {
		r.fields = append(r.fields, stream.Field{Name: nameForwardedFor, Value: r.store.copy(w, peer)})
	}
	r.fields = append(r.fields, stream.Field{Name: nameProto, Value: valueHTTP})
	r.head.Fields = r.fields
}

func (w *Worker) appendForwarded(r *request, i int, v []byte) {
	old := r.fields[i].Value
	b := r.store.grab(w, len(old)+2+len(v))
	n := copy(b, old)
	n += copy(b[n:], ", ")
	copy(b[n:], v)
	r.fields[i].Value = b
}

// inbound keeps the fields of another site's request and returns what the site
// said of it, borrowed.
func (w *Worker) inbound(r *request, head *stream.Message) (service, source []byte) {
	for i := range head.Fields {
		f := &head.Fields[i]
		switch {
		case !inBand(f):
			r.fields = append(r.fields, r.store.field(w, f))
		case f.Is(inband.HeaderService):
			service = f.Value
		case f.Is(inband.HeaderSource):
			source = f.Value
		}
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
