package sim

import (
	"math"
	"math/rand/v2"

	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
)

// startNS is the clock at second 0; clocks in the decision code begin above zero.
const startNS = 10e9

// Shed, returned by [Policy.Pick], refuses a request at once.
const Shed = -1

// Policy decides where requests go. The mesh calls it from one goroutine.
type Policy interface {
	// Start is called once, before anything happens.
	Start(m *Mesh) error
	// Pick says which site serves request r of a site's own users, or Shed.
	Pick(r int32, from int) int
	// Left is called when the site has finished a request that came from another
	// one, before the response travels; Answered when a response arrived at its
	// user's site, or when none will (lost). A request served at home is answered
	// as it finishes. Both are for every request that Pick was asked for, but for
	// those it shed.
	Left(r int32)
	Answered(r int32, lost bool)
	// Handle is called for what the policy scheduled by [Mesh.After].
	Handle(kind uint8, a, b int32)
}

// Request is one request while it is under way.
type Request struct {
	From, To int32
	BornNS   int64
	// Class is the number of its priority class from 1 on, 0 for none.
	Class int
	// work is in units of the site's mean service time; cost its length in ns.
	work    float64
	costNS  int64
	free    bool // it found a free slot
	level   int
	enterNS int64
	dropped bool
}

type site struct {
	Site
	count     share.Counters
	levels    [price.Levels]price.Level
	queue     []int32 // ring of waiting requests
	head, len int
	busy      int
	arrivals  *rand.Rand
	demand    float64 // of own users now, 1/s
	service   float64 // factor on ServiceMS
	version   int32   // of the arrival event
	joined    int64   // when an own request last joined the queue
	people    int
}

// Mesh is a run. Make it with [New]; policies read it.
type Mesh struct {
	sc       *Scenario
	policy   Policy
	rnd      *rand.Rand
	classes  *rand.Rand
	events   queue
	nowNS    int64
	sites    []site
	requests []Request
	unused   []int32
	cut      map[Pair]bool
	busDown  bool
	home     []int // of users
	move     func(atS float64, home []int)
	stats    *Stats
	order    [][]int // sites by distance
	sigma    float64 // of the lognormal law
}

// New makes a run of a scenario, which must have passed Check.
func New(sc *Scenario, policy Policy, seed uint64) (*Mesh, error) {
	if err := sc.Check(); err != nil {
		return nil, err
	}
	m := &Mesh{
		sc: sc, policy: policy, rnd: rand.New(rand.NewPCG(seed, 0x7ea1)), nowNS: startNS,
		classes: rand.New(rand.NewPCG(seed, 0xc1a5)),
		sites:   make([]site, len(sc.Network.Sites)), cut: map[Pair]bool{},
	}
	m.sigma = math.Sqrt(math.Log1p(sc.Work.CV * sc.Work.CV))
	m.order = nearestFirst(sc)
	m.stats = newStats(sc)
	for i := range m.sites {
		s := &m.sites[i]
		s.Site, s.service, s.demand = sc.Network.Sites[i], 1, sc.Network.Sites[i].DemandPerS
		s.arrivals = rand.New(rand.NewPCG(seed, uint64(i)))
		s.count = share.Counters{From: map[string]uint64{}, Slots: float64(s.Slots), Up: !s.Closed}
		if s.Closed {
			s.count.Slots = 0
		}
		s.queue = make([]int32, 16)
		s.joined = -1
	}
	if sc.Users != nil {
		m.home, m.move = append([]int(nil), sc.Users.Home...), sc.Users.Mover()
		m.populate()
		m.events.push(startNS, evMove, 0, 0)
	}
	for i := range sc.Changes {
		m.events.push(startNS+int64(sc.Changes[i].AtS*1e9), evChange, int32(i), 0)
	}
	m.events.push(startNS, evSample, 0, 0)
	if err := policy.Start(m); err != nil {
		return nil, err
	}
	for i := range m.sites {
		m.arm(i)
	}
	return m, nil
}

// nearestFirst lists for each site those it may send to, the nearest first.
func nearestFirst(sc *Scenario) [][]int {
	n := len(sc.Network.Sites)
	out := make([][]int, n)
	for i := range n {
		rtt := sc.Network.RTTMS[i]
		for j := range n {
			if j != i {
				out[i] = append(out[i], j)
			}
		}
		sortBy(out[i], func(j int) float64 { return rtt[j] })
		if sc.Neighbours > 0 && sc.Neighbours < len(out[i]) {
			out[i] = out[i][:sc.Neighbours:sc.Neighbours]
		}
	}
	return out
}

