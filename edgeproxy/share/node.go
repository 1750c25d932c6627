package share

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
)

// Sources of the plan in force (mesh.EffectiveWeights.Source).
const (
	SourceController = "controller"
	SourceStandby    = "standby"
	SourceFading     = "fading"
)

const (
	// fadeNS is how long one plan takes over from the other.
	fadeNS = 1e9
	// minTTLNS and maxTTLNS bound how long a controller's plan is believed.
	minTTLNS, maxTTLNS = 300e6, 60e9
	// publishNS is how long a quiet node may say nothing to its controller.
	publishNS = 500e6
	// slackNS is how much earlier a tick may be, which would be 500 ms late else.
	slackNS = 50e6
	// rttShare is the weight of a new round-trip measurement.
	rttShare = 0.125
)

// Identity says who a node is. Epoch is when it started, Unix ns.
type Identity struct {
	Site, Node string
	Epoch      uint64
}

// Service is a service that this node may share with other sites.
type Service struct {
	Key mesh.ServiceKey
	// Policy is one of mesh.SiteSharing's, empty for cooperative; StayHome its h,
	// 0 for the default.
	Policy   string
	StayHome float64
	// ShedAfterMS is the longest wait at home that a request is let into when no
	// other site is left for it, 0 for any.
	ShedAfterMS float64
	// Classes are its priority classes; gates number them from 1 on.
	Classes []plan.Class
	// DeclaredMS is the service time that measuring starts from, 0 for none.
	DeclaredMS float64
	// Sessions says that its load is open sessions, whose messages take DeclaredMS.
	Sessions bool
	// Drained says that home is to take nothing while another site can.
	Drained bool
	// Pin are the weights of sites, this one's too, that the operator has fixed; nil
	// for none.
	Pin map[string]float64
	// Barred are the sites that the service's traffic must never go to, each with the
	// reason, whatever any plan says.
	Barred map[string]string
}

// Peer is another site that this node has a way to.
type Peer struct {
	Site string
	// RTTMS is the round trip known beforehand, 0 for none; measuring replaces it.
	RTTMS float64
	// PriceMS is the cost of sending one request this way, in ms of delay.
	PriceMS float64
	// MaxRate is the most requests per second of a service that may go this way, 0
	// for no limit.
	MaxRate float64
	// Budget says that the link has a daily budget: nothing goes over it but what is
	// granted ([Node.SetLinks]).
	Budget bool
	// Excluded says why nothing may go there, empty when it may.
	Excluded string

	meter *limit.Meter // of the link, set by Configure
}

// Counters are one service's counts at this node since it started.
type Counters struct {
	// Demand counts requests of own users, each once, wherever it was served.
	Demand uint64
	// Served counts requests given to endpoints of this site, From those of them
	// that came from other sites.
	Served uint64
	From   map[string]uint64
	// Completed counts requests that endpoints of this site finished.
	Completed uint64
	// FreeStarts counts requests that found a free slot at their endpoint.
	// Unqueued, UnqueuedMS and UnqueuedSqMS count the completed ones among them
	// and sum their times and squared times.
	FreeStarts               uint64
	Unqueued                 uint64
	UnqueuedMS, UnqueuedSqMS float64
	// InFlight counts requests at this site's endpoints now, waiting ones too.
	InFlight int
	// Slots is the declared concurrency of the endpoints that can serve now, 0
	// when it is not known; Up says that there is such an endpoint.
	Slots float64
	Up    bool
	// Levels are the completions by the number in flight when they started, kept where
	// no concurrency is declared, nil elsewhere: Slots and what follows from them
	// (FreeStarts, Unqueued) are then learned from it.
	Levels *[price.Levels]price.Level
	// Mates are the services that share the machine with it, whose slots Slots then
	// are. DeclaredMS is the service time that is declared, 0 for none.
	Mates      []mesh.ServiceKey
	DeclaredMS float64
}

// Share is what the loops need of one service until the next tick.
type Share struct {
	Service mesh.ServiceKey
	Weights mesh.ServiceWeights
	// Source says whose plan Weights is.
	Source   string
	Gate     *Gate
	Prefixes *Prefixes
}

// Output is what a tick decides.
type Output struct {
	// Shares has one entry for each service, in the order of Configure.
	Shares []Share
	// Report is for the site's controller; the caller fills in generations. It
	// should be sent when Publish says so.
	Report  mesh.NodeReport
	Publish bool
	// Busy says that something happened since the last tick or is in flight, or that one
	// plan takes over from another. Without peers, ticks may come more seldom while it does not.
	Busy bool
}

// Prefixes are a service's in-band reports for the next 100 ms, one for each site
// that may ask: all but the number in flight, see inband.Append. Immutable.
type Prefixes struct {
	bySite map[string][]byte
	other  []byte
}

