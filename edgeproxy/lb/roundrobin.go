package lb

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
