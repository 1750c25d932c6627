package edgeproxy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/fence"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// Explain says where a request would go now, and why, by the tables, gates and
// health that the loops use. It sends nothing and changes nothing. The error says
// what of the query is wrong, or that nothing is served yet.
func (s *Server) Explain(q *mesh.ExplainQuery) (*mesh.Explanation, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	st := s.state.Load()
	s.mu.Lock()
	snap := s.snap
	s.mu.Unlock()
	if st == nil || snap == nil {
		return nil, errors.New("nothing is served yet: there is no configuration in force")
	}
	x := explainer{s: s, v: st.View, snap: snap, now: s.Now(), refused: "503"}
	out := &mesh.Explanation{Site: string(st.View.Site), Generation: st.View.Generation}
	if c, ok := s.deps.Sharing.(*Cooperation); ok {
		x.coop, out.Node = c, c.Node
	}
	if q.Service != "" {
		svc := st.View.Services[q.Service]
		if svc == nil {
			out.Answer = fmt.Sprintf("404: there is no service %s here", q.Service)
			return out, nil
		}
		b := mesh.ExplainedBackend{Service: q.Service, Chance: 1}
		x.handedIn(&b, svc)
		out.Backends = append(out.Backends, b)
		return out, nil
	}
	if q.Protocol != "" {
		return out, x.stream(out, q)
	}
	err := x.route(out, q)
	return out, err
}

// explainer is one question.
type explainer struct {
	s    *Server
	coop *Cooperation // nil where nothing is shared
	v    *view.View
	snap *mesh.Snapshot
	now  int64
	// fields are those of the request.
	fields []stream.Field
	// refused is what becomes of a request that is not served.
	refused string
}

// route finds the listener and the rule.
func (x *explainer) route(out *mesh.Explanation, q *mesh.ExplainQuery) error {
	target, path, ok := route.Normalize([]byte(q.Path), nil)
	if !ok {
		out.Answer = "400: the path is invalid"
		return nil
	}
	out.Path = string(target)
	request := route.Request{Host: []byte(q.Host), Method: []byte(q.Method), Path: path}
	if len(target) > len(path) {
		request.Query = target[len(path)+1:]
	}
	for _, h := range q.Headers {
		name, value, _ := strings.Cut(h, ":")
		request.Fields = append(request.Fields, stream.Field{Name: []byte(strings.ToLower(strings.TrimSpace(name))), Value: []byte(strings.TrimSpace(value))})
	}
	x.fields = request.Fields
	var names []string
	for _, socket := range x.v.Sockets {
		if socket.Routes == nil || socket.EastWest() {
			continue
		}
		for _, l := range socket.Listeners {
			name := socket.Gateway + "/" + l
			names = append(names, name)
			if q.Listener != "" && q.Listener != name || out.Rule != "" {
				continue
			}
			if rule, ok := socket.Routes.Match(&request); ok {
				if socket.Classes != nil {
					if class, ok := socket.Classes.Match(&request); ok {
						out.Chains = chainsOf(class.Filters)
					}
				}
				out.Listener = name
				x.rule(out, rule)
			}
		}
	}
	switch {
	case len(names) == 0:
		return errors.New("no listener for HTTP is served here")
	case q.Listener != "" && !slices.Contains(names, q.Listener):
		return fmt.Errorf("there is no listener %s for HTTP here; there are: %s", q.Listener, strings.Join(names, ", "))
	case out.Rule == "":
		out.Answer = "404: no rule of the listeners asked (" + strings.Join(names, ", ") + ") matches host, path, method and headers"
	}
	return nil
}

func (x *explainer) rule(out *mesh.Explanation, r *route.Rule) {
	out.Rule = r.Key
	total := 0
	for i := range r.Backends {
		total += r.Backends[i].Weight
	}
	if total == 0 {
		if out.Answer = answered(r.Filters); out.Answer == "" {
			out.Answer = "500: the rule has no backend with a weight"
		}
		return
	}
	for i := range r.Backends {
		b := &r.Backends[i]
		e := mesh.ExplainedBackend{Service: b.Service, Port: b.Port, Chance: float64(b.Weight) / float64(total), Sites: []mesh.ExplainedSite{}, Chains: chainsOf(b.Filters)}
		svc := x.v.Backend(b)
		switch {
		case answered(b.Filters) != "":
			e.Invalid = "answered here: " + answered(b.Filters)
		case b.Invalid != "":
			e.Invalid = "500: " + b.Invalid
		case svc == nil:
			e.Invalid = "500: there is no such service or port here"
		default:
			y := *x
			if b.Filters != nil {
				for k := range b.Filters.Request {
					y.fields = b.Filters.Request[k].Apply(nil, y.fields)
				}
			}
			y.backend(&e, svc)
		}
		out.Backends = append(out.Backends, e)
	}
}

