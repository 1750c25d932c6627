// Package whatif asks the simulator what a change would do to a mesh as it is now:
// a site that is lost, a link that is cut, demand that grows, other documents. Both
// the mesh as it is and the changed one run with the product's own decision code on
// the same seeds, with the demand of this moment ([Run]) or of the last hour
// ([Prove]). It is pure.
package whatif

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
)

// Site is what is known of one service at a site.
type Site struct {
	Name      string
	Slots     float64
	ServiceMS float64
	// DemandPerS is the rate of its own users' requests.
	DemandPerS float64
	// Closed says that none of its endpoints is for this service: its users are served
	// elsewhere. Drained that they are while another site can.
	Closed, Drained bool
	// Past is DemandPerS by steps of time, the oldest first; for Prove.
	Past []float64
}

// World is one service of a mesh at one moment.
type World struct {
	Sites []Site
	// RTTMS holds round trips by pairs of names, in either order.
	RTTMS map[[2]string]float64
	// Declared is what documents say of it; nil for a plain service.
	Declared *Declared
	// Classes is the part of the requests that is of each priority class, by name.
	Classes map[string]float64
}

// Change is what is asked about.
type Change struct {
	// Lose names sites that are gone with all their workers; their users go to the
	// nearest site that is left.
	Lose []string
	// Cut names pairs of sites that cannot reach each other.
	Cut [][2]string
	// Scale multiplies every demand; 0 leaves it.
	Scale float64
	// Documents are the service's after the change, where they change; the world must
	// say what they are before.
	Documents *Declared
}

// Answer is what would become of the mesh.
type Answer struct {
	Before Outcome `json:"before"`
	After  Outcome `json:"after"`
	Sites  []Load  `json:"sites"`
	// Overloaded names the sites that would be asked for more than they can do even
	// after sharing: over 95 % busy.
	Overloaded []string `json:"overloaded"`
	// Classes are the priority classes of which parts were given, then all other requests.
	Classes []ClassOutcome `json:"classes,omitempty"`
}

// ClassOutcome is what the users of one priority class see; the class "" is that of all
// other requests.
type ClassOutcome struct {
	Class  string  `json:"class"`
	Before Outcome `json:"before"`
	After  Outcome `json:"after"`
}

// Outcome is what users see.
type Outcome struct {
	MeanMS float64 `json:"meanMs"`
	P99MS  float64 `json:"p99Ms"`
	Errors float64 `json:"errors"`
	Away   float64 `json:"away"`
}

// Load is one site's part of its capacity in use, with what it serves for others.
type Load struct {
	Site   string  `json:"site"`
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	// Lost says that the site is gone after the change, Closed that it serves nothing
	// then.
	Lost   bool `json:"lost,omitempty"`
	Closed bool `json:"closed,omitempty"`
}

const (
	warmS, forS  = 10.0, 40.0
	deadlineMS   = 2000.0
	overloadedAt = 0.95
	bigRTTMS     = 5000.0
)

// Run answers for a world with one seed. It is an error when the change names what
// is not there or leaves no site, or when a capacity or a round trip is not known.
func Run(w World, c Change, seed uint64) (*Answer, error) {
	return w.answer(c, seed, now)
}

// answer compares a world with itself after a change, under a load.
func (w *World) answer(c Change, seed uint64, l load) (*Answer, error) {
	after, err := w.changed(c)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(w.check(), after.check()); err != nil {
		return nil, err
	}
	old, err := w.scenario(l)
	if err != nil {
		return nil, err
	}
	next, err := after.scenario(l)
	if err != nil {
		return nil, err
	}
	for _, p := range c.Cut {
		a, b := after.index(p[0]), after.index(p[1])
		if a >= 0 && b >= 0 {
			next.Changes = append(next.Changes, sim.Change{Site: -1, Cut: []sim.Pair{{A: a, B: b}}})
		}
	}
	ans := &Answer{Overloaded: []string{}}
	was, outcome, before, err := w.run(old, seed)
	if err != nil {
		return nil, err
	}
	ans.Before = outcome
	will, outcome, then, err := after.run(next, seed)
	if err != nil {
		return nil, err
	}
	ans.After = outcome
	if len(w.Classes) > 0 {
		for _, name := range append(slices.Sorted(maps.Keys(w.Classes)), "") {
			ans.Classes = append(ans.Classes, ClassOutcome{name, before[name], then[name]})
		}
	}
	for i := range w.Sites {
		l := Load{Site: w.Sites[i].Name, Before: was[i]}
		if k := after.index(l.Site); k >= 0 {
			l.Closed = after.Sites[k].Closed
			if l.After = will[k]; l.After > overloadedAt {
				ans.Overloaded = append(ans.Overloaded, l.Site)
			}
		} else {
			l.Lost = true
		}
		ans.Sites = append(ans.Sites, l)
	}
	return ans, nil
}

