package report

import (
	"slices"
	"time"
)

// Weights is one observation of the shares in force at a site's proxy: where it
// sends its own users' requests.
type Weights struct {
	// At is when, from the run's start.
	At time.Duration
	// Site is whose proxy it is. Shares are by site and sum to one.
	Site   int
	Shares []float64
}

const (
	// moved is the least change of a share that counts as one: below it, a
	// plan is only being recomputed.
	moved = 0.01
	// calmRange is how long before the step a weight's usual range is read from.
	calmRange = 2 * time.Second
	// settledWithin is how much of a site's traffic may still go elsewhere than
	// in the final state.
	settledWithin = 0.10
	// reversalMove is how far a share must go each way for a reversal.
	reversalMove = 0.05
	// reversalsFrom is when the step's own movement is over.
	reversalsFrom = 5 * time.Second
)

// Sharing says how the weights followed a step of load at one site. The figures
// without "all" are of that site's proxy, where the step has to be answered. The
// other sites' plans are given beside them: they also move where two places cost
// nearly the same, which sends hardly a request elsewhere as long as the gate
// keeps home what home can serve.
type Sharing struct {
	// ReactionMS is from the first request over capacity to the first changed
	// weight in force at the site's proxy (a share over one point outside its
	// range of the two seconds before the step); nil when none changed.
	ReactionMS *float64 `json:"reaction_ms"`
	// SettleMS is from the same request until the proxy sends no more than a
	// tenth of its traffic elsewhere than in the final state (the mean over the
	// hotspot's last fifth), for the rest of the hotspot; nil when no weight
	// changed or they never settled.
	SettleMS *float64 `json:"settle_ms"`
	// Reversals is the highest count, over the pairs from this site to another,
	// of opposite moves of the pair's weight, each over five points, from five
	// seconds after the step to the hotspot's end.
	Reversals int `json:"reversals"`
	// SettleAllMS and ReversalsAll are the same over every site's proxy.
	SettleAllMS  *float64 `json:"settle_all_ms"`
	ReversalsAll int      `json:"reversals_all"`
}

// MeasureSharing reads the figures off the observations of one run, which are in
// order of time. The step is the span of a hotspot at the site hot; over is when
// its first request over capacity was due.
func MeasureSharing(seen []Weights, sites, hot int, step Span, over time.Duration) Sharing {
	rows := make([][]Weights, sites)
	for _, w := range seen {
		if len(w.Shares) == sites && w.At < step.To {
			rows[w.Site] = append(rows[w.Site], w)
		}
	}
	var s Sharing
	after := func(at time.Duration) *float64 {
		v := ms(at - over)
		return &v
	}
	reaction, changed := firstChange(rows[hot], over)
	if changed {
		s.ReactionMS = after(reaction)
	}
	last, allSettled := over, true
	for i, row := range rows {
		at, ok := settledAt(row, step, over)
		if i == hot && ok && changed {
			s.SettleMS = after(at)
		}
		last, allSettled = max(last, at), allSettled && ok
		for to := range sites {
			n := reversals(row, to, step.From+reversalsFrom)
			s.ReversalsAll = max(s.ReversalsAll, n)
			if i == hot && to != hot {
				s.Reversals = max(s.Reversals, n)
			}
		}
	}
	if changed && allSettled {
		s.SettleAllMS = after(last)
	}
	return s
}

// firstChange finds the first observation after the step with a share that left
// the range it had in the last two seconds before it: what moves in the calm
// anyway is no reaction.
func firstChange(row []Weights, over time.Duration) (time.Duration, bool) {
	var lo, hi []float64
	for _, w := range row {
		switch {
		case w.At < over-calmRange:
		case w.At < over && lo == nil:
			lo, hi = slices.Clone(w.Shares), slices.Clone(w.Shares)
		case w.At < over:
			for j, v := range w.Shares {
				lo[j], hi[j] = min(lo[j], v), max(hi[j], v)
			}
		case lo == nil:
			return 0, false
		default:
			for j, v := range w.Shares {
				if v < lo[j]-moved || v > hi[j]+moved {
					return w.At, true
				}
			}
		}
	}
	return 0, false
}

// settledAt is the time of the first observation from which on all stay close to
// the final state. A site that was never seen says nothing and holds up nothing.
func settledAt(row []Weights, step Span, over time.Duration) (time.Duration, bool) {
	tail := step.To - (step.To-step.From)/5
	var final []float64
	n := 0
	for _, w := range row {
		if w.At >= tail {
			if final == nil {
				final = make([]float64, len(w.Shares))
			}
			for j, v := range w.Shares {
				final[j] += v
			}
			n++
		}
	}
	if n == 0 {
		return over, len(row) == 0
	}
	for j := range final {
		final[j] /= float64(n)
	}
	at, ok := over, true
	for _, w := range row {
		if w.At < over {
			continue
		}
		if elsewhere(w.Shares, final) > settledWithin {
			ok = false
		} else if !ok {
			at, ok = w.At, true
		}
	}
	return at, ok
}

// elsewhere is the part of the traffic that two sets of shares send to different sites.
func elsewhere(a, b []float64) float64 {
	d := 0.0
	for j := range a {
		d += abs(a[j] - b[j])
	}
	return d / 2
}

// reversals counts the turns of one pair's weight: it must come back by over
// reversalMove from where a move of over reversalMove took it.
func reversals(row []Weights, to int, from time.Duration) int {
	start, _ := slices.BinarySearchFunc(row, from, func(w Weights, t time.Duration) int {
		return int(w.At - t)
	})
	row = row[start:]
	if len(row) == 0 {
		return 0
	}
	lo, hi := row[0].Shares[to], row[0].Shares[to]
	direction, turns := 0, 0
	for _, w := range row {
		v := w.Shares[to]
		lo, hi = min(lo, v), max(hi, v)
		turn := 0
		switch {
		case direction <= 0 && v > lo+reversalMove:
			turn = 1
		case direction >= 0 && v < hi-reversalMove:
			turn = -1
		}
		if turn == 0 {
			continue
		}
		if direction != 0 {
			turns++
		}
		// The next move back is measured from this one's extreme.
		direction, lo, hi = turn, v, v
	}
	return turns
}

func abs(v float64) float64 { return max(v, -v) }
