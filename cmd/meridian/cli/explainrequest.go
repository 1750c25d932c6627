package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// pastRequests is what explain asks of requests that are over.
type pastRequests struct {
	id     string
	failed bool
	filter mesh.TapFilter
	least  time.Duration
	most   int
}

// flags adds those of past requests to explain.
func (p *pastRequests) flags(cmd *cobra.Command, e *env) {
	f := cmd.Flags()
	f.StringVar(&p.id, "request", "", "why the request with this x-request-`id` failed or took long, as the proxies keep it")
	f.BoolVar(&p.failed, "failed", false, "list the latest requests that failed or took long, of which --request explains one")
	f.IntVar(&p.most, "count", mesh.DefaultFailed, "with --failed, the most requests of each proxy")
	tapFilterFlags(cmd, e, &p.filter, nil, &p.least)
}

// asked reports whether explain is asked about the past.
func (p *pastRequests) asked(cmd *cobra.Command) (bool, error) {
	if p.id != "" && p.failed {
		return true, errUsage{errors.New("--request explains one request, --failed lists them: give one of the two")}
	}
	if p.id != "" || p.failed {
		for _, other := range []string{"from", "header", "listener", "protocol", "port"} {
			if cmd.Flags().Changed(other) {
				return true, errUsage{fmt.Errorf("--%s is of a request that is to come: leave it out with --request and --failed", other)}
			}
		}
		if p.id != "" {
			for _, other := range []string{"host", "path", "method", "service", "status", "flag", "min-latency", "count"} {
				if cmd.Flags().Changed(other) {
					return true, errUsage{fmt.Errorf("--request names one request: leave --%s out", other)}
				}
			}
		}
		return true, nil
	}
	for _, other := range []string{"status", "flag", "min-latency", "count"} {
		if cmd.Flags().Changed(other) {
			return false, errUsage{fmt.Errorf("--%s selects among requests that failed: give --failed", other)}
		}
	}
	if cmd.Flags().Changed("request") {
		return false, errUsage{errors.New("--request: which request? Give its x-request-id")}
	}
	return false, nil
}

// explainPast says why requests failed.
func explainPast(cmd *cobra.Command, e *env, p *pastRequests, q *siteapi.ExplainRequest, service, proxy, output string) error {
	req := siteapi.FailedRequest{FailedQuery: mesh.FailedQuery{ID: p.id, Filter: p.filter, Most: p.most}, Where: siteapi.Where{Site: q.Site, Node: q.Node}}
	req.Filter.Host, req.Filter.PathPrefix, req.Filter.Method, req.Filter.Service = q.Host, q.Path, strings.ToUpper(q.Method), mesh.ServiceKey(service)
	req.Filter.MinMS = float64(p.least) / 1e6
	if p.id != "" && q.Site == "" && q.Node == "" {
		req.All = true
	}
	if err := req.Check(); err != nil {
		return errUsage{err}
	}
	var x *siteapi.Failed
	var err error
	if proxy != "" {
		if q.Site != "" || q.Node != "" {
			return errUsage{errors.New("--proxy names the proxy: leave --site and --node out")}
		}
		a := new(mesh.FailedAnswer)
		err = askProxyJSON(cmd.Context(), proxy, "/failed", req.FailedQuery, a)
		x = &siteapi.Failed{Nodes: []mesh.FailedAnswer{*a}}
	} else {
		x, err = ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Failed, error) { return c.Failed(ctx, req) })
	}
	if err != nil {
		return err
	}
	for _, who := range slices.Sorted(maps.Keys(x.Silent)) {
		if !strings.Contains(x.Silent[who], "has no proxy that could say") {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s says nothing: %s\n", who, x.Silent[who])
		}
	}
	found := 0
	for i := range x.Nodes {
		found += len(x.Nodes[i].Requests)
	}
	if found == 0 && p.id != "" {
		return notKept(p.id, x)
	}
	return print(cmd, output, x, func(w io.Writer) {
		if p.failed {
			failedTable(w, x)
			return
		}
		explainPastTable(w, x)
	})
}

