package price

import "math"

// inSystem returns the mean number in an M/M/c system and its derivative by the
// offered load a = L*s (erlang), for a < c. c may have a fraction: departures
// then run at min(n, c)/s, which is Erlang C where c is whole and one slot of
// service time s/c where c is under one.
func inSystem(c, a float64) (mean, slope float64) {
	if a <= 0 {
		// One request alone: s where a slot is whole, s/c where it is not.
		return 0, 1 / math.Min(c, 1)
	}
	k := math.Floor(c)
	// Erlang B by its recurrence, here for the k whole slots.
	b := 1.0
	for i := 1.0; i <= k; i++ {
		b = a * b / (i + a*b)
	}
	db := b * (k/a - 1 + b)

	rho, dRho := a/c, 1/c
	free := 1 - rho
	// p is the probability of exactly k in the system; beyond k the states fall
	// geometrically by rho.
	tail := rho / free
	dTail := dRho / (free * free)
	den := 1 + b*tail
	p := b / den
	dp := (db - b*b*dTail) / (den * den)

	// mean = a*P(n < k) + sum over j >= 1 of (k+j) p rho^j
	w := k*tail + tail/free - a/free
	dw := k*dTail + dTail/free + tail*dRho/(free*free) - (1/free + a*dRho/(free*free))
	return a + p*w, 1 + dp*w + p*dw
}
