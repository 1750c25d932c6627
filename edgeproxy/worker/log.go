package worker

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tap"
)

const protocolTCP = "TCP"

// logged is what the access log needs of a request beyond what it is served with.
type logged struct {
	firstByte int64 // of the response on the loop's clock, 0 before
	sent      int64 // bytes of the response's body
	route     string
	details   string // overrides the flag's
	unsecured string // why the last TLS handshake with a backend failed
	declined  string // why there was no tunnel
	// As the client sent them: filters rewrite what is sent on.
	authority, path []byte
	response        [][]byte // values of the response's fields, kept
}

// answered notes the head of the response that goes to the client.
func (w *Worker) answered(r *request, fields []stream.Field) {
	r.log.firstByte = w.Loop.Now()
	if w.log != nil && w.log.Captures() {
		r.log.response = w.log.Capture(r.log.response[:0], fields, func(v []byte) []byte { return r.store.copy(w, v) })
	}
}

// logRequest hands the access log, and who else wants it, a request that is over.
func (w *Worker) logRequest(r *request, status int, f exchange.Flag, took time.Duration) {
	wanted := w.tap.Wants(status, f != exchange.OK, took)
	if w.log == nil && !wanted {
		return
	}
	e := &w.entry
	*e = accesslog.Entry{
		Start: r.start, Duration: w.Loop.Now() - r.start, FirstByte: -1,
		Status: status, Flag: f.String(), Attempts: r.tries, Received: r.received, Sent: r.log.sent,
		Client: r.d.from, Peer: r.d.from, Gateway: r.d.gateway(), Protocol: r.d.protocol().name,
		Details: cmp.Or(r.log.details, exchange.DetailsOf(f, r.log.firstByte > 0)),
		Method:  r.head.Method, Authority: r.log.authority, Path: r.log.path, Route: r.log.route,
		Request: r.head.Fields, Response: r.log.response,
	}
	if r.client.IsValid() && r.client != r.d.from.Addr().Unmap() {
		e.Client = netip.AddrPortFrom(r.client, 0) // its port is not known
	}
	if f == exchange.ConnectFailure && r.log.unsecured != "" {
		e.Details = r.log.unsecured
	}
	if f == exchange.UpstreamProtocol && r.log.declined != "" {
		e.Details = r.log.declined
	}
	if p := r.d.peer(); p != nil {
		e.Identity = p.URI
	}
	if r.d.plain { // as of a connection that is served here
		e.Status, e.Method, e.Request = 0, nil, nil
	} else if r.log.firstByte > 0 {
		e.FirstByte = r.log.firstByte - r.start
	}
	if r.service != nil {
		e.Service = string(r.service.Key)
	}
	if r.tries > 0 {
		if to := r.tried[r.tries-1]; to != nil {
			e.Upstream, e.Site = to.Addr, to.Site
		}
	}
	w.hand(e, wanted, f != exchange.OK || status >= 500 || took >= tap.Slow)
}

// hand gives an entry to the access log, and where somebody wants it to the tap.
func (w *Worker) hand(e *accesslog.Entry, wanted, failed bool) {
	if w.log != nil {
		w.log.Add(e)
	}
	if wanted {
		w.tap.Add(e, failed)
	}
}

// logRefused hands the access log a request whose head never came whole. what says
// more than the flag, or is empty.
func (w *Worker) logRefused(d *down, status int, f exchange.Flag, what string) {
	wanted := w.tap.Wants(status, f != exchange.OK, 0)
	if w.log == nil && !wanted {
		return
	}
	name := d.protocol().name
	if d.phase == securing {
		name = protocolTLS
	}
	w.entry = accesslog.Entry{
		Start: w.Loop.Now(), FirstByte: -1, Status: status, Flag: f.String(),
		Client: d.from, Peer: d.from, Gateway: d.gateway(), Protocol: name, Details: cmp.Or(what, f.Details()),
	}
	w.hand(&w.entry, wanted, f != exchange.OK)
}

// logStream hands the access log a connection that was passed on whole.
func (w *Worker) logStream(s *l4.Session, f exchange.Flag) {
	wanted := w.tap.Wants(0, f != exchange.OK, 0)
	if w.log == nil && !wanted {
		return
	}
	e := &w.entry
	*e = accesslog.Entry{
		Start: s.Born, Duration: w.Loop.Now() - s.Born, FirstByte: -1, Flag: f.String(), Attempts: s.Tries,
		Received: s.FromClient, Sent: s.FromBackend, Client: s.From, Peer: s.From, Protocol: protocolTCP, Route: s.Route, Details: cmp.Or(s.Details, exchange.DetailsOf(f, s.FromBackend > 0)),
	}
	if socket := w.state.Sockets[s.Owner.(*Listener)]; socket != nil {
		e.Gateway = socket.Gateway
	}
	if s.Service != nil {
		e.Service = string(s.Service.Key)
	}
	switch {
	case s.Endpoint != nil:
		e.Upstream = s.Endpoint.Addr
	case s.Direct:
		e.Upstream = s.Original
	}
	w.hand(e, wanted, f != exchange.OK)
}
