package worker

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/capsule"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// request is what an exchange's decisions are carried out on: the client's stream,
// the attempts, and the bytes that were kept. It holds handles and no view, so
// that a long exchange keeps no old view alive.
type request struct {
	x      exchange.Exchange
	w      *Worker
	d      *down
	stream stream.ID
	next   *request // of the connection, or free
	life   uint32   // counts the requests this memory has served
	log    logged

	service *upstream.Service // nil where none was found
	none    exchange.Flag     // why none was found
	inbound bool              // from another site: served at home or not at all
	http2   bool              // the service's port speaks it
	// extended says that the client asked by extended CONNECT: it takes any success for a tunnel.
	extended bool
	idle     time.Duration // bounds a tunnel's silence
	took     time.Duration // until a tunnel was there
	web      web           // of gRPC-Web
	demand   bool          // of this site's own users
	bodyMax  time.Duration // bounds one attempt
	start    int64
	timer    loop.Timer

	head     stream.Message // kept in store
	fields   []stream.Field // of head; has room for two more
	trailers []stream.Field
	store    store

	received int64 // of the body
	piece    []byte
	kept     loop.List
	keptFrom int64

	reply         int64 // received of the response's body
	replyPiece    []byte
	replyKept     loop.List
	replyKeptFrom int64
	replyHead     *stream.Message
	replyTrailers []stream.Field
	out           sending
	in            intake // of the request's body
	continued     bool   // the client was told to send the body
	over          bool   // the exchange is, while out waits for the client's window
	moved         int64  // when a piece of the body came last; of a tunnel, of either side

	// client is who is behind a trusted peer, else invalid; clientText is its text.
	client     netip.Addr
	clientText []byte
	// vouched is what who is trusted said of certificates, as X-Forwarded-Client-Cert.
	vouched []byte

	filters *route.Filters // nil for none
	// ran are the chains that it passed, as far as it did.
	ran  [route.MaxChains]ran
	runs int
	// asking is the external function that it waits for, nil for none; of what such a
	// function is asked, of is the request.
	asking *asking
	asks   bool
	origin []byte // allowed to read the response (CORS), nil when not
	local  local
	// copies are this request's mirrors that are not over; of a copy, of is the
	// request while that is not over, and d is nil.
	copies, of, sibling *request

	source int    // of an inbound request
	from   []byte // its name, as the other site says it
	probe  bool   // another site asks for the loads of this one
	// relays says that it is a whole connection: of a client here that another site
	// serves, or of another site's that is served here. port is the service's, preset
	// where the first attempt goes, counted that the service counts it among those that
	// are open, holds the listener that counts it, behind the client of another site.
	relays   bool
	counted  bool
	udp      bool              // ... of datagrams, in capsules
	session  *datagram.Session // whose client it is of; d is nil then
	capsules capsule.Reader    // of what the client's site, or the other one, sends
	preset   int
	port     int
	holds    *Listener
	behind   netip.AddrPort
	retry    *route.Retry // nil for none
	tried    [maxTries]*upstream.Endpoint
	tries    int
	round    int    // where in tried those begin that are not asked again
	token    uint64 // of the session that it brought and stays in
	attempts [exchange.MaxAttempts]attempt
}

// requestFields is how many fields a request has room for at first.
const requestFields = 32

// store keeps copies of borrowed bytes until the request is over.
type store struct{ list loop.List }

func (s *store) grab(w *Worker, n int) []byte {
	b := s.list.Room(&w.Loop.Slabs, n)
	if b == nil {
		return make([]byte, n) // longer than a slab
	}
	s.list.Commit(n)
	return b[:n:n]
}

func (s *store) copy(w *Worker, p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	b := s.grab(w, len(p))
	copy(b, p)
	return b
}

func (s *store) field(w *Worker, f *stream.Field) stream.Field {
	n := len(f.Name)
	b := s.grab(w, n+len(f.Value))
	copy(b, f.Name)
	copy(b[n:], f.Value)
	return stream.Field{Name: b[:n:n], Value: b[n:]}
}

