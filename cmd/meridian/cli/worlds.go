package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
	"github.com/meridian-mesh/meridian/testbed/sim/whatif"
)

// liveMesh is what the controllers say of the mesh as it is now.
type liveMesh struct {
	status  *siteapi.Status
	weights *siteapi.Weights
	objects *siteapi.Objects
	history *siteapi.History // when asked for
}

// askLive asks for all of it, the last hour's demand too where it is wanted.
func askLive(ctx context.Context, c *siteapi.Client, past bool) (l liveMesh, err error) {
	if l.status, err = c.Status(ctx); err != nil {
		return l, err
	}
	if l.weights, err = c.Weights(ctx); err != nil {
		return l, err
	}
	if l.objects, err = c.Get(ctx, siteapi.GetRequest{}); err != nil {
		return l, err
	}
	if past {
		l.history, err = c.History(ctx)
	}
	return l, err
}

// documents are the objects in force, and what they would be with some set.
func (l *liveMesh) documents(set *mesh.Objects) (before, after []world.Object, err error) {
	changed := map[mesh.Key]bool{}
	if set != nil {
		for key, doc := range set.All() {
			changed[key] = true
			after = append(after, world.Object{Key: key, Owner: world.Hub, Doc: doc})
		}
	}
	for _, o := range l.objects.Objects {
		if o.Shadowed {
			continue
		}
		read, err := mesh.ParseYAML(o.Key.String(), o.Object)
		if err != nil {
			return nil, nil, fmt.Errorf("an object of the mesh cannot be read by this meridian, which may be older: %w", err)
		}
		for key, doc := range read.All() {
			x := world.Object{Key: key, Owner: o.Owner, Doc: doc}
			before = append(before, x)
			if !changed[key] {
				after = append(after, x)
			}
		}
	}
	return before, after, nil
}

// worlds makes a world of each service from what the controllers and the documents
// say. Sites that did not answer, and those of unknown capacity, are left out and named.
func (l *liveMesh) worlds(declared map[mesh.ServiceKey]*whatif.Declared) (map[mesh.ServiceKey]*whatif.World, []string) {
	var notes []string
	for _, p := range l.status.Peer {
		if p.Said == nil {
			notes = append(notes, fmt.Sprintf("site %s is left out: %s", p.Site, p.Silence))
		}
	}
	said := []*siteapi.SiteStatus{&l.status.Self}
	for _, p := range l.status.Peer {
		if p.Said != nil {
			said = append(said, p.Said)
		}
	}
	plans := map[string]map[mesh.ServiceKey]*mesh.ServiceWeights{}
	for _, row := range l.weights.Rows {
		plans[row.Site] = map[mesh.ServiceKey]*mesh.ServiceWeights{}
		for i := range row.Services {
			plans[row.Site][row.Services[i].Service] = &row.Services[i]
		}
	}
	out := map[mesh.ServiceKey]*whatif.World{}
	for _, key := range slices.Sorted(maps.Keys(declared)) {
		d := declared[key]
		if why := d.Unknown(); why != "" {
			notes = append(notes, fmt.Sprintf("service %s is left out: %s", key, why))
			continue
		}
		w := &whatif.World{RTTMS: map[[2]string]float64{}, Declared: d}
		for pair, way := range d.Ways {
			w.RTTMS[pair] = way.RTTMS
		}
		open := false
		for _, s := range said {
			x, ok := d.Sites[s.Site]
			if !ok {
				continue // its users may not use the service
			}
			site := whatif.Site{Name: s.Site, Slots: x.Slots, ServiceMS: x.ServiceMS, Closed: !x.Serves, Drained: x.Drained}
			for _, load := range s.Services {
				if load.Service == key {
					site.DemandPerS = load.Demand
				}
			}
			if p := plans[s.Site][key]; p != nil {
				if p.HomeSlots > 0 && p.HomeServiceTimeMS > 0 {
					site.Slots, site.ServiceMS = math.Max(1, p.HomeSlots), p.HomeServiceTimeMS
				}
				for _, r := range p.Remotes {
					if r.RTTMS > 0 {
						w.RTTMS[[2]string{s.Site, r.Site}] = r.RTTMS
					}
				}
			}
			if !site.Closed && (site.Slots < 1 || site.ServiceMS <= 0) {
				notes = append(notes, fmt.Sprintf("site %s is left out for %s: its capacity is not known", s.Site, key))
				continue
			}
			open = open || !site.Closed
			w.Sites = append(w.Sites, site)
		}
		if open {
			out[key] = w
		}
	}
	return out, notes
}

// remember gives a world's sites the demand of the past, as far back as all of them
// know it, and says how far that is.
func (l *liveMesh) remember(key mesh.ServiceKey, w *whatif.World) time.Duration {
	steps, stepS := math.MaxInt, 0.0
	past := map[string][]float64{}
	for _, row := range l.history.Rows {
		if row.StepS <= 0 || len(row.Services) == 0 {
			continue
		}
		steps, stepS = min(steps, len(row.Services[0].PerS)), row.StepS
		for _, s := range row.Services {
			if s.Service == key {
				past[row.Site] = s.PerS
			}
		}
	}
	if stepS == 0 {
		return 0
	}
	for i := range w.Sites {
		s := &w.Sites[i]
		s.Past = make([]float64, steps)
		if p := past[s.Name]; len(p) >= steps {
			copy(s.Past, p[len(p)-steps:])
		}
	}
	return time.Duration(float64(steps) * stepS * float64(time.Second))
}

