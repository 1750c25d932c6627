package controller

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// counters are since the start.
type counters struct {
	reportsIn, nodeReportsIn, reportsOut, weightsOut, snapshots, objectFaults atomic.Uint64
	trafficOut, trafficFaults                                                 atomic.Uint64
	plans, planNS                                                             atomic.Uint64
}

func (c *counters) planned(d time.Duration) {
	c.plans.Add(1)
	c.planNS.Add(uint64(d))
}

// serveMetrics writes the Prometheus text format.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), callTimeout)
	defer done()
	var st siteapi.Status
	if err := s.do(ctx, func() { st = s.status(time.Now()) }); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var b strings.Builder
	metric := func(name, kind, help string, lines ...string) {
		fmt.Fprintf(&b, "# HELP meridian_%s %s\n# TYPE meridian_%s %s\n", name, help, name, kind)
		for _, l := range lines {
			fmt.Fprintf(&b, "meridian_%s%s\n", name, l)
		}
	}
	value := func(v any) string { return fmt.Sprintf(" %v", v) }
	bit := func(v bool) string {
		if v {
			return " 1"
		}
		return " 0"
	}
	metric("build_info", "gauge", "Version of this process.", fmt.Sprintf("{version=%q,site=%q,role=%q} 1", s.cfg.Version, s.cfg.Site, s.cfg.role()))
	metric("start_time_seconds", "gauge", "When this process started, Unix time.", value(float64(s.started.UnixMilli())/1000))
	if g := st.Self.Generation; g != nil {
		metric("snapshot_counter", "gauge", "Counter of the newest generation.", value(g.Counter))
		metric("snapshot_published", "gauge", "Whether the newest generation is on the bus.", bit(st.Self.Published))
		metric("snapshot_objects", "gauge", "Objects in the newest generation.", value(st.Self.Objects))
	}
	metric("snapshots_published_total", "counter", "Snapshots put on the bus.", value(s.count.snapshots.Load()))
	metric("link_up", "gauge", "Whether other sites can be reached over the bus.", bit(st.Link.Connected))
	metric("bus_faults_total", "counter", "Messages and objects that could not be read.", value(st.Link.Faults))
	metric("bus_dropped_total", "counter", "Messages lost to a full queue.", value(st.Link.Dropped))
	metric("bus_unsent_total", "counter", "Messages published without a connection.", value(st.Link.Unsent))
	metric("site_reports_received_total", "counter", "Reports of sites that came over the bus.", value(s.count.reportsIn.Load()))
	metric("node_reports_received_total", "counter", "Reports of the site's nodes.", value(s.count.nodeReportsIn.Load()))
	metric("site_reports_published_total", "counter", "Reports of this site.", value(s.count.reportsOut.Load()))
	metric("weights_published_total", "counter", "Plans sent to the site's nodes.", value(s.count.weightsOut.Load()))
	metric("traffic_reports_published_total", "counter", "Reports of who talks to whom at this site.", value(s.count.trafficOut.Load()))
	s.spanMetrics(metric)
	metric("traffic_reports_refused_total", "counter", "Reports of nodes and sites whose traffic cannot be.", value(s.count.trafficFaults.Load()))
	if len(st.Self.Budgets) > 0 {
		perLink := func(of func(*siteapi.LinkBudget) float64) (out []string) {
			for i := range st.Self.Budgets {
				out = append(out, fmt.Sprintf("{site=%q} %v", st.Self.Budgets[i].Site, of(&st.Self.Budgets[i])))
			}
			return out
		}
		metric("link_budget_bytes", "gauge", "Daily budget of the link to a site.", perLink(func(b *siteapi.LinkBudget) float64 { return float64(b.Bytes) })...)
		metric("link_budget_used_bytes", "gauge", "Part of it that is used today.", perLink(func(b *siteapi.LinkBudget) float64 { return float64(b.Used) })...)
		metric("link_budget_price_seconds", "gauge", "What it adds to the price of a request that way.", perLink(func(b *siteapi.LinkBudget) float64 { return b.PriceMS / 1000 })...)
		metric("link_budget_reset_time_seconds", "gauge", "When its next day begins, Unix time.", perLink(func(b *siteapi.LinkBudget) float64 { return float64(b.Turns.Unix()) })...)
	}
	metric("plan_duration_seconds", "summary", "Time to plan all shared services once.",
		fmt.Sprintf("_sum %g", float64(s.count.planNS.Load())/1e9), fmt.Sprintf("_count %d", s.count.plans.Load()))
	peers, nodes := map[membership.Status]int{}, map[membership.Status]int{}
	for _, p := range st.Peer {
		peers[p.Status]++
	}
	behind := 0
	for _, n := range st.Self.Nodes {
		nodes[n.Status]++
		if n.Behind {
			behind++
		}
	}
	byStatus := func(m map[membership.Status]int) (out []string) {
		for _, k := range []membership.Status{membership.Alive, membership.Suspect, membership.Dead, membership.Unknown} {
			out = append(out, fmt.Sprintf("{status=%q} %d", k, m[k]))
		}
		return out
	}
	metric("peers", "gauge", "Other sites by status.", byStatus(peers)...)
	metric("nodes", "gauge", "Nodes of this site by status.", byStatus(nodes)...)
	metric("nodes_behind", "gauge", "Nodes that do not serve the newest generation.", value(behind))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // fails only when the reader left
}
