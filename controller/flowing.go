package controller

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/flows"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// talk is who talks to whom, as far as this controller knows. Loop only.
type talk struct {
	here  *flows.Site
	mesh  traffic.Board
	at    time.Time // of the last report
	seq   uint64
	fault string // the last that was logged
}

// hearFlows takes in what a node of this site tells. Loop only.
func (s *Server) hearFlows(r bus.Received[*mesh.NodeTraffic]) {
	s.doubt(s.talk.here.Hear(r.At, r.Value))
}

// hearTraffic takes in what a site tells, this one too. Loop only.
func (s *Server) hearTraffic(r bus.Received[*mesh.TrafficReport]) {
	s.doubt(s.talk.mesh.Hear(r.At, r.Value))
}

// doubt counts a report that cannot be, and logs it unless it is the last one again.
func (s *Server) doubt(err error) {
	if err == nil {
		return
	}
	s.count.trafficFaults.Add(1)
	if s.talk.fault != err.Error() {
		s.talk.fault = err.Error()
		s.log.Warn("traffic is refused", "err", err)
	}
}

// tellTraffic sends this site's traffic to all when that is due. Loop only.
func (s *Server) tellTraffic(now time.Time) {
	s.talk.mesh.Forget(now, flows.Believed)
	if !s.talk.here.Due(now, s.talk.at) {
		return
	}
	r, ok := s.talk.here.Report(now)
	if !ok {
		return
	}
	s.talk.at = now
	s.talk.seq++
	r.Site, r.Epoch, r.Seq, r.RTTMS = s.cfg.Site, s.epoch, s.talk.seq, map[string]float64{}
	for _, p := range s.world.Peers(now, s.reachable()) {
		if p.RTTMS > 0 {
			r.RTTMS[p.Site] = p.RTTMS
		}
	}
	if err := s.conn.PublishTraffic(r); err == nil {
		s.count.trafficOut.Add(1)
	}
}

// trafficOf is who talks to whom in the mesh or, with a name, at one site.
func (s *Server) trafficOf(ctx context.Context, site string) (*siteapi.Traffic, *traffic.Matrix, error) {
	var said []traffic.Said
	var sites []string
	now := time.Now()
	if err := s.do(ctx, func() { said, sites = s.talk.mesh.Said(), s.siteNames() }); err != nil {
		return nil, nil, err
	}
	out := &siteapi.Traffic{Now: now, Sites: []siteapi.TrafficSite{}}
	told := map[string]bool{}
	chosen := said[:0:0]
	for _, x := range said {
		told[x.Site] = true
		if site == "" || x.Site == site {
			chosen = append(chosen, x)
			out.Sites = append(out.Sites, siteapi.TrafficSite{Site: x.Site, AgeMS: ms(now.Sub(x.At)), Edges: len(x.Report.Edges)})
		}
	}
	for _, name := range sites {
		if !told[name] && (site == "" || name == site) {
			out.Silent = append(out.Silent, name)
		}
	}
	if site != "" && len(chosen) == 0 && len(out.Silent) == 0 {
		return nil, nil, fmt.Errorf("there is no site %q", site)
	}
	m, d := traffic.Sum(chosen), traffic.Between(said)
	out.Edges, out.Rest = m.Edges, m.Rest
	out.Delays = siteapi.Delays{Sites: d.Sites, OneWayMS: d.OneWayMS}
	return out, m, nil
}

// serveTraffic answers as JSON, or with ?format=prometheus in that text format.
func (s *Server) serveTraffic(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), callTimeout)
	defer done()
	q := r.URL.Query()
	out, m, err := s.trafficOf(ctx, q.Get("site"))
	switch format := q.Get("format"); {
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err)
	case format == "" || format == "json":
		reply(w, http.StatusOK, out)
	case format != "prometheus":
		fail(w, http.StatusBadRequest, fmt.Errorf("format %q: want json or prometheus", format))
	default:
		var b strings.Builder
		if err := m.WritePrometheus(&b); err != nil {
			fail(w, http.StatusInternalServerError, err)
			return
		}
		const age, rtt = "meridian_traffic_age_seconds", "meridian_site_rtt_seconds"
		fmt.Fprintf(&b, "# HELP %s Time since a site last told of its traffic.\n# TYPE %s gauge\n", age, age)
		for _, x := range out.Sites {
			fmt.Fprintf(&b, "%s{site=%q} %g\n", age, x.Site, x.AgeMS/1000)
		}
		fmt.Fprintf(&b, "# HELP %s Round trip between two sites.\n# TYPE %s gauge\n", rtt, rtt)
		for i, from := range out.Delays.Sites {
			for j, to := range out.Delays.Sites {
				if oneWay := out.Delays.OneWayMS[i][j]; i < j && oneWay >= 0 {
					fmt.Fprintf(&b, "%s{a=%q,b=%q} %g\n", rtt, from, to, 2*oneWay/1000)
				}
			}
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write([]byte(b.String())) // fails only when the reader left
	}
}
