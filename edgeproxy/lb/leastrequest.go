package lb

// LeastRequest is power of two choices: two different endpoints are drawn by
// weight and the one with fewer requests in flight per weight wins, the first
// drawn when they are level. So shares follow the weights while there is no
// queue, and a slow endpoint gets less as soon as requests stay in flight there
// (Mitzenmacher 2001).
type LeastRequest struct{ weighted }

// NewLeastRequest makes a picker for endpoints of the given weights, which it
// keeps. A negative weight counts as 0.
func NewLeastRequest(weights []int) *LeastRequest { return &LeastRequest{newWeighted(weights)} }

// Pick implements [Picker].
func (p *LeastRequest) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	first, ok := p.draw(e, tried, -1, &draw)
	if !ok || len(p.weights) == 1 {
		return first, ok
	}
	second, ok := p.draw(e, tried, first, &draw)
	if !ok {
		return first, true
	}
	// in flight / weight, compared without dividing
	if e.InFlight(second)*p.weights[first] < e.InFlight(first)*p.weights[second] {
		return second, true
	}
	return first, true
}
