package edgeproxy

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// siteState is what the loops note of another site, beyond one service.
type siteState struct {
	answeredNS atomic.Int64
}

// gate is one service's [upstream.Gate] for the views of one snapshot. A view
// numbers the sites as it lists them, a plan in its own order, and plans change
// ten times a second: the table between the two is made with each plan.
type gate struct {
	site    string
	service mesh.ServiceKey
	remotes []gateRemote
	plan    atomic.Pointer[gatePlan]
}

type gateRemote struct {
	site  string
	state *siteState
	live  *share.Live
	box   *mailbox
}

type gatePlan struct {
	*share.Gate
	// view is the view's number of each of the plan's remotes, upstream.Home
	// where the view has no such site.
	view []int
	// up reports whether this site has an endpoint.
	up bool
	// strange are the plan's remotes that the view does not have.
	strange share.Mask
}

var _ upstream.Gate = (*gate)(nil)

// Pick implements upstream.Gate.
func (g *gate) Pick(class int, now int64, homeInFlight int, rnd uint64, tried upstream.Tried) int {
	p := g.plan.Load()
	if p == nil {
		if !tried.Has(upstream.Home) {
			return upstream.Home
		}
		return g.unplanned(nil, tried)
	}
	if !p.up {
		homeInFlight = share.NoHome
	}
	switch i := p.Gate.PickFor(class, now, homeInFlight, rnd, p.tried(tried)); i {
	case share.Home:
		return upstream.Home
	case share.None:
		return g.unplanned(p.view, tried)
	case share.Shed:
		return upstream.Shed
	default:
		return p.view[i]
	}
}

// tried puts a set of the view's numbers into the plan's.
func (p *gatePlan) tried(in upstream.Tried) share.Mask {
	out := p.strange
	if in == 0 {
		return out
	}
	if in.Has(upstream.Home) {
		out = out.With(share.Home)
	}
	for i, at := range p.view {
		if at >= 0 && in.Has(at) {
			out = out.With(i)
		}
	}
	return out
}

// unplanned is the last resort: a site that no plan speaks of, because it has not
// been heard of yet.
func (g *gate) unplanned(planned []int, tried upstream.Tried) int {
	for i := range g.remotes {
		if !tried.Has(i) && !g.remotes[i].live.Spent() && !slices.Contains(planned, i) {
			return i
		}
	}
	return upstream.None
}

// Sent implements upstream.Gate.
func (g *gate) Sent(remote int, now int64) { g.remotes[remote].live.Start(now) }

// Done implements upstream.Gate.
func (g *gate) Done(remote int, now int64, how upstream.Outcome) {
	live := g.remotes[remote].live
	switch how {
	case upstream.Answered:
		g.remotes[remote].state.answeredNS.Store(now)
		live.Answer(now, -1)
	case upstream.Unreachable:
		live.Fail(now, true)
	case upstream.Broken:
		live.Fail(now, false)
	case upstream.Cancelled:
		live.Cancel()
	}
}

// Load implements upstream.Gate.
func (g *gate) Load(remote int, value []byte, now int64) {
	var r inband.Report
	to := &g.remotes[remote]
	if r.Parse(value) != nil || string(r.Site) != to.site || string(r.Service) != string(g.service) {
		return // a neighbour's fault costs its report, not the request
	}
	to.state.answeredNS.Store(now)
	to.live.Heard(now, r.InFlight)
	if to.live.News(r.Epoch, r.Seq) {
		to.box.put(value, now)
	}
}

// mailbox holds the newest report of one site until the next tick. Loops write
// it ten times a second at most, since every response of 100 ms repeats one report.
type mailbox struct {
	mu   sync.Mutex
	n    int
	atNS int64
	data [inband.MaxValue]byte
}

func (b *mailbox) put(value []byte, now int64) {
	b.mu.Lock()
	b.n, b.atNS = copy(b.data[:], value), now
	b.mu.Unlock()
}

