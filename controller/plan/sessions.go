package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

const (
	// openingS is for how many seconds of new sessions a plan finds places: by then
	// reports have told of them.
	openingS = 1.0
	// maxLive bounds the table of prices by number of sessions. Larger sites are known
	// by their reports: one session more or less makes no price there.
	maxLive = 512
)

// sessionSite is another site that may take sessions.
type sessionSite struct {
	price.Sessions
	from *Option
	// costMS is that of the way, open the sessions there, room how many of the free
	// slots this site may take, fill how many it is planned to.
	costMS, open, room, fill float64
}

// priceMS is what the next session there costs.
func (p *sessionSite) priceMS() float64 { return p.costMS + p.MarginalMS(p.open) }

// sessions is Tick for a service whose load is open sessions. They stay where they
// are, so there is no rate to move: new ones go where the next one costs least, by the
// sessions that are open, and stay home while home is not dearer than that.
func (p *Planner) sessions(in *Input) mesh.ServiceWeights {
	out := mesh.ServiceWeights{Service: p.service, HomeLimit: MaxLimit, HomeWeight: 1, Sessions: true}
	var home price.Sessions
	serves := !in.NoHome && !in.Drained
	if serves {
		var err error
		if home, err = price.NewSessions(in.Slots, in.ServiceMS); err != nil {
			return p.off(out, *in, "capacity of this site is not known: declare capacity.concurrency (sessions) and capacity.serviceTime (of a message) on its endpoints")
		}
		out.HomeSlots, out.HomeServiceTimeMS = in.Slots, in.ServiceMS
		out.HomePriceMS = micro(home.MarginalMS(float64(in.Open)))
		out.ShedLimit = sessionShed(home, in.ShedAfterMS)
		for _, c := range in.Classes {
			if out.ClassShedLimits == nil {
				out.ClassShedLimits = make(map[string]int, len(in.Classes))
			}
			out.ClassShedLimits[c.Name] = sessionShed(home, c.ShedAfterMS)
		}
	}
	var all []sessionSite
	quietMS := silenceMS(in.Options)
	for i := range in.Options {
		o := &in.Options[i]
		_, why := p.usable(o, 0, quietMS)
		if why != "" {
			out.Remotes = append(out.Remotes, excluded(o, why))
			continue
		}
		q, err := price.NewSessions(o.Slots, o.ServiceMS)
		if err != nil {
			panic("plan: a queue that is no session queue: " + err.Error()) // the bounds are the same
		}
		x := sessionSite{Sessions: q, from: o, open: float64(o.InFlight), costMS: relayFactor*math.Max(minRTTMS, o.RTTMS) + o.LinkPriceMS}
		x.room = math.Max(0, o.Slots-x.open) / math.Max(1, float64(o.Spillers))
		if o.MaxPerS > 0 {
			x.room = math.Min(x.room, o.MaxPerS*openingS)
		}
		all = append(all, x)
	}
	slices.SortStableFunc(all, func(a, b sessionSite) int { return cmp.Compare(a.costMS, b.costMS) })
	for i := MaxRemotes; i < len(all); i++ {
		out.Remotes = append(out.Remotes, excluded(all[i].from, "further away than enough other sites"))
	}
	all = all[:min(len(all), MaxRemotes)]
	out.Drained = in.Drained && len(all) > 0
	switch {
	case len(all) > 0:
	case in.NoHome:
		out.HomeLimit, out.HomeWeight, out.Off = 0, 0, "no endpoint at this site can serve and no other site is usable"
	case in.Drained:
		out.Off = "the site is drained, but no other site is usable: its users are served here"
	}

	opening := math.Max(1, clamp(in.DemandPerS, 0, maxPerS)*openingS)
	cheapest := math.Inf(1)
	for i := range all {
		if all[i].room >= 1 {
			cheapest = math.Min(cheapest, all[i].priceMS())
		}
	}
	switch {
	case !serves && len(all) > 0:
		out.HomeLimit, out.HomeWeight = 0, 0
	case serves && !math.IsInf(cheapest, 1):
		h := in.StayHome
		if h == 0 || math.IsNaN(h) {
			h = DefaultStayHome
		}
		most := slower(clamp(h, 1, maxStayHome), home.MarginalMS(0)/cheapest) * cheapest
		// The last free slot here is worth one elsewhere at any price.
		limit := math.Min(math.Floor(home.Open(most))+1, math.Max(1, math.Floor(home.Slots())))
		out.HomeLimit = int(math.Min(limit, MaxLimit))
		out.HomeWeight = math.Min(1, math.Max(0, limit-float64(in.Open))/opening)
	}
	took := fillSessions(all, opening)
	for i := range all {
		out.Remotes = append(out.Remotes, all[i].remote((1-out.HomeWeight)/math.Max(took, 1e-9)))
	}
	if took == 0 && serves {
		out.HomeWeight = 1
	}
	slices.SortFunc(out.Remotes, func(a, b mesh.RemoteWeight) int { return strings.Compare(a.Site, b.Site) })
	return out
}

func sessionShed(home price.Sessions, afterMS float64) int {
	if !(afterMS > 0) {
		return 0
	}
	return int(math.Min(math.Max(1, math.Ceil(home.OpenWithin(afterMS))), MaxLimit))
}

// fillSessions finds places for so many new sessions, so that the last costs the same
// wherever one goes and nobody gets more than its room, and returns how many of them
// it found.
func fillSessions(all []sessionSite, opening float64) (took float64) {
	amount := func(nu float64) float64 {
		sum := 0.0
		for i := range all {
			x := &all[i]
			x.fill = clamp(x.Open(nu-x.costMS)-x.open, 0, x.room)
			sum += x.fill
		}
		return sum
	}
	lo, hi := 0.0, 1.0
	for amount(hi) < opening && hi < 1e12 {
		lo, hi = hi, hi*2
	}
	for range 100 {
		mid := (lo + hi) / 2
		if amount(mid) < opening {
			lo = mid
		} else {
			hi = mid
		}
	}
	took = amount(hi)
	if took > opening {
		for i := range all {
			all[i].fill *= opening / took
		}
		took = opening
	}
	return took
}

// remote is the plan towards one site, whose share is scale times what it takes.
func (p *sessionSite) remote(scale float64) mesh.RemoteWeight {
	rtt := math.Max(minRTTMS, p.from.RTTMS)
	out := mesh.RemoteWeight{
		Site: p.from.Site, Weight: p.fill * scale, Draw: p.fill, MaxRate: p.from.MaxPerS,
		// Sessions that are being opened; the open ones are in what the site reports.
		Limit: int(math.Min(math.Floor(p.room), MaxLimit)),
		RTTMS: rtt, PriceMS: micro(p.priceMS()), Slots: p.Slots(), ServiceTimeMS: p.from.ServiceMS,
		AgeMS: math.Max(0, p.from.AgeMS),
	}
	if p.Slots() <= maxLive {
		last := int(math.Ceil(p.Slots()))
		out.LiveMS = make([]float64, last+1)
		for n := range out.LiveMS {
			out.LiveMS[n] = micro(rtt + p.from.LinkPriceMS + p.MarginalMS(float64(n)))
		}
		out.LiveSlopeMS = micro(p.MarginalMS(float64(last+1)) - p.MarginalMS(float64(last)))
	}
	return out
}