// notKept says what the proxies keep in place of the request that was asked for.
func notKept(id string, x *siteapi.Failed) error {
	var keep []string
	for i := range x.Nodes {
		n := &x.Nodes[i]
		text := fmt.Sprintf("%s/%s keeps %d", cmp.Or(n.Site, "-"), cmp.Or(n.Node, "-"), n.Kept)
		if n.Since != nil {
			text += " since " + n.Since.Local().Format(time.TimeOnly)
		}
		if n.NotKept > 0 {
			text += fmt.Sprintf(" (and came too fast to keep: %d)", n.NotKept)
		}
		keep = append(keep, text)
	}
	return hinted{
		fmt.Errorf("no proxy keeps a request %s: %s", harmless(id), cmp.Or(strings.Join(keep, ", "), "none answers")),
		"kept are the latest that failed or took a second or more: --failed lists them; meridian tap --id shows one that is still to come",
	}
}

func failedTable(w io.Writer, x *siteapi.Failed) {
	fmt.Fprintln(w, "BEGAN\tPROXY\tREQUEST\tOUTCOME\tDETAILS\tTOOK\tTO\tID")
	var all []mesh.FailedRequest
	for i := range x.Nodes {
		all = append(all, x.Nodes[i].Requests...)
	}
	slices.SortStableFunc(all, func(a, b mesh.FailedRequest) int { return b.Time.Compare(a.Time) })
	for i := range all {
		r := &all[i].EndedRequest
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Local().Format("15:04:05.000"), proxyName(r), requestLine(r), outcomeOf(r),
			cmp.Or(harmless(r.Details), "-"), millis(r.DurationMS), servedAt(r), cmp.Or(harmless(r.ID), "-"))
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "none failed or took long that is kept")
	}
}

func explainPastTable(out io.Writer, x *siteapi.Failed) {
	w, _ := out.(*tabwriter.Writer)
	first := true
	for i := range x.Nodes {
		for k := range x.Nodes[i].Requests {
			if !first {
				fmt.Fprintln(out)
			}
			first = false
			explainPastOne(out, &x.Nodes[i].Requests[k])
			if w != nil {
				_ = w.Flush() // each request has columns of its own; the last Flush reports the error
			}
		}
	}
}

func explainPastOne(w io.Writer, f *mesh.FailedRequest) {
	r := &f.EndedRequest
	fmt.Fprintf(w, "%s, seen by %s\n", requestLine(r), proxyName(r))
	fmt.Fprintf(w, "began\t%s, took %s", r.Time.Local().Format("2006-01-02 15:04:05.000"), millis(r.DurationMS))
	if r.FirstByteMS != nil {
		fmt.Fprintf(w, ", %s to the first byte", millis(*r.FirstByteMS))
	}
	fmt.Fprintf(w, "\nfrom\t%s", cmp.Or(r.Client, "-"))
	if r.Identity != "" {
		fmt.Fprintf(w, " as %s", harmless(r.Identity))
	}
	fmt.Fprintf(w, "\noutcome\t%s", outcomeOf(r))
	if r.Details != "" {
		fmt.Fprintf(w, ": %s", harmless(r.Details))
	}
	fmt.Fprintf(w, "\nsent to\t%s\n", servedAt(r))
	switch {
	case f.Unexplained != "":
		fmt.Fprintf(w, "why\tnot known beyond that: %s\n", harmless(f.Unexplained))
		if r.Rule != "" {
			fmt.Fprintf(w, "rule\t%s\n", harmless(r.Rule))
		}
		return
	case f.Explanation == nil:
		return
	}
	e := f.Explanation
	when := fmt.Sprintf("%s after it ended", millis(max(0, f.ExplainedMS)))
	if f.ExplainedMS < 0 {
		when = fmt.Sprintf("%s before it ended", millis(-f.ExplainedMS))
	}
	fmt.Fprintf(w, "\nas things stood %s, generation %d\n", when, e.Generation.Counter)
	if e.Rule != "" {
		fmt.Fprintf(w, "rule\t%s%s\n", harmless(e.Rule), owned(e.RuleOwner))
	}
	if e.Answer != "" {
		fmt.Fprintf(w, "answer\t%s\n", harmless(e.Answer))
	}
	for i := range e.Backends {
		explainBackend(w, e.Site, "requests", &e.Backends[i])
	}
}
