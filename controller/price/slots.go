package price

import "math"

const (
	// Levels is how many ranges of in flight [Slots] tells apart.
	Levels = 44
	// singles is how many of them hold one number each; above, four make a doubling.
	singles = 8
	// slotsWindow is about how many completions are remembered, mixedWindow where they
	// are of two services: where the line of one fits them worse than mixed.
	slotsWindow, mixedWindow, mixed = 4000.0, 1000.0, 15.0
	// leastAt is the least number of completions that a level is believed with.
	leastAt = 3.0
	// leastTail is the least number of completions that a lower bound stands on, and
	// flat how much longer than the others they may have taken.
	leastTail, flat = 40.0, 1.25
	// proof is the fall of chi-squared that shows saturation, and change the one that
	// moves an estimate, both far above what independent times would need.
	proof, change = 25.0, 25.0
	// hinge is how many times its slots a service must have had in flight.
	hinge = 1.3
)

// Level holds the completions of requests that started with a like number in flight,
// themselves counted: how many they are, and the sums of their times in ms and of
// the squares. It is a running total.
type Level struct {
	N        uint64
	MS, SqMS float64
}

// LevelOf is the level of a request that started with n in flight, itself counted.
func LevelOf(n int) int {
	if n <= singles {
		return max(n, 1) - 1
	}
	k := singles + int(4*math.Log2(float64(n)/singles+1e-9)+0.5) - 1
	return min(max(k, singles), Levels-1)
}

// inFlightAt is the number in flight that stands for a level.
func inFlightAt(level int) float64 {
	if level < singles {
		return float64(level + 1)
	}
	return singles * math.Exp2(float64(level-singles+1)/4)
}

// Slots learns how many requests a service works on at once from how long they took
// by the number that were in flight when they started. With c slots and a mean s that
// is s up to c in flight and s*n/c beyond (first come, first served: n-c have to leave
// first, one every s/c; processor sharing gives the same line). As long as the times
// have stayed the same, c is only known to be at least what was in flight; once they
// have risen, the c that explains them best is the estimate, by weighted least
// squares. It moves only where the times speak clearly against it, and becomes a bound
// again when more in flight no longer takes longer. The zero value knows nothing. Not
// safe for concurrent use.
type Slots struct {
	last  [Levels]Level
	at    [Levels]struct{ n, ms, sq float64 }
	slots float64
	// bound is the most that was served at once before saturation was seen.
	bound float64
	// unit is how many times more than chance allows the best line was off.
	unit float64
}

// Known returns the slots, 0 while nothing is known, and whether saturation was seen:
// otherwise they are a lower bound.
func (s *Slots) Known() (slots float64, settled bool) {
	if s.slots > 0 {
		return s.slots, true
	}
	return s.bound, false
}

// Observe takes the running totals of all levels. One that fell was started anew.
func (s *Slots) Observe(levels *[Levels]Level) {
	var news [Levels]Level
	total := uint64(0)
	for i, now := range levels {
		if before := s.last[i]; now.N >= before.N {
			now = Level{now.N - before.N, now.MS - before.MS, now.SqMS - before.SqMS}
		}
		if now.N == 0 || !(now.MS > 0) || !(now.SqMS > 0) || math.IsInf(now.MS, 0) || math.IsInf(now.SqMS, 0) {
			continue
		}
		news[i] = now
		total += now.N
	}
	s.last = *levels
	if total == 0 {
		return
	}
	window := slotsWindow
	if s.unit > mixed {
		// The service has changed: with what was before it no line would fit for long.
		window = mixedWindow
	}
	kept := math.Exp(-float64(total) / window)
	for i := range s.at {
		a := &s.at[i]
		a.n, a.ms, a.sq = a.n*kept+float64(news[i].N), a.ms*kept+news[i].MS, a.sq*kept+news[i].SqMS
	}
	s.judge()
}