// parseParts reads NAME=PART of priority classes.
func parseParts(flags []string) (map[string]float64, error) {
	out, sum := map[string]float64{}, 0.0
	for _, f := range flags {
		name, text, _ := strings.Cut(f, "=")
		part, err := strconv.ParseFloat(text, 64)
		if _, twice := out[name]; err != nil || !(part >= 0 && part <= 1) || name == "" || twice {
			return nil, fmt.Errorf("--class %q: want a priority class and its part of the requests from 0 to 1, such as batch=0.3, each once", f)
		}
		out[name] = part
		sum += part
	}
	if sum > 1+1e-9 {
		return nil, fmt.Errorf("--class: the parts are %.4g together, more than all requests", sum)
	}
	return out, nil
}

// classParts gives each world the parts of those classes that its documents have, before
// or after the change. A class that no service has is an error.
func classParts(parts map[string]float64, worlds map[mesh.ServiceKey]*whatif.World, was, is map[mesh.ServiceKey]*whatif.Declared) error {
	found := map[string]bool{}
	for key, w := range worlds {
		for _, d := range []*whatif.Declared{was[key], is[key]} {
			if d == nil {
				continue
			}
			for _, c := range d.Sharing.PriorityClasses {
				if part, ok := parts[c.Name]; ok {
					if w.Classes == nil {
						w.Classes = map[string]float64{}
					}
					w.Classes[c.Name], found[c.Name] = part, true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if !found[name] {
			return fmt.Errorf("--class %s: no service that is looked at has a priority class of this name", name)
		}
	}
	return nil
}

// proof is what prove found of one service.
type proof struct {
	service mesh.ServiceKey
	*whatif.Proof
	over time.Duration
}

// prove replays the last hour's demand with documents set, for every service of which
// an objective is stated then. What cannot be known is an error: a proof is all or
// nothing.
func prove(l *liveMesh, set *mesh.Objects, parts map[string]float64) ([]proof, error) {
	const instead = "; nothing was changed: apply without --prove takes it as it is"
	before, after, err := l.documents(set)
	if err != nil {
		return nil, err
	}
	was, is := whatif.Declare(before), whatif.Declare(after)
	for _, p := range l.status.Peer {
		if p.Said == nil {
			return nil, fmt.Errorf("the load is not known of site %s: %s%s", p.Site, p.Silence, instead)
		}
	}
	for site, why := range l.history.Missing {
		return nil, fmt.Errorf("the load of the last hour is not known of site %s: %s%s", site, why, instead)
	}
	for _, row := range l.history.Rows {
		if row.Missed > 0 {
			return nil, fmt.Errorf("site %s has %d services more than it can remember the load of%s", row.Site, row.Missed, instead)
		}
	}
	promised := maps.Clone(was)
	maps.DeleteFunc(promised, func(key mesh.ServiceKey, d *whatif.Declared) bool {
		return d.Objective == nil && (is[key] == nil || is[key].Objective == nil)
	})
	worlds, notes := l.worlds(promised)
	if len(notes) > 0 {
		return nil, fmt.Errorf("%s%s", notes[0], instead)
	}
	if err := classParts(parts, worlds, promised, is); err != nil {
		return nil, err
	}
	var out []proof
	for _, key := range slices.Sorted(maps.Keys(was)) {
		goal := was[key].Objective
		if is[key] != nil {
			goal = is[key].Objective
		}
		if was[key].Served() && is[key] != nil && !is[key].Served() { // which nobody has to promise
			out = append(out, proof{service: key, Proof: &whatif.Proof{Broken: []string{"no site would serve it any more"}}})
			continue
		}
		w := worlds[key]
		if goal == nil || w == nil {
			continue // nothing is promised, or nobody served it so far
		}
		p := proof{service: key, over: l.remember(key, w)}
		if is[key] == nil {
			p.Proof = &whatif.Proof{Broken: []string{"it is no longer shared between sites, or not served at all"}}
			out = append(out, p)
			continue
		}
		if p.over == 0 {
			return nil, fmt.Errorf("service %s: no load has been recorded yet%s", key, instead)
		}
		if p.Proof, err = whatif.Prove(*w, whatif.Change{Documents: is[key]}, 1); err != nil {
			return nil, fmt.Errorf("service %s: %w%s", key, err, instead)
		}
		out = append(out, p)
	}
	return out, nil
}

// proofText says what was proven; broken counts the promises that the change breaks.
func proofText(w io.Writer, proofs []proof) (broken int) {
	if len(proofs) == 0 {
		fmt.Fprintln(w, "proof: no service that sites share has an objective, so there is nothing to break")
	}
	for _, p := range proofs {
		if b, a := p.Before, p.After; len(p.Sites) > 0 { // else nothing was replayed
			fmt.Fprintf(w, "proof: %s, the load of the last %s: mean %.1fms, then %.1fms; 99th percentile %.1fms, then %.1fms; errors %s, then %s\n",
				p.service, p.over, b.MeanMS, a.MeanMS, b.P99MS, a.P99MS, percent(b.Errors), percent(a.Errors))
		}
		for _, s := range p.Standing {
			fmt.Fprintf(w, "proof: %s: broken already: %s\n", p.service, s)
		}
		for _, s := range p.Broken {
			fmt.Fprintf(w, "proof: %s: BROKEN: %s\n", p.service, s)
		}
		broken += len(p.Broken)
	}
	return broken
}