// chainsOf describes the chains of filters: their functions in order.
func chainsOf(f *route.Filters) (out []string) {
	if f == nil {
		return nil
	}
	for _, c := range f.Chains {
		text := c.Key + ": "
		for i := range c.Hops {
			if i > 0 {
				text += ", "
			}
			text += c.Hops[i].Name
		}
		switch {
		case c.Broken != "" && c.Open:
			text = c.Key + " is left out: " + c.Broken
		case c.Broken != "":
			text = c.Key + " refuses requests (503): " + c.Broken
		}
		out = append(out, text)
	}
	if f.Onward.Key != "" {
		out = append(out, fmt.Sprintf("%s, of packets: its connections carry DSCP %d", f.Onward.Key, f.Onward.CodePoint))
	}
	return out
}

// answered is the answer of filters that let no request through, else empty.
func answered(f *route.Filters) string {
	switch {
	case f == nil:
	case f.Invalid != "":
		return "500: " + f.Invalid
	case f.Redirect != nil:
		return fmt.Sprintf("%d: the rule redirects", f.Redirect.Status)
	case f.Direct != nil:
		return fmt.Sprintf("%d: the rule answers itself", f.Direct.Status)
	}
	return ""
}

// backend lists sites and endpoints for a request of the site's own users.
func (x *explainer) backend(e *mesh.ExplainedBackend, svc *view.Service) {
	e.Policies = mesh.PolicyOrigins(&x.snap.Objects, svc.Key)
	x.peers(e, svc)
	serves := x.endpoints(e, svc)
	defer x.fenced(e, svc)
	if class := svc.Class(x.fields); class > 0 {
		e.Priority = svc.Priorities[class-1].Name
	}
	if svc.Gate == nil || x.coop == nil {
		e.Sharing = "not shared"
		home := mesh.ExplainedSite{Site: string(x.v.Site), Home: true, Chance: 1, InFlight: svc.Busy(), Why: "the service is not shared with other sites"}
		if class := svc.Class(x.fields); svc.Full(class, home.InFlight) {
			home.Chance, home.Why = 0, fmt.Sprintf("%d in flight here: from %d on it is refused (%s)", home.InFlight, svc.FullAt(class), x.refused)
		}
		if !serves {
			home.Chance, home.Why = 0, cmp.Or(svc.Fenced, "no endpoint here can serve")+" ("+x.refused+")"
		}
		e.Sites = append(e.Sites, home)
		return
	}
	x.coop.explain(e, svc, svc.Class(x.fields), serves, x.now)
}

// fenced lists the sites that have the service and lie outside of its fences, where
// no plan speaks of them.
func (x *explainer) fenced(e *mesh.ExplainedBackend, svc *view.Service) {
	fences := fence.Compile(&x.snap.Objects)
	for _, m := range x.snap.Objects.Services {
		if m.Key() != svc.Key {
			continue
		}
		for _, p := range m.Spec.Endpoints {
			known := p.Site == "" || slices.ContainsFunc(e.Sites, func(s mesh.ExplainedSite) bool { return s.Site == p.Site })
			if why := fences.Bars(svc.Key, p.Site); !known && why != "" {
				e.Sites = append(e.Sites, mesh.ExplainedSite{Site: p.Site, Why: why})
			}
		}
	}
}

// handedIn lists the endpoints for a request that another site hands in: it is
// served here or not at all.
func (x *explainer) handedIn(e *mesh.ExplainedBackend, svc *view.Service) {
	e.Policies = mesh.PolicyOrigins(&x.snap.Objects, svc.Key)
	x.peers(e, svc)
	home := mesh.ExplainedSite{Site: string(x.v.Site), Home: true, Chance: 1, InFlight: svc.Busy(), Why: "handed in by another site: served here, never passed on"}
	if !x.endpoints(e, svc) {
		home.Chance, home.Why = 0, "handed in by another site, but "+cmp.Or(svc.Fenced, "no endpoint here can serve")
	}
	e.Sites = append(e.Sites, home)
}

