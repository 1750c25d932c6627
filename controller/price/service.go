package price

import "math"

const (
	fastSamples = 20.0
	slowSamples = 250.0
	// serviceSnapSD is larger than a rate's: service times have longer tails.
	serviceSnapSD = 4.5
	// minSpread is the least standard deviation taken, as a part of the mean: a
	// constant service time must not snap on the clock's grain.
	minSpread = 0.05
	// silence is -ln of the chance (0.1 %) at which full slots without any
	// completion speak against the estimate.
	silence = 7
)

// ServiceTime estimates the mean time of one request without waiting, from
// requests that found a free slot and, while every slot is taken, from the
// throughput of the slots. It is a mean over up to 250 samples that is given up
// for one over 20 when they differ by more than noise. Make it with
// [NewServiceTime].
type ServiceTime struct {
	fast, slow moments
	samples    float64
	snaps      uint64
	// stuckMS is slots times the time for which all were taken and none completed.
	stuckMS float64
}

type moments struct{ mean, square float64 }

func (m *moments) add(share, mean, square float64) {
	m.mean += share * (mean - m.mean)
	m.square += share * (square - m.square)
}

func (m moments) sd() float64 {
	return math.Max(minSpread*m.mean, math.Sqrt(math.Max(0, m.square-m.mean*m.mean)))
}

// NewServiceTime starts from a declared mean in ms, which fades as samples come;
// 0 when none is declared.
func NewServiceTime(declaredMS float64) ServiceTime {
	if !(declaredMS > 0 && declaredMS <= MaxServiceMS) {
		return ServiceTime{}
	}
	// The square of an exponential time, so that its spread is not taken as none.
	m := moments{declaredMS, 2 * declaredMS * declaredMS}
	return ServiceTime{fast: m, slow: m, samples: fastSamples}
}

// Observe adds n completions that had not waited, by the sum and the sum of
// squares of their times in ms. Impossible sums are ignored.
func (t *ServiceTime) Observe(n uint64, sumMS, sumSqMS float64) {
	if n == 0 || !(sumMS > 0) || !(sumSqMS > 0) || math.IsInf(sumMS, 0) || math.IsInf(sumSqMS, 0) {
		return
	}
	t.stuckMS = 0
	t.add(float64(n), sumMS/float64(n), sumSqMS/float64(n))
}

// ObserveFull adds an interval of dtMS during which at least slots requests were
// in flight all the time: then each slot was busy throughout and the mean is
// slots*dt/completions.
func (t *ServiceTime) ObserveFull(slots, dtMS float64, completions uint64) {
	if !(slots > 0 && dtMS > 0) || math.IsInf(slots*dtMS, 0) {
		return
	}
	t.stuckMS += slots * dtMS
	if completions == 0 {
		return
	}
	n := float64(completions)
	mean := t.stuckMS / n
	t.stuckMS = 0
	sd := t.slow.sd()
	t.add(n, mean, mean*mean+sd*sd)
}

func (t *ServiceTime) add(n, mean, square float64) {
	if t.samples == 0 {
		t.fast = moments{mean, square}
		t.slow = t.fast
		t.samples = n
		return
	}
	t.samples += n
	t.fast.add(-math.Expm1(-n/fastSamples), mean, square)
	window := math.Min(slowSamples, math.Max(fastSamples, t.samples))
	t.slow.add(-math.Expm1(-n/window), mean, square)
	// Spread grows with the mean, so a fall is judged by the spread after it: by
	// the one before it, no fall to a third could ever be told from noise.
	sd := t.slow.sd()
	if t.fast.mean < t.slow.mean {
		sd = math.Min(sd, t.fast.sd())
	}
	if math.Abs(t.fast.mean-t.slow.mean) > serviceSnapSD*sd/math.Sqrt(2*fastSamples) {
		t.slow = t.fast
		t.samples = fastSamples
		t.snaps++
	}
}

// MS is the estimate in ms, 0 while nothing is known. When all slots are taken
// and nothing completes it grows with the silence.
func (t *ServiceTime) MS() float64 { return math.Max(t.slow.mean, t.stuckMS/silence) }

// Snaps counts how often the slow mean was given up.
func (t *ServiceTime) Snaps() uint64 { return t.snaps }
