package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

// The rule's constants. They were chosen together, by simulation.
const (
	// relayFactor prices a round trip above its length, so that equal ways do not
	// make sites swap requests (rings and lines are full of ties).
	relayFactor = 1.3
	// ceilRho is the utilisation at which planned prices are clamped. Without it
	// the rule runs away: a site with a backlog fills its neighbours to 1, their
	// planned price explodes, the home limit with it, and nothing leaves any more.
	ceilRho = 0.9
	// burst is the part of own capacity for which a way out is always planned.
	burst = 0.15
	// periodMS is how often sites report.
	periodMS = 500
	// freshPeriods past the usual delay a report starts to fade, over fadePeriods,
	// and after stalePeriods more its site gets nothing.
	freshPeriods, fadePeriods, stalePeriods = 3, 2, 10
	// longestSilenceMS bounds for how long plans rest on what was known when the
	// last of all reports came.
	longestSilenceMS = 60_000
	// slowerBy is how many times the cheapest other place an idle home may cost
	// until it is to be no dearer than that.
	slowerBy = 1.25
	// drainMS is the time in which another site's backlog is taken to drain.
	drainMS = 500
	// stepMS is how long after a step of own demand or speed the plan moves at
	// full gain, whatever the age of reports.
	stepMS     = 2500
	maxGain    = 0.5
	leastShare = 0.0005

	// DefaultStayHome is h: how many times dearer than the cheapest other site
	// home may become.
	DefaultStayHome = 2
	maxStayHome     = 10
	// MaxLimit is the largest limit a plan holds; as a home limit it means that
	// everything stays.
	MaxLimit = 1 << 20

	// MaxRemotes is how many other sites, the nearest, one plan uses.
	MaxRemotes = 32

	// dearestMS ends the search for a level of prices: only greatest rates can make
	// demand find no place below it.
	dearestMS = 1e30

	maxPerS  = 1e9
	maxRTTMS = 1e4
	minRTTMS = 0.01
)

// Input is what a site knows when it plans.
type Input struct {
	// DemandPerS is the rate of requests of the site's own users, wherever served.
	DemandPerS float64
	// Slots and ServiceMS are home's capacity. Zero or less, or not a number,
	// means that it is not known: then nothing is shared.
	Slots, ServiceMS float64
	// LowerBound says that home was never seen saturated, so that Slots is only the
	// most it was seen to work on: what comes stays here until it is known that this
	// costs more than going elsewhere, and nothing is refused.
	LowerBound bool
	// NoHome says that no endpoint here can serve now, Drained that none is to serve
	// while another site can.
	NoHome, Drained bool
	// OthersPerS is the rate of requests served here for other sites.
	OthersPerS float64
	// StayHome is the policy's h; 0 means DefaultStayHome.
	StayHome float64
	// ShedAfterMS is the policy's longest wait at home, 0 for any.
	ShedAfterMS float64
	// Classes are the policy's priority classes.
	Classes []Class
	// Sessions says that the load is open sessions: then Slots and an option's Slots are
	// how many may be open, InFlight and Open how many are, from everywhere, ServiceMS is
	// the time of a message, and DemandPerS and arrivals are new sessions.
	Sessions bool
	Open     int
	// Mates is how many other services share home's machine. Each of them sees the same
	// line and moves away from it too, so each moves by its part.
	Mates   int
	Options []Option
}

// Class is a priority class: its name, and the longest wait at home that its requests
// are let into when no other site is left for them.
type Class struct {
	Name        string
	ShedAfterMS float64
}

// Classes are those of a policy, in its order.
func Classes(p *mesh.SiteSharing) []Class {
	var out []Class
	for _, c := range p.PriorityClasses {
		out = append(out, Class{c.Name, float64(c.ShedAfter) / 1e6})
	}
	return out
}

// ShedLimit is the number in flight from which one request more would wait longer
// than afterMS: every slot works off its part of the line. 0 or less never sheds.
func ShedLimit(slots, serviceMS, afterMS float64) int {
	if !(afterMS > 0 && slots > 0 && serviceMS > 0) {
		return 0
	}
	return int(math.Min(math.Ceil(slots*(1+afterMS/serviceMS)), MaxLimit))
}

