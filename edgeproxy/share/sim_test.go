package share

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
)

// A small discrete-event simulation in virtual time: every site runs the real
// Node (estimators, board, planner), the real Gate and the real in-band codec;
// only queues, links and users are made up. It is deterministic by its seed.

const echo mesh.ServiceKey = "default/echo"

// simSite is one site: c slots, FIFO, exponential service.
type simSite struct {
	name      string
	slots     int
	serviceMS float64
	users     float64 // requests per second
	node      *Node
	ledger    *Ledger
	share     Share
	count     Counters
	queue     []*simRequest
	hidden    bool // its reports reach nobody
	joined    int  // own requests that the gate put behind others here
	learns    bool // nobody states its slots and its service time
	levels    [price.Levels]price.Level
}

type simRequest struct {
	from, at int
	bornNS   int64
	startNS  int64
	enterNS  int64
	level    int
	free     bool
	live     *Live
}

type simEvent struct {
	atNS  int64
	order int
	do    func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].atNS < q[j].atNS || q[i].atNS == q[j].atNS && q[i].order < q[j].order
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(e any)   { *q = append(*q, e.(simEvent)) }
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

type simMesh struct {
	t      testing.TB
	rnd    *rand.Rand
	nowNS  int64
	events simQueue
	order  int
	sites  []*simSite
	rttMS  [][]float64
	cut    map[[2]int]bool
	// busDelay is the age of bus reports on arrival in periods of 500 ms; negative
	// means that reports come in band only. With a bus nothing comes in band.
	busDelay float64
	policy   string

	onDone func(r *simRequest, delayMS float64)
	onTick func(i int)
	lost   int
}

func newSim(t testing.TB, seed uint64, sites []*simSite, rttMS [][]float64, busDelay float64, policy string) *simMesh {
	m := &simMesh{
		t: t, rnd: rand.New(rand.NewPCG(seed, 77)), nowNS: 1e9, sites: sites, rttMS: rttMS,
		busDelay: busDelay, policy: policy, cut: map[[2]int]bool{},
		onDone: func(*simRequest, float64) {}, onTick: func(int) {},
	}
	curves := new(price.Curves)
	for i, s := range sites {
		s.name = fmt.Sprintf("site-%d", i)
		s.ledger = new(Ledger)
		s.node = NewNode(Identity{Site: s.name, Node: "edge", Epoch: 1}, curves, s.ledger)
		s.count = Counters{From: map[string]uint64{}, Slots: float64(s.slots), Up: true}
		var peers []Peer
		for j := range sites {
			if j != i {
				peers = append(peers, Peer{Site: fmt.Sprintf("site-%d", j), RTTMS: rttMS[i][j]})
			}
		}
		declared := s.serviceMS
		if s.learns {
			declared, s.count.Slots, s.count.Levels = 0, 0, &s.levels
		}
		if err := s.node.Configure([]Service{{Key: echo, Policy: policy, DeclaredMS: declared}}, peers); err != nil {
			t.Fatal(err)
		}
		m.tick(i)
		m.every(int64(m.rnd.Float64()*100e6), 100e6, func() { m.tick(i) })
		if busDelay < 0 {
			m.every(int64(m.rnd.Float64()*1e9), 1e9, func() { m.probe(i) })
		} else {
			m.every(int64(m.rnd.Float64()*500e6), 500e6, func() { m.publish(i) })
		}
		m.after(m.gap(s), func() { m.arrive(i) })
	}
	return m
}

func (m *simMesh) after(ns int64, do func()) {
	m.order++
	heap.Push(&m.events, simEvent{m.nowNS + ns, m.order, do})
}

func (m *simMesh) every(first, ns int64, do func()) {
	m.after(first, func() {
		do()
		m.every(ns, ns, do)
	})
}

// run goes on until a time in seconds after the start.
func (m *simMesh) run(untilS float64) {
	for end := int64(1e9 + untilS*1e9); m.events[0].atNS <= end; {
		e := heap.Pop(&m.events).(simEvent)
		m.nowNS = e.atNS
		e.do()
	}
}

func (m *simMesh) nowS() float64 { return float64(m.nowNS-1e9) / 1e9 }

func (m *simMesh) gap(s *simSite) int64 {
	return int64(m.rnd.ExpFloat64() / math.Max(s.users, 1e-3) * 1e9)
}

func (m *simMesh) half(i, j int) int64 { return int64(m.rttMS[i][j] * 0.5e6) }

func (m *simMesh) tick(i int) {
	s := m.sites[i]
	s.share = s.node.Tick(m.nowNS, map[mesh.ServiceKey]*Counters{echo: &s.count}).Shares[0]
	m.onTick(i)
}

// hear delivers site j's report, as made at its last tick, to site i.
func (m *simMesh) hear(i, j int, value []byte) {
	var r inband.Report
	if err := r.Parse(value); err != nil {
		m.t.Fatalf("%q: %v", value, err)
	}
	m.sites[i].node.Hear(m.nowNS, &r)
}

func (m *simMesh) value(i, j int) []byte {
	return inband.Append(nil, m.sites[j].share.Prefixes.For([]byte(m.sites[i].name)), m.sites[j].count.InFlight)
}

func (m *simMesh) probe(i int) {
	for j := range m.sites {
		if j == i || m.sites[j].hidden || m.cut[[2]int{i, j}] {
			continue
		}
		m.after(m.half(i, j), func() {
			value, n := m.value(i, j), m.sites[j].count.InFlight
			m.after(m.half(i, j), func() {
				m.hear(i, j, value)
				m.sites[i].ledger.Live(echo, m.sites[j].name).Heard(m.nowNS, n)
			})
		})
	}
}

