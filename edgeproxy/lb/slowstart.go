package lb

import "math"

// SlowStart lets an endpoint that appeared or recovered take its share bit by bit,
// while its caches, pools and compilers warm up. The zero value lets it take all
// of it at once.
type SlowStart struct {
	// Window is how long it lasts, in nanoseconds.
	Window int64
	// Aggression bends the ramp: 1, or 0, is a straight line, more rises earlier.
	Aggression float64
	// Least is what it takes at the very start (0 to 1).
	Least float64
}

// Missing is what an endpoint of the age, in nanoseconds, must not take yet of its
// full share, for [Warm]: 0 is nothing, 1<<16 would be all of it.
func (s SlowStart) Missing(age int64) uint16 {
	if age >= s.Window {
		return 0
	}
	f := float64(max(age, 0)) / float64(s.Window)
	if s.Aggression > 0 {
		f = math.Pow(f, 1/s.Aggression)
	}
	return uint16(min((1-max(f, s.Least))*(1<<16), 1<<16-1))
}

// Warm reports whether endpoint i takes part in the pick of the draw. It takes
// part in all but missing/65536 of them and competes there at its full weight,
// which works with every algorithm. The same draw gives the same answer and, as
// missing falls, turns to true once: keys of consistent hashing move once.
func Warm(missing uint16, draw uint64, i int) bool {
	return uint16(mix(draw^uint64(i+1)*golden)>>48) >= missing
}
