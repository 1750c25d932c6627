package admin

import (
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

type listenerView struct {
	Gateway  string `json:"gateway"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
}

// upstreamView is one endpoint that requests are sent to: a process of this site
// or another site's gateway. Totals count since the endpoint is known.
type upstreamView struct {
	Service         string `json:"service"`
	Address         string `json:"address"`
	Site            string `json:"site,omitempty"` // empty: this one
	InFlight        int    `json:"inFlight"`
	Requests        uint64 `json:"requests"`
	Failures        uint64 `json:"failures"`
	Connects        uint64 `json:"connects"`
	ConnectFailures uint64 `json:"connectFailures"`
	Reused          uint64 `json:"reused"`
	Idle            int    `json:"idleConnections"`
	// Host is the DNS name that the address was found behind.
	Host string `json:"host,omitempty"`
	// Health is healthy, warming, ejected or panic (ejected, but too few are
	// healthy); Why and BackInMS are an ejection's. Absent for other sites.
	Health    string  `json:"health,omitempty"`
	Why       string  `json:"why,omitempty"`
	BackInMS  int64   `json:"backInMs,omitempty"`
	Share     float64 `json:"share,omitempty"` // of its weight, that it takes now
	Ejections uint64  `json:"ejections"`
}

func viewOf(e edgeproxy.Endpoint) upstreamView {
	return upstreamView{
		Service: string(e.Service), Address: e.Address, Site: e.Site, InFlight: e.InFlight,
		Requests: e.Requests, Failures: e.Failures, Connects: e.Connects, ConnectFailures: e.ConnectFailures,
		Reused: e.Reused, Idle: e.Idle, Host: e.Host,
		Health: e.Health, Why: e.Why, BackInMS: e.BackIn.Milliseconds(), Share: e.Share, Ejections: e.Ejections,
	}
}

// health is an endpoint's health in a few words.
func (u *upstreamView) health() string {
	switch {
	case u.Why != "":
		return fmt.Sprintf("%s: %s, %.1fs more", u.Health, u.Why, float64(u.BackInMS)/1000)
	case u.Health == edgeproxy.Warming:
		return fmt.Sprintf("%s: %.0f %%", u.Health, 100*u.Share)
	}
	return u.Health
}

func (n Node) upstreams(w http.ResponseWriter, r *http.Request) {
	upstreams := []upstreamView{}
	for _, e := range n.Proxy.Endpoints() {
		upstreams = append(upstreams, viewOf(e))
	}
	if r.URL.Query().Get("format") == "text" {
		writeText(w, http.StatusOK, []byte(upstreamsTable(upstreams)))
		return
	}
	listeners := []listenerView{}
	for _, l := range n.Proxy.Listeners() {
		listeners = append(listeners, listenerView{l.Gateway, l.Name, l.Protocol, l.Addr.String()})
	}
	writeJSON(w, struct {
		Listeners []listenerView `json:"listeners"`
		Upstreams []upstreamView `json:"upstreams"`
	}{listeners, upstreams})
}

func upstreamsTable(upstreams []upstreamView) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tADDRESS\tSITE\tIN FLIGHT\tREQUESTS\tFAILURES\tCONNECTS\tCONNECT FAILURES\tREUSED\tIDLE\tHEALTH")
	for _, u := range upstreams {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", u.Service, u.Address, u.Site, u.InFlight,
			u.Requests, u.Failures, u.Connects, u.ConnectFailures, u.Reused, u.Idle, u.health())
	}
	t.Flush()
	return b.String()
}
