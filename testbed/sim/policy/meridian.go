package policy

import (
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/testbed/sim"
)

const (
	service mesh.ServiceKey = "default/app"

	tickNS  = 100e6
	probeNS = 1e9
	// weightsTTL is how long a node keeps to a controller's plan.
	weightsTTL = 2 * time.Second
)

// Meridian runs the product's decision code: at every site the proxy's
// share.Node with its gate, estimators, board and standby planner, and where there
// is a bus the controller's board and planner, whose plan the node follows. Reports
// travel as the codec writes them, on responses, by probes and over the bus.
type Meridian struct {
	// bus and inBand are the ways on which reports travel.
	bus, inBand bool
	// learn says that slots and service times are not stated.
	learn   bool
	options Options
	classes []plan.Class

	m       *sim.Mesh
	sites   []mine
	index   map[string]int32
	flights []flight
	probes  []probe
	unused  []int32
	buffer  []byte
	// asked[i] holds the sites that have i among their neighbours.
	asked [][]int32
}

// mine is one site's proxy and controller.
type mine struct {
	node     *share.Node
	ledger   *share.Ledger
	counters map[mesh.ServiceKey]*share.Counters
	// stated are the counters of a site that learns, learns what it sees of them.
	stated, learns *share.Counters
	share          share.Share
	dest           []int32 // by the gate's index
	seq            uint64
	heard          []int64 // when a response of site j last came

	board   plan.Board
	planner *plan.Planner
	load    mesh.NodeServiceReport
	suspect map[string]string
	config  share.Service
	ways    map[string]share.Peer
	weights uint64
	// published are the last reports on the bus, by number.
	published [32]plan.Heard
	reports   uint64
}

// flight is what goes with a request to another site and back.
type flight struct {
	live   *share.Live
	prefix []byte
	seq    uint64
	n      int
}

type probe struct {
	prefix []byte
	n      int
}

// Start implements sim.Policy.
func (p *Meridian) Start(m *sim.Mesh) error {
	p.m = m
	if p.options.ShedAfterMS == 0 {
		p.options.ShedAfterMS = m.Scenario().ShedAfterMS
	}
	for _, c := range m.Scenario().Classes {
		p.classes = append(p.classes, plan.Class{Name: c.Name, ShedAfterMS: c.ShedAfterMS})
	}
	n := m.Len()
	p.sites, p.index, p.asked = make([]mine, n), make(map[string]int32, n), make([][]int32, n)
	curves := new(price.Curves)
	for i := range n {
		p.index[m.Site(i).Name] = int32(i)
	}
	for i := range n {
		s := &p.sites[i]
		s.ledger = new(share.Ledger)
		s.node = share.NewNode(share.Identity{Site: m.Site(i).Name, Node: "edge", Epoch: 1}, curves, s.ledger)
		s.planner = plan.New(service, curves)
		s.counters = map[mesh.ServiceKey]*share.Counters{service: m.Counters(i)}
		s.heard = make([]int64, n)
		s.suspect = map[string]string{}
		s.ways = map[string]share.Peer{}
		peers := make([]share.Peer, 0, len(m.Nearest(i)))
		for _, j := range m.Nearest(i) {
			var way share.Peer
			if p.options.Way != nil {
				way = p.options.Way(i, j)
			}
			way.Site, way.RTTMS = m.Site(j).Name, m.RTTMS(i, j)
			s.ways[way.Site] = way
			peers = append(peers, way)
			p.asked[j] = append(p.asked[j], int32(i))
		}
		s.config = share.Service{StayHome: p.options.StayHome, ShedAfterMS: p.options.ShedAfterMS}
		if p.options.Service != nil {
			s.config = p.options.Service(i)
		}
		s.config.Key, s.config.Classes, s.config.DeclaredMS = service, p.classes, m.Site(i).ServiceMS
		if p.learn {
			s.config.DeclaredMS = 0
			c := *m.Counters(i)
			s.stated, s.learns = m.Counters(i), &c
			s.counters[service] = s.learns
		}
		if err := s.node.Configure([]share.Service{s.config}, peers); err != nil {
			return err
		}
		p.tick(i)
		random := func(most float64) int64 { return int64(m.Rand().Float64() * most) }
		m.After(random(tickNS), kindTick, int32(i), 0)
		if p.bus {
			m.After(random(publishNS), kindPublish, int32(i), 0)
		}
		if p.inBand {
			m.After(random(probeNS), kindProbe, int32(i), 0)
		}
	}
	return nil
}