// Run goes on to the end, or until stop says so at a second's start; then it
// reports false. The statistics are whole only when it reports true.
func (m *Mesh) Run(stop func() bool) (*Stats, bool) {
	end := startNS + int64((m.sc.ForS+m.sc.DeadlineMS/1000)*1e9)
	checked := m.nowNS
	for len(m.events.heap) > 0 && m.events.heap[0].atNS <= end {
		e := m.events.pop()
		m.nowNS = e.atNS
		m.handle(&e)
		if m.nowNS-checked >= 1e9 {
			checked = m.nowNS
			if stop != nil && stop() {
				return m.stats, false
			}
		}
	}
	m.stats.finish(m)
	return m.stats, true
}

func (m *Mesh) handle(e *event) {
	switch kind := uint8(e.order); kind {
	case evArrive:
		if s := &m.sites[e.a]; s.version == e.b {
			m.arm(int(e.a))
			m.arrive(int(e.a))
		}
	case evEnter:
		m.enter(e.a)
	case evFinish:
		m.finished(e.a)
	case evAnswer:
		m.policy.Answered(e.a, false)
		m.done(e.a)
	case evLost:
		m.policy.Answered(e.a, true)
		m.done(e.a)
	case evChange:
		m.change(&m.sc.Changes[e.a])
	case evSample:
		m.stats.sample(m)
		if m.NowS() < m.sc.ForS {
			m.events.push(m.nowNS+sampleNS, evSample, 0, 0)
		}
	case evMove:
		m.move(m.NowS(), m.home)
		m.populate()
		m.events.push(m.nowNS+int64(m.sc.Users.EveryMS*1e6), evMove, 0, 0)
	default:
		m.policy.Handle(kind-evPolicy, e.a, e.b)
	}
}

// populate counts users, which sets demands.
func (m *Mesh) populate() {
	for i := range m.sites {
		m.sites[i].people = 0
	}
	for _, h := range m.home {
		m.sites[h].people++
	}
	for i := range m.sites {
		m.setDemand(i, float64(m.sites[i].people)*m.sc.Users.PerS)
	}
}

func (m *Mesh) setDemand(i int, perS float64) {
	s := &m.sites[i]
	if s.demand == perS {
		return
	}
	s.demand = perS
	m.arm(i) // exponential gaps have no memory
}

// arm schedules the next arrival and forgets the one before.
func (m *Mesh) arm(i int) {
	s := &m.sites[i]
	s.version++
	if s.demand > 0 && m.NowS() < m.sc.ForS {
		m.events.push(m.nowNS+int64(s.arrivals.ExpFloat64()/s.demand*1e9), evArrive, int32(i), s.version)
	}
}

func (m *Mesh) change(c *Change) {
	for i := range m.sites {
		if c.Site >= 0 && c.Site != i {
			continue
		}
		if c.Demand > 0 {
			m.setDemand(i, m.sc.Network.Sites[i].DemandPerS*c.Demand)
		}
		if c.Service > 0 {
			m.sites[i].service = c.Service
		}
	}
	for _, p := range c.Cut {
		m.cut[p], m.cut[Pair{p.B, p.A}] = true, true
	}
	for _, p := range c.Heal {
		delete(m.cut, p)
		delete(m.cut, Pair{p.B, p.A})
	}
	if c.Bus != 0 {
		m.busDown = c.Bus < 0
	}
	m.policy.Handle(KindChange, 0, 0)
}

func (m *Mesh) drawWork(s *site) float64 {
	switch m.sc.Work.Law {
	case Constant:
		return 1
	case Lognormal:
		return math.Exp(m.sigma*s.arrivals.NormFloat64() - m.sigma*m.sigma/2)
	default:
		return s.arrivals.ExpFloat64()
	}
}

