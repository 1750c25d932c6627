package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/grpcweb"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// web is what a request of gRPC-Web needs, which its backend gets as gRPC.
type web struct {
	on       bool
	textIn   bool // the request's body is base64
	textOut  bool // ... the response's is to be
	replying bool // the response is one of gRPC
	decoder  grpcweb.Decoder
	owed     int // quarters of octets whose credit the backend has not got back
}

// statusUnsupported is 415 (RFC 9110 15.5.16).
const statusUnsupported = 415

// fromWeb makes gRPC of a request of gRPC-Web that goes to a service which is spoken to in
// HTTP/2. Policies judge what comes of it. It reports false where that cannot be done.
func (w *Worker) fromWeb(r *request) bool {
	if !r.http2 || r.web.on || string(r.head.Method) != "POST" {
		return true
	}
	at := -1
	for i := range r.fields {
		if r.fields[i].Is("content-type") {
			at = i
			break
		}
	}
	if at < 0 {
		return true
	}
	is, text, suffix := grpcweb.Request(r.fields[at].Value)
	if !is {
		return true
	}
	if text && r.asking != nil { // what came of the body meanwhile was kept as it came
		r.none, r.local.status, r.log.details = exchange.ClientProtocol, statusUnsupported, "grpc_web_text_behind_external_function"
		return false
	}
	r.web = web{on: true, textIn: text, textOut: grpcweb.WantsText(value(r.fields, "accept"), text)}
	b := r.store.grab(w, len(r.fields[at].Value))
	r.fields[at].Value = grpcweb.AppendType(b[:0], suffix)
	r.head.Fields = r.fields
	r.head.TrailersOK = true
	if text {
		r.head.Length = stream.LengthUnknown
	}
	return true
}

// decoded is a piece of a request's body as the backend gets it, in memory of the loop.
// What base64 adds is given back to the client at once.
func (w *Worker) decoded(r *request, p []byte) ([]byte, bool) {
	if !r.web.textIn {
		return p, true
	}
	out, ok := r.web.decoder.Append(w.webText[:0], p)
	w.webText = out[:0]
	if !ok {
		w.brokenText(r)
		return nil, false
	}
	if n := len(p) - len(out); n > 0 {
		r.d.credit(r, n)
	}
	return out, true
}

// wholeText reports whether the body may end here.
func (w *Worker) wholeText(r *request) bool {
	if !r.web.textIn || r.web.decoder.Whole() {
		return true
	}
	w.brokenText(r)
	return false
}

func (w *Worker) brokenText(r *request) {
	r.log.details = "grpc_web_text_invalid"
	w.stop(r, exchange.ClientProtocol, 0)
}

// toWeb makes of w.msg, the head of a response, what a client of gRPC-Web gets. A response
// that is not gRPC stays as it is, as does an end that came with its head: browsers read
// fields.
func (w *Worker) toWeb(r *request) {
	fields := w.msg.Fields
	for i := range fields {
		if !fields[i].Is("content-type") {
			continue
		}
		kind, ok := grpcweb.AppendResponse(r.store.grab(w, len(fields[i].Value)+len("-web-text"))[:0], fields[i].Value, r.web.textOut)
		if !ok {
			return
		}
		kept := append(w.fields[:0], fields...)
		kept[i].Value = kind
		w.fields, w.msg.Fields = kept[:0], kept
		r.web.replying = true
		if !w.msg.NoBody {
			w.msg.Length = stream.LengthUnknown // the trailers come into it
		}
		return
	}
}

// encoded is a piece of a response's body as the client gets it, in memory of the loop.
func (w *Worker) encoded(r *request, p []byte) []byte {
	if !r.web.replying || !r.web.textOut {
		return p
	}
	out := grpcweb.AppendText(w.webText[:0], p)
	w.webText = out[:0]
	return out
}

// trailersFrame is the last piece of a response's body: its trailers.
func (w *Worker) trailersFrame(fields []stream.Field, text bool) []byte {
	kept := w.fields[:0]
	for i := range fields {
		if !inBand(&fields[i]) {
			kept = append(kept, fields[i])
		}
	}
	w.fields = kept[:0]
	out := grpcweb.AppendTrailers(w.webText[:0], kept)
	if text {
		n := len(out)
		out = grpcweb.AppendText(out, out[:n])
		w.webText = out[:0]
		return out[n:]
	}
	w.webText = out[:0]
	return out
}

// creditOf is how many of the backend's octets n of the client's stand for: base64 makes
// four of three.
func (r *request) creditOf(n int) int {
	if !r.web.replying || !r.web.textOut {
		return n
	}
	r.web.owed += 3 * n
	n = r.web.owed / 4
	r.web.owed %= 4
	return n
}
