package controller

import (
	"cmp"
	"math"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/world"
)

const (
	// weightsTTL is how long nodes keep to a plan that nobody renews: four renewals.
	weightsTTL = 2 * time.Second
	// restEvery is how often a plan is sent that leaves every request at home, and restTTL
	// how long nodes keep to it: what they would do without it is the same.
	restEvery, restTTL = 2 * time.Second, 6 * time.Second
	// listen is how long a controller that starts hears reports before it sends
	// weights: nodes keep to the plan they have, which knows more than an empty world.
	listen = reportEvery + tickEvery
	// notable is the change of a share that is published at once.
	notable = 0.005
)

// tick plans, and sends what is due.
func (s *Server) tick(now time.Time) {
	s.world.Forget(now, forgetAfter)
	if !s.synced {
		return
	}
	begin := time.Now()
	s.countBudgets(now)
	s.weights = s.plan(now)
	s.count.planned(time.Since(begin))
	s.notePast(now)
	if !s.active(time.Now()) {
		return
	}
	s.weights.Links = s.shareBudgets(now)
	every := reportEvery
	if s.pace() == reportEvery && len(s.weights.Links) == 0 {
		every = restEvery
		s.weights.ExpiresAt = now.Add(restTTL)
	}
	due := now.Sub(s.sentAt) >= every-tickEvery/2 || moved(s.sent, s.weights)
	if due && now.Sub(s.started) >= listen {
		s.planSeq++
		s.weights.Seq = s.planSeq
		if err := s.conn.PublishWeights(s.weights); err == nil {
			s.count.weightsOut.Add(1)
		}
		s.sent, s.sentAt = s.weights, now
	}
	s.tellTraffic(now)
	if now.Sub(s.reportAt) >= reportEvery-tickEvery/2 {
		s.reportAt = now
		if r := s.report(now); s.audible() && s.conn.PublishReport(r) == nil {
			s.count.reportsOut.Add(1)
		}
	}
}

// audible tells whether there may be somebody who hears this site's reports. A site
// alone and a hub without a link have their nodes only, which read plans.
func (s *Server) audible() bool { return s.cfg.role() == "external" || s.nats.Links() > 0 }

// plan plans every shared service anew.
func (s *Server) plan(now time.Time) *mesh.Weights {
	w := &mesh.Weights{
		Site: s.cfg.Site, Epoch: s.epoch, Seq: s.planSeq,
		IssuedAt: now, ExpiresAt: now.Add(weightsTTL), Services: []mesh.ServiceWeights{},
	}
	// The planner wants a monotonic clock, whatever its origin.
	clock := int64(now.Sub(s.started))
	live := map[mesh.ServiceKey]*plan.Planner{}
	for _, sh := range s.world.Shared(now, s.reachable()) {
		p := s.planners[sh.Service]
		if p == nil {
			p = plan.New(sh.Service, &s.curves)
		}
		live[sh.Service] = p
		sw := p.Tick(clock, s.input(sh))
		if sh.Sharing.Policy != mesh.SharingCooperative {
			sw = static(sw, sh)
		}
		w.Services = append(w.Services, plan.Pin(sw, s.cfg.Site, sh.Sharing.PinOf(s.cfg.Site)))
	}
	s.planners = live
	return w
}

func (s *Server) input(sh world.Shared) plan.Input {
	in := plan.Input{
		DemandPerS: sh.Home.Demand, Slots: sh.Home.Slots, LowerBound: sh.Home.Learned == mesh.SlotsLowerBound, ServiceMS: sh.Home.ServiceTimeMS,
		NoHome: sh.NoHome, Drained: sh.Drained, StayHome: sh.Sharing.StayHome,
		Classes: plan.Classes(&sh.Sharing), Sessions: sh.Sessions, Open: sh.Home.InFlight,
	}
	if sh.Sharing.ShedAfter != nil {
		in.ShedAfterMS = float64(sh.Sharing.ShedAfter.D()) / float64(time.Millisecond)
	}
	in.OthersPerS, in.Mates = sh.Home.PoolPerS, sh.Mates
	for _, rate := range sh.Home.From {
		in.OthersPerS += rate
	}
	in.Options = make([]plan.Option, 0, len(sh.Options))
	for i := range sh.Options {
		o := &sh.Options[i]
		scarce, closed := s.budgetOf(o.Site)
		in.Options = append(in.Options, plan.Option{
			Site: o.Site, Slots: o.Report.Slots, ServiceMS: o.Report.ServiceTimeMS,
			ArrivalsPerS: o.Report.Arrivals, FromUsPerS: o.Report.From[s.cfg.Site],
			InFlight: o.Report.InFlight, Spillers: o.Report.Spillers, LowerBound: o.Report.Learned == mesh.SlotsLowerBound,
			AgeMS: o.AgeMS, InBand: o.InBand, RTTMS: o.RTTMS, LinkPriceMS: o.PriceMS + scarce, MaxPerS: o.MaxRate, Excluded: cmp.Or(o.Excluded, closed),
		})
	}
	return in
}

