package plan

import (
	"cmp"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// maxEntries bounds a board: sites times services. Reports beyond are refused.
	maxEntries = 1 << 16
	// maxReporters bounds the reporters remembered of one site and service.
	maxReporters = 16
	// forgetMS is the age at which a report is no longer worth showing.
	forgetMS = 60_000
	// rebornMS is the silence after which a reporter is believed even with an
	// earlier epoch: its clock may have been set back.
	rebornMS = 5_000
)

// Heard is one report of another site on arrival.
type Heard struct {
	Site, Reporter string
	Epoch, Seq     uint64
	// AgeMS is how old the report was on arrival here by the clocks it passed, 0
	// when it came straight.
	AgeMS  float64
	InBand bool
	Load   mesh.ServiceReport
}

type place struct {
	service mesh.ServiceKey
	site    string
}

type mark struct {
	epoch, seq uint64
	atNS       int64
}

type entry struct {
	Heard
	atNS    int64
	usualMS float64
	marks   map[string]mark
}

// Board keeps the youngest report of each site for each service. The zero value
// is ready.
type Board struct {
	entries map[place]*entry
	// sorted has the same by service, in the order of sites' names: plans want all of
	// a service ten times a second, and sites come and go seldom.
	sorted map[mesh.ServiceKey][]*entry
}

// Hear takes a report and tells whether it is news. Reports of one reporter are
// ordered by epoch and sequence; between reporters of a site the youngest by the
// local clock is kept.
func (b *Board) Hear(nowNS int64, h Heard) bool {
	if h.Site == "" || h.Load.Service == "" {
		return false
	}
	if b.entries == nil {
		b.entries, b.sorted = map[place]*entry{}, map[mesh.ServiceKey][]*entry{}
	}
	key := place{h.Load.Service, h.Site}
	atNS := nowNS - int64(clamp(h.AgeMS, 0, forgetMS)*1e6)
	e := b.entries[key]
	if e == nil {
		if len(b.entries) >= maxEntries {
			return false
		}
		e = &entry{Heard: h, atNS: atNS, marks: map[string]mark{h.Reporter: {h.Epoch, h.Seq, atNS}}}
		b.entries[key] = e
		all := b.sorted[key.service]
		at, _ := slices.BinarySearchFunc(all, key.site, func(x *entry, site string) int { return cmp.Compare(x.Site, site) })
		b.sorted[key.service] = slices.Insert(all, at, e)
		return true
	}
	m, known := e.marks[h.Reporter]
	if known {
		if later := cmp.Or(cmp.Compare(h.Epoch, m.epoch), cmp.Compare(h.Seq, m.seq)) > 0; !later &&
			(h.Epoch == m.epoch || float64(atNS-m.atNS) < rebornMS*1e6) {
			return false
		}
	} else if len(e.marks) >= maxReporters {
		e.dropOldestMark()
	}
	e.marks[h.Reporter] = mark{h.Epoch, h.Seq, atNS}
	if atNS <= e.atNS && e.Reporter != h.Reporter {
		return false
	}
	late := clamp(float64(atNS-e.atNS)/1e6-periodMS, 0, 5*periodMS)
	e.usualMS += 0.1 * (late - e.usualMS)
	e.Heard, e.atNS = h, atNS
	return true
}

func (e *entry) dropOldestMark() {
	oldest := ""
	for r, m := range e.marks {
		if o, ok := e.marks[oldest]; !ok || m.atNS < o.atNS || m.atNS == o.atNS && r < oldest {
			oldest = r
		}
	}
	delete(e.marks, oldest)
}

// Options returns what is known of a service at other sites than self, by name.
// The caller sets what the board cannot know: round trip, link price and whether
// the site is excluded.
func (b *Board) Options(nowNS int64, self string, service mesh.ServiceKey) []Option {
	all := b.sorted[service]
	out := make([]Option, 0, len(all))
	for _, e := range all {
		if e.Site == self {
			continue
		}
		l := &e.Load
		out = append(out, Option{
			Site: e.Site, Slots: l.Slots, ServiceMS: l.ServiceTimeMS, ArrivalsPerS: l.Arrivals,
			FromUsPerS: l.From[self], InFlight: l.InFlight, Spillers: l.Spillers, LowerBound: l.Learned == mesh.SlotsLowerBound,
			AgeMS: float64(nowNS-e.atNS) / 1e6, UsualMS: e.usualMS, InBand: e.InBand,
		})
	}
	return out
}

// Report returns the youngest report of a service at a site, with its age now.
func (b *Board) Report(nowNS int64, site string, service mesh.ServiceKey) (Heard, bool) {
	e := b.entries[place{service, site}]
	if e == nil {
		return Heard{}, false
	}
	h := e.Heard
	h.AgeMS = float64(nowNS-e.atNS) / 1e6
	return h, true
}

// Forget drops reports older than a minute.
func (b *Board) Forget(nowNS int64) {
	old := func(e *entry) bool { return float64(nowNS-e.atNS) > forgetMS*1e6 }
	for service, all := range b.sorted {
		if !slices.ContainsFunc(all, old) {
			continue
		}
		b.sorted[service] = slices.DeleteFunc(all, func(e *entry) bool {
			if old(e) {
				delete(b.entries, place{service, e.Site})
				return true
			}
			return false
		})
		if len(b.sorted[service]) == 0 {
			delete(b.sorted, service)
		}
	}
}