// peers says what requests of other sites need.
func (x *explainer) peers(e *mesh.ExplainedBackend, svc *view.Service) {
	if x.v.TrustDomain == "" {
		return
	}
	for _, port := range slices.Sorted(maps.Keys(svc.Peers)) {
		e.Peers = append(e.Peers, mesh.ExplainedPeer{Port: port, PeerMode: svc.Peers[port]})
	}
}

// endpoints lists those of this site, and reports whether one can serve.
func (x *explainer) endpoints(e *mesh.ExplainedBackend, svc *view.Service) (serves bool) {
	var spec *mesh.MeshService
	for _, m := range x.snap.Objects.Services {
		if m.Key() == svc.Key {
			spec = m
		}
	}
	e.Balancing = mesh.EffectivePolicy(&x.snap.Objects, svc.Key).LoadBalancing.Algorithm
	switch {
	case svc.Cookie != nil:
		e.Balancing += ", sessions by cookie " + svc.Cookie.Name + " stay where they began"
	case svc.Keyed != nil:
		e.Balancing += ", by the hash of " + map[view.Key]string{view.BySource: "the client's address", view.ByHeader: "header " + svc.KeyHeader}[svc.KeyBy]
	}
	for i, h := range svc.Home {
		state := endpoint(h)
		state.judge(h, svc.Panic.Load(), x.now)
		ep := mesh.ExplainedEndpoint{
			Address: state.Address, Host: svc.Hosts[i], Weight: weightOf(spec, h.Addr, svc.Hosts[i]), InFlight: state.InFlight, Health: state.Health,
		}
		switch {
		case ep.Weight == 0:
			ep.Why = "its weight is 0"
		case state.Health == Ejected:
			ep.Why = fmt.Sprintf("ejected: %s, back in %.1f s", state.Why, state.BackIn.Seconds())
		case state.Health == Panicking:
			ep.May, ep.Why = true, "ejected ("+state.Why+"), but too few endpoints are healthy to look at that"
		case state.Health == Warming:
			ep.May, ep.Why = true, fmt.Sprintf("warming up: it takes %.0f %% of its share", 100*state.Share)
		default:
			ep.May, ep.Why = true, fmt.Sprintf("healthy, %d in flight", ep.InFlight)
		}
		serves = serves || ep.May
		e.Endpoints = append(e.Endpoints, ep)
	}
	return serves
}

// weightOf is the weight of the endpoint that an address belongs to.
func weightOf(spec *mesh.MeshService, addr netip.AddrPort, host string) int {
	if spec == nil {
		return 1
	}
	for i := range spec.Spec.Endpoints {
		e := &spec.Spec.Endpoints[i]
		name, _, _ := strings.Cut(e.Address, ":")
		if e.Address != addr.String() && (host == "" || name != host && e.Address != host) {
			continue
		}
		if e.Weight != nil {
			return max(0, *e.Weight)
		}
		return 1
	}
	return 1
}

// explain lists the sites as the gate in force sees them.
func (c *Cooperation) explain(e *mesh.ExplainedBackend, svc *view.Service, class int, serves bool, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is, ok := c.last[svc.Key]
	if !ok {
		e.Source, e.Off = "none", "nothing is planned yet"
		e.Sites = append(e.Sites, mesh.ExplainedSite{Site: c.Site, Home: true, Chance: 1, Why: "nothing is planned yet: at home"})
		return
	}
	w := &is.share.Weights
	if w.Sessions {
		e.Unit = mesh.UnitSessions
	}
	inFlight := svc.Busy()
	e.Sharing, e.Source, e.Off = is.share.Gate.Policy(), is.share.Source, w.Off
	asked := inFlight
	if !serves {
		asked = share.NoHome
	}
	for i, p := range is.share.Gate.Explain(now, class, asked, w.HomePriceMS) {
		site := mesh.ExplainedSite{Site: p.Site, Chance: p.Chance, CostMS: p.PriceMS, Why: p.Why}
		if i == 0 {
			site.Site, site.Home, site.InFlight = c.Site, true, inFlight
			site.Why = cmp.Or(svc.Fenced, site.Why)
		} else {
			r := &w.Remotes[i-1]
			site.RTTMS, site.AgeMS = r.RTTMS, r.AgeMS
			site.InFlight = c.ledger.Live(svc.Key, p.Site).Outstanding()
		}
		e.Sites = append(e.Sites, site)
	}
}