// static replaces a plan's shares by those of a policy that does not look at
// load: nothing leaves, or every reachable site has the same part, or the part
// that its capacity has.
func static(w mesh.ServiceWeights, sh world.Shared) mesh.ServiceWeights {
	part := func(slots, serviceMS float64) float64 {
		switch sh.Sharing.Policy {
		case mesh.SharingRoundRobin:
			return 1
		case mesh.SharingWeightedRoundRobin:
			if serviceMS > 0 {
				return slots / serviceMS
			}
		}
		return 0
	}
	home := part(sh.Home.Slots, sh.Home.ServiceTimeMS)
	if sh.NoHome || sh.Drained {
		home = 0
	}
	sum := home
	for i := range w.Remotes {
		r := &w.Remotes[i]
		r.Weight, r.Draw, r.Limit = 0, 0, 0
		if r.Excluded == "" {
			r.Weight = part(r.Slots, r.ServiceTimeMS)
			sum += r.Weight
		}
	}
	if sum == 0 {
		w.HomeWeight, w.HomeLimit = 1, plan.MaxLimit
		if sh.Sharing.Policy == mesh.SharingNone {
			w.Off = "the policy says none"
		}
		return w
	}
	w.HomeWeight, w.HomeLimit = home/sum, 0
	for i := range w.Remotes {
		r := &w.Remotes[i]
		r.Weight /= sum
		r.Draw = r.Weight * sh.Home.Demand
		if r.Weight > 0 {
			r.Limit = plan.MaxLimit
		}
	}
	return w
}

// moved reports whether a plan differs from the one that was sent last by enough
// that nodes should know at once.
func moved(old, new *mesh.Weights) bool {
	if old == nil || len(old.Services) != len(new.Services) {
		return true
	}
	for i := range new.Services {
		a, b := &old.Services[i], &new.Services[i]
		if a.Service != b.Service || a.HomeLimit != b.HomeLimit || a.Off != b.Off || far(a.HomeWeight, b.HomeWeight) || len(a.Remotes) != len(b.Remotes) {
			return true
		}
		for j := range b.Remotes {
			x, y := &a.Remotes[j], &b.Remotes[j]
			if x.Site != y.Site || x.Limit != y.Limit || x.Excluded != y.Excluded || far(x.Weight, y.Weight) {
				return true
			}
		}
	}
	return false
}

func far(a, b float64) bool { return math.Abs(a-b) > notable }

// report is what the other sites are told: the load of the services that they
// may use. What own users ask for is remembered.
func (s *Server) report(now time.Time) *mesh.Report {
	s.reportSeq++
	r := &mesh.Report{
		Site: s.cfg.Site, Reporter: "controller", Epoch: s.epoch, Seq: s.reportSeq,
		Services: []mesh.ServiceReport{},
	}
	shared := map[mesh.ServiceKey]bool{}
	for _, w := range s.weights.Services {
		shared[w.Service] = true
	}
	perS := map[mesh.ServiceKey]float64{}
	for _, l := range s.world.Loads(now) {
		perS[l.Service] = l.Demand
		if shared[l.Service] {
			r.Services = append(r.Services, l.ServiceReport)
		}
	}
	// Not by the wall clock, which may be set.
	s.demand.Note(now.Sub(s.started), perS)
	return r
}
