package traffic

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Time constants of the two means.
const (
	RecentOver = 5 * time.Minute
	SteadyOver = 30 * time.Minute
	// forgotten is the weight that what flowed has in the steady mean when its pair
	// is dropped: five hours of silence.
	forgotten = 5e-5
)

// Counts are what flowed between two workloads: requests, and bytes each way.
type Counts struct {
	Requests, RequestBytes, ResponseBytes float64
}

func (c Counts) check() error {
	for _, f := range []struct {
		name string
		v    float64
	}{{"requests", c.Requests}, {"request bytes", c.RequestBytes}, {"response bytes", c.ResponseBytes}} {
		if math.IsNaN(f.v) || math.IsInf(f.v, 0) || f.v < 0 {
			return fmt.Errorf("%s are %v: a count is finite and not negative", f.name, f.v)
		}
	}
	return nil
}

func (c Counts) plus(o Counts) Counts {
	return Counts{c.Requests + o.Requests, c.RequestBytes + o.RequestBytes, c.ResponseBytes + o.ResponseBytes}
}

// mean is an exponentially weighted mean of rates that is not biased by its
// beginning: sum holds the weighted rates and the meter the sum of the weights.
type mean struct{ sum Rates }

// Meter turns what flows into means. Its memory is bounded: past its limit of
// pairs what flows between further ones is counted for each end alone.
type Meter struct {
	limit int
	pairs map[pair]*metered
	rest  map[mesh.Workload]*restMetered
	// weight of all past time in each mean, 1 when the meter has run for long.
	recentWeight, steadyWeight float64
}

type metered struct {
	pending, across        Counts
	recent, steady, abroad mean
	quiet                  time.Duration
}

type restMetered struct {
	out, in       Counts
	outAvg, inAvg mean
	quiet         time.Duration
}

// NewMeter makes a meter that tells at most limit pairs apart (at least 1), and as
// many workloads of further pairs.
func NewMeter(limit int) *Meter {
	return &Meter{limit: max(1, limit), pairs: map[pair]*metered{}, rest: map[mesh.Workload]*restMetered{}}
}

// Add counts what flowed from a caller to what it calls since the last
// [Meter.Tick]. It refuses what cannot be a count and workloads without names.
func (m *Meter) Add(from, to mesh.Workload, c Counts) error { return m.add(from, to, c, false) }

// AddAcross is [Meter.Add] for what went to another site than the caller's.
func (m *Meter) AddAcross(from, to mesh.Workload, c Counts) error { return m.add(from, to, c, true) }

func (m *Meter) add(from, to mesh.Workload, c Counts, across bool) error {
	if from.Name == "" || to.Name == "" {
		return fmt.Errorf("traffic from %q to %q: a workload has no name", from, to)
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("traffic from %s to %s: %w", from, to, err)
	}
	k := pair{from, to}
	p := m.pairs[k]
	switch {
	case p != nil:
	case c == (Counts{}):
		return nil // nothing to remember a pair for
	case len(m.pairs) < m.limit:
		p = &metered{}
		m.pairs[k] = p
	default:
		m.restOf(from).out = m.restOf(from).out.plus(c)
		m.restOf(to).in = m.restOf(to).in.plus(c)
		return nil
	}
	p.pending = p.pending.plus(c)
	if across {
		p.across = p.across.plus(c)
	}
	return nil
}

func (m *Meter) restOf(w mesh.Workload) *restMetered {
	r := m.rest[w]
	if r == nil && len(m.rest) >= m.limit {
		w = mesh.Others
		r = m.rest[w]
	}
	if r == nil {
		r = &restMetered{}
		m.rest[w] = r
	}
	return r
}

// Tick ends an interval: what was added since the last one flowed evenly in dt.
// An interval that is not positive waits for the next.
func (m *Meter) Tick(dt time.Duration) {
	if dt <= 0 {
		return
	}
	ra, sa := -math.Expm1(-dt.Seconds()/RecentOver.Seconds()), -math.Expm1(-dt.Seconds()/SteadyOver.Seconds())
	m.recentWeight += ra * (1 - m.recentWeight)
	m.steadyWeight += sa * (1 - m.steadyWeight)
	for k, p := range m.pairs {
		r := p.pending.over(dt)
		p.quiet = quietFor(p.quiet, dt, p.pending)
		p.recent.add(ra, r)
		p.steady.add(sa, r)
		p.abroad.add(sa, p.across.over(dt))
		p.pending, p.across = Counts{}, Counts{}
		if math.Exp(-p.quiet.Seconds()/SteadyOver.Seconds()) < forgotten {
			delete(m.pairs, k)
		}
	}
	for w, p := range m.rest {
		out, in := p.out.over(dt), p.in.over(dt)
		p.quiet = quietFor(p.quiet, dt, p.out.plus(p.in))
		p.out, p.in = Counts{}, Counts{}
		p.outAvg.add(ra, out)
		p.inAvg.add(ra, in)
		if math.Exp(-p.quiet.Seconds()/SteadyOver.Seconds()) < forgotten {
			delete(m.rest, w)
		}
	}
}

func quietFor(before, dt time.Duration, c Counts) time.Duration {
	if c != (Counts{}) {
		return 0
	}
	return before + dt
}

func (c Counts) over(dt time.Duration) Rates {
	return Rates{RequestsPerS: c.Requests / dt.Seconds(), RequestBytesPerS: c.RequestBytes / dt.Seconds(), ResponseBytesPerS: c.ResponseBytes / dt.Seconds()}
}

func (a *mean) add(share float64, r Rates) {
	a.sum = scaled(a.sum, 1-share).Plus(scaled(r, share))
}

func (a mean) value(weight float64) Rates {
	if weight <= 0 {
		return Rates{}
	}
	return scaled(a.sum, 1/weight)
}

// Matrix reads the means, k edges for each workload at most (see [Matrix.Bound]).
func (m *Meter) Matrix(k int) *Matrix {
	out := &Matrix{}
	for _, key := range slices.SortedFunc(maps.Keys(m.pairs), pair.compare) {
		p := m.pairs[key]
		out.Edges = append(out.Edges, Edge{
			From: key.from, To: key.to,
			Recent: p.recent.value(m.recentWeight), Steady: p.steady.value(m.steadyWeight), Across: p.abroad.value(m.steadyWeight),
		})
	}
	for _, w := range slices.SortedFunc(maps.Keys(m.rest), mesh.Workload.Compare) {
		p := m.rest[w]
		out.Rest = append(out.Rest, Rest{Workload: w, Out: p.outAvg.value(m.recentWeight), In: p.inAvg.value(m.recentWeight)})
	}
	return out.Bound(k)
}