func (m *Mesh) arrive(i int) {
	s := &m.sites[i]
	s.count.Demand++
	var id int32
	if n := len(m.unused); n > 0 {
		id, m.unused = m.unused[n-1], m.unused[:n-1]
	} else {
		m.requests = append(m.requests, Request{})
		id = int32(len(m.requests) - 1)
	}
	r := &m.requests[id]
	*r = Request{From: int32(i), To: int32(i), BornNS: m.nowNS, Class: m.drawClass(), work: m.drawWork(s)}
	m.stats.born(r)
	to := m.policy.Pick(id, i)
	if to == Shed {
		m.stats.shed(r)
		m.unused = append(m.unused, id)
		return
	}
	r = &m.requests[id]
	r.To = int32(to)
	m.stats.sent(m, r)
	if to == i {
		if s.busy >= s.Slots {
			s.joined = m.nowNS
		}
		m.enter(id)
		return
	}
	if len(m.cut) > 0 && m.cut[Pair{i, to}] {
		m.events.push(r.BornNS+m.deadlineNS(), evLost, id, 0)
		return
	}
	m.events.push(m.nowNS+m.halfNS(i, to), evEnter, id, 0)
}

func (m *Mesh) drawClass() int {
	if len(m.sc.Classes) == 0 {
		return 0
	}
	x := m.classes.Float64()
	for i := range m.sc.Classes {
		if x -= m.sc.Classes[i].Part; x < 0 {
			return i + 1
		}
	}
	return 0
}

func (m *Mesh) deadlineNS() int64 { return int64(m.sc.DeadlineMS * 1e6) }

func (m *Mesh) halfNS(i, j int) int64 { return int64(m.sc.Network.RTTMS[i][j] * 0.5e6) }

func (m *Mesh) enter(id int32) {
	r := &m.requests[id]
	s := &m.sites[r.To]
	s.count.Served++
	s.count.InFlight++
	r.level, r.enterNS = price.LevelOf(s.count.InFlight), m.nowNS
	if r.From != r.To {
		s.count.From[m.sites[r.From].Name]++
	}
	m.stats.entered(m, int(r.To))
	if s.busy < s.Slots {
		r.free = true
		s.count.FreeStarts++
		m.serve(id)
		return
	}
	if s.len == len(s.queue) {
		s.queue = grow(s.queue, s.head)
		s.head = 0
	}
	s.queue[(s.head+s.len)&(len(s.queue)-1)] = id
	s.len++
}

// grow doubles a full ring whose first element is at head.
func grow(ring []int32, head int) []int32 {
	out := make([]int32, 2*len(ring))
	copy(out[copy(out, ring[head:]):], ring[:head])
	return out
}

func (m *Mesh) serve(id int32) {
	r := &m.requests[id]
	s := &m.sites[r.To]
	s.busy++
	r.costNS = int64(r.work * s.ServiceMS * s.service * 1e6)
	m.events.push(m.nowNS+r.costNS, evFinish, id, 0)
}

func (m *Mesh) finished(id int32) {
	r := &m.requests[id]
	s := &m.sites[r.To]
	if r.free {
		took := float64(r.costNS) / 1e6
		s.count.Unqueued++
		s.count.UnqueuedMS += took
		s.count.UnqueuedSqMS += took * took
	}
	took := float64(m.nowNS-r.enterNS) / 1e6
	l := &s.levels[r.level]
	l.N++
	l.MS += took
	l.SqMS += took * took
	s.count.Completed++
	s.busy--
	m.leave(id)
	for s.len > 0 && s.busy < s.Slots {
		next := s.queue[s.head]
		s.head = (s.head + 1) & (len(s.queue) - 1)
		s.len--
		if w := &m.requests[next]; m.nowNS-w.BornNS > m.deadlineNS() {
			w.dropped = true
			m.leave(next)
			continue
		}
		m.serve(next)
	}
}

// leave sends the response on its way.
func (m *Mesh) leave(id int32) {
	r := &m.requests[id]
	m.sites[r.To].count.InFlight--
	if r.From == r.To {
		m.policy.Answered(id, false)
		m.done(id)
		return
	}
	m.policy.Left(id)
	if len(m.cut) > 0 && m.cut[Pair{int(r.To), int(r.From)}] {
		m.events.push(max(m.nowNS, r.BornNS+m.deadlineNS()), evLost, id, 0)
		return
	}
	m.events.push(m.nowNS+m.halfNS(int(r.From), int(r.To)), evAnswer, id, 0)
}

func (m *Mesh) done(id int32) {
	m.stats.done(m, &m.requests[id])
	m.unused = append(m.unused, id)
}
