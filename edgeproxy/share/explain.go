package share

import (
	"fmt"
	"math"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
)

// noLimit is the home limit from which it means that all stay.
const noLimit = plan.MaxLimit / 2

// Candidate is one place for a request, as the gate judges it at one moment.
type Candidate struct {
	// Site names it, empty for home.
	Site string
	// Chance is the part of the requests that go there now, 0 to 1. Live prices and
	// requests in flight change it with every request.
	Chance float64
	// PriceMS is what one more request there costs, in ms of delay with the way; 0
	// where it is not known.
	PriceMS float64
	// Why says in words what speaks for the place, or against it.
	Why string
}

// Explain says where a request of the site's own users that was nowhere yet would
// go, place by place: home first, then the remotes in the plan's order. It is what
// [Gate.Pick] would do, spelled out, and changes nothing that Pick looks at.
// class and homeInFlight are as for PickFor, homeMS is what home costs by the plan.
func (g *Gate) Explain(nowNS int64, class, homeInFlight int, homeMS float64) []Candidate {
	out := make([]Candidate, 1+len(g.remotes))
	open := make([]bool, len(g.remotes))
	out[0].PriceMS = homeMS
	for i := range g.remotes {
		r := &g.remotes[i]
		c := &out[i+1]
		c.Site, c.PriceMS = r.site, r.price(nowNS)
		open[i], c.Why = g.standing(r, nowNS)
	}
	home := homeInFlight >= 0
	if !home {
		out[0].Why = "no endpoint here can serve"
	}
	shed := false
	switch {
	case g.policy == mesh.SharingCooperative:
		shed = g.explainPlan(nowNS, class, homeInFlight, out, open)
	case len(g.turns) > 0:
		g.explainTurns(home, out, open)
	case home:
		out[0].Chance, out[0].Why = 1, "the policy says none: every site alone"
		others(out, "the policy says none")
	}
	switch {
	case shed || chosen(out):
	case home:
		out[0].Chance, out[0].Why = 1, "no other site may be used now"
	default:
		if i := g.anywhere(nowNS, 0); i >= 0 {
			out[i+1].Chance, out[i+1].Why = 1, "the last resort: home cannot serve"
		}
	}
	others(out, "another place is better")
	return out
}

// standing says whether a remote may be used now, and else why not. It looks only.
func (g *Gate) standing(r *remote, nowNS int64) (open bool, why string) {
	switch suspect := r.live.Suspect(nowNS); {
	case r.excluded:
		return false, r.why
	case suspect != "":
		return false, suspect
	case r.live.Spent():
		return false, spentText
	case r.live.early(nowNS):
		return false, "the link is at its greatest rate"
	case g.sessions && r.live.opened.Load() >= r.limit:
		return false, fmt.Sprintf("its places for sessions from here (%d) are taken, until it says that there are more", r.limit)
	case g.policy == mesh.SharingCooperative && int64(r.live.Outstanding()) >= r.limit:
		return false, fmt.Sprintf("%d requests are outstanding there, its limit is %d", r.live.Outstanding(), r.limit)
	}
	return true, ""
}

// explainPlan is the cooperative policy; shed says that the request is refused.
func (g *Gate) explainPlan(nowNS int64, class, homeInFlight int, out []Candidate, open []bool) (shed bool) {
	home := homeInFlight >= 0
	limit := g.shedLimit(class)
	full := limit > 0 && homeInFlight >= limit
	if home && homeInFlight < g.homeLimit && !full {
		out[0].Chance = 1
		out[0].Why = fmt.Sprintf("%d in flight here, and while fewer than %d are requests stay", homeInFlight, g.homeLimit)
		if g.homeLimit >= noLimit {
			out[0].Why = fmt.Sprintf("%d in flight here, and there is nobody to leave for", homeInFlight)
		}
		others(out, "home is not busy enough to leave")
		return false
	}
	if home {
		out[0].Why = fmt.Sprintf("%d in flight here, and from %d on requests leave", homeInFlight, g.homeLimit)
		if g.homeLimit == 0 {
			out[0].Why = "home is drained"
		}
	}
	total := 0.0
	for i := range g.remotes {
		if open[i] {
			total += g.drawOf(i)
		}
	}
	for i := range g.remotes {
		c := &out[i+1]
		switch draw := g.drawOf(i); {
		case !open[i]:
		case draw > 0:
			c.Chance, c.Why = draw/total, "the plan sends requests there"
		default:
			c.Why = "the plan sends nothing there: others cost less"
		}
	}
	if total > 0 {
		return false
	}
	if i := g.overflow(nowNS, homeInFlight, 0); home && i >= 0 {
		out[i+1].Chance, out[i+1].Why = 1, "those that the plan draws are full, and this is the cheapest of the others"
		return false
	}
	if home && full {
		out[0].Why = fmt.Sprintf("%d in flight here: from %d on requests are refused (503) where no other site is left", homeInFlight, limit)
		return true
	}
	return false
}

func (g *Gate) drawOf(i int) float64 {
	if i == 0 {
		return g.drawnTo[0]
	}
	return math.Max(0, g.drawnTo[i]-g.drawnTo[i-1])
}

func (g *Gate) explainTurns(home bool, out []Candidate, open []bool) {
	may := func(i int8) bool { return i == Home && home || i != Home && open[i] }
	total := 0
	counts := make([]int, len(out))
	for at := range g.turns {
		// A turn that may not be used goes to who comes next in the round.
		for k := range g.turns {
			if i := g.turns[(at+k)%len(g.turns)]; may(i) {
				counts[i+1]++
				total++
				break
			}
		}
	}
	for i := range out {
		switch {
		case counts[i] > 0:
			out[i].Chance = float64(counts[i]) / float64(total)
			out[i].Why = "in turn: " + g.policy
		case out[i].Why == "":
			out[i].Why = "has no turn: " + g.policy
		}
	}
}

// others gives the places beyond home that have no reason yet one.
func others(out []Candidate, why string) {
	for i := range out[1:] {
		if c := &out[i+1]; c.Why == "" {
			c.Why = why
		}
	}
}

func chosen(out []Candidate) bool {
	for i := range out {
		if out[i].Chance > 0 {
			return true
		}
	}
	return false
}