func (s *store) fields(w *Worker, dst, from []stream.Field) []stream.Field {
	for i := range from {
		dst = append(dst, s.field(w, &from[i]))
	}
	return dst
}

// trailers copies those that are not the proxies' own, which stand in heads only.
func (s *store) trailers(w *Worker, dst, from []stream.Field) []stream.Field {
	for i := range from {
		if !inBand(&from[i]) {
			dst = append(dst, s.field(w, &from[i]))
		}
	}
	return dst
}

func (w *Worker) newRequest(d *down, id stream.ID) *request {
	r := w.freeReq
	if r == nil {
		r = &request{w: w, fields: make([]stream.Field, 0, requestFields)}
		w.Loop.Spend(requestBytes)
		r.timer.Owner = r
		for i := range r.attempts {
			r.attempts[i].r = r
			r.attempts[i].timer.Owner = &r.attempts[i]
		}
	} else {
		w.freeReq = r.next
	}
	r.d, r.stream, r.preset = d, id, upstream.Home
	list := &w.copies
	if d != nil {
		list = &d.requests
	}
	r.next = *list
	*list = r
	r.start = w.Loop.Now()
	r.moved = r.start
	return r
}

func (w *Worker) freeRequest(r *request) {
	s := &w.Loop.Slabs
	w.Loop.Wheel.Clear(&r.timer)
	r.store.list.Free(s)
	if r.asking != nil {
		w.forgetAsking(r.asking)
		r.asking = nil
	}
	w.Loop.Reserve(-r.kept.Len() - r.replyKept.Len())
	r.kept.Free(s)
	r.replyKept.Free(s)
	r.out.drop(s)
	w.narrow(&r.in)
	r.d, r.service, r.none, r.bodyMax = nil, nil, exchange.OK, 0
	r.inbound, r.demand, r.continued, r.over, r.http2, r.extended = false, false, false, false, false, false
	r.log = logged{response: r.log.response[:0]}
	r.head = stream.Message{}
	r.fields, r.trailers, r.replyTrailers = r.fields[:0], r.trailers[:0], r.replyTrailers[:0]
	r.received, r.keptFrom, r.reply, r.replyKeptFrom = 0, 0, 0, 0
	clear(r.tried[:r.tries])
	r.source, r.from, r.probe, r.tries, r.round, r.token = 0, nil, false, 0, 0, 0
	r.client, r.clientText, r.vouched = netip.Addr{}, nil, nil
	r.retry, r.filters, r.origin, r.local = nil, nil, nil, local{}
	clear(r.ran[:r.runs])
	r.runs, r.asks, r.web = 0, false, web{}
	r.udp, r.session = false, nil
	r.relays, r.counted, r.preset, r.port, r.holds, r.behind = false, false, upstream.Home, 0, nil, netip.AddrPort{}
	for i := range r.attempts {
		r.attempts[i].endpoint, r.attempts[i].gate, r.attempts[i].flow = nil, nil, nil
	}
	r.life++
	r.next = w.freeReq
	w.freeReq = r
}

// begin starts the exchange of a request whose head is borrowed.
func (w *Worker) begin(d *down, id stream.ID, head *stream.Message) {
	r := w.newRequest(d, id)
	cfg := exchange.Config{
		Idempotent:   idempotent(head.Method),
		MaxReplay:    maxReplay,
		ClientCredit: w.shared.Watermark,
	}
	var limit time.Duration
	var found *view.Service
	if w.full() {
		w.shared.Memory.Requests.Add(1)
		r.none, r.log.details = exchange.Overload, "memory_limit"
	} else if s, rule := w.admitted(r, head); s != nil && r.relays && !w.takes(r, s) {
		r.none = exchange.Overload
	} else if s != nil {
		found, limit = s, w.goesTo(r, s, rule, &cfg)
	}
	if r.asksTunnel() {
		cfg.Tunnel, cfg.Idempotent = true, true // whichever method asked for it
	}
	if d.carried++; d.span.over(r.start, int(d.carried)) {
		_ = d.codec.Close(nil)
	}
	w.budget.Request(r.start)
	r.x.Begin(cfg)
	if r.filters != nil && r.service != nil && !r.asksTunnel() { // a tunnel has no copy
		w.mirror(r, limit)
	}
	w.found = found
	life := r.life
	// The end that a client of HTTP/2 says is one of its direction, also with its head.
	more := head.Length != 0 || r.relays
	w.step(r, &exchange.Event{Kind: exchange.Request, More: more})
	w.found = nil
	if r.asking != nil && r.life == life {
		w.ask(r)
	}
}

