package traffic

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Said is what a site told last.
type Said struct {
	Site   string
	At     time.Time
	Report *mesh.TrafficReport
}

// Board keeps what each site told last and adds it up, in whatever order it came. The
// zero value is empty; it belongs to one goroutine.
type Board struct {
	said map[string]Said
}

// Hear takes in a site's report; older ones than the last are left out. A report with
// what cannot be is refused whole, with the reason.
func (b *Board) Hear(at time.Time, r *mesh.TrafficReport) error {
	m := Matrix{Edges: r.Edges, Rest: r.Rest}
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

// Forget drops what was told longer ago.
func (b *Board) Forget(now time.Time, ago time.Duration) {
	maps.DeleteFunc(b.said, func(_ string, s Said) bool { return now.Sub(s.At) > ago })
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
func Sum(said []Said) *Matrix {
	var all []*Matrix
	for _, s := range said {
		all = append(all, &Matrix{Edges: s.Report.Edges, Rest: s.Report.Rest})
	}
	return Merge(all...)
}

// Between are the delays between the sites that were told of: half of the round trip that
// one of the two measured, or of the mean where both did. -1 stands where nobody knows.
func Between(said []Said) Measured {
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
	out := Measured{Sites: slices.Sorted(maps.Keys(names)), OneWayMS: [][]float64{}}
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
				row[j] = min(sum/float64(len(known))/2, MaxDelayMS)
			}
		}
		out.OneWayMS = append(out.OneWayMS, row)
	}
	return out
}