// Handle implements sim.Policy.
func (p *Meridian) Handle(kind uint8, a, b int32) {
	switch kind {
	case kindTick:
		p.tick(int(a))
		p.m.After(tickNS, kindTick, a, 0)
	case kindPublish:
		p.publish(int(a))
		p.m.After(publishNS, kindPublish, a, 0)
	case kindDeliver:
		p.deliver(a, b)
	case kindProbe:
		p.probe(int(a))
		p.m.After(probeNS, kindProbe, a, 0)
	case kindProbed:
		p.probed(a, b)
	case kindProbeBack:
		p.probeBack(a, b)
	}
}

// tick is a node's 100 ms step, and the controller's.
func (p *Meridian) tick(i int) {
	s := &p.sites[i]
	now := p.m.NowNS()
	if p.learn {
		*s.learns = *s.stated
		s.learns.Slots, s.learns.Levels = 0, p.m.Levels(i)
	}
	out := s.node.Tick(now, s.counters)
	s.seq++
	s.share = out.Shares[0]
	g := s.share.Gate
	s.dest = s.dest[:0]
	for k := range g.Len() {
		s.dest = append(s.dest, p.index[g.Site(k)])
	}
	if !p.bus {
		return
	}
	if out.Publish {
		s.load = out.Report.Services[0]
		for _, h := range out.Report.Heard {
			s.board.Hear(now, plan.Heard{Site: h.Site, Reporter: h.Reporter, Epoch: h.Epoch, Seq: h.Seq, AgeMS: h.AgeMS, InBand: true, Load: h.Service})
		}
		clear(s.suspect)
		for _, l := range out.Report.Links {
			if l.Suspect != "" {
				s.suspect[l.Site] = l.Suspect
			}
		}
	}
	p.plan(i)
}

// plan is the controller's step.
func (p *Meridian) plan(i int) {
	s := &p.sites[i]
	now := p.m.NowNS()
	in := plan.Input{
		DemandPerS: s.load.Demand, Slots: s.load.Slots, LowerBound: s.load.Learned == mesh.SlotsLowerBound, ServiceMS: s.load.ServiceTimeMS,
		NoHome: !p.m.Counters(i).Up, Drained: s.config.Drained,
		StayHome: s.config.StayHome, ShedAfterMS: s.config.ShedAfterMS, Classes: p.classes, Options: s.board.Options(now, p.m.Site(i).Name, service),
	}
	// Rates are summed in a fixed order: runs must repeat to the last bit.
	froms := make([]string, 0, len(s.load.From))
	for site := range s.load.From {
		froms = append(froms, site)
	}
	slices.Sort(froms)
	for _, site := range froms {
		in.OthersPerS += s.load.From[site]
	}
	for k := range in.Options {
		o := &in.Options[k]
		w := s.ways[o.Site]
		o.RTTMS, o.LinkPriceMS, o.MaxPerS, o.Excluded = w.RTTMS, w.PriceMS, w.MaxRate, w.Excluded
		if o.Excluded == "" {
			o.Excluded = s.suspect[o.Site]
		}
	}
	s.weights++
	issued := time.Unix(0, now)
	w := mesh.Weights{
		Site: p.m.Site(i).Name, Epoch: 1, Seq: s.weights, IssuedAt: issued, ExpiresAt: issued.Add(weightsTTL),
		Services: []mesh.ServiceWeights{s.planner.Tick(now, in)},
	}
	if err := s.node.SetWeights(now, &w); err != nil {
		panic("policy: a node refused its controller's plan: " + err.Error())
	}
}

// publish sends a site's report to those that may use it.
func (p *Meridian) publish(j int) {
	if p.m.BusDown() {
		return
	}
	s := &p.sites[j]
	s.reports++
	s.published[s.reports%uint64(len(s.published))] = plan.Heard{
		Site: p.m.Site(j).Name, Reporter: "controller", Epoch: 1, Seq: s.reports, Load: s.load.ServiceReport,
	}
	for _, i := range p.asked[j] {
		p.m.After(int64(p.options.DelayPeriods*publishNS)+p.m.HalfNS(j, int(i)), kindDeliver, i<<16|int32(j), int32(s.reports))
	}
}

