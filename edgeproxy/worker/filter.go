package worker

import (
	"cmp"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

var (
	nameContentType = []byte("content-type")
	nameLocation    = []byte("location")
)

// local is the answer of a filter.
type local struct {
	kind     localKind
	status   int
	location []byte
}

type localKind uint8

const (
	sentOn localKind = iota // no filter answers
	redirected
	direct
	preflight
	chained // answered by a function of a chain
)

// localDetails are the reasons of answers in the access log.
var localDetails = [...]string{redirected: "redirect", direct: "direct_response", preflight: "cors_preflight", chained: "chain_answered"}

// filter applies a rule's filters: it notes the answer where the proxy gives it
// itself, else it changes what is sent on, and says which.
func (w *Worker) filter(r *request, f *route.Filters, q *route.Request) (on bool) {
	r.filters = f
	if f.Invalid != "" {
		r.log.details = "filter_invalid"
		return false
	}
	if len(f.Chains) > 0 {
		if !w.chains(r, f.Chains, r.log.route) {
			return false
		}
		q.Fields = r.fields
	}
	return w.filterOn(r, f, q)
}

// filterOn is filter behind the rule's chains.
func (w *Worker) filterOn(r *request, f *route.Filters, q *route.Request) (on bool) {
	if f.CORS != nil {
		origin := value(r.fields, "origin")
		if origin != nil && f.CORS.Allows(origin) {
			r.origin = origin
		}
		if origin != nil && string(q.Method) == "OPTIONS" && value(r.fields, "access-control-request-method") != nil {
			r.local = local{kind: preflight, status: 204}
			if r.origin == nil {
				r.local.status = 403
			}
		}
	}
	switch {
	case r.local.kind == preflight:
	case f.Redirect != nil:
		w.url = f.Redirect.AppendLocation(w.url[:0], string(r.d.scheme()), r.d.socket.Routes.Port, q)
		r.local = local{kind: redirected, status: f.Redirect.Status, location: r.store.copy(w, w.url)}
	case f.Direct != nil:
		r.local = local{kind: direct, status: f.Direct.Status}
	}
	if r.local.kind != sentOn {
		r.none, r.log.details = exchange.OK, localDetails[r.local.kind]
		return false
	}
	for i := range f.Request {
		r.fields = f.Request[i].Apply(r.fields[:0], r.fields)
	}
	r.head.Fields = r.fields
	if f.Host != nil {
		r.head.Authority = f.Host
	}
	if f.Path != nil {
		w.url = f.Path.Append(w.url[:0], q.Path)
		if len(q.Query) > 0 {
			w.url = append(append(w.url, '?'), q.Query...)
		}
		r.head.Path = r.store.copy(w, w.url)
	}
	return true
}

// value returns the first value of a field, nil when it is not there.
func value(fields []stream.Field, lower string) []byte {
	for i := range fields {
		if fields[i].Is(lower) {
			return fields[i].Value
		}
	}
	return nil
}

// edited returns a response's fields as the request's filters leave them, in
// memory of the loop.
func (w *Worker) edited(r *request, status int, fields []stream.Field) []stream.Field {
	if f := r.filters; f != nil {
		if f.CORS != nil {
			fields = f.CORS.Apply(w.fields[:0], fields, r.origin)
			w.fields = fields[:0]
		}
		for i := range f.Response {
			fields = f.Response[i].Apply(w.fields[:0], fields)
			w.fields = fields[:0]
		}
	}
	if r.runs > 0 {
		fields = w.chainsBack(r, status, fields)
	}
	return fields
}

// replyLocal answers a request here.
func (w *Worker) replyLocal(r *request, act *exchange.Action) {
	f := r.filters
	if w.endsCall(r, act) {
		return
	}
	if f == nil && r.runs == 0 {
		r.d.reply(r.stream, act.Status, act.Flag)
		return
	}
	status, fields := act.Status, w.fields[:0]
	contentType, body := textPlain, []byte(nil)
	kind := r.local.kind
	if act.Flag != r.none {
		kind = sentOn // something else ended it first
	}
	switch kind {
	case redirected:
		fields = append(fields, stream.Field{Name: nameLocation, Value: r.local.location})
	case preflight:
		if r.origin != nil {
			fields = f.CORS.AppendPreflight(fields, value(r.fields, "access-control-request-method"), value(r.fields, "access-control-request-headers"))
		}
	case direct:
		contentType, body = f.Direct.ContentType, f.Direct.Body
	case chained:
		fields = append(fields, w.passing.Answer.Fields...)
		body = w.passing.Answer.Body
		if value(fields, "content-type") != nil {
			contentType = nil
		}
	default:
		body = localBodies[act.Flag]
		if page := f.Page(status); page != nil {
			contentType, body = page.ContentType, page.Body
			status = cmp.Or(page.Status, status)
		}
	}
	if len(body) > 0 && contentType != nil {
		fields = append(fields, stream.Field{Name: nameContentType, Value: contentType})
	}
	w.fields = fields[:0]
	r.d.respond(r.stream, status, w.edited(r, status, fields), body)
}
