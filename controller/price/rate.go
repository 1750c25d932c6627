package price

import "math"

const (
	fastS = 0.2
	slowS = 5.0
	// snapSD is how many standard deviations of Poisson noise the fast mean must
	// be away before the slow one is given up.
	snapSD = 3.5
	// quietPerS stands in for the variance of rates too low for a normal
	// approximation: from silence a snap takes three requests within 0.2 s.
	quietPerS = 2.5
)

// Rate estimates the rate of a Poisson stream from its counts: a mean over up to
// 5 s that is given up for a mean over 0.2 s when the two differ by more than
// noise can. So it is calm in calm times and follows a step within 0.3 s. The
// zero value is ready.
type Rate struct {
	fast, slow float64
	begun      bool
	primed     bool
	lastNS     int64
	snapNS     int64
	snaps      uint64
}

// Observe adds the count of events since the last call. The first call only
// starts the clock. A call that is not later than the last one keeps the count
// for the next.
func (r *Rate) Observe(nowNS int64, count float64) {
	if !r.begun {
		*r = Rate{begun: true, lastNS: nowNS, snapNS: nowNS}
		return
	}
	dt := float64(nowNS-r.lastNS) / 1e9
	if dt <= 0 || !(count >= 0) || math.IsInf(count, 1) {
		return
	}
	now := count / dt
	if !r.primed {
		r.fast, r.slow, r.primed = now, now, true
	}
	r.lastNS = nowNS
	since := float64(nowNS-r.snapNS) / 1e9
	r.fast += -math.Expm1(-dt/fastS) * (now - r.fast)
	r.slow += -math.Expm1(-dt/math.Min(slowS, math.Max(fastS, since))) * (now - r.slow)
	noise := math.Sqrt(math.Max(r.slow, quietPerS) / (2 * fastS))
	if math.Abs(r.fast-r.slow) > snapSD*noise {
		r.slow = r.fast
		r.snapNS = nowNS
		r.snaps++
	}
}

// PerS is the estimate.
func (r *Rate) PerS() float64 { return r.slow }

// Snaps counts how often the slow mean was given up.
func (r *Rate) Snaps() uint64 { return r.snaps }
