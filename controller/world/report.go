package world

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
)

// topic is a service at a site; the empty service is the site as a whole.
type topic struct {
	site    string
	service mesh.ServiceKey
}

// info is the newest report of one reporter on one topic.
type info struct {
	epoch, seq uint64
	at         time.Time
	inBand     bool
	report     mesh.ServiceReport
}

// rebornAfter is the silence after which a process is believed even with an earlier
// start than before: epochs are wall-clock times, and its clock may have been set back.
// Until then the earlier start is that of a process which was replaced.
const rebornAfter = 5 * time.Second

// Hear takes in a site's report that was received at a time. News of the own
// site comes from its nodes and is passed over.
func (w *World) Hear(r *mesh.Report, at time.Time) {
	w.once("site "+r.Site, r.Epoch, at)
	if r.Site == w.site {
		return
	}
	for _, s := range r.Services {
		w.take(topic{r.Site, s.Service}, r.Reporter, info{r.Epoch, r.Seq, at, false, s})
	}
	// A site without services is heard of all the same.
	whole := topic{site: r.Site}
	old, known := w.reports[whole][r.Reporter]
	if w.take(whole, r.Reporter, info{epoch: r.Epoch, seq: r.Seq, at: at}) && known && !old.inBand && old.epoch == r.Epoch {
		p := w.rhythms[r.Site]
		p.Beat(at.Sub(old.at), membership.Sites.For(p))
		w.rhythms[r.Site] = p
	}
}

// hear takes in what a node heard in band.
func (w *World) hear(h *mesh.HeardReport, at time.Time) {
	if h.Site == w.site {
		return
	}
	at = at.Add(-time.Duration(h.AgeMS * float64(time.Millisecond)))
	w.take(topic{h.Site, h.Service.Service}, h.Reporter, info{h.Epoch, h.Seq, at, true, h.Service})
	w.take(topic{site: h.Site}, h.Reporter, info{epoch: h.Epoch, seq: h.Seq, at: at, inBand: true})
}

// take keeps the newer of two reports of one voice. The same report that comes
// again, over another way or repeated, is no younger than it was the first time.
// It reports whether n was news.
func (w *World) take(t topic, reporter string, n info) bool {
	voices := w.reports[t]
	if voices == nil {
		voices = map[string]info{}
		w.reports[t] = voices
	}
	if old, ok := voices[reporter]; ok {
		switch c := cmp.Or(cmp.Compare(n.epoch, old.epoch), cmp.Compare(n.seq, old.seq)); {
		case n.epoch < old.epoch && n.at.Sub(old.at) >= rebornAfter:
			// It was started anew after its clock had been set back.
		case c < 0:
			return false
		case c == 0 && (n.at.After(old.at) || n.at.Equal(old.at) && !n.inBand):
			return false
		case c == 0:
			voices[reporter] = n
			return false
		}
	}
	voices[reporter] = n
	return true
}

// News is a report, who made it and when, by this site's clock.
type News struct {
	// Reporter is the process of the site, Epoch when it started (Unix ns, its
	// clock) and Seq the number of the report since.
	Reporter   string
	Epoch, Seq uint64
	At         time.Time
	// InBand says that it came on a response between proxies, not over the bus.
	InBand bool
	Report mesh.ServiceReport
}

// Freshest returns the youngest report of a service at another site.
func (w *World) Freshest(site string, service mesh.ServiceKey) (News, bool) {
	best, found := News{}, false
	for reporter, r := range w.reports[topic{site, service}] {
		c := r.at.Compare(best.At)
		if !found || c > 0 || c == 0 && reporter < best.Reporter {
			best, found = News{reporter, r.epoch, r.seq, r.at, r.inBand, r.report}, true
		}
	}
	return best, found
}

// ReportedSites returns the names of the sites that were heard of.
func (w *World) ReportedSites() []string {
	names := map[string]bool{}
	for t := range w.reports {
		names[t.site] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Known returns the youngest report of each service at another site, by service.
func (w *World) Known(site string) []News {
	var services []mesh.ServiceKey
	for t := range w.reports {
		if t.site == site && t.service != "" {
			services = append(services, t.service)
		}
	}
	slices.Sort(services)
	out := make([]News, 0, len(services))
	for _, s := range services {
		if n, ok := w.Freshest(site, s); ok {
			out = append(out, n)
		}
	}
	return out
}

// Heard goes over the youngest report of each service at each other site, in no order.
func (w *World) Heard() iter.Seq2[string, News] {
	return func(yield func(string, News) bool) {
		for t := range w.reports {
			if t.service == "" {
				continue
			}
			if n, ok := w.Freshest(t.site, t.service); ok && !yield(t.site, n) {
				return
			}
		}
	}
}

// Drop forgets all that was reported of a site, and reports whether there was
// anything. What it still says is news again.
func (w *World) Drop(site string) bool {
	before := len(w.reports)
	maps.DeleteFunc(w.reports, func(t topic, _ map[string]info) bool { return t.site == site })
	delete(w.rhythms, site)
	delete(w.ways, site)
	return len(w.reports) < before
}