// goesTo notes the service of a request, with what its rule, nil for none, says of it,
// and returns the limit of its time, 0 for none.
func (w *Worker) goesTo(r *request, s *view.Service, rule *route.Rule, cfg *exchange.Config) time.Duration {
	r.service = s.Service
	cfg.Retries = s.Retries
	limit := s.Request
	if r.idle = s.Idle; r.udp {
		r.idle = s.PacketIdle
	}
	if rule != nil {
		r.bodyMax = rule.BackendRequest
		limit = cmp.Or(rule.Request, limit)
		w.retries(r, rule, cfg)
	}
	if r.inbound {
		s.Cells[w.id].From[r.source].Add(1)
	} else {
		s.Cells[w.id].Demand.Add(1)
	}
	if limit > 0 {
		w.Loop.Wheel.Set(&r.timer, r.start+int64(limit))
	}
	return limit
}

// statusMisdirected is 421 (RFC 9110 15.5.20): a client that asks again on a
// connection of its own for this host may be served.
const statusMisdirected = 421

// maxTries is how many attempts of a request are remembered.
const maxTries = 16

// retries allows what a rule says of retries. Where its backend breaks connections
// to the last, the answer is one that the Gateway API's conformance tests take.
func (w *Worker) retries(r *request, rule *route.Rule, cfg *exchange.Config) {
	if rule.Retry == nil {
		return
	}
	r.retry, cfg.Lost, cfg.CountStale = rule.Retry, 503, true
	if rule.Retry.Attempts >= 0 {
		cfg.Retries = rule.Retry.Attempts
	}
}

// again reports whether a response of the status is dropped for another attempt,
// which the budget then has paid for.
func (w *Worker) again(r *request, a *attempt, status int) bool {
	return r.retry != nil && r.retry.On(status) && r.x.MayRetry(a.ref) && w.budget.Retry(w.Loop.Now())
}

// find says which service is meant, keeps the head, and normalises what is
// judged: what is matched here is what is sent on.
func (w *Worker) find(r *request, head *stream.Message) (*view.Service, *route.Rule) {
	v := w.state.View
	w.admission = admission{}
	if r.d.many && r.d.socket.EastWest() && string(head.Method) == "CONNECT" &&
		(len(head.Upgrade) == 0 || string(head.Upgrade) == string(tunnelUDP)) {
		return w.connectFrom(r, head), nil
	}
	target, path, ok := route.Normalize(head.Path, w.path[:0])
	if !ok {
		r.none, r.log.details = exchange.ClientProtocol, "path_invalid"
		r.head.Method = r.store.copy(w, head.Method)
		r.log.authority, r.log.path = r.store.copy(w, head.Authority), r.store.copy(w, head.Path)
		for i := range head.Fields { // by which it can be found again
			if f := &head.Fields[i]; len(f.Name) == len(nameRequestID) && f.Is("x-request-id") {
				r.fields = append(r.fields, r.store.field(w, f))
			}
		}
		r.head.Fields = r.fields
		return nil, nil
	}
	if len(head.Path) > 0 && &target[0] != &head.Path[0] {
		w.path = target[:0]
	}
	r.inbound = r.d.socket.EastWest()
	r.head = stream.Message{
		Method: r.store.copy(w, head.Method), Authority: r.store.copy(w, head.Authority), Path: r.store.copy(w, target),
		Length: head.Length, Expect100: head.Expect100, TrailersOK: head.TrailersOK,
	}
	r.log.authority, r.log.path = r.head.Authority, r.head.Path
	if !w.switching(r, head) {
		return nil, nil
	}
	if r.inbound {
		service, source := w.inbound(r, head)
		s := v.Named(service)
		r.source, r.from = v.Sites[string(source)], r.store.copy(w, source)
		if r.probe = string(path) == LoadPath && !r.extended; r.probe {
			s = nil // it is for the site
		}
		if w.inTheClear(r, s, 0) {
			r.probe = false
			return nil, nil
		}
		if r.probe {
			r.none = exchange.OK
			return nil, nil
		}
		if s == nil {
			r.none = exchange.NoRoute
		} else {
			r.http2 = s.HTTP2(0)
			w.admission.port = s.ServicePort(0)
		}
		w.admission.judged = true
		return s, nil
	}
	if !w.ingress(r, head) {
		r.none = exchange.Loop
		return nil, nil
	}
	if r.d.misdirected(head.Authority) {
		r.none, r.local.status, r.log.details = exchange.NoRoute, statusMisdirected, "misdirected_request"
		return nil, nil
	}
	w.admission.judged = true
	q := w.queried(r, len(path))
	if classes := r.d.socket.Classes; classes != nil {
		if class, ok := classes.Match(q); ok && !w.chains(r, class.Filters.Chains, "") {
			return nil, nil
		}
		q.Fields = r.fields
	}
	return w.routed(r, q)
}