// check says what is not known of a world.
func (w *World) check() error {
	sum := 0.0
	for name, part := range w.Classes {
		if sum += part; !(part >= 0 && sum <= 1+1e-9) {
			return fmt.Errorf("priority class %q: a part of %v, or more than all together", name, part)
		}
	}
	if w.Declared != nil {
		if why := w.Declared.Unknown(); why != "" {
			return errors.New(why)
		}
	}
	if !slices.ContainsFunc(w.Sites, func(s Site) bool { return !s.Closed }) {
		return errors.New("no site serves this")
	}
	for i := range w.Sites {
		s := &w.Sites[i]
		if !s.Closed && (!(s.Slots >= 1) || !(s.ServiceMS > 0)) || !(s.DemandPerS >= 0) {
			return fmt.Errorf("site %s: its capacity is not known (%v slots of %v ms): declare capacity on its endpoints", s.Name, s.Slots, s.ServiceMS)
		}
	}
	return nil
}

func (w *World) index(name string) int {
	return slices.IndexFunc(w.Sites, func(s Site) bool { return s.Name == name })
}

func (w *World) rtt(a, b string) (float64, bool) {
	if r, ok := w.RTTMS[[2]string{a, b}]; ok {
		return r, true
	}
	r, ok := w.RTTMS[[2]string{b, a}]
	return r, ok
}

// changed is the world after the change, but for cut links.
func (w *World) changed(c Change) (*World, error) {
	for _, name := range c.Lose {
		if w.index(name) < 0 {
			return nil, fmt.Errorf("no site %q", name)
		}
	}
	for _, p := range c.Cut {
		if w.index(p[0]) < 0 || w.index(p[1]) < 0 || p[0] == p[1] {
			return nil, fmt.Errorf("no link between sites %q and %q", p[0], p[1])
		}
	}
	if c.Scale < 0 || math.IsNaN(c.Scale) || c.Scale > 1e3 {
		return nil, fmt.Errorf("demand times %v", c.Scale)
	}
	out := &World{RTTMS: maps.Clone(w.RTTMS), Declared: w.Declared, Classes: w.Classes}
	for _, s := range w.Sites {
		if c.Scale > 0 {
			s.DemandPerS *= c.Scale
			s.Past = slices.Clone(s.Past)
			for k := range s.Past {
				s.Past[k] *= c.Scale
			}
		}
		if !slices.Contains(c.Lose, s.Name) {
			out.Sites = append(out.Sites, s)
		}
	}
	if len(out.Sites) == 0 {
		return nil, errors.New("no site would be left")
	}
	if c.Documents != nil {
		if w.Declared == nil {
			return nil, errors.New("nothing is known of the documents before the change")
		}
		out.become(w.Declared, c.Documents)
	}
	for _, name := range c.Lose {
		lost := w.Sites[w.index(name)]
		best := slices.MinFunc(out.Sites, func(a, b Site) int {
			ra, okA := w.rtt(name, a.Name)
			rb, okB := w.rtt(name, b.Name)
			if !okA {
				ra = math.Inf(1)
			}
			if !okB {
				rb = math.Inf(1)
			}
			return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(a.Name, b.Name))
		})
		moved := lost.DemandPerS
		if c.Scale > 0 {
			moved *= c.Scale
		}
		out.Sites[out.index(best.Name)].DemandPerS += moved
	}
	return out, nil
}

// load is what users ask for while a world is simulated.
type load struct {
	forS float64
	// stepS is how long each step of the sites' pasts is held, 0 for DemandPerS alone.
	stepS float64
}

var now = load{forS: forS}

// leastPerS stands for no demand at all: one request in eleven days.
const leastPerS = 1e-6

