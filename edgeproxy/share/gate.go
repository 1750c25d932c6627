package share

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// What Pick returns besides the index of a remote.
const (
	// Home means this site.
	Home = -1
	// None means that nobody is left to try.
	None = -2
	// Shed means that the request is to be refused: home's line is too long and no
	// other site may take it.
	Shed = -3
)

// NoHome, given to Pick as home's number in flight, says that no endpoint here
// can serve now.
const NoHome = -1

// liveNS is how long a number in flight is worth more than the plan.
const liveNS = 100e6

// maxRemotes is how many other sites a gate can tell apart in a Mask.
const maxRemotes = 63

// Mask is a set of places that a request has been tried at. The zero value is
// none.
type Mask uint64

// With returns the set with one place more: Home or the index of a remote.
func (m Mask) With(i int) Mask { return m | maskOf(i) }

// Has tells whether a place is in the set.
func (m Mask) Has(i int) bool { return m&maskOf(i) != 0 }

func maskOf(i int) Mask { return 1 << (uint(i+1) & 63) }

type remote struct {
	live     *Live
	limit    int64
	silentNS int64
	priceMS  float64
	table    []float64
	slope    float64
	from     int64
	site     string
	excluded bool
	why      string // it is excluded
}

// Gate is one service's plan for event loops. It is immutable; loops swap whole
// gates, and handles a request keeps beyond its pick are the remote's Live.
type Gate struct {
	policy    string
	homeLimit int
	// shed[0] is the number in flight at home from which a request is refused, the
	// others are those of the priority classes; 0 is never.
	shed []int
	// sessions says that a remote's limit is how many may be opened there until the
	// next gate.
	sessions bool
	remotes  []remote
	// drawnTo[i] is the sum of the draws up to and with remote i. It lies apart,
	// since every draw scans it.
	drawnTo []float64
	// cheapestMS is the lowest planned price of a remote.
	cheapestMS float64
	turns      []int8 // of the round-robin policies
	account    *account
}

// Compile makes a gate of a plan by a policy of mesh.SiteSharing (empty means
// cooperative); another policy is an error. Remotes keep the plan's order, the
// first 63 of them. classes names the service's priority classes.
func Compile(policy string, w *mesh.ServiceWeights, ledger *Ledger, classes ...string) (*Gate, error) {
	if policy == "" {
		policy = mesh.SharingCooperative
	}
	plan := w.Remotes[:min(len(w.Remotes), maxRemotes)]
	sites := make([]string, len(plan))
	for i := range plan {
		sites[i] = plan[i].Site
	}
	account, lives := ledger.open(w.Service, sites)
	if w.Pinned {
		policy = Pinned
	}
	g := &Gate{policy: policy, homeLimit: w.HomeLimit, shed: make([]int, 1, 1+len(classes)), account: account, remotes: make([]remote, len(plan)), drawnTo: make([]float64, len(plan))}
	g.shed[0], g.sessions = w.ShedLimit, w.Sessions
	for _, name := range classes {
		limit, known := w.ClassShedLimits[name]
		if !known {
			limit = w.ShedLimit // a plan from before the class
		}
		g.shed = append(g.shed, limit)
	}
	drawn := 0.0
	g.cheapestMS = math.Inf(1)
	for i := range plan {
		p := &plan[i]
		if p.Excluded == "" {
			drawn += math.Max(0, p.Draw)
			g.cheapestMS = math.Min(g.cheapestMS, p.PriceMS)
		}
		g.drawnTo[i] = drawn
		lives[i].pace(p.MaxRate)
		if w.Sessions {
			lives[i].opened.Store(0)
		}
		g.remotes[i] = remote{
			live: lives[i], limit: int64(p.Limit),
			silentNS: silentBaseNS + int64(4e6*(p.RTTMS+p.ServiceTimeMS)),
			priceMS:  p.PriceMS, table: p.LiveMS, slope: p.LiveSlopeMS, from: int64(p.LiveFrom),
			site: p.Site, excluded: p.Excluded != "", why: p.Excluded,
		}
	}
	switch policy {
	case mesh.SharingCooperative, mesh.SharingNone:
	case Pinned:
		g.turns = turns(pinScale*w.HomeWeight, plan, func(p *mesh.RemoteWeight) float64 { return pinScale * p.Weight })
	case mesh.SharingRoundRobin:
		g.turns = turns(homeTurns(w, 1), plan, func(*mesh.RemoteWeight) float64 { return 1 })
	case mesh.SharingWeightedRoundRobin:
		g.turns = turns(homeTurns(w, capacity(w.HomeSlots, w.HomeServiceTimeMS)), plan, func(p *mesh.RemoteWeight) float64 {
			return capacity(p.Slots, p.ServiceTimeMS)
		})
	default:
		return nil, fmt.Errorf("service %s: unknown sharing policy %q", w.Service, policy)
	}
	return g, nil
}

