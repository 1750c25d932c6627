package share

import (
	"math"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
)

const (
	// latelyNS is how long a site counts as a spiller after its last request.
	latelyNS = 2e9
	// maxSources bounds the sites whose requests are told apart.
	maxSources = 1024
)

// service is one service's estimates and plans at this node.
type service struct {
	Service
	planner     *plan.Planner
	demand      price.Rate
	served      price.Rate
	others      price.Rate // of served, for other sites
	serviceTime price.ServiceTime
	from        map[string]*source
	last        Counters
	lastNS      int64
	busy        int // in flight on its machine at the last tick
	pool        pool
	learned     *learned          // nil where slots are declared
	standing    mesh.SlotsLearned // mesh.ServiceReport.Learned

	// planned is the controller's plan while the controller's last message had
	// one, lastPlan the last it ever had; standby is how much of the own plan is
	// in force, 0 to 1.
	planned, lastPlan *mesh.ServiceWeights
	standby           float64
}

type source struct {
	rate   price.Rate
	count  uint64
	seenNS int64
}

func newService(cfg Service, curves *price.Curves) *service {
	return &service{
		Service: cfg, planner: plan.New(cfg.Key, curves), standby: 1,
		serviceTime: price.NewServiceTime(cfg.DeclaredMS), from: map[string]*source{},
	}
}

// grown is the difference of a counter; one that fell was started anew.
func grown(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// measure feeds the estimates and tells whether anything happened.
func (s *service) measure(nowNS int64, c *Counters, all map[mesh.ServiceKey]*Counters) bool {
	last := &s.last
	demand, served := grown(c.Demand, last.Demand), grown(c.Served, last.Served)
	done := grown(c.Completed, last.Completed)
	s.demand.Observe(nowNS, float64(demand))
	s.served.Observe(nowNS, float64(served))
	var others uint64
	for site, count := range c.From {
		src := s.from[site]
		if src == nil {
			if len(s.from) >= maxSources {
				continue
			}
			src = new(source)
			if s.lastNS > 0 {
				src.rate.Observe(s.lastNS, 0)
			}
			s.from[site] = src
		}
		n := grown(count, src.count)
		src.rate.Observe(nowNS, float64(n))
		others += n
		if src.count = count; n > 0 {
			src.seenNS = nowNS
		}
	}
	s.others.Observe(nowNS, float64(others))
	// Nobody who comes while every slot is taken finds a free one, so when in
	// flight was at the slots on both ends and nobody found one, it was all along.
	free := grown(c.FreeStarts, last.FreeStarts)
	busyNow := busyWith(c, all)
	full := c.Slots > 0 && free == 0 && float64(min(busyNow, s.busy)) >= c.Slots
	s.busy = busyNow
	// What others did in the machine's slots meanwhile is not known to take as long, so
	// with them only silence tells.
	if len(c.Mates) > 0 && done > 0 {
		full = false
	}
	switch {
	case s.Sessions: // how long they last says nothing of a message
	case full && s.lastNS > 0:
		s.serviceTime.ObserveFull(c.Slots, float64(nowNS-s.lastNS)/1e6, done)
	default:
		s.serviceTime.Observe(grown(c.Unqueued, last.Unqueued),
			c.UnqueuedMS-last.UnqueuedMS, c.UnqueuedSqMS-last.UnqueuedSqMS)
	}
	busy := demand+served+done > 0 || c.InFlight != last.InFlight || c.Up != last.Up || c.Slots != last.Slots
	s.last, s.lastNS = *c, nowNS
	s.last.Mates = nil
	s.last.From = nil // counted per source; the caller's map may change
	return busy
}

func (s *service) spillers() int {
	n := 0
	for _, src := range s.from {
		if src.seenNS > 0 && s.lastNS-src.seenNS <= latelyNS {
			n++
		}
	}
	return n
}

func (s *service) report(c *Counters) mesh.NodeServiceReport {
	r := mesh.NodeServiceReport{Demand: s.demand.PerS(), ServiceReport: mesh.ServiceReport{
		Service: s.Key, Slots: c.Slots, Learned: s.standing, ServiceTimeMS: s.serviceTime.MS(), InFlight: c.InFlight + s.pool.inFlight,
		Arrivals: s.served.PerS() + s.pool.perS, Spillers: s.spillers(),
	}, PoolPerS: s.pool.perS}
	for site, src := range s.from {
		if rate := src.rate.PerS(); rate > 0 {
			if r.From == nil {
				r.From = make(map[string]float64, len(s.from))
			}
			r.From[site] = math.Round(rate*1000) / 1000
		}
	}
	return r
}