func (p *Meridian) deliver(ij, report int32) {
	i, j := ij>>16, ij&0xffff
	if p.m.BusDown() {
		return
	}
	s := &p.sites[j]
	p.sites[i].board.Hear(p.m.NowNS(), s.published[uint64(report)%uint64(len(s.published))])
}

// probe asks the neighbours over links that are idle.
func (p *Meridian) probe(i int) {
	for _, j := range p.m.Nearest(i) {
		if p.m.NowNS()-p.sites[i].heard[j] >= probeNS && !p.m.Cut(i, j) {
			p.m.After(p.m.HalfNS(i, j), kindProbed, int32(i), int32(j))
		}
	}
}

func (p *Meridian) probed(i, j int32) {
	if p.m.Cut(int(j), int(i)) {
		return
	}
	var id int32
	if n := len(p.unused); n > 0 {
		id, p.unused = p.unused[n-1], p.unused[:n-1]
	} else {
		p.probes = append(p.probes, probe{})
		id = int32(len(p.probes) - 1)
	}
	p.probes[id] = probe{p.prefix(i, j), p.m.Counters(int(j)).InFlight}
	p.m.After(p.m.HalfNS(int(j), int(i)), kindProbeBack, i<<16|j, id)
}

func (p *Meridian) probeBack(ij, id int32) {
	i, j := ij>>16, ij&0xffff
	q := p.probes[id]
	p.unused = append(p.unused, id)
	p.hear(i, q.prefix, q.n)
	s := &p.sites[i]
	s.heard[j] = p.m.NowNS()
	s.ledger.Live(service, p.m.Site(int(j)).Name).Heard(p.m.NowNS(), q.n)
}

// prefix is the report of site j as said to site i.
func (p *Meridian) prefix(i, j int32) []byte {
	return p.sites[j].share.Prefixes.For([]byte(p.m.Site(int(i)).Name))
}

func (p *Meridian) hear(i int32, prefix []byte, n int) {
	var r inband.Report
	p.buffer = inband.Append(p.buffer[:0], prefix, n)
	if err := r.Parse(p.buffer); err != nil {
		panic("policy: a node wrote a report that cannot be read: " + err.Error())
	}
	p.sites[i].node.Hear(p.m.NowNS(), &r)
}

// Pick implements sim.Policy.
func (p *Meridian) Pick(r int32, from int) int {
	s := &p.sites[from]
	here := p.m.Counters(from)
	inFlight := here.InFlight
	if !here.Up {
		inFlight = share.NoHome
	}
	k := s.share.Gate.PickFor(p.m.Request(r).Class, p.m.NowNS(), inFlight, p.m.Rand().Uint64(), 0)
	if k == share.Shed || k == share.None {
		return sim.Shed
	}
	if k < 0 {
		return from
	}
	for int(r) >= len(p.flights) {
		p.flights = append(p.flights, flight{})
	}
	live := s.share.Gate.Live(k)
	live.Start(p.m.NowNS())
	p.flights[r] = flight{live: live}
	return int(s.dest[k])
}

// Left implements sim.Policy.
func (p *Meridian) Left(r int32) {
	if !p.inBand {
		return
	}
	q := p.m.Request(r)
	f := &p.flights[r]
	f.prefix, f.seq, f.n = p.prefix(q.From, q.To), p.sites[q.To].seq, p.m.Counters(int(q.To)).InFlight
}

// Answered implements sim.Policy.
func (p *Meridian) Answered(r int32, lost bool) {
	q := p.m.Request(r)
	if q.From == q.To {
		return
	}
	f := &p.flights[r]
	now := p.m.NowNS()
	switch {
	case lost:
		f.live.Fail(now, false)
	case q.Dropped():
		f.live.Cancel()
	case p.inBand:
		p.sites[q.From].heard[q.To] = now
		if f.live.News(1, f.seq) {
			p.hear(q.From, f.prefix, f.n)
		}
		f.live.Answer(now, f.n)
	default:
		f.live.Answer(now, -1)
	}
	f.prefix = nil
}

// Weights is the plan in force at a site.
func (p *Meridian) Weights(i int) *mesh.ServiceWeights { return &p.sites[i].share.Weights }
