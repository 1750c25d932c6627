package lb

import "github.com/meridian-mesh/meridian/internal/maglev"

// Maglev is consistent hashing by a table (Eisenbud 2016, section 3.4): a pick is
// one look into it, and shares follow the weights more closely than on a ring. An
// endpoint that leaves moves its own keys and about one in a hundred of the others.
type Maglev struct {
	weights []int
	table   []uint16
}

// NewMaglev makes a picker for endpoints of the given weights, which it keeps, at
// most 65,535 of them. ids name the endpoints to every proxy alike, see [Hash].
func NewMaglev(weights []int, ids []uint64) *Maglev {
	return &Maglev{weights: weights, table: maglev.Table(weights, ids)}
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