// queried makes what is matched of a request, whose target begins with a path of n bytes.
func (w *Worker) queried(r *request, n int) *route.Request {
	q := &w.query
	target := r.head.Path
	q.Host, q.Method, q.Path, q.Query, q.Fields = r.head.Authority, r.head.Method, target[:n:n], nil, r.fields
	if len(target) > n {
		q.Query = target[n+1:]
	}
	return q
}

// routed finds the rule and the service of a request that is of this site's own users.
func (w *Worker) routed(r *request, q *route.Request) (*view.Service, *route.Rule) {
	rule, ok := r.d.socket.Routes.Match(q)
	if !ok {
		r.none = exchange.NoRoute
		return nil, nil
	}
	r.log.route, w.admission.rule = rule.Key, rule
	backend := rule.Pick(w.random())
	filters := rule.Filters
	if backend != nil {
		filters = backend.Filters
	}
	r.none = exchange.NoCluster
	if filters != nil && !w.filter(r, filters, q) {
		if r.asking != nil {
			r.asking.rule, r.asking.backend = rule, backend
		}
		return nil, nil
	}
	return w.backend(r, rule, backend)
}

// backend finds the service of a rule's backend.
func (w *Worker) backend(r *request, rule *route.Rule, backend *route.Backend) (*view.Service, *route.Rule) {
	r.none = exchange.NoCluster
	switch {
	case backend == nil:
		r.log.details = "route_has_no_backend"
		return nil, nil
	case backend.Invalid != "":
		r.log.details = "backend_reference_invalid"
		return nil, nil
	}
	s := w.state.View.Backend(backend)
	if s == nil {
		return nil, nil
	}
	r.http2 = s.HTTP2(backend.Port)
	w.admission.port = s.ServicePort(backend.Port)
	return s, rule
}

// stays reports whether the request is served at this site or not at all.
func (r *request) stays() bool {
	return r.inbound || r.d == nil && !r.relays || r.relays && r.d != nil && len(r.head.Authority) == 0
}

// idempotent reports whether a request of the method may be sent twice (RFC 9110 9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// Expire ends a request that took longer than its route allows, or a tunnel that has
// carried nothing for too long.
func (r *request) Expire(_ *loop.Timer, now int64) {
	switch left := r.moved + int64(r.idle) - now; {
	case !r.x.Tunnel():
		r.w.stop(r, exchange.UpstreamTimeout, 0)
	case r.session != nil: // which times itself, and ends this
		r.w.Loop.Wheel.Set(&r.timer, now+int64(r.idle))
	case left > 0:
		r.w.Loop.Wheel.Set(&r.timer, now+left)
	default:
		r.w.stop(r, exchange.IdleTimeout, 0)
	}
}

