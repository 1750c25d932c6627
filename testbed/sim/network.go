package sim

import (
	"fmt"
	"math"

	"github.com/paulmach/orb"
)

// Site is a place with workers.
type Site struct {
	Name     string
	Location orb.Point
	// Slots is how many requests it works on at once; more wait in line.
	Slots int
	// ServiceMS is the mean time of one request.
	ServiceMS float64
	// DemandPerS is the rate of its own users' requests at the start, unless the
	// scenario has Users.
	DemandPerS float64
	// Closed says that none of its slots works: its users are served elsewhere or
	// refused. Only policies that run the product's code know what that means.
	Closed bool
}

// CapacityPerS is the rate at which the site is full.
func (s *Site) CapacityPerS() float64 { return float64(s.Slots) / s.ServiceMS * 1000 }

// Network is where a scenario takes place.
type Network struct {
	Sites []Site
	// RTTMS[i][j] is the round trip between two sites in ms.
	RTTMS [][]float64
}

// Work is how the time of a request is distributed.
type Work struct {
	// Law is exponential, lognormal or constant; empty means exponential.
	Law string
	// CV is the coefficient of variation of the lognormal law.
	CV float64
}

// Laws of service times.
const (
	Exponential = "exponential"
	Lognormal   = "lognormal"
	Constant    = "constant"
)

// Users are people with positions, each of whom sends requests to the nearest
// site. Paths come from a mover (testbed/sim/scenario).
type Users struct {
	// Home[k] is the index of the site that user k is nearest to at the start.
	Home []int
	// PerS is the rate of one user.
	PerS float64
	// EveryMS is how often they are looked at.
	EveryMS float64
	// Mover begins anew and returns what writes every user's nearest site at atS
	// seconds into home; it is called with growing times.
	Mover func() func(atS float64, home []int)
}

// Change is something that happens at a time of the scenario. Exactly one of its
// parts is set, but for the sites that it is about.
type Change struct {
	AtS float64
	// Site is the index of the site that Demand, Service and Down are about, or -1
	// for all.
	Site int
	// Demand and Service are factors on what the site had at the start; 0 leaves it.
	Demand, Service float64
	// Cut and Heal are pairs of sites between which every message is lost, or no
	// longer.
	Cut, Heal []Pair
	// Bus is -1 when the bus loses everything from now on, 1 when it works again.
	Bus int
}

// Pair is two sites by index.
type Pair struct{ A, B int }

// Class is a priority class of the product's: a part of every site's requests, drawn
// at random, with a ShedAfterMS of its own.
type Class struct {
	Name              string
	Part, ShedAfterMS float64
}

// Scenario is all that a run depends on besides its policy and seed.
type Scenario struct {
	Name, Title string
	Network     Network
	Work        Work
	// DeadlineMS is when a client gives up.
	DeadlineMS float64
	// ForS is how long users send; requests born from MeasureFromS on count.
	ForS, MeasureFromS float64
	// Neighbours is how many other sites, the nearest, one may send to; 0 means all.
	Neighbours int
	Changes    []Change
	Users      *Users
	// RequestBytes is what a request served elsewhere moves over links, both ways.
	RequestBytes float64
	// ShedAfterMS is the product's setting of how long a request may be let wait when
	// nothing is left, 0 for any.
	ShedAfterMS float64
	// Classes are the priority classes; what is in none of them is of class 0.
	Classes []Class
	// Hot is the index of the site whose weights are shown.
	Hot int
	// Uneven says that sites or their demand differ much, which the bars allow for;
	// Cuts that links or the bus fail.
	Uneven, Cuts bool
}

// Check says what makes the scenario impossible to run.
func (s *Scenario) Check() error {
	n := len(s.Network.Sites)
	if n < 1 || len(s.Network.RTTMS) != n {
		return fmt.Errorf("%d sites and %d rows of round trips", n, len(s.Network.RTTMS))
	}
	for i := range s.Network.Sites {
		site := &s.Network.Sites[i]
		if site.Slots < 1 || !(site.ServiceMS > 0) || !(site.DemandPerS >= 0) || math.IsInf(site.ServiceMS+site.DemandPerS, 1) {
			return fmt.Errorf("site %s: %d slots of %v ms for %v requests/s", site.Name, site.Slots, site.ServiceMS, site.DemandPerS)
		}
		if len(s.Network.RTTMS[i]) != n {
			return fmt.Errorf("site %s: %d round trips for %d sites", site.Name, len(s.Network.RTTMS[i]), n)
		}
		for j, r := range s.Network.RTTMS[i] {
			if !(r >= 0 && r < 1e5) || i == j && r != 0 {
				return fmt.Errorf("site %s: a round trip of %v ms to site %s", site.Name, r, s.Network.Sites[j].Name)
			}
		}
	}
	switch {
	case !(s.DeadlineMS > 0):
		return fmt.Errorf("a deadline of %v ms", s.DeadlineMS)
	case !(s.ForS > 0 && s.ForS <= 1e5) || !(s.MeasureFromS >= 0 && s.MeasureFromS < s.ForS):
		return fmt.Errorf("%v s long, measured from second %v", s.ForS, s.MeasureFromS)
	case s.Work.Law != "" && s.Work.Law != Exponential && s.Work.Law != Lognormal && s.Work.Law != Constant:
		return fmt.Errorf("service times are %q: want %s, %s or %s", s.Work.Law, Exponential, Lognormal, Constant)
	case s.Work.Law == Lognormal && !(s.Work.CV > 0 && s.Work.CV < 100):
		return fmt.Errorf("a lognormal law with a coefficient of variation of %v", s.Work.CV)
	case s.Hot < 0 || s.Hot >= n:
		return fmt.Errorf("hot site %d of %d", s.Hot, n)
	}
	parts := 0.0
	for _, c := range s.Classes {
		if parts += c.Part; c.Name == "" || !(c.Part > 0) || parts > 1 || !(c.ShedAfterMS > 0) {
			return fmt.Errorf("class %q: %v of all requests, shed after %v ms; classes together are at most 1", c.Name, c.Part, c.ShedAfterMS)
		}
	}
	for _, c := range s.Changes {
		if c.Site < -1 || c.Site >= n || !(c.Demand >= 0) || !(c.Service >= 0) || math.IsInf(c.Demand+c.Service, 1) {
			return fmt.Errorf("impossible change at second %v: %+v", c.AtS, c)
		}
		for _, p := range append(append([]Pair(nil), c.Cut...), c.Heal...) {
			if p.A < 0 || p.A >= n || p.B < 0 || p.B >= n || p.A == p.B {
				return fmt.Errorf("change at second %v: no link between sites %d and %d", c.AtS, p.A, p.B)
			}
		}
	}
	return nil
}