// take empties the box into dst.
func (b *mailbox) take(dst []byte) ([]byte, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dst = append(dst[:0], b.data[:b.n]...)
	b.n = 0
	return dst, b.atNS
}

// report is one service's [upstream.Report].
type report struct {
	prefixes atomic.Pointer[share.Prefixes]
}

var _ upstream.Report = (*report)(nil)

// AppendLoad implements upstream.Report.
func (r *report) AppendLoad(dst, source []byte, inFlight int) []byte {
	p := r.prefixes.Load()
	if p == nil {
		return dst
	}
	prefix := p.For(source)
	if len(prefix) == 0 {
		return dst
	}
	return inband.Append(dst, prefix, inFlight)
}

// Gate implements upstream.Sharing: nil for a service that is not shared.
func (c *Cooperation) Gate(service mesh.ServiceKey, remotes []string) upstream.Gate {
	c.gatesMu.Lock()
	defer c.gatesMu.Unlock()
	if c.next == nil || !c.next.services[service] {
		return nil
	}
	g := &gate{site: c.Site, service: service}
	for _, site := range remotes {
		if c.sites[site] == nil {
			c.sites[site] = &siteState{}
		}
		g.remotes = append(g.remotes, gateRemote{site, c.sites[site], c.ledger.Live(service, site), &mailbox{}})
	}
	// Until the next tick the plan that is in force goes on, in the new numbers.
	if old := c.current.gates[service]; old != nil {
		if p := old.plan.Load(); p != nil {
			g.take(p.Gate, c.next.up[service])
		}
	}
	c.next.gates[service] = g
	return g
}

// Report implements upstream.Sharing: nil for a service that is not shared.
func (c *Cooperation) Report(service mesh.ServiceKey) upstream.Report {
	c.gatesMu.Lock()
	defer c.gatesMu.Unlock()
	if c.next == nil || !c.next.services[service] {
		return nil
	}
	r := &report{}
	if old := c.current.reports[service]; old != nil {
		r.prefixes.Store(old.prefixes.Load())
	}
	c.next.reports[service] = r
	return r
}

// Meter implements upstream.Sharing.
func (c *Cooperation) Meter(site string) *limit.Meter { return c.ledger.Meter(site) }

// take puts a plan in force.
func (g *gate) take(plan *share.Gate, up bool) {
	p := &gatePlan{Gate: plan, view: make([]int, plan.Len()), up: up}
	for i := range p.view {
		p.view[i] = upstream.Home
		for j := range g.remotes {
			if g.remotes[j].site == plan.Site(i) {
				p.view[i] = j
			}
		}
		if p.view[i] == upstream.Home {
			p.strange = p.strange.With(i)
		}
	}
	g.plan.Store(p)
}

// publishGates hands what a tick decided to the loops.
func (c *Cooperation) publishGates(shares []share.Share) {
	c.gatesMu.Lock()
	defer c.gatesMu.Unlock()
	for _, of := range []*sharing{c.current, c.next} {
		if of == nil {
			continue
		}
		for i := range shares {
			s := &shares[i]
			if g := of.gates[s.Service]; g != nil {
				g.take(s.Gate, of.up[s.Service])
			}
			if r := of.reports[s.Service]; r != nil {
				r.prefixes.Store(s.Prefixes)
			}
		}
	}
}

// hearBoxes takes in what the loops heard since the last tick. It needs mu.
func (c *Cooperation) hearBoxes(now int64) {
	c.gatesMu.Lock()
	gates := c.current.gates
	c.gatesMu.Unlock()
	var buf []byte
	var r inband.Report
	for _, g := range gates {
		for i := range g.remotes {
			var at int64
			if buf, at = g.remotes[i].box.take(buf); len(buf) == 0 {
				continue
			}
			if err := r.Parse(buf); err != nil {
				c.once("load report is refused", err)
				continue
			}
			c.node.Hear(min(at, now), &r)
		}
	}
}