// stop ends a request for a reason of the proxy's own.
func (w *Worker) stop(r *request, f exchange.Flag, status int) {
	w.step(r, &exchange.Event{Kind: exchange.Stop, Flag: f, Status: status})
}

// step feeds an event to a request's exchange and carries out what follows.
// It may be called while it runs: the inner actions come first, in the place of
// the action that caused them.
func (w *Worker) step(r *request, ev *exchange.Event) {
	from, life := len(w.actions), r.life
	w.actions = r.x.Step(ev, w.actions)
	for i, end := from, len(w.actions); i < end && r.life == life; i++ {
		act := w.actions[i]
		w.do(r, &act)
	}
	w.actions = w.actions[:from]
}

func (w *Worker) do(r *request, act *exchange.Action) {
	switch act.Kind {
	case exchange.Start:
		w.start(r, act)
	case exchange.SendHead, exchange.SendData, exchange.SendEnd, exchange.CreditBackend:
		if a := &r.attempts[act.Ref.Slot]; a.ref == act.Ref && (a.up != nil || a.packets != nil) {
			w.toBackend(r, a, act)
		}
	case exchange.Release:
		w.release(&r.attempts[act.Ref.Slot], act.OK)
	case exchange.Keep:
		if r.kept.Len() == 0 {
			r.keptFrom = act.From
		}
		r.kept.Append(&w.Loop.Slabs, r.piece[act.From-(r.received-int64(len(r.piece))):][:act.N])
		w.Loop.Reserve(act.N) // for another attempt
	case exchange.Forget:
		n := min(int(act.From-r.keptFrom), r.kept.Len())
		r.kept.Drop(&w.Loop.Slabs, n)
		w.Loop.Reserve(-n)
		r.keptFrom += int64(n)
	case exchange.CreditClient:
		if r.d != nil {
			r.d.credit(r, act.N)
		}
	case exchange.KeepReply:
		if r.replyKept.Len() == 0 {
			r.replyKeptFrom = act.From
		}
		r.replyKept.Append(&w.Loop.Slabs, r.replyPiece[act.From-(r.reply-int64(len(r.replyPiece))):][:act.N])
		w.Loop.Reserve(act.N)
	case exchange.ForgetReply:
		n := min(int(act.From-r.replyKeptFrom), r.replyKept.Len())
		r.replyKept.Drop(&w.Loop.Slabs, n)
		w.Loop.Reserve(-n)
		r.replyKeptFrom += int64(n)
	case exchange.Finish:
		w.finish(r, act)
	default:
		if r.d != nil {
			w.toClient(r, act)
		} else if r.relays {
			w.toSession(r, act)
		} else if r.asks && r.of != nil {
			w.told(r, act)
		}
	}
}

// finish closes the books of a request.
func (w *Worker) finish(r *request, act *exchange.Action) {
	s := r.service
	if s == nil {
		s = w.shared.Unrouted
	}
	took := time.Duration(w.Loop.Now() - r.start)
	if r.x.Tunnel() {
		w.Counters.Tunnels.Add(-1)
		took = r.took
	}
	if r.relays && r.d == nil { // the session counts itself
		w.left(r)
	} else if r.relays {
		w.countSession(r, act.Flag)
	} else {
		w.count(s, act.Status, act.Flag, took)
	}
	w.endCopies(r)
	if r.d != nil {
		w.logRequest(r, act.Status, act.Flag, took)
		if r.out.waits() {
			w.Loop.Wheel.Clear(&r.timer)
			r.over = true
			return
		}
		r.d.finished(r)
	} else if of := r.of; r.asks && of != nil {
		w.forgetCopy(r)
		w.freeRequest(r)
		w.settle(of)
		return
	} else {
		w.forgetCopy(r)
	}
	w.freeRequest(r)
}

func (w *Worker) count(s *upstream.Service, status int, f exchange.Flag, took time.Duration) {
	c := &s.Cells[w.id]
	c.Outcomes[min(status/100, upstream.Classes-1)][f].Add(1)
	c.Latency[upstream.Bucket(took)].Add(1)
	c.LatencyNS.Add(uint64(took))
}