// For returns the prefix for a site, which must not be changed. It allocates nothing.
func (p *Prefixes) For(site []byte) []byte {
	if b, ok := p.bySite[string(site)]; ok {
		return b
	}
	return p.other
}

// Node is the sharing of one proxy. Make it with [NewNode]; it belongs to one
// goroutine, which calls Tick every 100 ms and feeds the rest as it comes.
type Node struct {
	id       Identity
	curves   *price.Curves
	ledger   *Ledger
	board    plan.Board
	news     map[newsKey]struct{}
	services []*service
	mates    map[mesh.ServiceKey]*service // that are not shared themselves
	peers    []Peer
	peer     map[string]*Peer
	rtt      map[string]float64
	budgets  map[string]budgeted // of peers whose link has one

	epoch, order uint64 // of the controller's last plan
	expiresNS    int64
	have         bool

	seq       uint64
	lastNS    int64
	publishNS int64
}

type newsKey struct {
	service mesh.ServiceKey
	site    string
}

// NewNode returns a node without services. ledger is shared with the loops.
func NewNode(id Identity, curves *price.Curves, ledger *Ledger) *Node {
	return &Node{
		id: id, curves: curves, ledger: ledger,
		news: map[newsKey]struct{}{}, peer: map[string]*Peer{}, rtt: map[string]float64{}, budgets: map[string]budgeted{},
	}
}

// Configure sets what the node shares and with whom. Services and peers that stay
// keep what was measured. An unknown policy or a repeated name is an error and
// changes nothing.
func (n *Node) Configure(services []Service, peers []Peer) error {
	old := map[mesh.ServiceKey]*service{}
	for _, s := range n.services {
		old[s.Key] = s
	}
	next := make([]*service, 0, len(services))
	seen := map[mesh.ServiceKey]bool{}
	for _, cfg := range services {
		if seen[cfg.Key] {
			return fmt.Errorf("service %s appears twice", cfg.Key)
		}
		seen[cfg.Key] = true
		if _, err := Compile(cfg.Policy, &mesh.ServiceWeights{Service: cfg.Key}, n.ledger); err != nil {
			return err
		}
		s := old[cfg.Key]
		if s == nil || s.DeclaredMS != cfg.DeclaredMS || s.Sessions != cfg.Sessions {
			s = newService(cfg, n.curves)
		} else {
			kept := *s
			kept.Service = cfg
			s = &kept
		}
		next = append(next, s)
	}
	peer := map[string]*Peer{}
	peers = slices.Clone(peers)
	for i := range peers {
		p := &peers[i]
		if peer[p.Site] != nil || p.Site == n.id.Site {
			return fmt.Errorf("site %s appears twice or is this site", p.Site)
		}
		p.meter = n.ledger.Meter(p.Site)
		peer[p.Site] = p
	}
	was := n.peer
	n.services, n.peers, n.peer = next, peers, peer
	n.configureBudgets(was)
	for site := range n.rtt {
		if peer[site] == nil {
			delete(n.rtt, site)
		}
	}
	return nil
}

// Hear takes a report that came in band, on a response or a probe's answer, and
// tells whether it is news. Nothing of r is kept.
func (n *Node) Hear(nowNS int64, r *inband.Report) bool {
	if n.peer[string(r.Site)] == nil {
		return false
	}
	load := r.ServiceReport(n.id.Site)
	fresh := n.board.Hear(nowNS, plan.Heard{
		Site: string(r.Site), Reporter: string(r.Reporter), Epoch: r.Epoch, Seq: r.Seq, InBand: true, Load: load,
	})
	if fresh {
		n.news[newsKey{load.Service, string(r.Site)}] = struct{}{}
	}
	return fresh
}

// MeasureRTT takes one measured round trip to a peer. Impossible values and
// strangers are ignored.
func (n *Node) MeasureRTT(site string, ms float64) {
	if n.peer[site] == nil || !(ms > 0 && ms < 1e5) {
		return
	}
	if old, ok := n.rtt[site]; ok {
		ms = old + rttShare*(ms-old)
	}
	n.rtt[site] = ms
}

// rttMS is the round trip to a peer, not a number while nothing is known.
func (n *Node) rttMS(p *Peer) float64 {
	if ms, ok := n.rtt[p.Site]; ok {
		return ms
	}
	if p.RTTMS > 0 {
		return p.RTTMS
	}
	return math.NaN()
}

// ErrOld says that a plan is not newer than the one in force.
var ErrOld = errors.New("weights are not newer than those in force")

