// Package lb picks one endpoint of a service inside a site. Its pickers are pure:
// what endpoints are worth comes in through [Endpoints] and randomness as a
// number, so the same arguments give the same pick.
//
// Endpoints are numbered as in the weights a picker was made with. A weight of 0
// takes no requests. Pickers keep nothing between picks and may be shared by event
// loops, except [RoundRobin], which belongs to one.
package lb

import "github.com/meridian-mesh/meridian/internal/maglev"

// Endpoints is what a picker asks about endpoint i at the time of the pick. The
// answers must not change while one pick lasts.
type Endpoints interface {
	// Usable reports whether the endpoint may be picked: healthy, not draining.
	Usable(i int) bool
	// InFlight counts the requests that it works on or that wait for it.
	InFlight(i int) int
	// Latency is how long it takes to answer, in any unit, see [Latency]; 0 while
	// that is not known.
	Latency(i int) float64
}

// Picker chooses an endpoint for a request. tried lists endpoints the request has
// been sent to already, which are not picked again; it is expected to be short.
// draw is uniform over all uint64: a random number or, for [RingHash] and
// [Maglev], the hash of what is to stay together (see [Hash]). ok is false when
// no endpoint is left. Pick does not allocate.
type Picker interface {
	Pick(e Endpoints, tried []int, draw uint64) (i int, ok bool)
}

var (
	_ Picker = (*FadingTable)(nil)
	_ Picker = (*LeastRequest)(nil)
	_ Picker = (*Maglev)(nil)
	_ Picker = (*PeakEWMA)(nil)
	_ Picker = (*Random)(nil)
	_ Picker = (*RingHash)(nil)
	_ Picker = (*RoundRobin)(nil)
)

const golden = 0x9e3779b97f4a7c15

// next draws a number from a splitmix64 sequence (Steele, Lea, Flood 2014): a
// request brings one random number and a pick may need several.
func next(state *uint64) uint64 {
	*state += golden
	return mix(*state)
}

func mix(z uint64) uint64 { return maglev.Mix(z) }

// Hash is the same number for the same bytes in every process: 64-bit FNV-1a,
// whose weak high bits are mixed. It is no protection against chosen keys.
func Hash[T string | []byte](key T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return mix(h)
}

func contains(tried []int, i int) bool {
	for _, t := range tried {
		if t == i {
			return true
		}
	}
	return false
}
