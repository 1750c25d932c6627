package report

import (
	"time"

	"github.com/meridian-mesh/meridian/testbed/scenario"
)

// Names of the policies that are compared, as the demo's flag and JSON spell them.
const (
	Cooperative        = "cooperative"
	None               = "none"
	RoundRobin         = "round-robin"
	WeightedRoundRobin = "weighted-round-robin"
)

// Policies are all of them, in the order in which they run.
func Policies() []string {
	return []string{Cooperative, None, RoundRobin, WeightedRoundRobin}
}

// HotspotSettled is the part of the hotspot from five seconds after the step, an
// additional row beside the scenario's phases.
const HotspotSettled = "hotspot-settled"

// Report is everything that a demo run has to say.
type Report struct {
	Runs    []Run  `json:"runs"`
	Sites   []Site `json:"sites"`
	Seed    uint64 `json:"seed"`
	Version string `json:"version"`

	DurationS float64 `json:"duration_s"`
	HotSite   string  `json:"hot_site"`
	SlowSite  string  `json:"slow_site"`
	// HotFactor is the hot site's demand over its capacity in the hotspot, Load
	// every site's otherwise, HotspotLoad the mesh's in the hotspot.
	HotFactor   float64 `json:"hot_factor"`
	Load        float64 `json:"load"`
	HotspotLoad float64 `json:"hotspot_load"`
}

// Site describes one site of the mesh.
type Site struct {
	Name string  `json:"name"`
	Lon  float64 `json:"lon"`
	Lat  float64 `json:"lat"`
	// Slots is how many requests are worked on at once, over all endpoints.
	Slots         int     `json:"slots"`
	ServiceTimeMS float64 `json:"service_time_ms"`
	// Capacity is in requests per second.
	Capacity float64 `json:"capacity_rps"`
	Users    int     `json:"users"`
	// RTTMS is the round trip to each site, in the order of the list.
	RTTMS []float64 `json:"rtt_ms"`
}

// Run is the result of one policy.
type Run struct {
	Policy string  `json:"policy"`
	Phases []Phase `json:"phases"`
	Sharing

	// ErrorKinds counts the errors by what went wrong.
	ErrorKinds map[string]int `json:"error_kinds,omitempty"`
	// Fault is what was broken on purpose, empty for nothing.
	Fault string `json:"fault,omitempty"`
	// Dropped counts requests that a backend never worked on because their
	// client had gone.
	Dropped int `json:"dropped"`
	// GeneratorLateMS is the p99 of how late requests left the generator; the
	// latencies contain it.
	GeneratorLateMS float64 `json:"generator_late_p99_ms"`
	// CPU is what all processes of the mesh and the generator used, in cores.
	CPU float64 `json:"cpu_cores"`
}

// Phase holds one phase's figures for all users, for those whose nearest site is
// the hot one and for those whose nearest is the slow one.
type Phase struct {
	Name     string  `json:"name"`
	FromS    float64 `json:"from_s"`
	ToS      float64 `json:"to_s"`
	All      Stats   `json:"all"`
	HotHome  Stats   `json:"hot_home"`
	SlowHome Stats   `json:"slow_home"`
}

// PhaseStats summarises a run's requests by phase. A request belongs to the phase
// in which it was meant to be sent, however long it took.
func PhaseStats(s *scenario.Scenario, all []Request, deadline time.Duration) []Phase {
	var out []Phase
	add := func(name string, span Span) {
		of := func(home int) Stats {
			return Summarize(all, deadline, func(r Request) bool { return span.Has(r) && (home < 0 || r.Home == home) })
		}
		out = append(out, Phase{
			Name: name, FromS: round(span.From.Seconds()), ToS: round(span.To.Seconds()),
			All: of(-1), HotHome: of(s.Hot), SlowHome: of(s.Slow),
		})
	}
	for _, p := range s.Phases {
		add(p.Name, Span{p.From, p.To})
		if p.Name == scenario.Hotspot {
			add(HotspotSettled, Span{p.From + reversalsFrom, p.To})
		}
	}
	return out
}

// ErrorKinds counts the errors by kind, nil when there was none.
func ErrorKinds(all []Request) map[string]int {
	var kinds map[string]int
	for _, r := range all {
		if r.Outcome != OK {
			if kinds == nil {
				kinds = map[string]int{}
			}
			kinds[r.Outcome.String()]++
		}
	}
	return kinds
}

// FirstOver is when the first request over the hot site's capacity is due: the
// first of the hotspot, from which on more arrive there than it can serve.
func FirstOver(s *scenario.Scenario, arrivals []scenario.Arrival) time.Duration {
	hot := s.Phase(scenario.Hotspot)
	for _, a := range arrivals {
		if a.Site == s.Hot && a.At >= hot.From {
			return a.At
		}
	}
	return hot.From
}

// LateP99MS is the p99 of delays, in milliseconds.
func LateP99MS(sorted []time.Duration) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return ms(rank(sorted, 0.99))
}

// phase returns the named phase, nil when there is none.
func (r *Run) phase(name string) *Phase {
	for i := range r.Phases {
		if r.Phases[i].Name == name {
			return &r.Phases[i]
		}
	}
	return nil
}

func (r *Report) run(policy string) *Run {
	for i := range r.Runs {
		if r.Runs[i].Policy == policy {
			return &r.Runs[i]
		}
	}
	return nil
}
