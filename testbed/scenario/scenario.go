// Package scenario lays out one run of the demo: who sends how much and when,
// which site becomes hot and which slow, and every single arrival by a seed. It
// is pure: the same sites, duration and seed give the same arrivals everywhere,
// so that policies are compared on the same requests with the same work.
package scenario

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// Names of phases, in the order in which they come.
const (
	Calm     = "calm"
	Hotspot  = "hotspot"
	Slow     = "slow"
	Recovery = "recovery"
)

const (
	// MinDuration is the shortest run that holds the phases: a hotspot of eight
	// seconds and enough of the others to be seen.
	MinDuration = 15 * time.Second
	// MinHotspot is the shortest hotspot: reaction, settling and the settled
	// state from five seconds after the step must fit.
	MinHotspot = 8 * time.Second
	// SlowFactor is how many times longer the slow site works on a request.
	SlowFactor = 3.0

	// In hundredths of a site's capacity: the background of every site, the least
	// that is a background to speak of, and the hot site's demand.
	calmLoad, minLoad    = 40, 15
	maxFactor, minFactor = 200, 180
	fitLoad              = 0.78 // of the mesh's capacity in the hotspot: "fits" with room for randomness
	hotShare, slowShare  = 3, 4 // one third and one quarter of the duration
	calmShare            = 6
	shortestSlow         = 3500 * time.Millisecond
	shortestCalm         = 2 * time.Second
)

// Site is what a scenario needs to know of a site.
type Site struct {
	Name string
	// Slots is how many requests are worked on at once, ServiceTime the mean time of one.
	Slots       int
	ServiceTime time.Duration
	// Users is how many user positions have this site as their nearest.
	Users int
}

// Capacity is the rate, in requests per second, that the site can serve for long.
func (s Site) Capacity() float64 { return float64(s.Slots) / s.ServiceTime.Seconds() }

// Phase is a span of a run with constant rates, counted from the run's start.
type Phase struct {
	Name     string
	From, To time.Duration
	// Rates are requests per second by home site.
	Rates []float64
	// Slow is the site that works SlowFactor times longer, -1 for none.
	Slow int
}

// Scenario is one run's plan.
type Scenario struct {
	Sites []Site
	// Hot and Slow are indices into Sites.
	Hot, Slow int
	// HotFactor is the hot site's demand over its capacity in the hotspot, Load
	// every site's demand over its capacity otherwise.
	HotFactor, Load float64
	Phases          []Phase
}

// New plans a run of the given length. It refuses one too short for its phases,
// and sites that together cannot carry a hotspot.
func New(sites []Site, duration time.Duration) (*Scenario, error) {
	if duration < MinDuration {
		return nil, fmt.Errorf("duration %v is too short: the phases (calm, a hotspot of at least %v, slow site, recovery) need at least %v",
			duration, MinHotspot, MinDuration)
	}
	if len(sites) < 3 {
		return nil, fmt.Errorf("%d sites are too few: a hot one, a slow one and at least one more are needed", len(sites))
	}
	for _, s := range sites {
		if s.Slots <= 0 || s.ServiceTime <= 0 || s.Users <= 0 {
			return nil, fmt.Errorf("site %s: %d slots, service time %v, %d users: all must be above zero", s.Name, s.Slots, s.ServiceTime, s.Users)
		}
	}
	s := &Scenario{Sites: slices.Clone(sites)}
	s.chooseSites()
	if err := s.chooseLoad(); err != nil {
		return nil, err
	}
	s.layPhases(duration)
	return s, nil
}

// chooseSites makes the hot site one of middling capacity and the slow one its
// neighbour in that order: neither the exception of the mesh.
func (s *Scenario) chooseSites() {
	order := make([]int, len(s.Sites))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool {
		return s.Sites[order[a]].Capacity() < s.Sites[order[b]].Capacity()
	})
	mid := (len(order) - 1) / 2
	s.Hot, s.Slow = order[mid], order[mid+1]
}

// chooseLoad takes the highest hot factor, then the highest background, whose
// sum fits the mesh.
func (s *Scenario) chooseLoad() error {
	total := s.Capacity()
	hot := s.Sites[s.Hot].Capacity()
	fits := func(factor, load float64) bool { return factor*hot+load*(total-hot) <= fitLoad*total }
	for load := calmLoad; load >= minLoad; load -= 5 {
		for factor := maxFactor; factor >= minFactor; factor -= 10 {
			s.HotFactor, s.Load = float64(factor)/100, float64(load)/100
			if fits(s.HotFactor, s.Load) {
				return nil
			}
		}
	}
	return fmt.Errorf("site %s at %.1f times its capacity of %.0f requests/s does not fit the mesh's %.0f: take more sites",
		s.Sites[s.Hot].Name, minFactor/100.0, hot, total)
}

// Capacity is the sum of the sites' capacities in requests per second.
func (s *Scenario) Capacity() float64 {
	sum := 0.0
	for _, site := range s.Sites {
		sum += site.Capacity()
	}
	return sum
}

func (s *Scenario) layPhases(duration time.Duration) {
	hotspot := max(duration/hotShare, MinHotspot)
	slow := max(duration/slowShare, shortestSlow)
	calm := max(duration/calmShare, shortestCalm)
	at := time.Duration(0)
	add := func(name string, length time.Duration) {
		p := Phase{Name: name, From: at, To: at + length, Slow: -1}
		for _, site := range s.Sites {
			p.Rates = append(p.Rates, s.Load*site.Capacity())
		}
		s.Phases = append(s.Phases, p)
		at += length
	}
	add(Calm, calm)
	add(Hotspot, hotspot)
	add(Slow, slow)
	add(Recovery, duration-at)
	s.Phases[1].Rates[s.Hot] = s.HotFactor * s.Sites[s.Hot].Capacity()
	s.Phases[2].Slow = s.Slow
}

// Phase returns the phase of that name.
func (s *Scenario) Phase(name string) Phase {
	for _, p := range s.Phases {
		if p.Name == name {
			return p
		}
	}
	panic("scenario: no phase " + name)
}

// Duration is the length of the run.
func (s *Scenario) Duration() time.Duration { return s.Phases[len(s.Phases)-1].To }

// Arrival is one request that somebody will make.
type Arrival struct {
	// At is when, from the run's start.
	At time.Duration
	// Site is the user's home (nearest) site, User which of that site's users.
	Site, User int
	// Work is the request's work in mean service times, exponentially
	// distributed: it goes with the request, so that it is the same whoever serves it.
	Work float64
}

// Arrivals draws the run's requests, in order of time: independent Poisson
// processes by site, each from its own stream of the seed.
func (s *Scenario) Arrivals(seed uint64) []Arrival {
	var all []Arrival
	for i, site := range s.Sites {
		r := rand.New(rand.NewPCG(seed, uint64(i)+1))
		for _, p := range s.Phases {
			// Restarting at a phase's edge is exact: the process has no memory.
			for at := p.From + gap(r, p.Rates[i]); at < p.To; at += gap(r, p.Rates[i]) {
				all = append(all, Arrival{At: at, Site: i, User: r.IntN(site.Users), Work: r.ExpFloat64()})
			}
		}
	}
	sort.SliceStable(all, func(a, b int) bool { return all[a].At < all[b].At })
	return all
}

func gap(r *rand.Rand, rate float64) time.Duration {
	return time.Duration(r.ExpFloat64() / rate * float64(time.Second))
}
