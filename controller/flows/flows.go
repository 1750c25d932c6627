// Package flows is who talks to whom at one site, and in the mesh. A [Site] sums up
// what the site's nodes tell (mesh.NodeTraffic) into means over 5 and 30 minutes,
// which its controller sends to all sites; a [Board] keeps what each site said last
// and adds it up, in whatever order it came.
//
// It is pure: times come in as arguments, of the reader's own clock. A Site and a
// Board belong to one goroutine; what they return is the caller's.
package flows

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	// Believed is how long what a site said is part of the mesh's traffic.
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

// Said is what a site told last.
type Said struct {
	Site   string
	At     time.Time
	Report *mesh.TrafficReport
}

// Board keeps what each site told last.
type Board struct {
	said map[string]Said
}

// Hear takes in a site's report; older ones than the last are left out. A report with
// what cannot be is refused whole, with the reason.
func (b *Board) Hear(at time.Time, r *mesh.TrafficReport) error {
	m := traffic.Matrix{Edges: r.Edges, Rest: r.Rest}
	if err := m.Check(); err != nil {
		return fmt.Errorf("traffic of site %s: %w", r.Site, err)
	}
	if was, ok := b.said[r.Site]; ok && (r.Epoch < was.Report.Epoch || r.Epoch == was.Report.Epoch && r.Seq <= was.Report.Seq) {
		return nil
	}
	if b.said == nil {
		b.said = map[string]Said{}
	}
	b.said[r.Site] = Said{r.Site, at, r}
	return nil
}

// Forget drops what is no longer believed.
func (b *Board) Forget(now time.Time) {
	maps.DeleteFunc(b.said, func(_ string, s Said) bool { return now.Sub(s.At) > Believed })
}

// Said lists what is believed, by site.
func (b *Board) Said() []Said {
	out := make([]Said, 0, len(b.said))
	for _, site := range slices.Sorted(maps.Keys(b.said)) {
		out = append(out, b.said[site])
	}
	return out
}

// Sum adds up what sites said.
func Sum(said []Said) *traffic.Matrix {
	var all []*traffic.Matrix
	for _, s := range said {
		all = append(all, &traffic.Matrix{Edges: s.Report.Edges, Rest: s.Report.Rest})
	}
	return traffic.Merge(all...)
}

// Delays are those between the sites that were told of: half of the round trip that
// one of the two measured, or of the mean where both did. -1 stands where nobody knows.
func Delays(said []Said) traffic.Measured {
	names := map[string]bool{}
	rtts := map[[2]string][]float64{}
	for _, s := range said {
		names[s.Site] = true
		for to, ms := range s.Report.RTTMS {
			if names[to] = true; ms > 0 && to != s.Site {
				k := [2]string{min(s.Site, to), max(s.Site, to)}
				rtts[k] = append(rtts[k], ms)
			}
		}
	}
	out := traffic.Measured{Sites: slices.Sorted(maps.Keys(names)), OneWayMS: [][]float64{}}
	for i, from := range out.Sites {
		row := make([]float64, len(out.Sites))
		for j, to := range out.Sites {
			known := rtts[[2]string{min(from, to), max(from, to)}]
			switch {
			case i == j:
			case len(known) == 0:
				row[j] = -1
			default:
				sum := 0.0
				for _, ms := range known {
					sum += ms
				}
				row[j] = min(sum/float64(len(known))/2, traffic.MaxDelayMS)
			}
		}
		out.OneWayMS = append(out.OneWayMS, row)
	}
	return out
}