// publish sends site j's report over the bus.
func (m *simMesh) publish(j int) {
	s := m.sites[j]
	if s.hidden {
		return
	}
	report := s.node.services[0].report(&s.count).ServiceReport
	seq := s.node.seq
	for i := range m.sites {
		if i != j {
			m.after(int64(m.busDelay*500e6)+m.half(i, j), func() {
				m.sites[i].node.board.Hear(m.nowNS, plan.Heard{Site: s.name, Reporter: "controller", Epoch: 1, Seq: seq, Load: report})
			})
		}
	}
}

func (m *simMesh) arrive(i int) {
	s := m.sites[i]
	m.after(m.gap(s), func() { m.arrive(i) })
	s.count.Demand++
	r := &simRequest{from: i, at: i, bornNS: m.nowNS}
	g := s.share.Gate
	k := g.Pick(m.nowNS, s.count.InFlight, m.rnd.Uint64(), 0)
	if k == Home {
		if s.count.InFlight >= s.slots {
			s.joined++
		}
		m.enter(r)
		return
	}
	fmt.Sscanf(g.Site(k), "site-%d", &r.at)
	r.live = g.Live(k)
	r.live.Start(m.nowNS)
	if m.cut[[2]int{i, r.at}] {
		m.lost++
		m.after(2e9, func() { r.live.Fail(m.nowNS, false) })
		return
	}
	m.after(m.half(i, r.at), func() { m.enter(r) })
}

func (m *simMesh) enter(r *simRequest) {
	s := m.sites[r.at]
	s.count.Served++
	s.count.InFlight++
	r.enterNS, r.level = m.nowNS, price.LevelOf(s.count.InFlight)
	if r.from != r.at {
		s.count.From[m.sites[r.from].name]++
	}
	if s.count.InFlight <= s.slots {
		r.free = true
		s.count.FreeStarts++
		m.serve(r)
	} else {
		s.queue = append(s.queue, r)
	}
}

func (m *simMesh) serve(r *simRequest) {
	r.startNS = m.nowNS
	s := m.sites[r.at]
	m.after(int64(m.rnd.ExpFloat64()*s.serviceMS*1e6), func() {
		if r.free {
			took := float64(m.nowNS-r.startNS) / 1e6
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
		s.count.InFlight--
		if len(s.queue) > 0 {
			next := s.queue[0]
			s.queue = s.queue[1:]
			m.serve(next)
		}
		if r.from == r.at {
			m.onDone(r, float64(m.nowNS-r.bornNS)/1e6)
			return
		}
		value, n := m.value(r.from, r.at), s.count.InFlight
		if s.hidden || m.busDelay >= 0 {
			value, n = nil, -1
		}
		m.after(m.half(r.from, r.at), func() {
			if value != nil && r.live.News(1, m.sites[r.at].node.seq) {
				m.hear(r.from, r.at, value)
			}
			r.live.Answer(m.nowNS, n)
			m.onDone(r, float64(m.nowNS-r.bornNS)/1e6)
		})
	})
}

// ring is n equal sites with rtt ms a hop.
func ring(n, slots int, serviceMS, rtt, load float64) ([]*simSite, [][]float64) {
	var sites []*simSite
	way := make([][]float64, n)
	for i := range n {
		sites = append(sites, &simSite{slots: slots, serviceMS: serviceMS, users: load * float64(slots) / serviceMS * 1000})
		for j := range n {
			hops := min((i-j+n)%n, (j-i+n)%n)
			way[i] = append(way[i], rtt*float64(hops))
		}
	}
	return sites, way
}

// meter keeps the mean delay of requests born within each second.
type meter struct{ sum, n [64]float64 }

func (d *meter) add(bornNS int64, delayMS float64) {
	if s := (bornNS - 1e9) / 1e9; s >= 0 && s < 64 {
		d.sum[s] += delayMS
		d.n[s]++
	}
}

func (d *meter) mean(from, to int) float64 {
	sum, n := 0.0, 0.0
	for s := from; s < to; s++ {
		sum += d.sum[s]
		n += d.n[s]
	}
	return sum / n
}

// reversals counts opposite moves, each of at least by.
func reversals(xs []float64, by float64) int {
	if len(xs) == 0 {
		return 0
	}
	count, trend, low, high := 0, 0, xs[0], xs[0]
	for _, x := range xs {
		low, high = math.Min(low, x), math.Max(high, x)
		switch {
		case trend >= 0 && high-x >= by:
			if trend > 0 {
				count++
			}
			trend, low, high = -1, x, x
		case trend <= 0 && x-low >= by:
			if trend < 0 {
				count++
			}
			trend, low, high = 1, x, x
		case trend > 0:
			low = x
		case trend < 0:
			high = x
		}
	}
	return count
}

func TestReversals(t *testing.T) {
	for _, k := range []struct {
		xs   []float64
		want int
	}{
		{nil, 0}, {[]float64{0, .1, .2, .5}, 0}, {[]float64{0, .5, .48, .5, .46}, 0},
		{[]float64{0, .5, .4}, 1}, {[]float64{0, .5, .4, .44, .4, .46}, 2}, {[]float64{.5, .4, .5, .4}, 2},
	} {
		if got := reversals(k.xs, 0.05); got != k.want {
			t.Errorf("%v: %d reversals, want %d", k.xs, got, k.want)
		}
	}
}