// Option is another site as this one knows it.
type Option struct {
	Site string
	// Slots, ServiceMS, InFlight, ArrivalsPerS and Spillers are its report's;
	// FromUsPerS is the part of its arrivals that it got from here.
	Slots, ServiceMS, ArrivalsPerS, FromUsPerS float64
	InFlight, Spillers                         int
	// AgeMS is the report's age by the local clock, UsualMS by how much its
	// successors usually come later than a report period.
	AgeMS, UsualMS float64
	// InBand says that the report came on a response or a probe, so that live
	// prices back it up.
	InBand bool
	// LowerBound says that the site learns its slots and was never seen saturated. One
	// that nothing was sent to has no service time: home's is taken for it.
	LowerBound bool
	// RTTMS is the round trip, LinkPriceMS what a request costs besides.
	RTTMS, LinkPriceMS float64
	// MaxPerS is the most that may go there from here, in requests per second, 0 for
	// no limit: a link's rate, or what is left of a budget.
	MaxPerS float64
	// Excluded says why nothing may go there (fence, suspect, no route), else empty.
	Excluded string
}

// Planner plans for one service of one site. Make it with [New].
type Planner struct {
	service mesh.ServiceKey
	curves  *price.Curves

	home   float64 // share of own demand
	share  map[string]float64
	begun  bool
	lastNS int64
	stepNS int64
	demand float64
	speed  float64 // service time, ms
}

// New returns a planner that keeps everything at home until it knows better.
// Planners may share curves.
func New(service mesh.ServiceKey, curves *price.Curves) *Planner {
	return &Planner{service: service, curves: curves, home: 1, share: map[string]float64{}}
}

// candidate is a usable option within one tick; index 0 is home where home serves.
type candidate struct {
	price.Queue
	from     *Option // nil for home
	costMS   float64 // of the way there
	others   float64 // load without ours, 1/s
	weight   float64
	fill     float64 // 1/s
	most     float64 // 1/s that may go there from here
	spillers float64
	fading   bool // its report is old enough to fade
}

// planned is the rate that the candidate's price is reckoned at.
func (c *candidate) planned(demand float64) float64 {
	return math.Min(c.others+c.weight*demand, ceilRho*c.CapacityPerS())
}

// Tick plans anew. It is meant to be called every 100 ms; other intervals work,
// from 10 ms to 1 s are accounted for. Impossible numbers of an option exclude it
// with the reason, impossible numbers of home turn sharing off with the reason.
func (p *Planner) Tick(nowNS int64, in Input) mesh.ServiceWeights {
	tickMS := 100.0
	if p.begun {
		tickMS = clamp(float64(nowNS-p.lastNS)/1e6, 10, 1000)
	}
	p.lastNS = nowNS
	demand := in.DemandPerS
	if !(demand >= 0 && demand <= maxPerS) {
		demand = p.demand
	}

	if in.Sessions {
		return p.sessions(&in)
	}
	out := mesh.ServiceWeights{Service: p.service, HomeLimit: MaxLimit, HomeWeight: 1}
	var all []candidate
	if !in.NoHome && !in.Drained {
		home, err := p.curves.Queue(in.Slots, in.ServiceMS)
		if in.LowerBound {
			return p.off(out, in, learning)
		}
		if err != nil {
			return p.off(out, in, "capacity of this site is not known: declare capacity.concurrency and capacity.serviceTime on its endpoints")
		}
		out.HomeSlots, out.HomeServiceTimeMS = in.Slots, in.ServiceMS
		out.ShedLimit = ShedLimit(in.Slots, in.ServiceMS, in.ShedAfterMS)
		for _, c := range in.Classes {
			if out.ClassShedLimits == nil {
				out.ClassShedLimits = make(map[string]int, len(in.Classes))
			}
			out.ClassShedLimits[c.Name] = ShedLimit(in.Slots, in.ServiceMS, c.ShedAfterMS)
		}
		all = append(all, candidate{Queue: home, most: math.Inf(1), others: clamp(in.OthersPerS, 0, maxPerS)})
	}
	first := len(all) // remotes start here
	quietMS := silenceMS(in.Options)
	out.Remotes = make([]mesh.RemoteWeight, 0, len(in.Options))
	for i := range in.Options {
		o := &in.Options[i]
		q, why := p.usable(o, in.ServiceMS, quietMS)
		if why != "" {
			out.Remotes = append(out.Remotes, excluded(o, why))
			continue
		}
		all = append(all, newCandidate(q, o, quietMS))
	}
	if len(all)-first > MaxRemotes {
		slices.SortStableFunc(all[first:], func(a, b candidate) int { return cmp.Compare(a.costMS, b.costMS) })
		for _, c := range all[first+MaxRemotes:] {
			out.Remotes = append(out.Remotes, excluded(c.from, "further away than enough other sites"))
		}
		all = all[:first+MaxRemotes]
	}
	p.noteSteps(nowNS, demand, in)
	if len(all) == first {
		p.home, p.share = 1, map[string]float64{}
		switch {
		case in.NoHome:
			out.HomeLimit, out.HomeWeight = 0, 0
			out.Off = "no endpoint at this site can serve and no other site is usable"
		case in.Drained:
			out.Off = "the site is drained, but no other site is usable: its users are served here"
		}
		return out
	}

	p.move(nowNS, tickMS, demand, 1/float64(1+max(0, in.Mates)), all)
	out.HomeWeight, out.Drained = 0, in.Drained
	cheapest := math.Inf(1)
	for i := range all[first:] {
		c := &all[first+i]
		cheapest = math.Min(cheapest, c.costMS+c.MarginalMS(c.planned(demand)))
	}
	out.HomeLimit = 0
	if first == 1 {
		home := &all[0]
		out.HomeWeight = home.weight
		out.HomePriceMS = micro(home.MarginalMS(home.planned(demand)))
		h := in.StayHome
		if h == 0 || math.IsNaN(h) {
			h = DefaultStayHome
		}
		most := slower(clamp(h, 1, maxStayHome), home.ServiceMS()/math.Min(home.Slots(), 1)/cheapest) * cheapest
		// At least one stays, however dear: otherwise a site that was slow once
		// would never find out that it is fast again.
		out.HomeLimit = max(1, home.Admission(home.planned(demand)).Limit(most, MaxLimit))
	}
	draws(all, first, demand)
	for i := range all[first:] {
		out.Remotes = append(out.Remotes, all[first+i].remote(demand))
	}
	out.Remotes = bySite(out.Remotes)
	return out
}

