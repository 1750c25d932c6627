package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// tapEvery is how often the proxies are asked for what they have seen.
const tapEvery = 250 * time.Millisecond

// tapOptions are those of tap beyond what is asked for.
type tapOptions struct {
	proxy, output string
	length        time.Duration
	count         int
}

func tapCommand(e *env) *cobra.Command {
	var req siteapi.TapRequest
	var o tapOptions
	var service string
	var least time.Duration
	cmd := &cobra.Command{
		Use:   "tap",
		Short: "Watch requests as they end, filtered",
		Long: `Tap shows the requests of a site as they end, one a line: who asked, which rule took
it, where it was served after how many attempts, how long it took, and the flag that
says why when it did not end well. TCP connections and UDP sessions are shown too
when they are over. Filters are applied by the proxies, so what is not wanted costs
next to nothing; of what is, each proxy shows at most --rate requests a second and
counts the others. While nobody taps, it costs nothing.

The site is the controller's own, or --site; --all taps every site that can be reached.
Other sites tell the hub alone. --proxy taps one proxy by its admin address,
without a controller. It goes on until it is interrupted, --for or --count.

With -o json each request is one object a line.`,
		Example: `  meridian --data ./north tap --host shop.example --flag any
  meridian --data ./hub tap --all --status 5xx --for 30s -o json
  meridian --data ./north tap --service default/shop --min-latency 200ms --count 10
  meridian tap --proxy 127.0.0.1:15000 --path /cart`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Filter.Service, req.Filter.MinMS = mesh.ServiceKey(service), float64(least)/1e6
			req.Filter.Method = strings.ToUpper(req.Filter.Method)
			req.Session = "cli-" + rand.Text()
			if cmd.Flags().Changed("for") && o.length <= 0 {
				return errUsage{fmt.Errorf("--for %s: want how long to watch", o.length)}
			}
			if o.count < 0 {
				return errUsage{fmt.Errorf("--count %d: want how many requests to show", o.count)}
			}
			if !slices.Contains([]string{outTable, outWide, outJSON}, o.output) {
				return errUsage{fmt.Errorf("--output %s: want %s, %s or %s", o.output, outTable, outWide, outJSON)}
			}
			if req.All && (req.Site != "" || req.Node != "") {
				return errUsage{errors.New("--all asks every site: leave --site and --node out")}
			}
			if o.proxy != "" && (req.Site != "" || req.Node != "" || req.All) {
				return errUsage{errors.New("--proxy names the proxy: leave --site, --node and --all out")}
			}
			if err := req.Check(); err != nil {
				return errUsage{err}
			}
			return tap(cmd, e, &req, &o)
		},
	}
	f := cmd.Flags()
	tapFilterFlags(cmd, e, &req.Filter, &service, &least)
	f.StringVar(&req.Filter.ID, "id", "", "only the request with this x-request-`id`")
	whereFlags(cmd, e, &req.Where, &o.proxy)
	f.IntVar(&req.PerSecond, "rate", mesh.DefaultTapRate, "most requests a second that each proxy shows")
	f.DurationVar(&o.length, "for", 0, "how long to watch (default: until interrupted)")
	f.IntVar(&o.count, "count", 0, "how many requests to show (default: all)")
	f.StringVarP(&o.output, "output", "o", outTable, "table, wide or json (one object a line)")
	completeFlag(cmd, "output", outTable, outWide, outJSON)
	return cmd
}