// Pinned is the policy of a gate whose shares the operator has fixed.
const Pinned = "pinned"

// pinScale makes whole turns of shares.
const pinScale = 100

// homeTurns is home's weight in a round: nothing where it is drained.
func homeTurns(w *mesh.ServiceWeights, weight float64) float64 {
	if w.Drained {
		return 0
	}
	return weight
}

// Policy is the sharing policy that the gate applies.
func (g *Gate) Policy() string { return g.policy }

// HomeLimit is the number in flight at home from which requests leave.
func (g *Gate) HomeLimit() int { return g.homeLimit }

// Len is the number of remotes.
func (g *Gate) Len() int { return len(g.remotes) }

// Site names a remote.
func (g *Gate) Site(i int) string { return g.remotes[i].site }

// Live is a remote's live state. It outlives the gate.
func (g *Gate) Live(i int) *Live { return g.remotes[i].live }

// Pick says where a request of the site's own users goes: Home, the index of a
// remote, None when every place was tried or may not be used, or Shed. homeInFlight
// counts requests at home's endpoints, waiting ones too, or is NoHome; rnd is a
// fresh random number; tried holds the places where this request failed already.
// A request that another site sent is served here and does not ask.
func (g *Gate) Pick(nowNS int64, homeInFlight int, rnd uint64, tried Mask) int {
	return g.PickFor(0, nowNS, homeInFlight, rnd, tried)
}

// PickFor is Pick for a request of a priority class: 0 for none of them, else its
// number as Compile was given them, from 1 on. Classes differ in when they are shed.
func (g *Gate) PickFor(class int, nowNS int64, homeInFlight int, rnd uint64, tried Mask) int {
	home := homeInFlight >= 0 && !tried.Has(Home)
	if g.policy == mesh.SharingCooperative {
		limit := g.shedLimit(class)
		full := limit > 0 && homeInFlight >= limit
		if home && homeInFlight < g.homeLimit && !full {
			return Home
		}
		if i := g.draw(nowNS, rnd, tried); i >= 0 {
			return i
		}
		if i := g.overflow(nowNS, homeInFlight, tried); home && i >= 0 {
			return i
		}
		if home && full {
			return Shed
		}
	} else if len(g.turns) > 0 {
		if i := g.turn(nowNS, home, tried); i != None {
			return i
		}
	}
	if home {
		return Home
	}
	return g.anywhere(nowNS, tried)
}

func (g *Gate) shedLimit(class int) int {
	if class >= len(g.shed) {
		class = 0 // of a configuration that this plan is older than
	}
	return g.shed[class]
}

// draw takes two remotes by planned weight and of these the cheaper one now, or
// None. Where nothing was heard of either lately it takes one: choosing by planned
// prices sends more to the cheaper one than planned until the next report, and two
// equal neighbours then swing against each other (simulated: 3.7 times the noise).
func (g *Gate) draw(nowNS int64, rnd uint64, tried Mask) int {
	if len(g.remotes) == 0 {
		return None
	}
	total := g.drawnTo[len(g.drawnTo)-1]
	if !(total > 0) {
		return None
	}
	a := g.drawn(total * unit(uint32(rnd)))
	b := g.drawn(total * unit(uint32(rnd>>32)))
	va := g.may(a, nowNS, tried)
	vb := va
	if b != a {
		vb = g.may(b, nowNS, tried)
	}
	if va != yes || vb != yes {
		if va == test && g.remotes[a].live.claimTest(nowNS) {
			return a
		}
		if vb == test && g.remotes[b].live.claimTest(nowNS) {
			return b
		}
		if a, b = g.redraw(nowNS, rnd, tried); a < 0 {
			return None
		}
	}
	if a == b || !g.remotes[a].fresh(nowNS) && !g.remotes[b].fresh(nowNS) {
		return a // two planned prices say nothing new: the draw is by them already
	}
	if g.remotes[b].price(nowNS) < g.remotes[a].price(nowNS) {
		return b
	}
	return a
}

