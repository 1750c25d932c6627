// Package flows is who talks to whom at one site: a [Site] sums up what the site's nodes
// tell (mesh.NodeTraffic) into means over 5 and 30 minutes, which its controller sends
// to all sites. What they tell is added up by a traffic.Board.
//
// It is pure: times come in as arguments, of the reader's own clock. A Site belongs to
// one goroutine; what it returns is the caller's.
package flows

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

const (
	// Every is how often a site tells of its traffic.
	Every = 5 * time.Second
	// quietFor is how long all nodes of a site may be silent before the site is: what
	// it does not know must not pass for an end of traffic.
	quietFor = 4 * Every
	// Believed is how long what a site told is part of the mesh's traffic.
	Believed = 10 * time.Minute
	// maxPairs bounds the pairs that a site tells apart, perWorkload the edges of one
	// workload in its report; the rest is summed up.
	maxPairs    = 1000
	perWorkload = 64
	// maxReport keeps a report below what the bus carries.
	maxReport = mesh.MaxMessageBytes * 3 / 4
)

// Site sums up the traffic of one site's nodes.
type Site struct {
	meter          *traffic.Meter
	heard, counted time.Time
	// first says that there is something to tell, and nothing has been told.
	first, told bool
}

// NewSite returns a Site that has heard nothing.
func NewSite() *Site { return &Site{meter: traffic.NewMeter(maxPairs)} }

// Hear takes in what a node says. A flow that cannot be is left out, and the error
// names the first; the others count.
func (s *Site) Hear(at time.Time, r *mesh.NodeTraffic) error {
	if s.heard.IsZero() {
		s.counted = at.Add(-time.Duration(r.OverMS * float64(time.Millisecond)))
	}
	s.heard = at
	s.first = !s.told && len(r.Flows) > 0
	var fault error
	for _, f := range r.Flows {
		add := s.meter.Add
		if f.Away {
			add = s.meter.AddAcross
		}
		err := add(f.From, f.To, traffic.Counts{
			Requests: float64(f.Requests), RequestBytes: float64(f.RequestBytes), ResponseBytes: float64(f.ResponseBytes),
		})
		if err != nil && fault == nil {
			fault = fmt.Errorf("node %s: %w", r.Node, err)
		}
	}
	return fault
}

// Due reports whether it is time for a report after one at last: at once when there is
// the first thing to tell, else every [Every].
func (s *Site) Due(now, last time.Time) bool { return s.first || now.Sub(last) >= Every }

// Report is the site's traffic until now, false while no node tells of any.
func (s *Site) Report(now time.Time) (*mesh.TrafficReport, bool) {
	if s.heard.IsZero() || now.Sub(s.heard) > quietFor {
		return nil, false
	}
	// Whatever time has passed: nodes tell of all that they could not tell before.
	s.meter.Tick(now.Sub(s.counted))
	s.counted = now
	s.told, s.first = s.told || s.first, false
	r := new(mesh.TrafficReport)
	for k := perWorkload; ; k /= 2 {
		m := s.meter.Matrix(k)
		r.Edges, r.Rest = m.Edges, m.Rest
		if r.Edges == nil {
			r.Edges = []mesh.TrafficEdge{}
		}
		if data, err := json.Marshal(r); k == 0 || err == nil && len(data) <= maxReport {
			return r, true
		}
	}
}
