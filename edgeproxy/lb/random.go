package lb

import "math/bits"

// Random draws endpoints by weight and looks at nothing else.
type Random struct{ weighted }

// NewRandom makes a picker for endpoints of the given weights, which it keeps. A
// negative weight counts as 0.
func NewRandom(weights []int) *Random { return &Random{newWeighted(weights)} }

// Pick implements [Picker].
func (p *Random) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	return p.draw(e, tried, -1, &draw)
}

// weighted draws endpoints by weight.
type weighted struct {
	weights []int
	// below[i] is the sum of weights[:i+1]; nil when all weights are 1.
	below []uint64
	total uint64
}

func newWeighted(weights []int) weighted {
	p := weighted{weights: weights}
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

// draw picks by weight among the usable endpoints that are neither tried nor skip.
func (p *weighted) draw(e Endpoints, tried []int, skip int, random *uint64) (int, bool) {
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