// tapFilterFlags are those that select requests.
func tapFilterFlags(cmd *cobra.Command, e *env, q *mesh.TapFilter, service *string, least *time.Duration) {
	f := cmd.Flags()
	if f.Lookup("host") == nil { // explain has its own
		f.StringVar(&q.Host, "host", "", "only requests to this `host`")
		f.StringVar(&q.PathPrefix, "path", "", "only requests whose path begins with `prefix`")
		f.StringVar(&q.Method, "method", "", "only requests with this method")
		f.StringVar(service, "service", "", "only requests for this service, `namespace/name`")
		completeLive(cmd, "service", e, func(m *siteapi.Weights) (out []string) {
			for _, k := range services(m) {
				out = append(out, string(k))
			}
			return out
		})
	}
	f.StringVar(&q.Status, "status", "", "only requests with this status (503) or class (5xx); 0: no response was sent")
	f.StringSliceVar(&q.Flags, "flag", nil, "only requests with one of these response flags (UF,UT), or any")
	f.DurationVar(least, "min-latency", 0, "only requests that took at least so long")
	completeFlag(cmd, "status", "2xx", "3xx", "4xx", "5xx")
	completeFlag(cmd, "flag", "any", "UF", "UT", "UC", "UH", "UO", "NR", "SH", "RL", "AD", "DC")
}

// whereFlags say which proxies are asked.
func whereFlags(cmd *cobra.Command, e *env, w *siteapi.Where, proxy *string) {
	f := cmd.Flags()
	f.StringVar(&w.Site, "site", "", "`site` whose proxies are asked (default: the controller's)")
	f.StringVar(&w.Node, "node", "", "`proxy` of that site (default: all)")
	f.BoolVar(&w.All, "all", false, "ask the proxies of all sites")
	f.StringVar(proxy, "proxy", "", "admin `address` of a proxy: host:port or unix:/path")
	completeSiteAndNode(cmd, e)
}

// completeSiteAndNode lets the shell complete --site and --node with live names.
func completeSiteAndNode(cmd *cobra.Command, e *env) {
	for flag, names := range map[string]func() []string{
		"site": func() []string { return siteNames(cmd, e) },
		"node": func() []string { return nodeNames(cmd, e) },
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return names(), cobra.ShellCompDirectiveNoFileComp
		}); err != nil {
			panic(err) // the flag is not there: a mistake in this package
		}
	}
}

// nodeNames are those of the proxies of the site that --site names.
func nodeNames(cmd *cobra.Command, e *env) (out []string) {
	st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
	if err != nil {
		return nil
	}
	site, _ := cmd.Flags().GetString("site")
	add := func(s *siteapi.SiteStatus) {
		if s == nil || s.Site != cmp.Or(site, st.Self.Site) {
			return
		}
		for _, n := range s.Nodes {
			out = append(out, n.Node)
		}
	}
	add(&st.Self)
	for i := range st.Peer {
		add(st.Peer[i].Said)
	}
	return out
}

// tap asks again and again until it is over.
func tap(cmd *cobra.Command, e *env, req *siteapi.TapRequest, o *tapOptions) error {
	ctx := cmd.Context()
	if o.length > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, o.length)
		defer done()
	}
	asks := func() (*siteapi.Tapped, error) {
		if o.proxy != "" {
			return tapAtProxy(cmd.Context(), o.proxy, req)
		}
		return ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Tapped, error) { return c.Tap(ctx, *req) })
	}
	said, shown := map[string]string{}, 0
	dropped := map[string]uint64{}
	for last := false; ; {
		a, err := asks()
		if err != nil {
			return err
		}
		for _, who := range slices.Sorted(maps.Keys(a.Silent)) {
			if said[who] != a.Silent[who] {
				said[who] = a.Silent[who]
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s says nothing: %s\n", who, a.Silent[who])
			}
		}
		for i := range a.Requests {
			if o.count > 0 && shown == o.count {
				break
			}
			shown++
			if err := showEnded(cmd.OutOrStdout(), o.output, &a.Requests[i]); err != nil {
				return err
			}
		}
		req.After = a.After
		maps.Copy(dropped, a.Dropped)
		switch {
		case last && !a.More:
			sum := uint64(0)
			for _, n := range dropped {
				sum += n
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d requests shown", shown)
			if sum > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), ", %d more were over --rate %d and are counted only", sum, req.PerSecond)
			}
			fmt.Fprintln(cmd.ErrOrStderr())
			return nil
		case o.count > 0 && shown == o.count || ctx.Err() != nil:
			req.End, last = true, true
			if cmd.Context().Err() != nil { // interrupted: nothing more can be asked, the lease ends the tap
				return nil
			}
			continue
		case a.More:
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(tapEvery):
		}
	}
}