// SetWeights takes the controller's plan, which then is in force until its time
// to live, counted from now, is over. A plan that is for another site, needs a
// newer reader, is not newer (ErrOld) or never lives is refused and changes nothing.
func (n *Node) SetWeights(nowNS int64, w *mesh.Weights) error {
	if err := w.Check(); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	if w.Site != n.id.Site {
		return fmt.Errorf("weights are for site %q, this is %q", w.Site, n.id.Site)
	}
	ttl := w.ExpiresAt.Sub(w.IssuedAt)
	if ttl <= 0 {
		return fmt.Errorf("weights expire %v after they were issued", ttl)
	}
	live := n.have && nowNS < n.expiresNS
	if live && (w.Epoch < n.epoch || w.Epoch == n.epoch && w.Seq <= n.order) {
		return ErrOld
	}
	n.have, n.epoch, n.order = true, w.Epoch, w.Seq
	n.expiresNS = nowNS + min(max(int64(ttl), minTTLNS), maxTTLNS)
	n.SetLinks(w.Links)
	for _, s := range n.services {
		s.planned = nil
		for i := range w.Services {
			if w.Services[i].Service == s.Key {
				s.planned = &w.Services[i]
				s.lastPlan = s.planned
			}
		}
	}
	return nil
}

// Tick takes the counters of every service at nowNS and returns what is in force
// until the next tick. A service without counters is taken as having no endpoint.
func (n *Node) Tick(nowNS int64, counters map[mesh.ServiceKey]*Counters) Output {
	n.seq++
	n.board.Forget(nowNS)
	out := Output{Report: mesh.NodeReport{
		Compat: mesh.Compat{MinReader: 1}, Site: n.id.Site, Node: n.id.Node, Epoch: n.id.Epoch, Seq: n.seq,
	}}
	busy := len(n.news) > 0
	n.measureMates(nowNS, counters)
	known := make([]*Counters, 0, len(n.services))
	for _, s := range n.services {
		c := counters[s.Key]
		if c == nil {
			c = &Counters{}
		}
		c = s.learn(c)
		busy = s.measure(nowNS, c, counters) || busy
		known = append(known, c)
	}
	for i, s := range n.services {
		c := known[i]
		s.pool = n.pool(s, c, counters)
		share := n.share(nowNS, s, c)
		out.Shares = append(out.Shares, share)
		out.Report.Services = append(out.Report.Services, s.report(c))
		out.Report.InForce = append(out.Report.InForce, inForce(n.id.Site, &share))
	}
	n.lastNS = nowNS
	out.Busy = busy || n.unsettled()
	if out.Publish = busy || nowNS-n.publishNS >= publishNS-slackNS || n.seq == 1; out.Publish {
		n.publishNS = nowNS
		out.Report.Heard = n.heard(nowNS)
		out.Report.Links = n.links(nowNS)
		clear(n.news)
	}
	return out
}

// unsettled reports whether requests are in flight or plans change over.
func (n *Node) unsettled() bool {
	return slices.ContainsFunc(n.services, func(s *service) bool {
		return s.last.InFlight > 0 || s.standby > 0 && s.standby < 1
	})
}

// share decides one service's plan and compiles it.
func (n *Node) share(nowNS int64, s *service, c *Counters) Share {
	standby := s.planner.Tick(nowNS, plan.Input{
		DemandPerS: s.demand.PerS(), Slots: c.Slots, LowerBound: s.standing == mesh.SlotsLowerBound, ServiceMS: s.serviceTime.MS(), NoHome: !c.Up, Drained: s.Drained,
		OthersPerS: s.others.PerS() + s.pool.perS, Mates: len(c.Mates), StayHome: s.StayHome, ShedAfterMS: s.ShedAfterMS, Classes: s.Classes,
		Sessions: s.Sessions, Open: c.InFlight, Options: n.options(nowNS, s),
	})
	renewed := s.planned != nil && n.have && nowNS < n.expiresNS
	step := float64(nowNS-n.lastNS) / fadeNS
	switch {
	case s.lastPlan == nil:
		s.standby = 1
	case renewed:
		s.standby = math.Max(0, s.standby-step)
	default:
		s.standby = math.Min(1, s.standby+step)
	}
	out := Share{Service: s.Key, Weights: standby, Source: SourceStandby}
	switch {
	case s.standby == 0:
		out.Source, out.Weights = SourceController, *s.lastPlan
	case s.standby < 1:
		out.Source, out.Weights = SourceFading, plan.Fade(*s.lastPlan, standby, s.standby)
	}
	out.Weights = plan.Pin(n.reachable(s, out.Weights), n.id.Site, s.Pin)
	names := make([]string, len(s.Classes))
	for i := range s.Classes {
		names[i] = s.Classes[i].Name
	}
	gate, err := Compile(s.Policy, &out.Weights, n.ledger, names...)
	if err != nil {
		panic("share: policy passed Configure and not Compile: " + err.Error())
	}
	out.Gate = gate
	out.Weights = gate.inForce(out.Weights, c.Up)
	for i := range gate.Len() {
		gate.remotes[i].live.check(nowNS, gate.remotes[i].silentNS)
	}
	out.Prefixes = n.prefixes(s, c)
	return out
}

