package lb

import (
	"math"
	"math/bits"
)

// FadingTable looks at every endpoint and takes the one where a request is
// expected to be over first: its service time, times the waiting that the requests
// there cause. Those are this proxy's own, which it knows, and others', of which
// endpoints speak with their responses. What they said fades to its mean as it
// grows old, because by then others' requests have come and gone.
//
// With one proxy this comes near to knowing every queue; with many it does not
// run after stale reports, as a rule that takes the last one at its word does.
// TestFadingTable has the figures. An endpoint that said nothing counts as average
// with what this proxy waits for there; where none ever did, [LeastRequest] picks.
//
// Where weights differ, two endpoints drawn by weight are compared instead, at a
// weight's share of the requests, so that shares follow weights while there is no
// queue. Of more than sixty-four endpoints, thirty-two drawn ones are.
type FadingTable struct {
	weighted
	slots []float64
	few   *LeastRequest
}

// Loads is what a [FadingTable] asks besides.
type Loads interface {
	Endpoints
	// Reported says whether any endpoint has said anything yet.
	Reported() bool
	// Load is what endpoint i said, and Now the time, in nanoseconds of the clock
	// that it was noted with.
	Load(i int) *Load
	Now() int64
}

// NewFadingTable makes a picker for endpoints of the given weights, which it
// keeps, that work on so many requests at once each, 0 when that is not known. A
// negative weight counts as 0.
func NewFadingTable(weights, slots []int) *FadingTable {
	p := &FadingTable{newWeighted(weights), make([]float64, len(weights)), NewLeastRequest(weights)}
	for i := range weights {
		p.slots[i] = float64(max(slots[i], 1))
	}
	return p
}

const (
	// scanned is the number of endpoints up to which all are looked at, sampled how
	// many are of more: what a pick costs is bounded.
	scanned = 64
	sampled = 32
)

// Pick implements [Picker] for endpoints that implement [Loads].
func (p *FadingTable) Pick(e Endpoints, tried []int, draw uint64) (int, bool) {
	l, ok := e.(Loads)
	if !ok || !l.Reported() {
		return p.few.Pick(e, tried, draw)
	}
	n := len(p.weights)
	at64, _ := bits.Mul64(next(&draw), uint64(n))
	at := int(at64)
	t := table{loads: l, slots: p.slots, tried: tried, now: l.Now(), best: -1, score: math.Inf(1)}
	t.typical = typical(l, at, n)
	switch {
	case p.below != nil: // weights differ
		first, ok := p.draw(e, tried, -1, &draw)
		if !ok {
			return 0, false
		}
		t.look(first, float64(p.weights[first]))
		if second, ok := p.draw(e, tried, first, &draw); ok {
			t.look(second, float64(p.weights[second]))
		}
	case n <= scanned:
		for range n {
			t.look(at, 1)
			if at++; at == n {
				at = 0
			}
		}
	default:
		for range sampled {
			i, ok := p.draw(e, tried, t.best, &draw)
			if !ok {
				break
			}
			t.look(i, 1)
		}
	}
	return max(t.best, 0), t.best >= 0
}

// table is one pick.
type table struct {
	loads   Loads
	slots   []float64
	tried   []int
	now     int64
	typical float64 // service time, ns
	best    int
	score   float64
}

// asked is how many endpoints say what is typical.
const asked = 8

// typical is the harmonic mean of the service times in ns of some endpoints, from
// one on: one that hardly ever answers does not make the others look fast.
func typical(l Loads, from, n int) float64 {
	sum, known := 0.0, 0
	for range n {
		if s := l.Load(from).service; s > 0 {
			sum += 1 / s
			if known++; known == asked {
				break
			}
		}
		if from++; from == n {
			from = 0
		}
	}
	if known == 0 {
		return 1
	}
	return float64(known) / sum
}

// spread is what busy slots cost though one is free. Slots share caches and
// processors more often than not, and of equal endpoints the one whose service
// time happens to be measured lowest must not get all there is.
const spread = 0.25

// better is what a score has to be of the best so far to beat it. Service times
// are known to a tenth; what is as good as equal shares requests, and so is heard
// of again.
const better = 0.9

// look takes endpoint i where it is better than the best so far.
func (t *table) look(i int, weight float64) {
	service, others := t.loads.Load(i).expected(t.now, t.typical)
	there, slots := float64(t.loads.InFlight(i))+others, t.slots[i]
	score := service * (1 + max(0, there+1-slots)/slots + spread*min(there, slots)/slots) / weight
	if score < t.score*better && t.loads.Usable(i) && !contains(t.tried, i) {
		t.best, t.score = i, score
	}
}

// Load is what one event loop knows of an endpoint by its own words. The zero
// value knows nothing.
type Load struct {
	at         int64   // of the last news
	last, mean float64 // others' requests there
	service    float64 // ns
	reported   bool
}

// Weights of a new value in the means (simulated, see [FadingTable]).
const (
	newMean    = 0.1
	newService = 0.02
)

// Unsaid is the number of requests in [Load.Heard] where an endpoint says none.
const Unsaid = -1

// Heard takes in news of the endpoint at the time now: that it says to have so many
// requests, own of them by this proxy, and that one took so long there without
// waiting, 0 where that is not known. For a failure that is what it is held to
// cost: an endpoint that fails at once must not look like a fast one. Own requests
// on their way there or back make a small error, of the network's time against the
// service time. Times are nanoseconds.
func (l *Load) Heard(requests float64, own int, took, now int64) {
	old := 1 - l.known(now)
	if requests >= 0 {
		requests = max(0, requests-float64(own))
		if !l.reported {
			l.mean, l.reported = requests, true
		}
		l.mean += max(newMean, old) * (requests - l.mean)
		l.last = requests
	}
	if took > 0 {
		if l.service == 0 {
			l.service = float64(took)
		}
		l.service += max(newService, old) * (float64(took) - l.service)
	}
	l.at = max(l.at, now)
}

const (
	// fadeTimes is how many service times a report lasts until it is worth 1/e.
	fadeTimes = 2
	// forget is the time in ns in which all that is known of an endpoint loses its
	// worth, evenly: one that was slow, failed or was full once is asked again.
	forget = 10e9
)

// known is how much what is known of the endpoint is worth, from 1 down to 0.
func (l *Load) known(now int64) float64 { return 1 - min(max(float64(now-l.at), 0)/forget, 1) }

// expected is how long a request is served there and how many requests of others
// are there, typical being the siblings' service time.
func (l *Load) expected(now int64, typical float64) (service, others float64) {
	known := l.known(now)
	if service = typical; l.service > 0 {
		service = known * l.service
	}
	others = l.mean
	if l.last != l.mean {
		others += (l.last - l.mean) * fade(max(float64(now-l.at), 0)/(fadeTimes*typical))
	}
	return service, known * others
}

// fade is near enough to exp(-x) at a third of its cost, which a pick has to pay
// for every endpoint.
func fade(x float64) float64 { return 1 / (1 + x*(1+x*(1./2+x*(1./6+x/24)))) }
