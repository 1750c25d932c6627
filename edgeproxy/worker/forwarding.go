package worker

import (
	"bytes"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

var (
	nameForwardedFor   = []byte("x-forwarded-for")
	nameForwardedProto = []byte("x-forwarded-proto")
	nameForwardedHost  = []byte("x-forwarded-host")
	nameForwardedPort  = []byte("x-forwarded-port")
	nameForwarded      = []byte("forwarded")
	nameVia            = []byte("via")
	nameForwardedCert  = []byte("x-forwarded-client-cert")
	valueHTTP          = []byte("http")
)

// maxAddress is as long as an address without a zone can be as text; neither a
// socket's nor a balancer's has one.
const maxAddress = 39

// maxVisits is how often a request may have been here: chains of proxies of one
// name are no loop, longer ones than this are.
const maxVisits = 8

// ways are the fields that tell of a request's way, one bit each.
type ways uint8

const (
	wayProto ways = 1 << iota
	wayHost
	wayPort
	wayForwarded
)

// wayOf tells the fields that only a trusted peer may set; 0 is none of them.
func wayOf(f *stream.Field) ways {
	switch len(f.Name) {
	case len("forwarded"):
		if f.Is("forwarded") {
			return wayForwarded
		}
	case len("x-forwarded-host"): // and -port
		if f.Is("x-forwarded-host") {
			return wayHost
		}
		if f.Is("x-forwarded-port") {
			return wayPort
		}
	case len("x-forwarded-proto"):
		if f.Is("x-forwarded-proto") {
			return wayProto
		}
	}
	return 0
}

// ingress keeps the fields of a client's request and adds those of this hop: the
// client's address last in x-forwarded-for, how it asked, Via, and a request id
// where it brought none. It runs after the codec took out what is hop-by-hop or
// nominated by Connection, so that a client can remove none of them. It reports
// false for a request that goes round in a loop.
func (w *Worker) ingress(r *request, head *stream.Message) bool {
	way := &r.d.socket.Forwarding
	trusted := way.Trusts(r.d.from.Addr())
	addresses, certificates := -1, -1
	id := false
	var told ways
	visits := 0
	for i := range head.Fields {
		f := &head.Fields[i]
		if is := wayOf(f); is != 0 {
			if told |= is; !trusted {
				continue
			}
		}
		switch len(f.Name) {
		case len("via"):
			if f.Is("via") {
				visits += visitsIn(f.Value, way.Pseudonym)
			}
		case len("x-request-id"):
			id = id || f.Is("x-request-id")
		case len("x-forwarded-client-cert"):
			if f.Is("x-forwarded-client-cert") {
				if trusted {
					certificates = w.appendElement(r, certificates, nameForwardedCert, f.Value)
				}
				continue
			}
		case len("x-forwarded-for"):
			if f.Is("x-forwarded-for") {
				if addresses >= 0 { // one line from now on
					w.appendForwarded(r, addresses, f.Value)
				} else {
					addresses = len(r.fields)
					r.fields = append(r.fields, r.store.field(w, f))
				}
				continue
			}
		}
		if !inBand(f) {
			r.fields = append(r.fields, r.store.field(w, f))
		}
	}
	if !trusted {
		told = 0
	}
	if !id {
		r.add(nameRequestID, w.requestID(r))
	}
	var text [maxAddress]byte
	peer := r.d.from.Addr().AppendTo(text[:0])
	if way.FindsClients(r.d.from.Addr()) {
		w.findClient(r, way, addresses)
	}
	if addresses >= 0 {
		w.appendForwarded(r, addresses, peer)
	} else {
		r.add(nameForwardedFor, r.store.copy(w, peer))
	}
	if certificates >= 0 { // of who is trusted
		r.vouched = r.fields[certificates].Value
	}
	if p := r.d.peer(); p != nil {
		w.appendElement(r, certificates, nameForwardedCert, p.Forwarded)
	}
	if told&wayProto == 0 {
		r.add(nameForwardedProto, r.d.scheme())
	}
	if told&wayHost == 0 && len(r.head.Authority) > 0 {
		r.add(nameForwardedHost, r.head.Authority)
	}
	if told&wayPort == 0 {
		r.add(nameForwardedPort, r.d.listener.Port)
	}
	if way.Forwarded {
		r.add(nameForwarded, w.forwarded(r, peer))
	}
	via := way.Via
	if r.d.many {
		via = way.Via2
	}
	r.add(nameVia, via)
	r.head.Fields = r.fields
	return visits < maxVisits
}

// findClient notes whom a trusted peer speaks for, by X-Forwarded-For, which is
// field number addresses unless that is negative, else by Forwarded.
func (w *Worker) findClient(r *request, way *view.Forwarding, addresses int) {
	peer := r.d.from.Addr()
	if addresses >= 0 {
		r.client = way.Client(peer, r.fields[addresses].Value, false)
	} else {
		r.client = way.Client(peer, value(r.fields, "forwarded"), true)
	}
	var text [48]byte
	r.clientText = r.store.copy(w, r.client.AppendTo(text[:0]))
}

func (r *request) add(name, value []byte) {
	r.fields = append(r.fields, stream.Field{Name: name, Value: value})
}

// appendElement appends to the list in field number i, or adds the field where i is
// negative, and returns its number.
func (w *Worker) appendElement(r *request, i int, name, v []byte) int {
	if i >= 0 {
		w.appendForwarded(r, i, v)
		return i
	}
	r.add(name, r.store.copy(w, v))
	return len(r.fields) - 1
}

func (w *Worker) appendForwarded(r *request, i int, v []byte) {
	old := r.fields[i].Value
	b := r.store.grab(w, len(old)+2+len(v))
	n := copy(b, old)
	n += copy(b[n:], ", ")
	copy(b[n:], v)
	r.fields[i].Value = b
}

// forwarded is this hop's element of Forwarded (RFC 7239 4). An IPv6 address, and
// a host that may have a port, have to be quoted.
func (w *Worker) forwarded(r *request, peer []byte) []byte {
	const longest = len(`for="[]";host="";proto=https`)
	b := r.store.grab(w, longest+len(peer)+len(r.head.Authority))[:0]
	if bytes.IndexByte(peer, ':') >= 0 {
		b = append(append(append(b, `for="[`...), peer...), `]"`...)
	} else {
		b = append(append(b, "for="...), peer...)
	}
	if len(r.head.Authority) > 0 {
		b = append(append(append(b, `;host="`...), r.head.Authority...), '"')
	}
	return append(append(b, ";proto="...), r.d.scheme()...)
}

// visitsIn counts the members of a Via that name the pseudonym (RFC 9110 7.6.3).
func visitsIn(via, pseudonym []byte) int {
	n := 0
	for len(via) > 0 {
		member := via
		if i := bytes.IndexByte(via, ','); i >= 0 {
			member, via = via[:i], via[i+1:]
		} else {
			via = nil
		}
		member = bytes.Trim(member, " \t")
		i := bytes.IndexByte(member, ' ')
		if i < 0 {
			continue
		}
		name := bytes.TrimLeft(member[i:], " \t")
		if i := bytes.IndexAny(name, " \t"); i >= 0 {
			name = name[:i]
		}
		if bytes.EqualFold(name, pseudonym) {
			n++
		}
	}
	return n
}
