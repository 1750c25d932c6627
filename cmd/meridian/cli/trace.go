package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// traceWait bounds how long the proxies are asked for a request that is over.
const traceWait = 3 * time.Second

// tracedRequest is what trace prints for programs.
type tracedRequest struct {
	ID     string      `json:"id"`
	Client mesh.Traced `json:"client"`
	// Hops are the proxies that it passed, the client's first.
	Hops []mesh.EndedRequest `json:"hops"`
	// Explanation is where such a request would have gone just before.
	Explanation *siteapi.Explained `json:"explanation"`
	// Silent says which proxies could not be asked.
	Silent map[string]string `json:"silent,omitempty"`
}

func traceCommand(e *env) *cobra.Command {
	var q siteapi.ExplainRequest
	var output string
	cmd := &cobra.Command{
		Use:   "trace --host HOST [--path PATH]",
		Short: "Send one request through the mesh and show each hop",
		Long: `Trace has a proxy of a site send one real request to its own listener, and asks all
proxies of the mesh for it by its x-request-id, a new one that nobody can guess: which
of them it passed, as whom, by which rule, where each sent it and how long it took
there. Nothing is added to requests or responses for it. What one more request costs
at the site that was chosen is what the proxy that sent it said just before.

The site is the controller's own or, at the hub, --from. The request reaches a
backend: trace what may be asked for. Listeners of protocol HTTP are traced.`,
		Example: `  meridian --data ./north trace --host shop.example --path /cart
  meridian --data ./hub trace --host shop.example --from north --header 'x-user: beta' -o json`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Host == "" {
				return errUsage{errors.New("which request? Give --host")}
			}
			q.Method = strings.ToUpper(q.Method)
			if err := q.Check(); err != nil {
				return errUsage{err}
			}
			x, err := trace(cmd, e, q)
			if err != nil {
				return err
			}
			for _, who := range slices.Sorted(maps.Keys(x.Silent)) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s says nothing: %s\n", who, x.Silent[who])
			}
			if err := print(cmd, output, x, func(w io.Writer) { traceTable(w, &q, x) }); err != nil {
				return err
			}
			if x.Client.Failed != "" {
				return hinted{fmt.Errorf("no whole response came: %s", x.Client.Failed), "meridian explain --request " + x.ID + " says why"}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Host, "host", "", "the request's `host`")
	f.StringVar(&q.Path, "path", "", "the request's path, with its query (default /)")
	f.StringVar(&q.Method, "method", "", "the request's method (default GET)")
	f.StringArrayVar(&q.Headers, "header", nil, "`name: value` that the request has; may be given again")
	f.StringVar(&q.Listener, "listener", "", "`namespace/gateway/listener` that it comes to (default: the first that has a rule)")
	f.StringVar(&q.Site, "from", "", "`site` where it comes in (default: the controller's)")
	f.StringVar(&q.Node, "node", "", "`proxy` of that site (default: one that is alive)")
	outputFlag(cmd, &output)
	if err := cmd.RegisterFlagCompletionFunc("from", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return siteNames(cmd, e), cobra.ShellCompDirectiveNoFileComp
	}); err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
	return cmd
}

