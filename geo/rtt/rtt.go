// Package rtt knows how long the way between two places takes: a prior from the
// distance between them, blended with what was measured. It is pure; time is
// passed in.
package rtt

import (
	"math"
	"time"
)

// Constants of the prior.
const (
	// FibreKMPerMS is the speed of light in single-mode fibre: 299.792 km/ms over
	// a group index of 1.468 (typical of ITU-T G.652 fibre at 1550 nm).
	FibreKMPerMS = 299.792458 / 1.468
	// Stretch is how much longer the way of the packets is than the great circle.
	// Fibre follows roads and railways, and routes follow interconnects. Bozkurt
	// et al. (Why Is the Internet so Slow?!, PAM 2017, 10.1007/978-3-319-54328-4_13)
	// and Singla et al. (The Internet at the Speed of Light, HotNets 2014,
	// 10.1145/2670518.2673876) discuss why it is well above 1; 2 together with FibreKMPerMS is the rule of thumb of 100 km per
	// millisecond one way.
	Stretch = 2.0
	// DefaultAccess is the round trip between a site and the first point where
	// its operator joins traffic (the aggregation hop), for a site that says
	// nothing better. It is an assumption, not a measurement.
	DefaultAccess = 500 * time.Microsecond
)

// Prior is the expected round trip between two places that are some metres
// apart: the fibre there and back, and the aggregation hop at either end.
func Prior(distanceMeters float64, accessA, accessB time.Duration) time.Duration {
	ms := 2 * distanceMeters / 1000 * Stretch / FibreKMPerMS
	return accessA + accessB + fromMS(ms)
}

// Parameters of the blend.
const (
	// window is the span over which the least sample counts: long enough to see
	// an empty queue, short enough to notice that a route has become longer.
	window = 10 * time.Second
	// smoothing moves the measured value towards the least sample.
	smoothing = 0.25
	// trust is the number of fresh samples at which prior and measurement weigh
	// the same.
	trust = 2.0
	// halfLife is how long samples keep half of their weight.
	halfLife = time.Minute
)

// Estimate is the round trip to one place. The zero Estimate has a prior of 0
// and no samples. It is not safe for concurrent use.
type Estimate struct {
	prior time.Duration

	samples  float64 // fresh samples, fading with halfLife
	last     time.Time
	measured float64 // ms

	// The least sample of the half window that runs and of the one before.
	least, leastBefore float64
	halfStart          time.Time
}

// NewEstimate starts from a prior.
func NewEstimate(prior time.Duration) Estimate { return Estimate{prior: prior} }

// Observe takes a measured round trip in at a time. Samples above the least of
// the last seconds say more of queues than of the way, and count little. A
// sample that is not above zero is ignored; time that runs backwards counts as
// no time.
func (e *Estimate) Observe(now time.Time, rtt time.Duration) {
	if rtt <= 0 {
		return
	}
	ms := rtt.Seconds() * 1000
	if e.samples == 0 {
		e.measured, e.least, e.leastBefore, e.halfStart = ms, ms, math.Inf(1), now
	}
	switch age := now.Sub(e.halfStart); {
	case age >= window:
		e.least, e.leastBefore, e.halfStart = ms, math.Inf(1), now
	case age >= window/2:
		e.leastBefore, e.least, e.halfStart = e.least, ms, now
	default:
		e.least = min(e.least, ms)
	}
	e.samples = e.fresh(now) + 1
	if now.After(e.last) {
		e.last = now
	}
	e.measured += smoothing * (min(e.least, e.leastBefore) - e.measured)
}

func (e *Estimate) fresh(now time.Time) float64 {
	if e.samples == 0 || !now.After(e.last) {
		return e.samples
	}
	return e.samples * math.Exp2(-now.Sub(e.last).Seconds()/halfLife.Seconds())
}

// Confidence is the weight of the measurement against the prior, 0 to 1. It
// grows with samples and fades while there are none.
func (e *Estimate) Confidence(now time.Time) float64 {
	n := e.fresh(now)
	return n / (n + trust)
}

// RTT is the expected round trip now.
func (e *Estimate) RTT(now time.Time) time.Duration {
	c := e.Confidence(now)
	return fromMS(c*e.measured + (1-c)*e.prior.Seconds()*1000)
}

// Measured is the measured part alone, false while there was no sample.
func (e *Estimate) Measured() (time.Duration, bool) {
	return fromMS(e.measured), e.samples > 0
}

func fromMS(ms float64) time.Duration {
	return time.Duration(math.Round(ms * float64(time.Millisecond)))
}
