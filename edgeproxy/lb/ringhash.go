package lb

import (
	"cmp"
	"math"
	"slices"
)

// RingHash is consistent hashing (Karger 1997): every endpoint has points on a
// ring, as many as its weight's share, and a key belongs to the first point after
// it. An endpoint that leaves gives up its own keys and moves no other.
//
// With a balance an endpoint that has more than balance times its share of the
// requests in flight is passed over for the next on the ring (consistent hashing
// with bounded loads, Mirrokni 2016): a popular key then cannot overload one.
type RingHash struct {
	weights []int
	hashes  []uint64
	owners  []int32
	balance float64
}

// pointsEach is how many points an endpoint has on average: shares are then within
// about 1/sqrt(pointsEach), 8 %, of the weights.
const pointsEach = 160

// maxPoints bounds the ring's memory (12 bytes each).
const maxPoints = 1 << 16

// NewRingHash makes a picker for endpoints of the given weights, which it keeps.
// ids name the endpoints to every proxy alike, see [Hash]. A balance of 0 bounds
// nothing, else it is above 1.
func NewRingHash(weights []int, ids []uint64, balance float64) *RingHash {
	type point struct {
		hash  uint64
		owner int32
	}
	total, n := 0, 0
	for _, w := range weights {
		if w > 0 {
			total += w
			n++
		}
	}
	size := min(n*pointsEach, max(maxPoints, n))
	var points []point
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		state := ids[i]
		for range max(1, int(math.Round(float64(size)*float64(w)/float64(total)))) {
			points = append(points, point{next(&state), int32(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(ids[a.owner], ids[b.owner]))
	})
	p := &RingHash{weights: weights, balance: balance}
	for _, x := range points {
		p.hashes = append(p.hashes, x.hash)
		p.owners = append(p.owners, x.owner)
	}
	return p
}

// Pick implements [Picker]; draw is the key's hash.
func (p *RingHash) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	n := len(p.hashes)
	at, _ := slices.BinarySearch(p.hashes, draw)
	first, last := -1, -1
	for range n {
		if at >= n {
			at = 0
		}
		i := int(p.owners[at])
		at++
		if i == last || !e.Usable(i) || contains(tried, i) {
			continue
		}
		last = i
		if first < 0 {
			first = i
		}
		if p.within(e, tried, i) {
			return i, true
		}
	}
	return max(first, 0), first >= 0
}

// within reports whether one more request leaves endpoint i within its bound.
func (p *RingHash) within(e Endpoints, tried []int, i int) bool {
	has := e.InFlight(i)
	if p.balance == 0 || has == 0 {
		return true
	}
	all, weight := 1, 0
	for k, w := range p.weights {
		if w > 0 && e.Usable(k) && !contains(tried, k) {
			all += e.InFlight(k)
			weight += w
		}
	}
	return float64(has+1) <= math.Ceil(p.balance*float64(all)*float64(p.weights[i])/float64(weight))
}
