package worker

import (
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/loadheader"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// failureCost is what a failure counts as where latencies are compared: an
// endpoint that fails at once must not look like a fast one.
const failureCost = time.Second

var nameSetCookie = []byte("set-cookie")

// target picks where an attempt goes: at first where its session is, else as the
// gate says, and where there is none wherever the request has not been, home first.
func (w *Worker) target(r *request, a *attempt) exchange.Flag {
	if r.service == nil {
		return r.none
	}
	s := w.found
	if s == nil || s.Service != r.service {
		if s = w.state.View.Services[r.service.Key]; s == nil {
			return exchange.NoHealthy
		}
	}
	a.connect, a.silence, a.gate = s.Connect, s.Silence, s.Gate
	a.maxAge, a.maxRequests, a.timed, a.told, a.cookie, a.sendProxy = s.MaxAge, s.MaxRequests, s.Timed, s.Told, s.Cookie, s.SendProxy
	if i := r.preset; i != upstream.Home { // the gate has said so already
		r.preset = upstream.Home
		a.toRemote(s, i)
		return exchange.OK
	}
	if s.Cookie != nil && r.tries == 0 && w.session(r, a, s) {
		return exchange.OK
	}
	if s.Gate != nil && !r.stays() {
		return w.asTheGateSays(r, a, s)
	}
	if !r.stays() {
		if class := s.Class(r.head.Fields); s.Full(class, s.Busy()) {
			s.Sheds[class].N.Add(1)
			return exchange.Shed
		}
	}
	if w.home(r, a, s) {
		return exchange.OK
	}
	if r.stays() {
		return exchange.NoHealthy // never passed on again
	}
	for i := range s.Remotes {
		if e := s.Remotes[i].Endpoint; !r.wasAt(e) && !e.Meter.Spent() {
			a.toRemote(s, i)
			return exchange.OK
		}
	}
	return exchange.NoHealthy
}

func (w *Worker) asTheGateSays(r *request, a *attempt, s *view.Service) exchange.Flag {
	var tried upstream.Tried
	if r.tries > 0 {
		for i := range s.Remotes {
			if r.wasAt(s.Remotes[i].Endpoint) {
				tried = tried.With(i)
			}
		}
	}
	class := s.Class(r.head.Fields)
	for {
		switch i := s.Gate.Pick(class, w.Loop.Now(), s.Busy(), w.random(), tried); {
		case i >= 0 && i < len(s.Remotes):
			a.toRemote(s, i)
			return exchange.OK
		case i == upstream.Shed:
			s.Sheds[class].N.Add(1)
			return exchange.Shed
		case i != upstream.Home || tried.Has(upstream.Home):
			return exchange.NoHealthy
		case w.home(r, a, s):
			return exchange.OK
		}
		tried = tried.With(upstream.Home) // no endpoint here is left to try
	}
}

// wasAt reports whether the request was sent to the endpoint already.
func (r *request) wasAt(e *upstream.Endpoint) bool {
	return slices.Contains(r.tried[r.round:r.tries], e)
}

// home picks an endpoint of this site where the request was not yet.
func (w *Worker) home(r *request, a *attempt, s *view.Service) bool {
	w.tried = w.tried[:0]
	if r.tries > 0 {
		for i, e := range s.Home {
			if r.wasAt(e) {
				w.tried = append(w.tried, i)
			}
		}
	}
	draw, keyed := uint64(0), false
	if s.Keyed != nil {
		draw, keyed = key(r, s)
	}
	if !keyed {
		draw = w.random()
	}
	i, ok := w.choice.Pick(s, w.tried, draw, keyed, w.Loop.Now())
	if ok {
		a.toHome(s, i)
	}
	return ok
}

func (a *attempt) toHome(s *view.Service, i int) {
	a.endpoint, a.remote, a.slots, a.token, a.clients = s.Home[i], upstream.Home, s.Slots[i], s.IDs[i], s.TLS
	a.learns = s.Concurrency == 0
	if len(s.Mates) > 0 && s.Busy() >= s.Concurrency {
		a.slots = 0 // others have taken the machine's: this one waits, wherever
	}
}

func (a *attempt) toRemote(s *view.Service, i int) {
	a.endpoint, a.remote, a.slots, a.name, a.clients = s.Remotes[i].Endpoint, i, 0, s.Name, s.Remotes[i].TLS
}

// session goes where the request's cookie says, unless that is nowhere now.
func (w *Worker) session(r *request, a *attempt, s *view.Service) bool {
	for i := range r.head.Fields {
		f := &r.head.Fields[i]
		if !f.Is("cookie") {
			continue
		}
		token, ok := lb.ParseToken(lb.Cookie(f.Value, s.Cookie.Name))
		if !ok {
			continue
		}
		place, ok := s.Session(token)
		switch {
		case !ok:
		case place.Home != upstream.Home && s.Sticks(place.Home):
			r.token = token
			a.toHome(s, place.Home)
			return true
		case place.Home == upstream.Home && !r.stays() && !s.Remotes[place.Remote].Endpoint.Meter.Spent():
			a.toRemote(s, place.Remote)
			return true
		}
	}
	return false
}

// setCookie tells the client its session's new place in w.msg. Another site's proxy
// has done so for its own endpoints.
func (w *Worker) setCookie(r *request, a *attempt) {
	if a.cookie == nil || a.remote != upstream.Home || a.token == r.token {
		return
	}
	w.cookie = a.cookie.AppendTo(w.cookie[:0], a.token)
	w.fields = append(append(w.fields[:0], w.msg.Fields...), stream.Field{Name: nameSetCookie, Value: w.cookie})
	w.msg.Fields = w.fields
}

// key hashes what is to stay at one endpoint, false where the request has none.
func key(r *request, s *view.Service) (hash uint64, ok bool) {
	switch {
	case s.KeyBy == view.ByHeader && s.KeyHeader == "host":
		return lb.Hash(r.head.Authority), true
	case s.KeyBy == view.ByHeader:
		for i := range r.head.Fields {
			if r.head.Fields[i].Is(s.KeyHeader) {
				return lb.Hash(r.head.Fields[i].Value), true
			}
		}
		return 0, false
	case len(r.clientText) > 0:
		return lb.Hash(r.clientText), true
	case !r.stays():
		var text [maxAddress]byte
		return lb.Hash(r.d.from.Addr().AppendTo(text[:0])), true
	}
	// The proxy of the client's site has put the client's address last.
	for i := range r.head.Fields {
		if f := &r.head.Fields[i]; f.Is("x-forwarded-for") {
			from := len(f.Value)
			for from > 0 && f.Value[from-1] != ',' && f.Value[from-1] != ' ' {
				from--
			}
			return lb.Hash(f.Value[from:]), true
		}
	}
	return 0, false
}

// heard notes how an attempt was answered.
func (w *Worker) heard(a *attempt, head *stream.Message) {
	a.how, a.status = upstream.Answered, head.Status
	if a.asked {
		// What is open for hours is not outstanding for as long: three quiet tunnels
		// would make their site suspect, and take the room of those to come.
		a.asked = false
		a.gate.Done(a.remote, w.Loop.Now(), upstream.Answered)
	}
	if !a.timed && !a.told || a.remote != upstream.Home {
		return
	}
	now := w.Loop.Now()
	took, failed := max(now-a.sentAt, 1), head.Status >= 500
	if a.told {
		w.said(a, head.Fields, took, failed, now)
		return
	}
	if failed {
		took = max(took, int64(failureCost))
	}
	a.endpoint.Cells[w.id].Latency.Observe(took, now)
}

// said takes in what an endpoint says of its load with an answer that took so long.
func (w *Worker) said(a *attempt, fields []stream.Field, took int64, failed bool, now int64) {
	report, ok := loadheader.Report{}, false
	for i := range fields {
		switch f := &fields[i]; {
		case len(f.Name) == len(loadheader.Own) && f.Is(loadheader.Own):
			report, ok = loadheader.ParseOwn(f.Value)
		case !ok && len(f.Name) == len(loadheader.ORCA) && f.Is(loadheader.ORCA):
			report, ok = loadheader.ParseORCA(f.Value)
		}
	}
	slots, there := float64(max(a.slots, 1)), float64(lb.Unsaid)
	switch {
	case report.HasInFlight:
		there = report.InFlight
	case ok:
		there = report.Utilization * slots
	}
	a.r.service.Cells[w.id].Reported = ok || a.r.service.Cells[w.id].Reported
	switch {
	case failed:
		took = int64(failureCost)
	case report.Service > 0:
		took = int64(report.Service)
	case !ok:
		return // neither a report nor a failure: waiting cannot be told from work
	case report.HasInFlight && there >= slots:
		took = 0 // it does not say how fast it is, and this request may have waited
	}
	// This attempt is still counted as under way, but not by the endpoint.
	a.endpoint.Cells[w.id].Load.Heard(there, int(a.endpoint.InFlight.Load())-1, took, now)
}

// judged counts what an attempt that is over says of its endpoint at home.
func (w *Worker) judged(a *attempt) {
	c := &a.endpoint.Cells[w.id]
	switch a.how {
	case upstream.Answered:
		if a.status < 500 {
			c.Good.Add(1)
		} else {
			c.Bad.Add(1)
		}
	case upstream.Unreachable, upstream.Broken:
		c.Bad.Add(1)
		if a.timed {
			c.Latency.Observe(int64(failureCost), w.Loop.Now())
		}
		if a.told {
			c.Load.Heard(lb.Unsaid, 0, int64(failureCost), w.Loop.Now())
		}
	case upstream.Cancelled:
	}
}

// span is how long a connection may live and what it may carry; 0 is no bound.
type span struct {
	until    int64
	requests int
}

// spanOf varies bounds by a tenth up or down, so that connections which began
// together do not end together.
func (w *Worker) spanOf(age time.Duration, requests int) (s span) {
	vary := func(n int64) int64 { return n - n/10 + int64(w.random()%uint64(n/5+1)) }
	if age > 0 {
		s.until = w.Loop.Now() + vary(int64(age))
	}
	if requests > 0 {
		s.requests = int(max(vary(int64(requests)), 1))
	}
	return s
}

// over reports whether a connection that carried so many requests is at its end.
func (s span) over(now int64, carried int) bool {
	return s.until > 0 && now >= s.until || s.requests > 0 && carried >= s.requests
}
