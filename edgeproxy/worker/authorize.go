package worker

import (
	"bytes"
	"net/netip"

	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// admission is what policies have to know of the request that is being found a place for.
type admission struct {
	judged bool // policies have a say: it is not refused for its form
	begun  bool // the judge has it
	rule   *route.Rule
	port   int // of the service
}

// admitted is find, and what policies say of it, unless the request waits for an
// external function first.
func (w *Worker) admitted(r *request, head *stream.Message) (*view.Service, *route.Rule) {
	s, rule := w.find(r, head)
	if r.asking != nil {
		return nil, nil
	}
	return w.admit(r, s, rule)
}

// admit asks policies about a request that has passed its filters and functions: they
// judge what is sent on. Of what is answered here, or has no route, they judge what would
// be sent.
func (w *Worker) admit(r *request, s *view.Service, rule *route.Rule) (*view.Service, *route.Rule) {
	if s != nil && !w.fromWeb(r) {
		return nil, nil
	}
	if !w.admission.judged {
		return s, rule
	}
	socket := r.d.socket
	guard, own := (*authz.Set)(nil), (*authz.Set)(nil)
	if socket != nil {
		guard = socket.Guard(w.admission.rule)
	}
	if s != nil {
		own = s.Guard
	}
	if socket == nil {
		// Its listener went away while it waited: whose policies hold is not known any more.
		r.none, r.local, r.log.details = exchange.Denied, local{}, exchange.Denied.Details()
		return nil, nil
	}
	if len(socket.Guards) == 0 && guard == nil && own == nil {
		return s, rule
	}
	if d, denied := w.refused(r, socket.Guards, guard, own); denied {
		r.none, r.local, r.log.details = exchange.Denied, local{}, d.Details()
		return nil, nil
	}
	return s, rule
}

// refused asks all policies that concern a request and returns the first refusal.
func (w *Worker) refused(r *request, guards []*authz.Set, more ...*authz.Set) (authz.Decision, bool) {
	w.put(r)
	w.question.ServicePort = w.admission.port
	for _, list := range [...][]*authz.Set{guards, more} {
		for _, s := range list {
			if s == nil {
				continue
			}
			if d := w.judge.Judge(s); d.Denied {
				return d, true
			}
		}
	}
	return authz.Decision{}, false
}

// admitsCopy reports whether a mirror may have the request, which has been admitted.
func (w *Worker) admitsCopy(r *request, s *view.Service, port int) bool {
	if s.Guard == nil {
		return true
	}
	w.put(r)
	w.question.ServicePort = s.ServicePort(port)
	return !w.judge.Judge(s.Guard).Denied
}

// put puts a request before the judge, once.
func (w *Worker) put(r *request) {
	if w.admission.begun {
		return
	}
	w.admission.begun = true
	q := &w.question
	*q = authz.Request{
		Caller: w.whoAsks(r), Port: int(r.d.socket.Key.Port), HTTP: !r.relays,
		Method: r.head.Method, Host: r.head.Authority, Path: r.head.Path, Fields: r.head.Fields,
	}
	if i := bytes.IndexByte(q.Path, '?'); i >= 0 {
		q.Path = q.Path[:i]
	}
	w.judge.Loop = w.id
	w.judge.Begin(q)
}

// whoAsks is the caller. A proxy of the mesh, by its certificate, tells the address of its
// client and who that is; so does who a listener trusts. Nobody else is believed.
func (w *Worker) whoAsks(r *request) authz.Caller {
	c := authz.Caller{Address: r.d.from.Addr()}
	p := r.d.peer()
	member := p != nil && p.Mesh.Site != ""
	if member && !p.Mesh.Node() { // it speaks for itself alone
		c.Peer, c.Client, c.Site = p.Identity, p.Identity, p.Site
		return c
	}
	switch {
	case member:
		c.Peer, c.Site = p.Identity, p.Site
	case p != nil:
		c.Client = p.Identity
	}
	switch {
	case r.inbound && member:
		c.Address = clientOf(r)
	case !r.inbound && r.client.IsValid():
		c.Address = r.client
	}
	if member || p == nil { // else the certificate of the connection is the client's
		var ok bool
		if c.Client, ok = lastIdentity(r.vouched); !ok {
			c.Unclear = true
		}
	}
	// An identity of the own mesh is one only where its proxies have judged the chain of
	// certificates that leads to it.
	if domain := w.state.View.TrustDomain; domain != "" && inDomain(c.Client, domain) {
		c.Client, c.Unclear = nil, true
	}
	return c
}

func inDomain(id []byte, domain string) bool {
	const scheme = "spiffe://"
	if len(id) < len(scheme)+len(domain) || !bytes.EqualFold(id[:len(scheme)], []byte(scheme)) {
		return false
	}
	rest := id[len(scheme):]
	return bytes.EqualFold(rest[:len(domain)], []byte(domain)) && (len(rest) == len(domain) || rest[len(domain)] == '/')
}

// clientOf is the address of a client of another site, as its proxy says; invalid where
// that is none.
func clientOf(r *request) netip.Addr {
	text := r.clientText
	if len(text) == 0 {
		for i := range r.fields {
			if f := &r.fields[i]; f.Is("x-forwarded-for") {
				text = f.Value
			}
		}
		if i := bytes.LastIndexByte(text, ','); i >= 0 {
			text = text[i+1:]
		}
	}
	a, ok := view.ParseAddress(bytes.Trim(text, " \t"))
	if !ok {
		return netip.Addr{}
	}
	return a.Unmap()
}

// longElement is how long an element of X-Forwarded-Client-Cert may be: proxies cut
// what is longer, so that its end may be missing.
const longElement = 4 << 10

// lastIdentity is the first URI in the last element of an X-Forwarded-Client-Cert,
// empty where it has none; false where that cannot be told.
func lastIdentity(list []byte) (uri []byte, ok bool) {
	from, quoted := 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			from = i + 1
		}
	}
	element := bytes.Trim(list[from:], " \t")
	if quoted || len(element) >= longElement {
		return nil, false
	}
	for len(element) > 0 {
		end := 0
		for quoted = false; end < len(element) && (quoted || element[end] != ';'); end++ {
			switch c := element[end]; {
			case c == '\\' && quoted:
				end++
			case c == '"':
				quoted = !quoted
			}
		}
		end = min(end, len(element))
		name, v, _ := bytes.Cut(element[:end], equals)
		if bytes.EqualFold(bytes.Trim(name, " \t"), nameURI) {
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v, !bytes.ContainsAny(v, `"\`)
		}
		element = element[min(end+1, len(element)):]
	}
	return nil, true
}

var (
	equals  = []byte("=")
	nameURI = []byte("URI")
)

// admits asks the policies about a connection or session that is passed on whole, and
// says why it may not be; empty where it may. port is the service's as the route has it.
func (w *Worker) admits(from netip.Addr, socket *view.Socket, rule *route.Rule, s *view.Service, port int) string {
	return w.admitsCaller(authz.Caller{Address: from.Unmap()}, socket, rule, s, port)
}

func (w *Worker) admitsCaller(caller authz.Caller, socket *view.Socket, rule *route.Rule, s *view.Service, port int) string {
	guard := socket.Guard(rule)
	if len(socket.Guards) == 0 && guard == nil && s.Guard == nil {
		return ""
	}
	w.question = authz.Request{Caller: caller, Port: int(socket.Key.Port), ServicePort: s.ServicePort(port)}
	w.judge.Loop = w.id
	w.judge.Begin(&w.question)
	for _, set := range socket.Guards {
		if d := w.judge.Judge(set); d.Denied {
			return d.Details()
		}
	}
	for _, set := range [...]*authz.Set{guard, s.Guard} {
		if set == nil {
			continue
		}
		if d := w.judge.Judge(set); d.Denied {
			return d.Details()
		}
	}
	return ""
}

// packetPort is the port by which a route names a service, 0 where it names none.
func packetPort(rule *route.Rule, s *view.Service) int {
	for i := range rule.Backends {
		if rule.Backends[i].Service == s.Key {
			return rule.Backends[i].Port
		}
	}
	return 0
}
