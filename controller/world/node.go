package world

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
)

type node struct {
	at     time.Time
	report *mesh.NodeReport
	rhythm membership.Rhythm
}

// Tell takes in a report of one of the site's own nodes, received at a time, and
// what that node heard in band from other sites. It tells whether the node is new: not
// heard of before, or started anew.
func (w *World) Tell(r *mesh.NodeReport, at time.Time) (fresh bool) {
	if r.Site != w.site {
		return false
	}
	w.once("node "+r.Node, r.Epoch, at)
	for i := range r.Heard {
		w.hear(&r.Heard[i], at)
	}
	n := node{at: at, report: r}
	old, ok := w.nodes[r.Node]
	if ok {
		reborn := r.Epoch < old.report.Epoch && at.Sub(old.at) >= rebornAfter
		if !reborn && cmp.Or(cmp.Compare(r.Epoch, old.report.Epoch), cmp.Compare(r.Seq, old.report.Seq)) <= 0 {
			return false
		}
		if r.Epoch == old.report.Epoch {
			n.rhythm = old.rhythm
			n.rhythm.Beat(at.Sub(old.at), membership.Nodes.For(n.rhythm))
		}
	}
	w.nodes[r.Node] = n
	for _, l := range r.Links {
		w.measured(l.Site, at, l.RTTMS)
	}
	return !ok || old.report.Epoch != r.Epoch
}

// Node is what is known of one node of the site.
type Node struct {
	Name   string
	Status membership.Status
	At     time.Time
	Report *mesh.NodeReport
}

// Nodes returns the site's nodes by name.
func (w *World) Nodes(now time.Time) []Node {
	out := make([]Node, 0, len(w.nodes))
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[name]
		out = append(out, Node{name, membership.Nodes.For(n.rhythm).Judge(true, now.Sub(n.at), true), n.at, n.report})
	}
	return out
}

// Load is a service's load at the own site.
type Load struct {
	mesh.ServiceReport
	// Demand is the rate of the site's own users, wherever they are served, per second.
	Demand float64
	// PoolPerS is the work of services that share the machine, in requests of this one.
	PoolPerS float64
}

// Loads sums what the site's live nodes say, by service. Each node sees all of
// the site's endpoints but only its own requests, so slots are the most that a
// node says, while requests and rates add up.
func (w *World) Loads(now time.Time) []Load {
	sum := map[mesh.ServiceKey]*Load{}
	worked := map[mesh.ServiceKey]float64{} // weight of the service times in the mean
	for _, n := range w.Nodes(now) {
		if n.Status == membership.Dead {
			continue
		}
		for _, s := range n.Report.Services {
			l := sum[s.Service]
			if l == nil {
				l = &Load{ServiceReport: mesh.ServiceReport{Service: s.Service}}
				sum[s.Service] = l
			}
			merge(&l.ServiceReport, &s.ServiceReport)
			l.InFlight += s.InFlight
			l.Arrivals += s.Arrivals
			l.Demand += s.Demand
			l.PoolPerS += s.PoolPerS
			// A node without traffic knows the declared time only, so it counts little.
			weight := max(s.Arrivals, 1e-3)
			l.ServiceTimeMS += weight * s.ServiceTimeMS
			worked[s.Service] += weight
			for site, rate := range s.From {
				if l.From == nil {
					l.From = map[string]float64{}
				}
				l.From[site] += rate
			}
			l.Spillers = max(l.Spillers, s.Spillers)
		}
	}
	out := make([]Load, 0, len(sum))
	for _, key := range slices.Sorted(maps.Keys(sum)) {
		l := sum[key]
		l.ServiceTimeMS /= worked[key]
		spilling := 0
		for _, rate := range l.From {
			if rate > 0 {
				spilling++
			}
		}
		l.Spillers = max(l.Spillers, spilling)
		out = append(out, *l)
	}
	return out
}

// merge takes a node's slots into those of its site. Declared ones are the same at
// every node. Of learned ones each node has found the part at which its own requests
// began to wait, so that these add up; as long as no node has seen the site saturated,
// the most that one has seen served is sure.
// Of nodes that differ, because one has not read the newest configuration yet, those
// count that know best.
func merge(l *mesh.ServiceReport, s *mesh.ServiceReport) {
	switch known, news := surety(l), surety(s); {
	case news > known:
		l.Slots, l.Learned = s.Slots, s.Learned
	case news == known && l.Learned == mesh.SlotsSettled:
		l.Slots += s.Slots
	case news == known:
		l.Slots = max(l.Slots, s.Slots)
	}
}

// surety orders how slots are known: not at all, as a lower bound, settled, declared.
func surety(r *mesh.ServiceReport) int {
	switch {
	case r.Learned == mesh.SlotsLowerBound:
		return 1
	case r.Learned != mesh.SlotsDeclared:
		return 2
	case r.Slots > 0:
		return 3
	}
	return 0
}

// suspects says, by site, why nothing may be sent there now: what the own nodes
// say where none of them may. Sites to which one may, or that none has tried, are
// not in it.
func (w *World) suspects(now time.Time) map[string]string {
	out, open := map[string]string{}, map[string]bool{}
	for _, n := range w.Nodes(now) {
		if n.Status == membership.Dead {
			continue
		}
		for _, l := range n.Report.Links {
			if l.Suspect == "" {
				open[l.Site] = true
			} else {
				out[l.Site] = l.Suspect
			}
		}
	}
	maps.DeleteFunc(out, func(site, _ string) bool { return open[site] })
	return out
}
