package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func explainCommand(e *env) *cobra.Command {
	req := siteapi.ExplainRequest{Deep: true}
	var output, proxy, service string
	var past pastRequests
	cmd := &cobra.Command{
		Use:   "explain (--host HOST [--path PATH] | --protocol tcp|udp [--port PORT] | --service NAMESPACE/NAME | --request ID | --failed)",
		Short: "Say where a request would go now, and why not elsewhere, or why one failed",
		Long: `Explain asks a proxy of the site where a request comes in which rule takes it, which
policies hold and whose they are, and which sites and endpoints are candidates: what
one more request costs there in ms of delay, the age of the report that this rests
on, how likely it goes there now, and why the others lose. It is what the proxy's
event loops would do with the first attempt, by the same tables; nothing is sent.

The site is the controller's own, --site, or with --from the one nearest to a client.
Other sites where it may go are asked for their endpoints too. --proxy asks
one proxy by its admin address, without a controller.

--protocol tcp asks for a connection that is passed on whole, by the port of its listener
and, where that speaks TLS, the server name (--host); --protocol udp for datagrams.

--request says why a request that is over failed or took long, by its x-request-id, as
every proxy that saw it keeps it: what became of it, and the rule, policies, sites
and endpoints as they stood then. --failed lists what the proxies of a site keep: the
latest 256 that had a response flag or a status of 5xx, or took a second or more.`,
		Example: `  meridian --data ./north explain --host shop.example --path /cart
  meridian --data ./hub explain --host shop.example --from geo:-37.8136,144.9631
  meridian --data ./north explain --protocol tcp --port 5432
  meridian --data ./hub explain --failed --site north --status 5xx
  meridian --data ./hub explain --request 4bf92f3577b34da6a3ce929d0e0e4736
  meridian explain --proxy 127.0.0.1:15000 --host shop.example --header 'x-user: beta'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if over, err := past.asked(cmd); err != nil {
				return err
			} else if over {
				return explainPast(cmd, e, &past, &req, service, proxy, output)
			}
			req.Service = mesh.ServiceKey(service)
			if req.Host == "" && service == "" && req.Protocol == "" && req.Port == 0 {
				return errUsage{errors.New("which request? Give --host, or --protocol tcp or udp for a connection or datagrams, or --service for one that another site hands in, or --request ID for one that failed")}
			}
			if err := req.Check(); err != nil {
				return errUsage{err}
			}
			var x *siteapi.Explained
			var err error
			if proxy != "" {
				if req.Site != "" || req.Node != "" || req.From != "" {
					return errUsage{errors.New("--proxy names the proxy: leave --site, --node and --from out")}
				}
				x, err = explainAtProxy(cmd.Context(), proxy, &req.ExplainQuery)
			} else {
				x, err = ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Explained, error) { return c.Explain(ctx, req) })
			}
			if err != nil {
				return err
			}
			if x.Protocol != req.Protocol {
				return errors.New("the proxy that answered is older than --protocol, and spoke of a request of HTTP: upgrade it, or ask another by --node")
			}
			return print(cmd, output, x, func(w io.Writer) { explainTable(w, &req, x) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Host, "host", "", "the request's `host`")
	f.StringVar(&req.Path, "path", "", "the request's path, with its query (default /)")
	f.StringVar(&req.Method, "method", "", "the request's method (default GET)")
	f.StringArrayVar(&req.Headers, "header", nil, "`name: value` that the request has; may be given again")
	f.StringVar(&req.Protocol, "protocol", "", "`tcp` for a connection that is passed on whole, udp for datagrams (default: a request of HTTP)")
	f.IntVar(&req.Port, "port", 0, "with --protocol, the `port` of the listener (default: the first that has a route)")
	f.StringVar(&req.Listener, "listener", "", "`namespace/gateway/listener` that it comes to (default: the first that has a rule)")
	f.StringVar(&service, "service", "", "`namespace/name`: a request that another site hands in, in place of host and path")
	f.StringVar(&req.Site, "site", "", "`site` where it comes in (default: the controller's)")
	f.StringVar(&req.Node, "node", "", "`proxy` of that site (default: one that is alive)")
	f.StringVar(&req.From, "from", "", "where the client is, `geo:latitude,longitude`: the nearest site is asked")
	f.StringVar(&proxy, "proxy", "", "admin `address` of a proxy: host:port or unix:/path")
	cmd.MarkFlagsMutuallyExclusive("site", "from")
	cmd.MarkFlagsMutuallyExclusive("host", "service")
	cmd.MarkFlagsMutuallyExclusive("protocol", "service")
	past.flags(cmd, e)
	outputFlag(cmd, &output)
	watchFlag(cmd)
	completeSiteAndNode(cmd, e)
	completeLive(cmd, "service", e, func(m *siteapi.Weights) (out []string) {
		for _, k := range services(m) {
			out = append(out, string(k))
		}
		return out
	})
	return cmd
}

// explainAtProxy asks a proxy's admin server.
func explainAtProxy(ctx context.Context, address string, q *mesh.ExplainQuery) (*siteapi.Explained, error) {
	out := new(siteapi.Explained)
	return out, askProxy(ctx, address, "/explain", q.Values(), &out.Explanation)
}

// askProxy gets JSON from a proxy's admin server.
func askProxy(ctx context.Context, address, path string, q url.Values, into any) error {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	client, base := proxyClient(address)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path+"?"+q.Encode(), nil)
	if err != nil {
		return errUsage{fmt.Errorf("--proxy %q: want host:port or unix:/path", address)}
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return hinted{fmt.Errorf("no proxy answers at %s: %w", address, err), "it is the address of --admin, which run.json in its --state-dir has"}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("proxy at %s: %s", address, strings.TrimSpace(string(data)))
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s answers something else than a proxy does: %w", address, err)
	}
	return nil
}

// proxyClient reaches a proxy's admin server: host:port or unix:/path.
func proxyClient(address string) (client http.Client, base string) {
	t := &http.Transport{DisableKeepAlives: true}
	base = "http://" + strings.TrimPrefix(address, "http://")
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		base = "http://localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	return http.Client{Transport: t}, base
}

func explainTable(w io.Writer, req *siteapi.ExplainRequest, x *siteapi.Explained) {
	what, share := fmt.Sprintf("%s %s%s", req.Method, req.Host, req.Path), "requests"
	switch {
	case req.Protocol == mesh.ExplainUDP:
		what, share = "datagrams", "sessions"
	case req.Protocol == mesh.ExplainTCP && req.Host != "":
		what, share = "a connection to "+req.Host, "connections"
	case req.Protocol == mesh.ExplainTCP:
		what, share = "a connection", "connections"
	}
	if req.Port != 0 {
		what += fmt.Sprintf(", port %d", req.Port)
	}
	if req.Service != "" {
		what = "a request for " + string(req.Service) + " handed in by another site"
	}
	at := "at this proxy"
	if x.Site != "" {
		at = "at site " + x.Site
	}
	if x.Node != "" {
		at += ", proxy " + x.Node
	}
	fmt.Fprintf(w, "%s, %s, generation %d\n", what, at, x.Generation.Counter)
	if len(x.Nearest) > 0 {
		fmt.Fprintf(w, "client\t%s: site %s is nearest, %.1f km", req.From, x.Nearest[0].Site, x.Nearest[0].KM)
		if len(x.Nearest) > 1 {
			fmt.Fprintf(w, "; then %s, %.1f km", x.Nearest[1].Site, x.Nearest[1].KM)
		}
		fmt.Fprintln(w)
	}
	if x.Listener != "" {
		fmt.Fprintf(w, "listener\t%s\n", x.Listener)
	}
	for _, c := range x.Chains {
		fmt.Fprintf(w, "chain\t%s\n", c)
	}
	if x.Rule != "" {
		fmt.Fprintf(w, "rule\t%s%s\n", x.Rule, owned(x.RuleOwner))
	}
	if x.Answer != "" {
		fmt.Fprintf(w, "answer\t%s\n", x.Answer)
	}
	for i := range x.Backends {
		explainBackend(w, x.Site, share, &x.Backends[i])
	}
}

// planOf says whose plan is in force.
func planOf(source string) string {
	switch source {
	case "standby":
		return "plan of the proxy itself: no controller renews its own"
	case "fading":
		return "plan on its way from the controller's to the proxy's own, or back"
	}
	return "plan of the " + source
}

func owned(by string) string {
	if by == "" {
		return ""
	}
	return " (of " + by + ")"
}

func explainBackend(w io.Writer, site, share string, b *mesh.ExplainedBackend) {
	name := string(b.Service)
	if b.Port != 0 {
		name = fmt.Sprintf("%s:%d", name, b.Port)
	}
	fmt.Fprintf(w, "backend\t%s, %s of the %s\n", name, percent(b.Chance), share)
	for _, c := range b.Chains {
		fmt.Fprintf(w, "chain\t%s\n", c)
	}
	if b.Invalid != "" {
		fmt.Fprintf(w, "answer\t%s\n", b.Invalid)
		return
	}
	for _, p := range b.Policies {
		fmt.Fprintf(w, "policy\t%s by %s%s\n", p.Section, p.Policy, owned(p.Owner))
	}
	if len(b.Policies) == 0 {
		fmt.Fprintln(w, "policy\tdefaults: no TrafficPolicy names the service")
	}
	explainPeers(w, "mtls", b)
	if b.Priority != "" {
		fmt.Fprintf(w, "priority\t%s\n", b.Priority)
	}
	if b.Sharing != "" {
		line := b.Sharing
		if b.Source != "" {
			line += ", " + planOf(b.Source)
		}
		if b.Unit != "" {
			line += ", by open " + b.Unit
		}
		if b.Off != "" {
			line += ", off: " + b.Off
		}
		fmt.Fprintf(w, "sharing\t%s\n", line)
	}
	fmt.Fprintln(w, "\nSITE\tCHANCE\tCOST\tRTT\tAGE\tIN FLIGHT\tWHY")
	for _, s := range b.Sites {
		label := s.Site
		if s.Home {
			label = strings.TrimSpace(label + " (here)")
		}
		cost, rtt, age := "-", "-", "-"
		if s.CostMS > 0 {
			cost = millis(s.CostMS)
		}
		if s.RTTMS > 0 {
			rtt, age = millis(s.RTTMS), span(time.Duration(s.AgeMS*float64(time.Millisecond)))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", label, percent(s.Chance), cost, rtt, age, s.InFlight, s.Why)
	}
	explainEndpoints(w, site, b)
	for _, there := range b.There {
		for i := range there.Backends {
			explainPeers(w, "\nmtls at "+there.Site, &there.Backends[i])
			explainEndpoints(w, there.Site, &there.Backends[i])
		}
	}
	for _, s := range slices.Sorted(maps.Keys(b.Silent)) {
		fmt.Fprintf(w, "\nthe endpoints at %s are not known: %s\n", s, b.Silent[s])
	}
}

// explainPeers says what requests of other sites need.
func explainPeers(w io.Writer, label string, b *mesh.ExplainedBackend) {
	for _, p := range b.Peers {
		fmt.Fprintf(w, "%s\t%s for other sites at port %d, by %s\n", label, p.MTLS, p.Port, p.From)
	}
}

func explainEndpoints(w io.Writer, site string, b *mesh.ExplainedBackend) {
	if len(b.Endpoints) == 0 {
		return
	}
	if site != "" {
		site = " at " + site
	}
	fmt.Fprintf(w, "\nENDPOINT%s\tMAY\tWEIGHT\tIN FLIGHT\tWHY (%s)\n", site, b.Balancing)
	for _, ep := range b.Endpoints {
		may := "no"
		if ep.May {
			may = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", ep.Address, may, ep.Weight, ep.InFlight, ep.Why)
	}
}
