package price

import (
	"fmt"
	"math"
	"sync"
)

// Bounds of what is taken as a queue; beyond them a report is an error.
const (
	// MaxSlots is the largest number of slots of one site.
	MaxSlots = 1e6
	// MaxServiceMS is the longest mean service time, one hour.
	MaxServiceMS = 3.6e6
	minServiceMS = 1e-4
	minSlots     = 1e-3
)

const (
	curvePoints = 1200
	// kneeRho is where the table ends. Beyond it the price goes on along the
	// knee's tangent, so that it stays finite and has an inverse at any load.
	kneeRho = 0.995
	// maxShape bounds the cost of building a table (points times slots). Larger
	// sites use this shape at their own utilisation: dearer than the truth, by
	// less than the noise of a report.
	maxShape = 4096
	// maxCurves bounds the memory that made-up slot counts could take (30 KB each).
	maxCurves = 512
)

// curve is the marginal delay over the service time by utilisation, at the
// points rho_i = 1 - (1-kneeRho)^(i/(points-1)): dense near 1, where it bends.
type curve struct {
	point [curvePoints]point
	slope float64
	// upTo[b] is how many points have a price in a bucket below b, see bucket: the
	// inverse looks only at those of its own.
	upTo [priceBuckets + 1]uint16
}

// point keeps together what is read together. sojourn is the mean delay over the
// service time.
type point struct{ rho, marginal, sojourn float64 }

const (
	// Prices are put into buckets by their excess over the lowest, sixteen to each
	// doubling of it, the first of them from leastExcess on: even where many slots
	// keep the price flat for long, a bucket then holds a few points.
	leastExcess  = 1.0 / 1024
	bucketBits   = 4
	priceBuckets = 32 << bucketBits
)

var firstBucket = math.Float64bits(leastExcess) >> (52 - bucketBits)

// bucket grows with m, which is at least the lowest price of the curve.
func (t *curve) bucket(m float64) int {
	b := math.Float64bits(m-t.point[0].marginal+leastExcess)>>(52-bucketBits) - firstBucket
	return int(min(b, priceBuckets-1))
}

var logKnee = math.Log(1 - kneeRho)

func newCurve(c float64) *curve {
	t := new(curve)
	for i := range t.point {
		p := &t.point[i]
		rho := -math.Expm1(logKnee * float64(i) / (curvePoints - 1))
		mean, slope := inSystem(c, rho*c)
		p.rho, p.marginal, p.sojourn = rho, slope, slope
		if rho > 0 {
			p.sojourn = mean / (rho * c)
		}
		if i > 0 {
			// Rounding must not make a step that the inverse cannot walk.
			p.marginal = math.Max(p.marginal, t.point[i-1].marginal)
		}
	}
	const last = curvePoints - 1
	// The tangent by a one-sided difference, closer than the last two points.
	const h = 1e-6
	_, above := inSystem(c, (kneeRho+h)*c)
	t.slope = (above - t.point[last].marginal) / h
	i := 0
	for b := range t.upTo {
		for i < curvePoints && t.bucket(t.point[i].marginal) < b {
			i++
		}
		t.upTo[b] = uint16(i)
	}
	return t
}

// at returns between which points rho lies, i and i+1, and which part of the way.
func (t *curve) at(rho float64) (i int, part float64) {
	if rho <= 0 {
		return 0, 0
	}
	i = int(math.Log1p(-rho) / logKnee * (curvePoints - 1))
	i = min(max(i, 0), curvePoints-2)
	return i, (rho - t.point[i].rho) / (t.point[i+1].rho - t.point[i].rho)
}

func (t *curve) price(rho float64) float64 {
	if rho >= kneeRho {
		return t.point[curvePoints-1].marginal + (rho-kneeRho)*t.slope
	}
	i, part := t.at(rho)
	from := t.point[i].marginal
	return from + part*(t.point[i+1].marginal-from)
}

func (t *curve) sojourn(rho float64) float64 {
	i, part := t.at(rho)
	from := t.point[i].sojourn
	return from + part*(t.point[i+1].sojourn-from)
}