// bySite sorts remotes by name, by way of their numbers: a remote is too large to be
// moved at every step of a sort.
func bySite(all []mesh.RemoteWeight) []mesh.RemoteWeight {
	order := make([]int32, len(all))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return strings.Compare(all[a].Site, all[b].Site) })
	out := make([]mesh.RemoteWeight, len(all))
	for i, k := range order {
		out[i] = all[k]
	}
	return out
}

// slower is the factor that home may be dearer where an idle home costs ratio
// times the cheapest other place. The factor h keeps requests from leaving for the
// sake of a queue that soon is gone; a home that works slower than the others do
// stays so, and h would hold half of its requests there for nothing.
func slower(h, ratio float64) float64 {
	return h + (1-h)*clamp((ratio-1)/(slowerBy-1), 0, 1)
}

// silenceMS is for how long nobody at all has been heard past the time in which
// reports are fresh. That long a silence says more of the way here than of the
// others, so it does not count against them: without it a site whose bus is cut
// stops sharing though its neighbours answer (simulated: 20 times the mean delay).
// Who does not answer is suspect by then, and who is slow is held by limits.
func silenceMS(options []Option) float64 {
	quiet := math.Inf(1)
	for i := range options {
		if o := &options[i]; o.Excluded == "" {
			quiet = math.Min(quiet, o.AgeMS-freshPeriods*periodMS-clamp(o.UsualMS, 0, 5*periodMS))
		}
	}
	return clamp(quiet, 0, longestSilenceMS)
}

// usable returns the option's queue or why it gets nothing.
func (p *Planner) usable(o *Option, homeMS, quietMS float64) (price.Queue, string) {
	tookMS := o.ServiceMS
	if o.LowerBound && tookMS == 0 {
		tookMS = homeMS // nothing was served there yet, and nothing would be without a guess
	}
	switch {
	case o.Excluded != "":
		return price.Queue{}, o.Excluded
	case o.Slots == 0 || tookMS == 0:
		return price.Queue{}, "its capacity is not known"
	case !(o.ArrivalsPerS >= 0 && o.ArrivalsPerS <= maxPerS), !(o.FromUsPerS >= 0), o.InFlight < 0, o.Spillers < 0:
		return price.Queue{}, "its report holds impossible numbers"
	case !(o.RTTMS >= 0 && o.RTTMS <= maxRTTMS), !(o.LinkPriceMS >= 0 && o.LinkPriceMS <= maxRTTMS):
		return price.Queue{}, "round trip or price of the link is not known"
	case !(o.MaxPerS >= 0 && o.MaxPerS <= maxPerS):
		return price.Queue{}, "the greatest rate of the link is no number"
	case !(o.AgeMS <= quietMS+staleMS(o.UsualMS)):
		return price.Queue{}, "stale: no report lately"
	}
	q, err := p.curves.Queue(o.Slots, tookMS)
	if err != nil {
		return price.Queue{}, "its report holds impossible numbers: " + err.Error()
	}
	return q, ""
}

