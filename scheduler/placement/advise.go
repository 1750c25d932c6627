package placement

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// AdviceOptions say when a move is worth it.
type AdviceOptions struct {
	Seed uint64
	// Horizon is how long things are expected to stay as they are: what a move saves
	// it saves so long. 0 means an hour.
	Horizon time.Duration
	// Disruption is how long a unit that moves is taken to be as far from all its
	// peers as the mesh is wide: the price of moving it. 0 means 30 s.
	Disruption time.Duration
	// MinGain is the least part of the present cost that the whole advice saves, or
	// there is none. 0 means 0.02, since traffic is never measured better.
	MinGain float64
	// MaxMoves bounds the moves, the best ones first; 0 means any number.
	MaxMoves int
}

// Move is one piece of advice.
type Move struct {
	Unit     int
	From, To int
	// Gain is what it saves when the moves before it are done, and Cost what moving
	// costs, spread over the horizon; both in bytes on the wire.
	Gain, Cost float64
	Reason     string
}

// Advice is moves in the order to do them. No node is over its capacity between
// them that was not before.
type Advice struct {
	Before, After Cost
	Moves         []Move
	// Why says why there is no move, empty where there is one.
	Why string
}

// Advise looks for moves of what runs that save more over the horizon than they
// cost. current places every unit.
func Advise(p *Problem, current Assignment, o AdviceOptions) (*Advice, error) {
	if o.Horizon == 0 {
		o.Horizon = time.Hour
	}
	if o.Disruption == 0 {
		o.Disruption = 30 * time.Second
	}
	if o.MinGain == 0 {
		o.MinGain = 0.02
	}
	if o.Horizon < 0 || o.Disruption < 0 || !(o.MinGain >= 0 && o.MinGain < 1) || o.MaxMoves < 0 {
		return nil, fmt.Errorf("placement: horizon %s, disruption %s, least gain %v, most moves %d: want none negative and a gain below 1", o.Horizon, o.Disruption, o.MinGain, o.MaxMoves)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := p.CheckAssignment(current); err != nil {
		return nil, err
	}
	if u := slices.Index(current, Unplaced); u >= 0 {
		return nil, fmt.Errorf("placement: unit %s runs nowhere: advice is for what runs", p.unit(u))
	}
	costs := p.moveCosts(o.Disruption.Seconds() / o.Horizon.Seconds())
	goal, err := Assign(p, current, Options{Seed: o.Seed, MoveCosts: costs})
	if err != nil {
		return nil, err
	}
	a := &Advice{Before: p.Cost(current)}
	a.Moves = p.order(current, goal.At, costs, o.MaxMoves)
	after := slices.Clone(current)
	for _, m := range a.Moves {
		after[m.Unit] = m.To
	}
	a.After = p.Cost(after)
	saved := a.Before.WireBytes - a.After.WireBytes
	switch {
	case len(a.Moves) == 0:
		a.Why = "no move saves more over the horizon than it costs"
	case a.Before.Over-a.After.Over <= tinyOver && saved < o.MinGain*a.Before.WireBytes:
		a.Why = fmt.Sprintf("%d moves would save %.1f %% of the cost, less than the least worth acting on (%.1f %%)", len(a.Moves), 100*saved/max(a.Before.WireBytes, tinyCost), 100*o.MinGain)
		a.Moves, a.After = nil, a.Before
	}
	return a, nil
}

// moveCosts charges each unit for part of the time as if all its peers were as
// far away as nodes can be.
func (p *Problem) moveCosts(part float64) []float64 {
	out := make([]float64, len(p.Units))
	for u, ls := range p.links() {
		for _, l := range ls {
			out[u] += (l.out + l.in) * p.Delays.MaxMS() * part
		}
	}
	return out
}

// order makes a sequence of the moves from one assignment to another: at every
// step the one that saves most among those that overfill nothing, up to where the
// sum of gains and costs is best.
func (p *Problem) order(from, to Assignment, costs []float64, most int) []Move {
	s := newSearch(p, nil, nil)
	s.set(from)
	var left []int
	for u := range from {
		if from[u] != to[u] {
			left = append(left, u)
		}
	}
	var out []Move
	keep, net, best := 0, 0.0, 0.0
	for len(left) > 0 && (most == 0 || len(out) < most) {
		pick, pickOver, pickCost := -1, 0.0, 0.0
		for i, u := range left {
			over, cost := s.moved(u, to[u])
			if over > tinyOver {
				continue
			}
			if pick < 0 || cmp.Or(cmp.Compare(over, pickOver), cmp.Compare(cost+costs[u], pickCost)) < 0 {
				pick, pickOver, pickCost = i, over, cost+costs[u]
			}
		}
		if pick < 0 {
			break // what is left are exchanges, which need room that is not there
		}
		u := left[pick]
		reason := p.reason(s, u, to[u])
		_, cost := s.moved(u, to[u])
		s.put(u, to[u])
		out = append(out, Move{Unit: u, From: from[u], To: to[u], Gain: -cost, Cost: costs[u], Reason: reason})
		if net -= pickCost; net > best+tinyCost || pickOver < -tinyOver {
			keep, best = len(out), net
		}
		left = slices.Delete(left, pick, pick+1)
	}
	return out[:keep]
}

// reason says in words which peer a move is for.
func (p *Problem) reason(s *search, u, to int) string {
	from := s.at[u]
	bestPeer, bestGain := -1, 0.0
	bytes := map[int]float64{}
	gains := map[int]float64{}
	where := map[int]int{}
	for _, l := range s.links[u] {
		svc := p.Units[l.to].Service
		n := s.at[l.to]
		bytes[svc] += 1000 * (l.out + l.in)
		gains[svc] += s.between(l, from, n) - s.between(l, to, n)
		where[svc] = n
		if bestPeer < 0 || gains[svc] > bestGain || gains[svc] == bestGain && svc < bestPeer {
			bestPeer, bestGain = svc, gains[svc]
		}
	}
	nodes := p.Delays.Nodes()
	if over(s.use[from], p.Capacity[from]) > 0 {
		return fmt.Sprintf("%s is over its capacity", nodes[from])
	}
	if bestPeer < 0 {
		return "it makes room"
	}
	n := where[bestPeer]
	return fmt.Sprintf("it exchanges %s/s with %s on %s: round trip %s from %s, %s from %s",
		Bytes(bytes[bestPeer]), p.Services[bestPeer].Workload, nodes[n],
		millis(p.Delays.MS(from, n)+p.Delays.MS(n, from)), nodes[from], millis(p.Delays.MS(to, n)+p.Delays.MS(n, to)), nodes[to])
}

func millis(ms float64) string { return fmt.Sprintf("%.3g ms", ms) }

// Bytes writes a number of bytes for people: "1.2 MB".
func Bytes(b float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if b >= u.size {
			return fmt.Sprintf("%.3g %s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g B", b)
}

// Reach looks for the fewest moves from current that bring the bytes on the wire
// down to atMost without overfilling more than before. ok is false where the
// search finds none; the result is then the cheapest that it found.
func Reach(p *Problem, current Assignment, atMost float64, seed uint64) (r *Result, ok bool, err error) {
	free, err := Assign(p, current, Options{Seed: seed})
	if err != nil {
		return nil, false, err
	}
	before := p.Cost(current)
	enough := func(c Cost) bool { return c.WireBytes <= atMost*(1+1e-9) && c.Over <= before.Over+tinyOver }
	if !enough(free.Cost) {
		return free, false, nil
	}
	r = p.pruned(current, free.At, enough)
	costs := make([]float64, len(p.Units))
	// Dearer moves make for fewer; between too cheap and too dear by bisection.
	low, high := 0.0, before.WireBytes+1
	for range 12 {
		mid := (low + high) / 2
		for u := range costs {
			costs[u] = mid
		}
		next, err := Assign(p, current, Options{Seed: seed, MoveCosts: costs})
		if err != nil {
			return nil, false, err
		}
		if !enough(next.Cost) {
			high = mid
			continue
		}
		low = mid
		if q := p.pruned(current, next.At, enough); q.Moves < r.Moves || q.Moves == r.Moves && q.Cost.Less(r.Cost) {
			r = q
		}
	}
	return r, true, nil
}

// pruned takes back moves, those that save least first, while what is left is
// enough.
func (p *Problem) pruned(home, at Assignment, enough func(Cost) bool) *Result {
	s := newSearch(p, nil, nil)
	s.set(at)
	for {
		pick, pickCost := -1, 0.0
		for u := range home {
			if home[u] < 0 || s.at[u] == home[u] {
				continue
			}
			over, cost := s.moved(u, home[u])
			if over > tinyOver || !enough(Cost{WireBytes: s.cost + cost, Over: s.overfull() + over}) {
				continue
			}
			if pick < 0 || cost < pickCost {
				pick, pickCost = u, cost
			}
		}
		if pick < 0 {
			break
		}
		s.put(pick, home[pick])
	}
	r := &Result{At: s.at, Cost: p.Cost(s.at)}
	for u := range home {
		if home[u] >= 0 && home[u] != s.at[u] {
			r.Moves++
		}
	}
	return r
}
