package lb

import (
	"cmp"
	"slices"
)

// Maglev is consistent hashing by a table (Eisenbud 2016, section 3.4): a pick is
// one look into it, and shares follow the weights more closely than on a ring. An
// endpoint that leaves moves its own keys and about one in a hundred of the others.
type Maglev struct {
	weights []int
	table   []uint16
}

// Table sizes are primes, so that every step visits every place. The paper asks
// for a hundred places and more an endpoint.
var maglevSizes = []int{2039, 4093, 8191, 16381, 32749, 65521}

const placesEach = 100

// NewMaglev makes a picker for endpoints of the given weights, which it keeps, at
// most 65,535 of them. ids name the endpoints to every proxy alike, see [Hash].
func NewMaglev(weights []int, ids []uint64) *Maglev {
	var order []int
	most := 0
	for i, w := range weights {
		if w > 0 {
			order = append(order, i)
			most = max(most, w)
		}
	}
	p := &Maglev{weights: weights}
	if len(order) == 0 {
		return p
	}
	// The table must not depend on the order in which endpoints are listed.
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ids[a], ids[b]) })
	size := maglevSizes[len(maglevSizes)-1]
	for _, s := range maglevSizes {
		if s >= placesEach*len(order) {
			size = s
			break
		}
	}
	const vacant = 1<<16 - 1
	p.table = slices.Repeat([]uint16{vacant}, size)
	next, step, turns := make([]int, len(order)), make([]int, len(order)), make([]float64, len(order))
	for k, i := range order {
		next[k] = int(ids[i] % uint64(size))
		step[k] = int(mix(ids[i])%uint64(size-1)) + 1
	}
	for filled := 0; ; {
		for k, i := range order {
			// The heaviest takes one place a round, the others as many in proportion.
			if turns[k] += float64(weights[i]) / float64(most); turns[k] < 1 {
				continue
			}
			turns[k]--
			for p.table[next[k]] != vacant {
				next[k] = (next[k] + step[k]) % size
			}
			p.table[next[k]] = uint16(i)
			if filled++; filled == size {
				return p
			}
		}
	}
}

// rehashes is how often a key whose endpoint may not be picked is hashed anew
// before endpoints are looked at in turn.
const rehashes = 8

// Pick implements [Picker]; draw is the key's hash.
func (p *Maglev) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	if len(p.table) == 0 {
		return 0, false
	}
	for range rehashes {
		i := int(p.table[draw%uint64(len(p.table))])
		if e.Usable(i) && !contains(tried, i) {
			return i, true
		}
		draw = mix(draw + golden)
	}
	at := int(draw % uint64(len(p.weights)))
	for range p.weights {
		if at++; at >= len(p.weights) {
			at = 0
		}
		if p.weights[at] > 0 && e.Usable(at) && !contains(tried, at) {
			return at, true
		}
	}
	return 0, false
}
