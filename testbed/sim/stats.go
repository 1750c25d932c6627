package sim

import "math"

const (
	// sampleNS is how often sites are looked at.
	sampleNS = 100e6
	// loadNS is the bin in which arrivals at a site are counted for their spread.
	loadNS = 500e6
	// Delays are counted in bins that grow by two percent, from 10 us on.
	binGrowth = 1.02
	leastMS   = 0.01
)

// Stats is what was measured of a run.
type Stats struct {
	sc *Scenario
	// Second has an entry for each second of the scenario, by a request's birth.
	Second []Second
	// Bins counts delays of the measured requests; see BinMS.
	Bins []uint64
	// Window sums the measured requests.
	Window Tally
	// Class sums those of each priority class, of none first.
	Class []Tally
	// Load[i][k] counts the requests that came to site i in the k-th half second.
	Load [][]uint32
	// Busy[t][i] is the number in flight at site i over its slots, at second t.
	Busy [][]float32
	// Sent[t][j] counts what the hot site sent to site j in second t.
	Sent [][]uint32
	// Moved is all requests served elsewhere.
	Moved uint64
	// QueuedBesideIdleS is the longest time for which a site's own requests went on
	// joining a queue while a neighbour worth the way was idle, while measured; by
	// whom and until when.
	QueuedBesideIdleS, QueuedUntilS float64
	QueuedAt                        int

	since []int64
}

// Tally is a sum over requests.
type Tally struct {
	Requests, Late, Shed, Away uint64
	SumMS                      float64
}

// Errors counts what did not get an answer in time.
func (t *Tally) Errors() uint64 { return t.Late + t.Shed }

// MeanMS is the mean delay, an error counted as the deadline.
func (t *Tally) MeanMS() float64 { return t.SumMS / math.Max(1, float64(t.Requests)) }

// Second is the requests born in one second.
type Second = Tally

func newStats(sc *Scenario) *Stats {
	n, secs := len(sc.Network.Sites), int(math.Ceil(sc.ForS))
	s := &Stats{sc: sc, Second: make([]Second, secs+1), since: make([]int64, n)}
	s.Bins = make([]uint64, binOf(sc.DeadlineMS)+2)
	s.Class = make([]Tally, 1+len(sc.Classes))
	for range n {
		s.Load = append(s.Load, make([]uint32, 2*secs+2))
	}
	for range secs + 1 {
		s.Busy = append(s.Busy, make([]float32, n))
		s.Sent = append(s.Sent, make([]uint32, n))
	}
	for i := range s.since {
		s.since[i] = -1
	}
	return s
}

func binOf(ms float64) int {
	if ms <= leastMS {
		return 0
	}
	return int(math.Log(ms/leastMS) / math.Log(binGrowth))
}

// BinMS is the upper end of a bin.
func BinMS(bin int) float64 { return leastMS * math.Pow(binGrowth, float64(bin+1)) }

// QuantileMS is the delay that a part q of the measured requests stays under.
func (s *Stats) QuantileMS(q float64) float64 {
	total := uint64(0)
	for _, n := range s.Bins {
		total += n
	}
	want, sum := q*float64(total), uint64(0)
	for i, n := range s.Bins {
		if sum += n; float64(sum) >= want && sum > 0 {
			return math.Min(BinMS(i), s.sc.DeadlineMS)
		}
	}
	return 0
}

func secondOf(ns int64) int { return int((ns - startNS) / 1e9) }

func (s *Stats) measured(bornNS int64) bool {
	return float64(bornNS-startNS)/1e9 >= s.sc.MeasureFromS
}

func (s *Stats) born(r *Request) {
	if k := secondOf(r.BornNS); k < len(s.Second) {
		s.Second[k].Requests++
	}
	if s.measured(r.BornNS) {
		s.Window.Requests++
		s.Class[r.Class].Requests++
	}
}

func (s *Stats) add(r *Request, ms float64, note func(*Tally)) {
	if k := secondOf(r.BornNS); k < len(s.Second) {
		s.Second[k].SumMS += ms
		note(&s.Second[k])
	}
	if s.measured(r.BornNS) {
		s.Window.SumMS += ms
		note(&s.Window)
		s.Class[r.Class].SumMS += ms
		note(&s.Class[r.Class])
		s.Bins[binOf(math.Min(ms, s.sc.DeadlineMS))]++
	}
}

