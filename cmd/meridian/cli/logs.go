package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// logsEvery is how often logs -f asks.
const logsEvery = 500 * time.Millisecond

func logsCommand(e *env) *cobra.Command {
	var req siteapi.LogsRequest
	var proxy, output string
	var access, follow bool
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the logs of proxies and controllers, without a shell on their machines",
		Long: `Logs shows the end of what the proxies of a site, or with --controller its site
controller, log: each keeps the latest 256 KiB in memory. --access shows a proxy's
access log in its place, where it writes one.

The site is the controller's own or, at the hub, --site. --proxy asks one proxy by its
admin address, without a controller. -f goes on until it is interrupted.

With -o json each line is one object, with its time and who wrote it.`,
		Example: `  meridian --data ./north logs --since 5m --level warn
  meridian --data ./north logs --node n1 --access -f
  meridian --data ./hub logs --site north --controller --tail 20`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if access {
				req.Log = mesh.LogAccess
			}
			req.WithinMS = float64(since) / float64(time.Millisecond)
			switch {
			case cmd.Flags().Changed("since") && since <= 0:
				return errUsage{fmt.Errorf("--since %s: want how old a line may be, such as 5m", since)}
			case cmd.Flags().Changed("tail") && req.Most == 0:
				return errUsage{fmt.Errorf("--tail 0: want 1 to %d lines", mesh.MaxLogLines)}
			case output != outTable && output != outJSON:
				return errUsage{fmt.Errorf("--output %s: want %s or %s", output, outTable, outJSON)}
			case proxy != "" && (req.Site != "" || req.Node != "" || req.Controller):
				return errUsage{errors.New("--proxy names the proxy: leave --site, --node and --controller out")}
			}
			if err := req.Check(); err != nil {
				return errUsage{err}
			}
			return logs(cmd, e, &req, proxy, output, follow)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Site, "site", "", "`site` whose logs are shown (default: the controller's)")
	f.StringVar(&req.Node, "node", "", "`proxy` of that site (default: all)")
	f.BoolVar(&req.Controller, "controller", false, "the log of the site's controller")
	f.StringVar(&proxy, "proxy", "", "admin `address` of a proxy: host:port or unix:/path")
	f.BoolVar(&access, "access", false, "the access log: a line for each request")
	f.BoolVarP(&follow, "follow", "f", false, "go on with lines as they are written")
	f.DurationVar(&since, "since", 0, "only lines that are not older than this, such as 5m")
	f.StringVar(&req.Match, "match", "", "only lines that have this `text`")
	f.StringVar(&req.Level, "level", "", "only lines of at least this level: debug, info, warn or error")
	f.IntVar(&req.Most, "tail", mesh.DefaultLogLines, "how many of the latest lines of each to begin with")
	f.StringVarP(&output, "output", "o", outTable, "table or json (one object a line)")
	completeFlag(cmd, "output", outTable, outJSON)
	completeFlag(cmd, "level", "debug", "info", "warn", "error")
	completeSiteAndNode(cmd, e)
	return cmd
}

func logs(cmd *cobra.Command, e *env, req *siteapi.LogsRequest, proxy, output string, follow bool) error {
	said := map[string]string{}
	for {
		var a *siteapi.Logs
		var err error
		if proxy != "" {
			a, err = logsAtProxy(cmd.Context(), proxy, req)
		} else {
			a, err = ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Logs, error) { return c.Logs(ctx, *req) })
		}
		switch {
		case cmd.Context().Err() != nil:
			return nil //nolint:nilerr // it was interrupted
		case err != nil:
			return err
		}
		for _, who := range slices.Sorted(maps.Keys(a.Silent)) {
			if said[who] != a.Silent[who] {
				said[who] = a.Silent[who]
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s says nothing: %s\n", who, a.Silent[who])
			}
		}
		for _, who := range slices.Sorted(maps.Keys(a.Missed)) {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d bytes of %s were forgotten before they could be shown\n", a.Missed[who], cmp.Or(who, "the controller"))
		}
		for i := range a.Lines {
			if err := showLine(cmd.OutOrStdout(), output, &a.Lines[i]); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		// Who does not answer this time goes on where it was.
		if req.After == nil {
			req.After = map[string]uint64{}
		}
		maps.Copy(req.After, a.After)
		req.Most, req.WithinMS = mesh.MaxLogLines, 0
		if a.More {
			continue
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(logsEvery):
		}
	}
}

func logsAtProxy(ctx context.Context, address string, req *siteapi.LogsRequest) (*siteapi.Logs, error) {
	q := req.LogQuery
	q.After = req.After[address]
	a := new(mesh.LogAnswer)
	if err := askProxyJSON(ctx, address, "/logs", q, a); err != nil {
		return nil, err
	}
	out := &siteapi.Logs{Lines: a.Lines, More: a.More, After: map[string]uint64{address: a.Next}}
	if a.Missed > 0 {
		out.Missed = map[string]uint64{address: a.Missed}
	}
	return out, nil
}

// showLine writes a line as it is, behind the name of the proxy that wrote it.
func showLine(w io.Writer, output string, l *mesh.LogLine) error {
	if output == outJSON {
		data, err := json.Marshal(l)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", data)
		return err
	}
	if l.Node != "" {
		if _, err := fmt.Fprintf(w, "%s: ", l.Node); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, harmless(l.Text))
	return err
}