// fresh tells whether the last response's number in flight still counts.
func (r *remote) fresh(nowNS int64) bool { return nowNS-r.live.heardNS.Load() <= liveNS }

func unit(x uint32) float64 { return float64(x) * (1.0 / (1 << 32)) }

// drawn is the remote within whose draw x lies.
func (g *Gate) drawn(x float64) int {
	for i, to := range g.drawnTo {
		if x < to {
			return i
		}
	}
	return len(g.drawnTo) - 1
}

func (g *Gate) may(i int, nowNS int64, tried Mask) verdict {
	r := &g.remotes[i]
	if r.excluded || tried.Has(i) || r.live.early(nowNS) || r.live.Spent() || g.sessions && r.live.opened.Load() >= r.limit {
		return no
	}
	return r.live.admits(nowNS, r.silentNS, r.limit)
}

// redraw draws again, only among those that may be used: the law of drawing from
// all until both may, in bounded time.
func (g *Gate) redraw(nowNS int64, rnd uint64, tried Mask) (a, b int) {
	var open uint64
	total, before := 0.0, 0.0
	for i := range g.remotes {
		draw := g.drawnTo[i] - before
		before = g.drawnTo[i]
		if draw > 0 && g.may(i, nowNS, tried) == yes {
			open |= 1 << i
			total += draw
		}
	}
	if open == 0 {
		return None, None
	}
	rnd *= 0x9e3779b97f4a7c15
	return g.drawnOf(open, total*unit(uint32(rnd>>32))), g.drawnOf(open, total*unit(bits.Reverse32(uint32(rnd))))
}

func (g *Gate) drawnOf(open uint64, x float64) int {
	last := None
	for ; open != 0; open &= open - 1 {
		last = bits.TrailingZeros64(open)
		draw := g.drawnTo[last]
		if last > 0 {
			draw -= g.drawnTo[last-1]
		}
		if x -= draw; x < 0 {
			break
		}
	}
	return last
}

// price is what one more request there costs: by the number in flight that its
// last response said, while that is fresh, else as planned.
func (r *remote) price(nowNS int64) float64 {
	if len(r.table) == 0 || !r.fresh(nowNS) {
		return r.priceMS
	}
	n := r.live.inFlight.Load() - r.from
	if n <= 0 {
		return r.table[0]
	}
	if over := n - int64(len(r.table)-1); over > 0 {
		return r.table[len(r.table)-1] + float64(over)*r.slope
	}
	return r.table[n]
}

// overflow is for when the sites that the plan draws are at their limits: the
// cheapest other one, if it is still worth leaving a queue as long as home's. The
// home limit is where home is as many times dearer than the cheapest remote as
// the policy allows, and beyond it home's price grows with the number in flight,
// so the same margin is kept by comparing with cheapestMS scaled alike. Without
// this a site with a backlog queues beside idle sites that its plan, which leaves
// the own backlog out, does not draw.
func (g *Gate) overflow(nowNS int64, homeInFlight int, tried Mask) int {
	best, bestPrice := None, g.cheapestMS*float64(homeInFlight)/float64(max(1, g.homeLimit))
	for i := range g.remotes {
		if g.may(i, nowNS, tried) == yes {
			if p := g.remotes[i].price(nowNS); p < bestPrice {
				best, bestPrice = i, p
			}
		}
	}
	return best
}

// anywhere is the last resort of a request that home cannot serve: the cheapest
// remote, its limit and at last even suspicion set aside. Trying is better than
// an error; only an exclusion and a link's greatest rate and budget are final.
func (g *Gate) anywhere(nowNS int64, tried Mask) int {
	best, bestPrice := None, math.Inf(1)
	for i := range g.remotes {
		r := &g.remotes[i]
		if r.excluded || tried.Has(i) || r.live.early(nowNS) || r.live.Spent() {
			continue
		}
		p := r.price(nowNS)
		if r.live.admits(nowNS, r.silentNS, math.MaxInt64) != yes {
			p += 1e12
		}
		if p < bestPrice {
			best, bestPrice = i, p
		}
	}
	return best
}