func noteShed(t *Tally) { t.Shed++ }
func noteLate(t *Tally) { t.Late++ }
func noteFine(*Tally)   {}

func (s *Stats) shed(r *Request) { s.add(r, s.sc.DeadlineMS, noteShed) }

func (s *Stats) sent(m *Mesh, r *Request) {
	if r.From != r.To {
		s.Moved++
		if k := secondOf(r.BornNS); k < len(s.Second) {
			s.Second[k].Away++
		}
		if s.measured(r.BornNS) {
			s.Window.Away++
		}
	}
	if int(r.From) == s.sc.Hot {
		if k := secondOf(m.nowNS); k < len(s.Sent) {
			s.Sent[k][r.To]++
		}
	}
}

func (s *Stats) entered(m *Mesh, i int) {
	if k := int((m.nowNS - startNS) / loadNS); k < len(s.Load[i]) {
		s.Load[i][k]++
	}
}

func (s *Stats) done(m *Mesh, r *Request) {
	ms := float64(m.nowNS-r.BornNS) / 1e6
	if ms < s.sc.DeadlineMS && !r.dropped {
		s.add(r, ms, noteFine)
		return
	}
	s.add(r, s.sc.DeadlineMS, noteLate)
}

// finish counts what is still under way: it is late.
func (s *Stats) finish(m *Mesh) {
	open := make([]bool, len(m.requests))
	for i := range open {
		open[i] = true
	}
	for _, id := range m.unused {
		open[id] = false
	}
	for id, is := range open {
		if is {
			s.add(&m.requests[id], s.sc.DeadlineMS, noteLate)
		}
	}
}

// sample looks at every site for what the runaway property forbids.
func (s *Stats) sample(m *Mesh) {
	if at := m.nowNS - startNS; at%1e9 == 0 && int(at/1e9) < len(s.Busy) {
		for i := range m.sites {
			s.Busy[at/1e9][i] = float32(float64(m.sites[i].count.InFlight) / float64(m.sites[i].Slots))
		}
	}
	if m.NowS() < s.sc.MeasureFromS {
		return // at a cold start nobody knows anybody
	}
	for i := range m.sites {
		o := &m.sites[i]
		service := o.ServiceMS * o.service
		waitMS := float64(o.len) / float64(o.Slots) * service
		idle := false
		if o.len > 0 && o.joined >= 0 && m.nowNS-o.joined <= 300e6 {
			for _, j := range m.order[i] {
				p := &m.sites[j]
				if 2*p.count.InFlight < p.Slots && !m.Cut(i, j) && waitMS > 4*(1.3*m.RTTMS(i, j)+p.ServiceMS*p.service) {
					idle = true
					break
				}
			}
		}
		switch {
		case !idle:
			s.since[i] = -1
		case s.since[i] < 0:
			s.since[i] = m.nowNS
		default:
			if d := float64(m.nowNS-s.since[i]) / 1e9; d > s.QueuedBesideIdleS {
				s.QueuedBesideIdleS, s.QueuedUntilS, s.QueuedAt = d, m.NowS(), i
			}
		}
	}
}

// LoadSD is the spread of a site's load per half second around its own mean
// between two changes of the scenario, averaged over sites by variance, in
// requests.
func (s *Stats) LoadSD() float64 {
	edges := []int{int(math.Ceil(s.sc.MeasureFromS * 2))}
	last := int(s.sc.ForS * 2)
	for _, c := range s.sc.Changes {
		if k := int(math.Ceil(c.AtS * 2)); k > edges[len(edges)-1] && k < last {
			edges = append(edges, k)
		}
	}
	edges = append(edges, last)
	sum, n := 0.0, 0.0
	for _, load := range s.Load {
		for e := 1; e < len(edges); e++ {
			part := load[edges[e-1]:edges[e]]
			if len(part) < 2 {
				continue
			}
			mean := 0.0
			for _, x := range part {
				mean += float64(x) / float64(len(part))
			}
			for _, x := range part {
				sum += (float64(x) - mean) * (float64(x) - mean)
				n++
			}
		}
	}
	return math.Sqrt(sum / math.Max(1, n))
}
