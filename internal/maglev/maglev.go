// Package maglev builds the lookup table of consistent hashing by a table
// (Eisenbud 2016, section 3.4): a pick is one look into it, shares follow the
// weights closely, and a member that leaves moves its own keys and about one in a
// hundred of the others. The package is pure.
package maglev

import (
	"cmp"
	"slices"
)

// Sizes are primes, so that every step visits every place. The paper asks for a
// hundred places and more a member.
var sizes = []int{2039, 4093, 8191, 16381, 32749, 65521}

const placesEach = 100

// Table returns the table for members of the given weights, at most 65,535 of
// them: indexes into weights, nil when no weight is above 0. ids name the members
// to everybody alike; the order in which they are listed does not matter.
func Table(weights []int, ids []uint64) []uint16 {
	var order []int
	most := 0
	for i, w := range weights {
		if w > 0 {
			order = append(order, i)
			most = max(most, w)
		}
	}
	if len(order) == 0 {
		return nil
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ids[a], ids[b]) })
	size := sizes[len(sizes)-1]
	for _, s := range sizes {
		if s >= placesEach*len(order) {
			size = s
			break
		}
	}
	const vacant = 1<<16 - 1
	table := slices.Repeat([]uint16{vacant}, size)
	next, step, turns := make([]int, len(order)), make([]int, len(order)), make([]float64, len(order))
	for k, i := range order {
		next[k] = int(ids[i] % uint64(size))
		step[k] = int(Mix(ids[i])%uint64(size-1)) + 1
	}
	for filled := 0; ; {
		for k, i := range order {
			// The heaviest takes one place a round, the others as many in proportion.
			if turns[k] += float64(weights[i]) / float64(most); turns[k] < 1 {
				continue
			}
			turns[k]--
			for table[next[k]] != vacant {
				next[k] = (next[k] + step[k]) % size
			}
			table[next[k]] = uint16(i)
			if filled++; filled == size {
				return table
			}
		}
	}
}

// Mix is splitmix64's finaliser (Steele, Lea, Flood 2014): every bit of z counts
// for every bit of the result.
func Mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