func trace(cmd *cobra.Command, e *env, q siteapi.ExplainRequest) (*tracedRequest, error) {
	var id [16]byte
	rand.Read(id[:])
	out := &tracedRequest{ID: hex.EncodeToString(id[:]), Hops: []mesh.EndedRequest{}, Silent: map[string]string{}}
	var err error
	if out.Explanation, err = ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Explained, error) { return c.Explain(ctx, q) }); err != nil {
		return nil, err
	}
	tap := siteapi.TapRequest{TapQuery: mesh.TapQuery{Session: "trace-" + out.ID, Filter: mesh.TapFilter{ID: out.ID}}, Where: siteapi.Where{All: true}}
	look := func() error {
		a, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Tapped, error) { return c.Tap(ctx, tap) })
		if err != nil {
			return err
		}
		for who, why := range a.Silent {
			if !strings.Contains(why, "has no proxy that could say") {
				out.Silent[who] = why
			}
		}
		out.Hops, tap.TapQuery.After = append(out.Hops, a.Requests...), 0
		tap.After = a.After
		return nil
	}
	if err := look(); err != nil { // turns the taps on
		return nil, err
	}
	sent, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*mesh.Traced, error) {
		return c.Trace(ctx, siteapi.TraceRequest{
			TraceQuery: mesh.TraceQuery{ExplainQuery: q.ExplainQuery, ID: out.ID}, Site: out.Explanation.Site, Node: out.Explanation.Node,
		})
	})
	if err != nil {
		return nil, err
	}
	out.Client = *sent
	for end := time.Now().Add(traceWait); !whole(out.Hops) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := look(); err != nil {
			return nil, err
		}
	}
	tap.End = true
	if err := look(); err != nil {
		return nil, err
	}
	// Who sent it on waited for who served it; sites' clocks need not agree.
	slices.SortStableFunc(out.Hops, func(a, b mesh.EndedRequest) int { return cmp.Compare(b.DurationMS, a.DurationMS) })
	return out, nil
}

// whole reports whether each hop to another site has one there.
func whole(hops []mesh.EndedRequest) bool {
	for i := range hops {
		to := hops[i].ToSite
		if to != "" && !slices.ContainsFunc(hops, func(h mesh.EndedRequest) bool { return h.Site == to }) {
			return false
		}
	}
	return len(hops) > 0
}

func traceTable(w io.Writer, q *siteapi.ExplainRequest, x *tracedRequest) {
	outcome := fmt.Sprint(x.Client.Status)
	if x.Client.Status == 0 {
		outcome = "no response"
	}
	fmt.Fprintf(w, "%s %s%s, sent by %s/%s to %s (%s): %s in %s, id %s\n", q.Method, q.Host, q.Path,
		x.Client.Site, x.Client.Node, x.Client.Address, x.Client.Listener, outcome, millis(x.Client.TookMS), x.ID)
	for _, c := range x.Explanation.Chains {
		fmt.Fprintf(w, "chain\t%s\n", c)
	}
	fmt.Fprintln(w, "\nHOP\tPROXY\tCALLER\tRULE\tSENT TO\tCOST\tTOOK\tWAY\tOUTCOME")
	for i := range x.Hops {
		h := &x.Hops[i]
		// On the way is what this hop took beyond the next.
		way := "-"
		if h.ToSite != "" && i+1 < len(x.Hops) {
			way = millis(h.DurationMS - x.Hops[i+1].DurationMS)
		}
		rule := cmp.Or(harmless(h.Rule), "-")
		if h.Rule == "" && h.Service != "" {
			rule = "handed in" // by another site: no rule is asked again
		}
		cost := "-"
		if b, s := chosen(x.Explanation, h); s != nil {
			if s.CostMS > 0 {
				cost = millis(s.CostMS)
			}
			for _, c := range b.Chains {
				fmt.Fprintf(w, "\t\t\tchain %s\n", c)
			}
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, proxyName(h), cmp.Or(harmless(h.Identity), h.Client), rule,
			servedAt(h), cost, millis(h.DurationMS), way, outcomeOf(h))
	}
	if len(x.Hops) == 0 {
		fmt.Fprintln(w, "no proxy has told of it")
	}
}

// chosen is what was said of the site that a hop sent it to.
func chosen(x *siteapi.Explained, h *mesh.EndedRequest) (*mesh.ExplainedBackend, *mesh.ExplainedSite) {
	if h.Site != x.Site || h.Node != x.Node {
		return nil, nil
	}
	for i := range x.Backends {
		b := &x.Backends[i]
		for k := range b.Sites {
			if b.Service == h.Service && (b.Sites[k].Site == h.ToSite || b.Sites[k].Home && h.ToSite == "") {
				return b, &b.Sites[k]
			}
		}
	}
	return nil, nil
}