func (w *World) scenario(l load) (*sim.Scenario, error) {
	sc := &sim.Scenario{Name: "whatif", DeadlineMS: deadlineMS, ForS: l.forS, MeasureFromS: warmS}
	n := len(w.Sites)
	for i := range n {
		s := &w.Sites[i]
		out := sim.Site{Name: s.Name, Slots: 1, ServiceMS: 1, DemandPerS: s.DemandPerS, Closed: s.Closed}
		if !s.Closed {
			// A fraction of a slot works as a whole one that is as much slower.
			out.Slots = int(math.Round(s.Slots))
			out.ServiceMS = s.ServiceMS * float64(out.Slots) / s.Slots
		}
		if l.stepS > 0 {
			out.DemandPerS = leastPerS
			for k, perS := range s.Past {
				sc.Changes = append(sc.Changes, sim.Change{AtS: warmS + float64(k)*l.stepS, Site: i, Demand: math.Max(1, perS/leastPerS)})
			}
			if len(s.Past) > 0 {
				out.DemandPerS = math.Max(leastPerS, s.Past[0])
				for k := range sc.Changes {
					if sc.Changes[k].Site == i {
						sc.Changes[k].Demand *= leastPerS / out.DemandPerS
					}
				}
			}
		}
		sc.Network.Sites = append(sc.Network.Sites, out)
		row := make([]float64, n)
		for j := range n {
			if i == j {
				continue
			}
			r, ok := w.rtt(s.Name, w.Sites[j].Name)
			if !ok {
				r = bigRTTMS // not known to be reachable: nothing goes there
			}
			row[j] = r
		}
		sc.Network.RTTMS = append(sc.Network.RTTMS, row)
	}
	if n > 32 {
		sc.Neighbours = 24
	}
	sc.Classes = w.classes()
	return sc, sc.Check()
}

// classes are the priority classes of the documents with their parts. One of which a part
// is given and that the documents do not have is of requests without a class.
func (w *World) classes() []sim.Class {
	var out []sim.Class
	if w.Declared != nil && len(w.Classes) > 0 {
		for _, c := range plan.Classes(&w.Declared.Sharing) {
			out = append(out, sim.Class{Name: c.Name, Part: w.Classes[c.Name], ShedAfterMS: c.ShedAfterMS})
		}
	}
	return out
}

// rules are what the world's documents say of sharing.
func (w *World) rules() policy.Options {
	o := policy.Options{DelayPeriods: 1}
	d := w.Declared
	if d == nil {
		return o
	}
	o.Service = func(i int) share.Service {
		s := share.Service{Policy: d.Sharing.Policy, StayHome: d.Sharing.StayHome, Drained: w.Sites[i].Drained, Pin: d.Sharing.PinOf(w.Sites[i].Name)}
		if after := d.Sharing.ShedAfter; after != nil {
			s.ShedAfterMS = float64(after.D()) / float64(time.Millisecond)
		}
		return s
	}
	o.Way = func(i, j int) share.Peer {
		x := d.Ways[[2]string{w.Sites[i].Name, w.Sites[j].Name}]
		return share.Peer{PriceMS: x.PriceMS, MaxRate: x.MaxPerS, Excluded: x.Excluded}
	}
	return o
}

// run returns how busy each site was, what users saw, and those of each priority class.
func (w *World) run(sc *sim.Scenario, seed uint64) ([]float64, Outcome, map[string]Outcome, error) {
	p, err := policy.New(policy.NameMeridian, w.rules())
	if err != nil {
		return nil, Outcome{}, nil, err
	}
	m, err := sim.New(sc, p, seed)
	if err != nil {
		return nil, Outcome{}, nil, err
	}
	s, _ := m.Run(nil)
	n := math.Max(1, float64(s.Window.Requests))
	out := Outcome{
		MeanMS: s.Window.MeanMS(), P99MS: s.QuantileMS(0.99),
		Errors: float64(s.Window.Errors()) / n, Away: float64(s.Window.Away) / n,
	}
	loads := make([]float64, len(sc.Network.Sites))
	for i := range loads {
		sum := 0.0
		for _, x := range s.Load[i][int(2*warmS):int(2*sc.ForS)] {
			sum += float64(x)
		}
		loads[i] = sum / (sc.ForS - warmS) / sc.Network.Sites[i].CapacityPerS()
	}
	classes := map[string]Outcome{}
	for k := range s.Class {
		t, name := &s.Class[k], ""
		if k > 0 {
			name = sc.Classes[k-1].Name
		}
		n := math.Max(1, float64(t.Requests))
		classes[name] = Outcome{MeanMS: t.MeanMS(), Errors: float64(t.Errors()) / n}
	}
	return loads, out, classes, nil
}