// tapAtProxy asks a proxy's admin server.
func tapAtProxy(ctx context.Context, address string, req *siteapi.TapRequest) (*siteapi.Tapped, error) {
	q := req.TapQuery
	q.After = req.After[address]
	a := new(mesh.TapAnswer)
	if err := askProxyJSON(ctx, address, "/tap", q, a); err != nil {
		return nil, err
	}
	return &siteapi.Tapped{Requests: a.Requests, More: a.More, After: map[string]uint64{address: a.Seq}, Dropped: map[string]uint64{address: a.Dropped}}, nil
}

// askProxyJSON asks a proxy's admin server with a query in JSON.
func askProxyJSON(ctx context.Context, address, path string, q, into any) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return askProxy(ctx, address, path, url.Values{"q": {string(text)}}, into)
}

// showEnded writes a request on one line.
func showEnded(w io.Writer, format string, r *mesh.EndedRequest) error {
	if format == outJSON {
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", data)
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.Time.Local().Format("15:04:05.000"), proxyName(r), requestLine(r))
	fmt.Fprintf(&b, " %s %s", outcomeOf(r), millis(r.DurationMS))
	fmt.Fprintf(&b, " -> %s", servedAt(r))
	if r.Rule != "" {
		fmt.Fprintf(&b, " rule=%s", harmless(r.Rule))
	}
	fmt.Fprintf(&b, " from=%s", cmp.Or(r.Client, "-"))
	if r.Identity != "" {
		fmt.Fprintf(&b, " as=%s", harmless(r.Identity))
	}
	fmt.Fprintf(&b, " id=%s", cmp.Or(harmless(r.ID), "-"))
	if format == outWide {
		first := "-"
		if r.FirstByteMS != nil {
			first = millis(*r.FirstByteMS)
		}
		fmt.Fprintf(&b, " first-byte=%s bytes=%d/%d service=%s gateway=%s peer=%s details=%s agent=%q",
			first, r.Received, r.Sent, cmp.Or(harmless(string(r.Service)), "-"), cmp.Or(harmless(r.Gateway), "-"), cmp.Or(r.Peer, "-"), cmp.Or(harmless(r.Details), "-"), r.UserAgent)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// proxyName is who saw a request.
func proxyName(r *mesh.EndedRequest) string {
	if r.Site == "" && r.Node == "" {
		return "-"
	}
	return cmp.Or(r.Site, "-") + "/" + cmp.Or(r.Node, "-")
}

// requestLine is what was asked.
func requestLine(r *mesh.EndedRequest) string {
	if r.Method == "" {
		return harmless(r.Protocol)
	}
	return harmless(r.Method + " " + r.Authority + r.Path)
}

// outcomeOf is how it ended.
func outcomeOf(r *mesh.EndedRequest) string {
	out := "-"
	if r.Status != 0 {
		out = strconv.Itoa(r.Status)
	}
	if r.Flag != "" {
		out += " " + harmless(r.Flag)
	}
	return out
}

// servedAt is where it was sent last, and after how many attempts.
func servedAt(r *mesh.EndedRequest) string {
	if r.Attempts == 0 {
		return "nowhere"
	}
	at := cmp.Or(r.Endpoint, "-")
	if r.ToSite != "" {
		at = "site " + r.ToSite + " by " + at
	}
	if r.Attempts > 1 {
		at += fmt.Sprintf(" (%d attempts)", r.Attempts)
	}
	return at
}

// harmless writes a text that comes from outside so that a terminal takes nothing in it
// as a command.
func harmless(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return s
	}
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}
