package price

import "math"

// maxAdmission bounds an admission table. Prices bend only within a few
// sqrt(c) below c; further down they are flat.
const maxAdmission = 256

// Admission is the price of admitting one request by the number in flight, at a
// given rate of later arrivals: the relative value D(n; L) of the queue. It is
// immutable.
type Admission struct {
	from  int
	ms    []float64
	slope float64
}

// Admission returns the admission prices at perS arrivals, which count as at most
// 0.995 of the capacity (the queue has no steady state beyond).
func (q Queue) Admission(perS float64) Admission {
	c, s := q.slots, q.serviceMS/1000
	capacity := c / s
	l := math.Max(0, math.Min(perS, kneeRho*capacity))
	g, _ := inSystem(c, l*s) // mean number in flight: the cost per second
	slope := 1 / (capacity - l)
	base := (capacity*slope - g) / (capacity - l)

	// From last on D is a straight line. Below it each D(n) follows from a
	// neighbour by g = n + L*D(n) - n/s*D(n-1), upwards as long as n < L*s and
	// downwards above: in the other direction the recursion multiplies its
	// rounding errors at every step.
	last := int(math.Ceil(c)) - 1
	from := max(0, last+1-maxAdmission)
	ms := make([]float64, last+1-from)
	put := func(n int, d float64) {
		if n >= from {
			ms[n-from] = d * 1000
		}
	}
	d := base + slope*float64(last)
	put(last, d)
	n := last
	for ; n > 0 && float64(n) > l*s; n-- {
		d = (l*d + float64(n) - g) * s / float64(n)
		put(n-1, d)
	}
	if n > 0 {
		d = g / l
		put(0, d)
		for i := 1; i < n; i++ {
			d = (g - float64(i) + float64(i)/s*d) / l
			put(i, d)
		}
	}
	return Admission{from, ms, slope * 1000}
}

// PriceMS is D(n): the delay that one more request adds to everybody when n are
// in flight.
func (a Admission) PriceMS(n int) float64 {
	i := n - a.from
	if i < 0 {
		return a.ms[0]
	}
	if over := i - (len(a.ms) - 1); over > 0 {
		return a.ms[len(a.ms)-1] + float64(over)*a.slope
	}
	return a.ms[i]
}

// Limit is the number of requests in flight below which admitting one more costs
// at most maxMS: the largest n with D(n-1) <= maxMS, at most most.
func (a Admission) Limit(maxMS float64, most int) int {
	top := a.ms[len(a.ms)-1]
	if maxMS >= top {
		n := float64(a.from+len(a.ms)) + math.Floor((maxMS-top)/a.slope)
		return int(math.Min(n, float64(most)))
	}
	lo, hi := -1, len(a.ms)-1 // ms[lo] <= maxMS < ms[hi]
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if a.ms[mid] <= maxMS {
			lo = mid
		} else {
			hi = mid
		}
	}
	if lo < 0 {
		return 0
	}
	return min(a.from+lo+1, most)
}

// Table gives the prices as numbers to send: ms[i] is D(from+i), below from it is
// ms[0], beyond the table it grows by slopeMS a request. The caller must not
// change ms.
func (a Admission) Table() (from int, ms []float64, slopeMS float64) {
	return a.from, a.ms, a.slope
}