// timed is the mean time at one level, of weight 1/variance.
type timed struct{ n, count, ms, weight float64 }

func (s *Slots) points(into []timed) []timed {
	// Levels with few completions take their spread from all of them.
	spread, squares := 0.0, 0.0
	for _, a := range s.at {
		if a.n >= leastAt {
			spread += a.sq - a.ms*a.ms/a.n
			squares += a.ms * a.ms / a.n
		}
	}
	if squares == 0 {
		return into
	}
	cv2 := math.Max(minSpread*minSpread, spread/squares)
	const prior = 10
	for i, a := range s.at {
		if a.n < leastAt {
			continue
		}
		mean := a.ms / a.n
		variance := (a.sq - mean*a.ms + prior*cv2*mean*mean) / (a.n + prior)
		variance = math.Max(variance, minSpread*minSpread*mean*mean)
		into = append(into, timed{inFlightAt(i), a.n, mean, a.n / variance})
	}
	return into
}

// misfit is chi-squared of the points against c slots, infinitely many for +Inf, at
// the service time that suits them best.
func misfit(points []timed, c float64) float64 {
	up, down, all := 0.0, 0.0, 0.0
	for _, p := range points {
		g := math.Max(1, p.n/c)
		up += p.weight * g * p.ms
		down += p.weight * g * g
		all += p.weight * p.ms * p.ms
	}
	return math.Max(0, all-up*up/down)
}

func (s *Slots) judge() {
	var room [Levels]timed
	points := s.points(room[:0])
	if len(points) == 0 {
		return
	}
	top := points[len(points)-1].n
	level := misfit(points, math.Inf(1))
	best, slots := math.Inf(1), 0.0
	for c := 1.0; c <= top; c = math.Max(c+1, math.Round(c*1.02)) {
		// Of those that are as good, the largest: where all were queueing, only the
		// ratio of slots and service time shows.
		if x := misfit(points, c); x <= best+1e-6*level {
			best, slots = math.Min(x, best), c
		}
	}
	// Times of one busy period are alike, so that even the best misfit is more than
	// chance allows: what others are worse by is counted in that.
	s.unit = math.Max(1, best/math.Max(1, float64(len(points)-2)))
	worse := func(x float64) float64 { return (x - best) / s.unit }
	saturated := worse(level) > proof && top >= hinge*slots
	switch {
	case s.slots == 0 && saturated:
		s.slots = slots
	case s.slots == 0:
		s.bound = math.Max(s.bound, served(points))
	case saturated && worse(misfit(points, s.slots)) > change && below(points, slots) >= leastTail:
		// Without some that found a free slot, fewer slots and slower ones look the same.
		s.slots = slots
	case !saturated && worse(misfit(points, s.slots)) > change && below(points, s.slots) >= leastTail:
		// More in flight took no longer: there are more slots than were thought.
		if most := served(points); most >= flat*s.slots {
			s.bound, s.slots = most, 0
		}
	}
}

// below counts the completions that found a free one of c slots.
func below(points []timed, c float64) float64 {
	n := 0.0
	for _, p := range points {
		if p.n <= c {
			n += p.count
		}
	}
	return n
}

// served is the most in flight at which requests still took no longer than with
// fewer, shown by enough of them; 1 while there is nothing to compare with.
func served(points []timed) float64 {
	count, sum, sq := 0.0, 0.0, 0.0
	for i := len(points) - 1; i > 0; i-- {
		p := points[i]
		count, sum, sq = count+p.count, sum+p.count*p.ms, sq+p.count*p.count/p.weight
		if count < leastTail {
			continue
		}
		fewer, took := 0.0, 0.0
		for _, q := range points[:i] {
			fewer, took = fewer+q.count, took+q.count*q.ms
		}
		if fewer >= leastTail/2 && sum/count+math.Sqrt(sq)/count <= flat*took/fewer {
			return p.n
		}
	}
	return 1
}
