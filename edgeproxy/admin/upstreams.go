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
}

func viewOf(e edgeproxy.Endpoint) upstreamView {
	return upstreamView{
		Service: string(e.Service), Address: e.Address, Site: e.Site, InFlight: e.InFlight,
		Requests: e.Requests, Failures: e.Failures, Connects: e.Connects, ConnectFailures: e.ConnectFailures,
		Reused: e.Reused, Idle: e.Idle,
	}
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
	fmt.Fprintln(t, "SERVICE\tADDRESS\tSITE\tIN FLIGHT\tREQUESTS\tFAILURES\tCONNECTS\tCONNECT FAILURES\tREUSED\tIDLE")
	for _, u := range upstreams {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", u.Service, u.Address, u.Site, u.InFlight,
			u.Requests, u.Failures, u.Connects, u.ConnectFailures, u.Reused, u.Idle)
	}
	t.Flush()
	return b.String()
}
