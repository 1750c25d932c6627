// Package lb picks one endpoint of a service inside a site. Its pickers are pure:
// what endpoints are worth comes in through [Endpoints] and randomness as a
// number, so the same arguments give the same pick.
//
// Endpoints are numbered as in the weights a picker was made with. A weight of 0
// takes no requests. A picker belongs to one event loop.
package lb

import "math/bits"

// Endpoints is what a picker asks about endpoint i at the time of the pick.
type Endpoints interface {
	// Usable reports whether the endpoint may be picked: healthy, not draining.
	Usable(i int) bool
	// InFlight counts the requests that it works on or that wait for it.
	InFlight(i int) int
}

// Picker chooses an endpoint for a request. tried lists endpoints the request has
// been sent to already, which are not picked again; it is expected to be short.
// random is uniform over all uint64. ok is false when no endpoint is left.
// Pick does not allocate.
type Picker interface {
	Pick(e Endpoints, tried []int, random uint64) (i int, ok bool)
}

var (
	_ Picker = (*LeastRequest)(nil)
	_ Picker = (*RoundRobin)(nil)
)

// LeastRequest is power of two choices: two different endpoints are drawn by
// weight and the one with fewer requests in flight per weight wins, the first
// drawn when they are level. So shares follow the weights while there is no
// queue, and a slow endpoint gets less as soon as requests stay in flight there
// (Mitzenmacher 2001).
type LeastRequest struct {
	weights []int
	// below[i] is the sum of weights[:i+1]; nil when all weights are 1.
	below []uint64
	total uint64
}

// NewLeastRequest makes a picker for endpoints of the given weights, which it
// keeps. A negative weight counts as 0.
func NewLeastRequest(weights []int) *LeastRequest {
	p := &LeastRequest{weights: weights}
	even := true
	for _, w := range weights {
		p.total += uint64(max(w, 0))
		even = even && w == 1
	}
	if !even {
		p.below = make([]uint64, len(weights))
		sum := uint64(0)
		for i, w := range weights {
			sum += uint64(max(w, 0))
			p.below[i] = sum
		}
	}
	return p
}

// draws is how often an endpoint that may not be picked is drawn anew before the
// candidates are counted instead; either way gives the same distribution.
const draws = 4

// Pick implements [Picker].
func (p *LeastRequest) Pick(e Endpoints, tried []int, random uint64) (int, bool) {
	first, ok := p.draw(e, tried, -1, &random)
	if !ok {
		return 0, false
	}
	second, ok := p.draw(e, tried, first, &random)
	if !ok {
		return first, true
	}
	// in flight / weight, compared without dividing
	if e.InFlight(second)*p.weights[first] < e.InFlight(first)*p.weights[second] {
		return second, true
	}
	return first, true
}

// draw picks by weight among the usable endpoints that are neither tried nor skip.
func (p *LeastRequest) draw(e Endpoints, tried []int, skip int, random *uint64) (int, bool) {
	if p.total == 0 {
		return 0, false
	}
	for range draws {
		at, _ := bits.Mul64(next(random), p.total)
		i := int(at)
		if p.below != nil {
			i = search(p.below, at)
		}
		if i != skip && e.Usable(i) && !contains(tried, i) {
			return i, true
		}
	}
	left := uint64(0)
	for i, w := range p.weights {
		if w > 0 && i != skip && e.Usable(i) && !contains(tried, i) {
			left += uint64(w)
		}
	}
	at, _ := bits.Mul64(next(random), left)
	for i, w := range p.weights {
		if w > 0 && i != skip && e.Usable(i) && !contains(tried, i) {
			if at < uint64(w) {
				return i, true
			}
			at -= uint64(w)
		}
	}
	return 0, false
}

// search returns the first index whose sum is above at.
func search(below []uint64, at uint64) int {
	lo, hi := 0, len(below)-1
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); below[mid] > at {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// next draws a number from a splitmix64 sequence (Steele, Lea, Flood 2014): a
// request brings one random number and a pick may need several.
func next(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func contains(tried []int, i int) bool {
	for _, t := range tried {
		if t == i {
			return true
		}
	}
	return false
}

// RoundRobin takes endpoints in turn, each as often as its weight says and spread
// evenly: before a pick every candidate gains its weight, the one with most is
// picked and pays the sum of what was gained. Endpoints that may not be picked
// neither gain nor pay, so they come back without a burst.
type RoundRobin struct {
	weights []int
	credit  []int // nil when all weights are 1: then a cursor gives the same turns
	cursor  int
}

// NewRoundRobin makes a picker for endpoints of the given weights, which it
// keeps. start sets where the turn begins, so that loops and proxies that start
// together do not all begin at the same endpoint.
func NewRoundRobin(weights []int, start uint64) *RoundRobin {
	p := &RoundRobin{weights: weights}
	if n := uint64(len(weights)); n > 0 {
		p.cursor = int(start % n)
	}
	for _, w := range weights {
		if w != 1 {
			p.credit = make([]int, len(weights))
			break
		}
	}
	return p
}

// Pick implements [Picker]. It uses no randomness.
func (p *RoundRobin) Pick(e Endpoints, tried []int, _ uint64) (int, bool) {
	n := len(p.weights)
	best, gained := -1, 0
	for k := range n {
		i := p.cursor + k
		if i >= n {
			i -= n
		}
		w := p.weights[i]
		if w <= 0 || !e.Usable(i) || contains(tried, i) {
			continue
		}
		if p.credit == nil {
			if p.cursor = i + 1; p.cursor == n {
				p.cursor = 0
			}
			return i, true
		}
		p.credit[i] += w
		gained += w
		if best < 0 || p.credit[i] > p.credit[best] {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	p.credit[best] -= gained
	return best, true
}