func staleMS(usualMS float64) float64 {
	return clamp(usualMS, 0, 5*periodMS) + (freshPeriods+fadePeriods+stalePeriods)*periodMS
}

func newCandidate(q price.Queue, o *Option, quietMS float64) candidate {
	c := candidate{Queue: q, from: o, spillers: float64(o.Spillers), most: math.Inf(1)}
	if o.MaxPerS > 0 {
		c.most = o.MaxPerS
	}
	c.costMS = relayFactor*math.Max(minRTTMS, o.RTTMS) + o.LinkPriceMS
	// Own share out, by the same report that its arrivals come from, so that the
	// plan does not chase its own traffic.
	c.others = math.Max(0, o.ArrivalsPerS-o.FromUsPerS)
	age := math.Max(0, o.AgeMS)
	drained := math.Max(0, q.CapacityPerS()-o.ArrivalsPerS) * age / 1000
	if backlog := float64(o.InFlight) - o.Slots - 2*math.Sqrt(o.Slots) - 4 - drained; backlog > 0 {
		c.others += backlog / drainMS * 1000
	}
	old := (age - quietMS - freshPeriods*periodMS - clamp(o.UsualMS, 0, 5*periodMS)) / (fadePeriods * periodMS)
	c.fading = old > 0
	c.others /= 1 - 0.95*clamp(old, 0, 1)
	c.others = math.Min(c.others, maxPerS)
	return c
}

// noteSteps remembers when own demand or speed last changed by a step.
func (p *Planner) noteSteps(nowNS int64, demand float64, in Input) {
	speed := finite(in.ServiceMS)
	if !p.begun {
		p.begun, p.stepNS = true, nowNS
	} else if math.Abs(demand-p.demand) > 0.2*p.demand || math.Abs(speed-p.speed) > 0.3*p.speed {
		p.stepNS = nowNS
	}
	p.demand, p.speed = demand, speed
}

// move takes every weight a step towards the water-filling, and forgets sites
// that are gone.
func (p *Planner) move(nowNS int64, tickMS, demand, part float64, all []candidate) {
	// What own demand is too small to tell is decided as for one request in ten seconds.
	target := math.Max(demand, 0.1)
	fill(all, target)
	stepped := float64(nowNS-p.stepNS) < stepMS*1e6
	next := make(map[string]float64, len(all))
	known := 0.0 // what places that are still there had
	for i := range all {
		all[i].weight = p.shareOf(&all[i])
		known += all[i].weight
	}
	far := 0.0 // the part of own demand that is not where it should be
	for i := range all {
		c := &all[i]
		if c.weight /= known; known == 0 {
			c.weight = c.fill / target
		}
		far += math.Abs(c.fill/target-c.weight) / 2
	}
	sum := 0.0
	for i := range all {
		c := &all[i]
		c.weight += part * c.gain(tickMS, stepped, far) * (c.fill/target - c.weight)
		if c.weight < leastShare {
			c.weight = 0
		}
		sum += c.weight
	}
	if sum == 0 {
		sum = 1 // greatest rates left nothing worth a share
	}
	p.home = 0
	// What may not go where it was, because demand grew, goes where there is room,
	// home first.
	over := 0.0
	for i := range all {
		c := &all[i]
		c.weight /= sum
		if most := c.most / target; c.weight > most {
			over += c.weight - most
			c.weight = most
		}
	}
	for i := range all {
		c := &all[i]
		if over > 0 {
			more := math.Min(over, math.Max(0, c.most/target-c.weight))
			c.weight += more
			over -= more
		}
		if c.from == nil {
			p.home = c.weight
		} else if c.weight > 0 {
			next[c.from.Site] = c.weight
		}
	}
	p.share = next
}

func (p *Planner) shareOf(c *candidate) float64 {
	if c.from == nil {
		return p.home
	}
	return p.share[c.from.Site]
}

// gain is theta: full while an own step is young. Otherwise it is the less the
// older the report, it is divided among the sites that move towards the same one,
// and it shrinks with the distance left: the noise of estimates asks for small
// moves to and fro all the time, and following them gains nothing (simulated: the
// same mean delay with a tenth of the turns).
func (c *candidate) gain(tickMS float64, stepped bool, far float64) float64 {
	g, spillers := maxGain, 1.0
	if c.fading {
		return maxGain // What fades must go whatever the age says.
	}
	if c.from != nil {
		kappa := 1.0
		if c.from.InBand {
			kappa = 0.5
		}
		if !stepped {
			g = math.Min(g, tickMS/(kappa*(math.Max(0, c.from.AgeMS)+tickMS)))
		}
		spillers = math.Max(1, c.spillers)
	}
	if !stepped {
		g *= far
	}
	return g / spillers
}

