package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/testbed/sim"
)

// Options are what policies have in common.
type Options struct {
	// DelayPeriods is how many report periods of 500 ms a report needs over the bus.
	DelayPeriods float64
	// StayHome is the product's h, 0 for its default.
	StayHome float64
	// ShedAfterMS is the product's longest wait in a queue before requests are
	// refused, 0 for none.
	ShedAfterMS float64
	// Service says how a site of the product shares and Way what its way to another
	// is like besides the round trip; nil for a mesh where nothing is said of either.
	// Names, round trips and declared service times come from the scenario.
	Service func(site int) share.Service
	Way     func(from, to int) share.Peer
}

// The names of policies.
const (
	NameMeridian = "meridian"         // controllers and reports in band, as shipped
	NameBus      = "meridian-bus"     // controllers, nothing in band
	NameLearned  = "meridian-learned" // as shipped, where nobody states slots or service times
	NameAlone    = "meridian-alone"   // proxies alone, in band only
	NameOptimum  = "optimum"          // the exact optimum's static weights, switched at once
	NameJSED     = "omniscient"       // join the shortest expected delay, live queues
	NameNone     = "none"
	NameRR       = "round-robin"
	NameWRR      = "weighted-round-robin"
	NameP2C      = "p2c-ewma"
	NameWater    = "waterfall"
	NameZone     = "envoy-zone"
	NameLoad     = "envoy-load"
	NameHAZL     = "hazl"
	NameL3       = "l3"
	NameSLATE    = "slate"
)

// Names lists every policy, the product's first and then the references.
func Names() []string {
	return []string{
		NameMeridian, NameBus, NameAlone, NameLearned, NameOptimum, NameJSED, NameNone, NameRR, NameWRR,
		NameP2C, NameWater, NameZone, NameLoad, NameHAZL, NameL3, NameSLATE,
	}
}

// New makes a policy by its name. waterfall and slate take a number after an @:
// the target utilisation (waterfall@0.8) and the period in seconds (slate@5).
func New(name string, o Options) (sim.Policy, error) {
	word, arg, has := strings.Cut(name, "@")
	value := 0.0
	if has {
		var err error
		if value, err = strconv.ParseFloat(arg, 64); err != nil || !(value > 0 && value < 1e4) || word != NameWater && word != NameSLATE {
			return nil, fmt.Errorf("policy %q: only %s@TARGET and %s@SECONDS take a number", name, NameWater, NameSLATE)
		}
	}
	switch word {
	case NameMeridian:
		return &Meridian{bus: true, inBand: true, options: o}, nil
	case NameBus:
		return &Meridian{bus: true, options: o}, nil
	case NameLearned:
		return &Meridian{bus: true, inBand: true, learn: true, options: o}, nil
	case NameAlone:
		return &Meridian{inBand: true, options: o}, nil
	case NameOptimum:
		return &optimal{}, nil
	case NameJSED:
		return &shortest{}, nil
	case NameNone:
		return &none{}, nil
	case NameRR:
		return &roundRobin{}, nil
	case NameWRR:
		return &roundRobin{byCapacity: true}, nil
	case NameP2C:
		return &p2c{}, nil
	case NameWater:
		if !has {
			value = 0.85
		}
		return &waterfall{target: value, reports: reports{delay: o.DelayPeriods}}, nil
	case NameZone:
		return &zoneAware{}, nil
	case NameLoad:
		return &loadAware{reports: reports{delay: o.DelayPeriods}}, nil
	case NameHAZL:
		return &hazl{}, nil
	case NameL3:
		return &l3{}, nil
	case NameSLATE:
		if !has {
			value = 5
		}
		return &slate{periodS: value, reports: reports{delay: o.DelayPeriods}}, nil
	}
	return nil, fmt.Errorf("unknown policy %q: want one of %s", name, strings.Join(slices.Sorted(slices.Values(Names())), ", "))
}
