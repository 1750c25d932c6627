package controller

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/history"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// leastFlow is the rate, per second, under which what one site serves for another is
// not told of.
const leastFlow = 0.05

// notePast keeps how the mesh looks now, when that is due and the others could say
// something. It asks nobody. Loop only.
func (s *Server) notePast(now time.Time) {
	heard := now.Sub(s.started) >= listen
	now = now.Round(0) // people ask by the wall clock
	if heard && s.past.Due(now) {
		s.past.Note(s.moment(now))
	}
}

// moment is how the mesh looks from here. Loop only.
func (s *Server) moment(now time.Time) history.Moment {
	out := history.Moment{At: now, Flows: []history.Flow{}}
	traffic := func(site string) string {
		t, _ := s.traffic(site)
		return t
	}
	out.Sites = append(out.Sites, history.SiteMoment{Site: s.cfg.Site, Status: string(membership.Alive), Traffic: traffic(s.cfg.Site)})
	at := map[string]int{s.cfg.Site: 0}
	for _, p := range s.world.Peers(now, s.reachable()) {
		at[p.Site] = len(out.Sites)
		out.Sites = append(out.Sites, history.SiteMoment{Site: p.Site, Status: string(p.Status), Traffic: traffic(p.Site)})
	}
	rates := map[[2]string]float64{}
	add := func(site string, r *mesh.ServiceReport) {
		i, known := at[site]
		if !known {
			return
		}
		out.Sites[i].Add(r)
		for from, perS := range r.From {
			rates[[2]string{from, site}] += perS
		}
	}
	for _, l := range s.world.Loads(now) {
		add(s.cfg.Site, &l.ServiceReport)
	}
	for site, n := range s.world.Heard() {
		add(site, &n.Report)
	}
	for pair, perS := range rates {
		if perS >= leastFlow {
			out.Flows = append(out.Flows, history.Flow{From: pair[0], To: pair[1], PerS: float32(perS)})
		}
	}
	slices.SortFunc(out.Flows, func(a, b history.Flow) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	for _, n := range s.world.Nodes(now) {
		for _, l := range n.Report.Links {
			if n.Status != membership.Dead && l.Fault != "" && len(out.Cuts) < maxTroubles {
				out.Cuts = append(out.Cuts, history.Cut{From: s.cfg.Site, To: l.Site, Why: cmp.Or(l.Probe, l.Fault)})
			}
		}
	}
	return out
}

// servePast answers when the mesh was looked at or, with ?at=TIME, how it looked then.
func (s *Server) servePast(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), callTimeout)
	defer done()
	text := r.URL.Query().Get("at")
	if text == "" {
		out := siteapi.Past{Site: s.cfg.Site}
		if err := s.do(ctx, func() { out.Times = s.past.Times() }); err != nil {
			fail(w, http.StatusServiceUnavailable, err)
			return
		}
		reply(w, http.StatusOK, out)
		return
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("at=%s: want a time as in RFC 3339, 2026-01-02T15:04:05Z", text))
		return
	}
	var m history.Moment
	var found bool
	if err := s.do(ctx, func() { m, found = s.past.At(at) }); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	if !found {
		fail(w, http.StatusNotFound, fmt.Errorf("nothing is remembered yet: the first moment is noted within %v of the start", history.Every))
		return
	}
	reply(w, http.StatusOK, m)
}
