package upstream

import (
	"math/bits"
	"time"
)

// Buckets is the number of latency buckets: two an octave from 64 us to 95 s, and
// one beyond.
const Buckets = 43

const firstExponent = 6 // 64 us

// Bucket returns the bucket of a latency.
func Bucket(d time.Duration) int {
	us := uint64(max(d, 0)) / 1000
	if us < 1<<firstExponent {
		return 0
	}
	e := bits.Len64(us) - 1
	if e > 31 {
		return Buckets - 1
	}
	i := 2*(e-firstExponent) + 1
	if us*us >= 1<<(2*e+1) {
		i++
	}
	return min(i, Buckets-1)
}

// Bounds are the upper bounds of the buckets but the last.
var Bounds = func() (b [Buckets - 1]time.Duration) {
	for i := range b {
		d := time.Duration(64<<(i/2)) * time.Microsecond
		if i%2 == 1 {
			d = time.Duration(float64(d) * 1.4142135623730951)
		}
		b[i] = d
	}
	return b
}()