// options are the peers that reported the service.
func (n *Node) options(nowNS int64, s *service) []plan.Option {
	all := n.board.Options(nowNS, n.id.Site, s.Key)
	out := all[:0]
	for _, o := range all {
		p := n.peer[o.Site]
		if p == nil {
			continue
		}
		o.RTTMS, o.LinkPriceMS, o.MaxPerS, o.Excluded = n.rttMS(p), p.PriceMS, p.MaxRate, cmp.Or(s.Barred[o.Site], p.Excluded)
		if p.Budget {
			o.LinkPriceMS += n.budgets[p.Site].priceMS
			o.Excluded = cmp.Or(o.Excluded, n.spent(p))
		}
		if o.Excluded == "" {
			o.Excluded = n.ledger.Live(s.Key, o.Site).Suspect(nowNS)
		}
		out = append(out, o)
	}
	return out
}

// reachable excludes what this node has no way to and what is barred, whatever the
// plan says; the share goes home.
func (n *Node) reachable(s *service, w mesh.ServiceWeights) mesh.ServiceWeights {
	cloned := false
	for i := range w.Remotes {
		r := &w.Remotes[i]
		why := "no route from this node"
		if p := n.peer[r.Site]; p != nil {
			why = cmp.Or(s.Barred[r.Site], p.Excluded, n.spent(p))
		}
		if why == "" || r.Excluded != "" {
			continue
		}
		if !cloned {
			w.Remotes, cloned = slices.Clone(w.Remotes), true
			r = &w.Remotes[i]
		}
		w.HomeWeight += r.Weight
		*r = mesh.RemoteWeight{Site: r.Site, RTTMS: r.RTTMS, AgeMS: r.AgeMS, Excluded: why}
	}
	return w
}

func (n *Node) heard(nowNS int64) []mesh.HeardReport {
	out := make([]mesh.HeardReport, 0, len(n.news))
	for key := range n.news {
		if h, ok := n.board.Report(nowNS, key.site, key.service); ok {
			out = append(out, mesh.HeardReport{
				Site: h.Site, Reporter: h.Reporter, Epoch: h.Epoch, Seq: h.Seq, AgeMS: h.AgeMS, Service: h.Load,
			})
		}
	}
	slices.SortFunc(out, func(a, b mesh.HeardReport) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Service.Service, b.Service.Service))
	})
	return out
}

func (n *Node) links(nowNS int64) []mesh.LinkReport {
	out := make([]mesh.LinkReport, 0, len(n.peers))
	for i := range n.peers {
		p := &n.peers[i]
		l := mesh.LinkReport{Site: p.Site, RTTMS: n.rtt[p.Site], Suspect: p.Excluded}
		for _, s := range n.services {
			live := n.ledger.Live(s.Key, p.Site)
			l.Outstanding += live.Outstanding()
			if why := live.Suspect(nowNS); l.Suspect == "" && why != "" {
				l.Suspect = why
			}
		}
		n.carried(&l, p)
		out = append(out, l)
	}
	return out
}

func (n *Node) prefixes(s *service, c *Counters) *Prefixes {
	r := inband.Report{
		Site: []byte(n.id.Site), Reporter: []byte(n.id.Node), Service: []byte(s.Key),
		Epoch: n.id.Epoch, Seq: n.seq, Slots: c.Slots, ServiceMS: s.serviceTime.MS(),
		ArrivalsPerS: s.served.PerS() + s.pool.perS, Spillers: s.spillers(), Learned: s.standing,
	}
	out := &Prefixes{bySite: make(map[string][]byte, len(n.peers))}
	out.other = prefix(&r, nil)
	for i := range n.peers {
		if src := s.from[n.peers[i].Site]; src != nil {
			out.bySite[n.peers[i].Site] = prefix(&r, src)
		}
	}
	return out
}

// prefix is empty, which a peer refuses to read, when the node's own names or
// numbers cannot be written; they were validated long before.
func prefix(r *inband.Report, src *source) []byte {
	r.FromYouPerS = 0
	if src != nil {
		r.FromYouPerS = src.rate.PerS()
	}
	b, err := r.AppendPrefix(make([]byte, 0, 160))
	if err != nil {
		return nil
	}
	return b
}

func inForce(self string, s *Share) mesh.EffectiveWeights {
	e := mesh.EffectiveWeights{
		Service: s.Service, Source: s.Source, HomeLimit: s.Weights.HomeLimit,
		Shares: map[string]float64{self: s.Weights.HomeWeight},
	}
	for _, r := range s.Weights.Remotes {
		if r.Weight > 0 {
			e.Shares[r.Site] = r.Weight
		}
	}
	return e
}
