package admin

import (
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
)

// ProxyState is what the data path shows of itself.
type ProxyState struct {
	Draining  bool
	Listeners []Listener
	Upstreams []Upstream
}

// Listener is one bound address.
type Listener struct {
	Name     string `json:"name"` // namespace/gateway/listener
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	Error    string `json:"error,omitempty"`
}

// Upstream is one endpoint that requests are sent to: a process of this site or
// another site's gateway.
type Upstream struct {
	Service string `json:"service,omitempty"`
	Site    string `json:"site,omitempty"`
	Address string `json:"address"`
	// Health is healthy or why not.
	Health   string `json:"health"`
	InFlight int    `json:"inFlight"`
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"`
	Connects uint64 `json:"connects"`
	Idle     int    `json:"idleConnections"`
}

func (n Node) upstreams(w http.ResponseWriter, r *http.Request) {
	p := n.Proxy()
	if r.URL.Query().Get("format") != "text" {
		writeJSON(w, struct {
			Listeners []Listener `json:"listeners"`
			Upstreams []Upstream `json:"upstreams"`
		}{p.Listeners, p.Upstreams})
		return
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tADDRESS\tSITE\tHEALTH\tIN FLIGHT\tREQUESTS\tFAILURES\tCONNECTS\tIDLE")
	for _, u := range p.Upstreams {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", u.Service, u.Address, u.Site, u.Health, u.InFlight, u.Requests, u.Failures, u.Connects, u.Idle)
	}
	t.Flush()
	writeText(w, http.StatusOK, []byte(b.String()))
}