// fill spreads perS over the candidates so that the marginal cost of every one
// that gets something is the same, and no other is cheaper but those that get all
// that may go there. When all of them do, the rest is left.
func fill(all []candidate, perS float64) {
	var room [MaxRemotes + 1]*candidate
	open := room[:0] // those that may get something below hi
	for i := range all {
		open = append(open, &all[i])
	}
	// Where not even the cheapest empty place is worth its cost, nobody gets anything.
	cheapest := math.Inf(1)
	for i := range all {
		cheapest = math.Min(cheapest, all[i].costMS+all[i].MarginalMS(0))
	}
	lo, hi, below := 0.0, 1.0, -perS
	for hi*2 < cheapest && hi < dearestMS {
		lo, hi = hi, hi*2
	}
	above := amount(open, hi) - perS
	for above < 0 && hi < dearestMS {
		lo, hi, below = hi, hi*2, above
		above = amount(open, hi) - perS
	}
	open = worth(open)
	// False position, every third time halving: amounts are nearly straight close to
	// the root and flat far below it.
	for i, over := 0, above; i < 60 && over > 1e-9*perS && hi-lo > 1e-13*hi; i++ {
		mid := hi - (hi-lo)*above/(above-below)
		if i%3 == 2 || !(mid > lo && mid < hi) {
			mid = (lo + hi) / 2
		}
		if now := amount(open, mid) - perS; now < 0 {
			lo, below = mid, now
			above /= 2 // Illinois: the end that stays must not hold the line
		} else {
			hi, above, over = mid, now, now
			below /= 2
			open = worth(open)
		}
	}
	sum := amount(open, hi)
	for i := range all {
		all[i].fill *= math.Min(1, perS/sum)
	}
}

// amount is what all of them get at a level of prices.
func amount(all []*candidate, nu float64) float64 {
	sum := 0.0
	for _, c := range all {
		c.fill = clamp(c.RatePerS(nu-c.costMS)-c.others, 0, c.most)
		sum += c.fill
	}
	return sum
}

// worth leaves those out that got nothing at the level just looked at: below it they get
// nothing either, and most of a city's sites are of these.
func worth(all []*candidate) []*candidate {
	out := all[:0]
	for _, c := range all {
		if c.fill > 0 {
			out = append(out, c)
		}
	}
	return out
}

// draws leaves in fill the rate by which the gate draws each remote: the plan's,
// or where next to nothing is planned, where a burst would go.
func draws(all []candidate, first int, demand float64) {
	remotes := all[first:]
	planned := 0.0
	for i := range remotes {
		remotes[i].fill = remotes[i].weight * demand
		planned += remotes[i].fill
	}
	least := 1.0
	if first == 1 {
		least = burst * all[0].CapacityPerS()
	}
	if planned < least {
		fill(remotes, least)
	}
}

// remote is the plan towards one site.
func (c *candidate) remote(demand float64) mesh.RemoteWeight {
	load := c.planned(demand)
	rtt := math.Max(minRTTMS, c.from.RTTMS)
	spare := math.Max(0, 0.95*c.CapacityPerS()-c.others) / (1 + c.spillers)
	most := math.Max(c.fill, math.Min(demand, spare)) * (rtt + c.SojournMS(load)) / 1000
	from, table, slope := c.Admission(load).Table()
	live := make([]float64, len(table))
	for i, d := range table {
		live[i] = micro(rtt + c.from.LinkPriceMS + d)
	}
	return mesh.RemoteWeight{
		Site: c.from.Site, Weight: c.weight, Draw: c.fill, MaxRate: c.from.MaxPerS,
		Limit: int(math.Min(most+3*math.Sqrt(most)+2, MaxLimit)),
		RTTMS: rtt, PriceMS: micro(c.costMS + c.MarginalMS(load)),
		Slots: c.Slots(), ServiceTimeMS: c.ServiceMS(),
		LiveFrom: from, LiveMS: live, LiveSlopeMS: micro(slope),
		AgeMS: math.Max(0, c.from.AgeMS),
	}
}

// micro rounds to a microsecond: plans are sent as text ten times a second.
func micro(ms float64) float64 { return math.Round(ms*1000) / 1000 }

func clamp(v, lo, hi float64) float64 {
	if !(v > lo) {
		return lo
	}
	return math.Min(v, hi)
}

// finite is v where it is an ordinary number that JSON can hold, else 0.
func finite(v float64) float64 {
	if v >= 0 && v <= math.MaxFloat64 {
		return v
	}
	return 0
}
