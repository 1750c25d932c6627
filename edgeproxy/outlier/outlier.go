// Package outlier takes endpoints that fail while their siblings do not out of
// rotation for a while. It is pure: [Detector.Tick] is called every 100 ms with
// the time and the endpoints' counters, and leaves one [Health] word per endpoint.
//
// Two signs count. Failures in a row: no success between Failures failures, seen
// tick by tick, so a tick with both starts over. Success rate: over an interval
// an endpoint succeeds less often than all its siblings together by more than a
// margin. Comparing with the others instead of with a standard deviation works
// from two endpoints on, which is what an edge site has.
package outlier

// Health is why an endpoint is out of rotation; 0 is healthy.
type Health uint32

// Reasons of an ejection.
const (
	FailuresInARow Health = 1 + iota
	LowSuccessRate
)

// String is the reason for people; empty for a healthy endpoint.
func (h Health) String() string {
	return [...]string{"", "failures in a row", "low success rate"}[h]
}

// Config says what is an outlier. Times are in nanoseconds.
type Config struct {
	// Failures without a success between them eject an endpoint; 0 switches the sign off.
	Failures int
	// Interval is how long successes are counted before endpoints are compared.
	// Those with fewer than Requests requests are left out.
	Interval int64
	Requests int
	// Margin is how much lower than its siblings' an endpoint's success rate may
	// be (0 to 1); 0 switches the sign off.
	Margin float64
	// Ejection is the first ejection's time. Each further one doubles it up to
	// MaxEjection; each Ejection without trouble halves it again.
	Ejection, MaxEjection int64
	// MaxEjected is the share of a service's endpoints that may be out at the same
	// time (0 to 1). One may be always, if it is not the only one.
	MaxEjected float64
}

// DefaultConfig is in force unless configured otherwise.
var DefaultConfig = Config{
	Failures: 5, Interval: 10e9, Requests: 20, Margin: 0.3,
	Ejection: 10e9, MaxEjection: 300e9, MaxEjected: 0.5,
}

// Counts are an endpoint's outcomes since any beginning; they only grow.
type Counts struct {
	Success, Failure uint64
}

func (c Counts) minus(o Counts) Counts { return Counts{c.Success - o.Success, c.Failure - o.Failure} }

func (c Counts) rate() float64 { return float64(c.Success) / float64(c.Success+c.Failure) }

// State is what a Detector remembers of an endpoint. It belongs to the endpoint
// and survives reloads with it. The zero value is a healthy, unknown endpoint.
type State struct {
	health Health
	seen   Counts // at the last tick
	start  Counts // at the interval's start
	row    uint64 // failures in a row
	level  uint   // doublings of the next ejection
	until  int64  // ejected: the end; else when level goes down by one
	known  bool
}

// Health is the word that the last tick left.
func (s *State) Health() Health { return s.health }

// Seen are the counters at the last tick.
func (s *State) Seen() Counts { return s.seen }

// Until is when an ejection ends, of the ticks' clock; it means nothing of a
// healthy endpoint.
func (s *State) Until() int64 { return s.until }

// Endpoint is an endpoint at a tick.
type Endpoint struct {
	*State
	Counts Counts
}

// Detector watches the endpoints of one service.
type Detector struct {
	Config
	next int64 // end of the interval
}

// Tick judges the endpoints and reports whether a health word changed. now is in
// nanoseconds of a monotonic clock with any zero.
func (d *Detector) Tick(now int64, endpoints []Endpoint) (changed bool) {
	out := 0
	for _, e := range endpoints {
		changed = d.observe(now, e) || changed
		if e.health != 0 {
			out++
		}
	}
	most := 0
	if len(endpoints) > 1 {
		most = max(1, int(d.MaxEjected*float64(len(endpoints))))
	}
	if d.Failures > 0 {
		for _, e := range endpoints {
			if out < most && e.health == 0 && e.row >= uint64(d.Failures) {
				d.eject(now, e.State, FailuresInARow)
				out, changed = out+1, true
			}
		}
	}
	if d.next == 0 {
		d.next = now + d.Interval
	}
	if now < d.next {
		return changed
	}
	d.next = now + d.Interval
	for out < most && d.Margin > 0 {
		worst := d.worst(endpoints)
		if worst == nil {
			break
		}
		d.eject(now, worst, LowSuccessRate)
		out, changed = out+1, true
	}
	for _, e := range endpoints {
		e.start = e.seen
	}
	return changed
}

// observe takes the counters in and ends an ejection whose time is over.
func (d *Detector) observe(now int64, e Endpoint) (changed bool) {
	s := e.State
	if !s.known {
		s.known, s.seen, s.start = true, e.Counts, e.Counts
	}
	since := e.Counts.minus(s.seen)
	s.seen = e.Counts
	switch {
	case s.health != 0:
		if now < s.until {
			return false
		}
		// What happened before and during the ejection is paid for.
		s.health, s.row, s.start = 0, 0, e.Counts
		s.until = now + d.Ejection
		return true
	case since.Success > 0:
		s.row = 0
	default:
		s.row += since.Failure
	}
	if s.level > 0 && now >= s.until {
		s.level--
		s.until = now + d.Ejection
	}
	return false
}

func (d *Detector) eject(now int64, s *State, why Health) {
	t := d.Ejection
	for range s.level {
		t = min(2*t, d.MaxEjection)
	}
	if t < d.MaxEjection {
		s.level++
	}
	s.health, s.until = why, now+t
}

// worst returns the endpoint with the lowest success rate if that is an outlier.
func (d *Detector) worst(endpoints []Endpoint) *State {
	var all, lowest Counts
	var worst *State
	for _, e := range endpoints {
		c := e.seen.minus(e.start)
		if e.health != 0 || c.Success+c.Failure < uint64(max(d.Requests, 1)) {
			continue
		}
		all.Success += c.Success
		all.Failure += c.Failure
		if worst == nil || c.rate() < lowest.rate() {
			worst, lowest = e.State, c
		}
	}
	if worst == nil {
		return nil
	}
	others := all.minus(lowest)
	if others.Success+others.Failure == 0 || lowest.rate() >= others.rate()-d.Margin {
		return nil
	}
	return worst
}
