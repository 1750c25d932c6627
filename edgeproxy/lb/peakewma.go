package lb

import "math"

// PeakEWMA is power of two choices by expected delay: of two different endpoints,
// drawn by weight, the one wins where latency times requests in flight, the new
// one counted, per weight is lower. Latency is a moving average that follows a
// rise at once and a fall slowly (Finagle's peak EWMA), so a slow endpoint is left
// before its queue is long, and is asked again as its bad figure fades.
type PeakEWMA struct{ weighted }

// NewPeakEWMA makes a picker for endpoints of the given weights, which it keeps. A
// negative weight counts as 0.
func NewPeakEWMA(weights []int) *PeakEWMA { return &PeakEWMA{newWeighted(weights)} }

// Pick implements [Picker].
func (p *PeakEWMA) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	first, ok := p.draw(e, tried, -1, &draw)
	if !ok {
		return 0, false
	}
	second, ok := p.draw(e, tried, first, &draw)
	if !ok {
		return first, true
	}
	a, b := p.cost(e, first), p.cost(e, second)
	if b < a || b == a && e.InFlight(second)*p.weights[first] < e.InFlight(first)*p.weights[second] {
		return second, true
	}
	return first, true
}

// cost is the delay to expect. An endpoint that has not answered yet is tried
// with one request and then avoided until that is answered.
func (p *PeakEWMA) cost(e Endpoints, i int) float64 {
	latency, n := e.Latency(i), e.InFlight(i)
	if latency == 0 && n > 0 {
		return math.Inf(1)
	}
	return latency * float64(n+1) / float64(p.weights[i])
}

// latencyDecay is the time in which what was measured loses all but 1/e of its
// weight, in nanoseconds.
const latencyDecay = 10e9

// Latency is one endpoint's peak-sensitive moving average. It belongs to one event
// loop. The zero value knows nothing.
type Latency struct {
	value float64
	at    int64
}

// Observe takes in that an answer took so long. Times are nanoseconds of one
// monotonic clock.
func (l *Latency) Observe(took, now int64) {
	if v := float64(took); v >= l.value {
		l.value = v
	} else {
		w := math.Exp(float64(l.at-now) / latencyDecay)
		l.value = l.value*w + v*(1-w)
	}
	l.at = now
}

// At is the average in nanoseconds; while nothing is observed it fades.
func (l *Latency) At(now int64) float64 {
	if l.value == 0 {
		return 0
	}
	return l.value * math.Exp(float64(l.at-now)/latencyDecay)
}