// utilisation is the largest rho whose price is at most m, 0 when there is none.
func (t *curve) utilisation(m float64) float64 {
	if m < t.point[0].marginal {
		return 0
	}
	if top := t.point[curvePoints-1].marginal; m >= top {
		return kneeRho + (m-top)/t.slope
	}
	b := t.bucket(m)
	lo, hi := max(0, int(t.upTo[b])-1), min(int(t.upTo[b+1]), curvePoints-1)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if t.point[mid].marginal <= m {
			lo = mid
		} else {
			hi = mid
		}
	}
	f := (m - t.point[lo].marginal) / (t.point[hi].marginal - t.point[lo].marginal)
	return t.point[lo].rho + f*(t.point[hi].rho-t.point[lo].rho)
}

// Curves builds and keeps the price tables by number of slots. The zero value is
// ready; it is safe for concurrent use and bounded.
type Curves struct {
	mu    sync.RWMutex
	shape map[float64]*curve
}

// shapeOf rounds slots so that drifting estimates share tables: to eighths where
// single slots matter, to about one percent above.
func shapeOf(slots float64) float64 {
	switch {
	case slots <= 1:
		return 1 // One slot or less of it: the same shape over utilisation.
	case slots <= 64:
		return math.Max(1, math.Round(slots*8)/8)
	default:
		step := math.Exp2(math.Floor(math.Log2(slots)) - 6)
		return math.Min(maxShape, math.Round(slots/step)*step)
	}
}

func (cs *Curves) get(slots float64) *curve {
	key := shapeOf(slots)
	cs.mu.RLock()
	t := cs.shape[key]
	cs.mu.RUnlock()
	if t != nil {
		return t
	}
	t = newCurve(key)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.shape == nil || len(cs.shape) >= maxCurves {
		cs.shape = make(map[float64]*curve)
	}
	cs.shape[key] = t
	return t
}

// Queue is one service at one site as an M/M/c queue. It is an immutable value.
type Queue struct {
	curve            *curve
	slots, serviceMS float64
	// unitMS scales the curve: the delay of a request alone, which is the service
	// time except where less than one slot stretches it.
	unitMS float64
	// perS is CapacityPerS, which every look at the queue needs.
	perS float64
}

// Queue returns the queue of a site that works on slots requests at once, each
// serviceMS milliseconds long. It is an error when either is not a number, not
// above zero or beyond MaxSlots and MaxServiceMS.
func (cs *Curves) Queue(slots, serviceMS float64) (Queue, error) {
	if !(slots >= minSlots && slots <= MaxSlots) {
		return Queue{}, fmt.Errorf("slots %v out of range %g to %g", slots, float64(minSlots), float64(MaxSlots))
	}
	if !(serviceMS >= minServiceMS && serviceMS <= MaxServiceMS) {
		return Queue{}, fmt.Errorf("service time %v ms out of range %g to %g", serviceMS, float64(minServiceMS), float64(MaxServiceMS))
	}
	return Queue{cs.get(slots), slots, serviceMS, serviceMS / math.Min(slots, 1), slots / serviceMS * 1000}, nil
}

// Slots is c.
func (q Queue) Slots() float64 { return q.slots }

// ServiceMS is s.
func (q Queue) ServiceMS() float64 { return q.serviceMS }

// CapacityPerS is c/s, the rate at which the queue would grow without end.
func (q Queue) CapacityPerS() float64 { return q.perS }

// MarginalMS is m = d(L*S)/dL at perS arrivals: the delay that one more request
// per second adds to everybody, itself included. Past utilisation 0.995 it goes
// on steeply but finite.
func (q Queue) MarginalMS(perS float64) float64 {
	return q.unitMS * q.curve.price(perS/q.CapacityPerS())
}

// RatePerS is the inverse of MarginalMS: the rate at which the price is ms, 0
// where an idle queue is dearer already.
func (q Queue) RatePerS(ms float64) float64 {
	return q.CapacityPerS() * q.curve.utilisation(ms/q.unitMS)
}

// SojournMS is S, the mean delay with waiting at perS arrivals, which count as at
// most 0.995 of the capacity.
func (q Queue) SojournMS(perS float64) float64 {
	rho := math.Min(perS/q.CapacityPerS(), kneeRho)
	return q.unitMS * q.curve.sojourn(rho)
}
