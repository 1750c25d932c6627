package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// trafficVerbs are the verbs that say what a site takes of new requests.
var trafficVerbs = []struct {
	use, traffic, short, long string
	aliases                   []string
}{
	{
		use: "drain", traffic: mesh.SiteDrained, short: "Send a site's users to other sites",
		long: `Drain has a site take no new request while another site can: its own users' requests
go where they cost least, and other sites send it none. What runs there ends there,
and sessions that stick to one of its endpoints stay. Where no other site is usable
the site serves its users as before. It is kept in the Site object, so it holds while
the site is cut off and after restarts; ask the object's owner, which mostly is the hub.

Services that cannot move (not exported to the mesh, policy none, no endpoint
elsewhere) are named. With --wait it returns when no request is left at the site.`,
	},
	{
		use: "cordon", traffic: mesh.SiteCordoned, short: "Keep other sites' requests from a site",
		long: `Cordon has other sites send a site nothing new. It goes on to serve its own users, and
may send their requests elsewhere. It is kept in the Site object.`,
	},
	{
		use: "undrain", traffic: mesh.SiteAccepts, short: "Let a site take requests again", aliases: []string{"uncordon"},
		long: `Undrain ends drain and cordon: the site takes its own users' requests and others'.`,
	},
}

func siteTrafficCommands(e *env) []*cobra.Command {
	var out []*cobra.Command
	for _, v := range trafficVerbs {
		req := siteapi.TrafficRequest{Traffic: v.traffic}
		var output string
		var wait time.Duration
		cmd := &cobra.Command{
			Use: v.use + " SITE", Aliases: v.aliases, Short: v.short, Long: v.long,
			Example: fmt.Sprintf("  meridian --data ./centre site %s north", v.use),
			Args:    cobra.ExactArgs(1), ValidArgsFunction: completeSite(e),
			RunE: func(cmd *cobra.Command, args []string) error {
				if wait < 0 {
					return errUsage{fmt.Errorf("--wait %s: want how long to wait", wait)}
				}
				req.Site = args[0]
				r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.TrafficResult, error) {
					return c.SetTraffic(ctx, req)
				})
				if err != nil {
					return err
				}
				if len(r.Faults) > 0 {
					return printResult(cmd, output, &r.Result)
				}
				for _, s := range r.Stays {
					fmt.Fprintf(cmd.ErrOrStderr(), "warning: stays at site %s: service %s\n", req.Site, s)
				}
				err = print(cmd, output, r, func(w io.Writer) { trafficLine(w, req, r) })
				if err != nil || wait == 0 || req.DryRun {
					return err
				}
				return waitEmpty(cmd, e, req.Site, wait)
			},
		}
		f := cmd.Flags()
		f.BoolVar(&req.DryRun, "dry-run", false, "say what would happen, change nothing")
		if v.traffic != mesh.SiteAccepts {
			f.StringVar(&req.Reason, "reason", "", "why, in one line: it is shown with the site")
		}
		if v.traffic == mesh.SiteDrained {
			f.BoolVar(&req.Force, "force", false, "even if no other site takes requests now")
			f.DurationVar(&wait, "wait", 0, "wait until no request is left at the site, at most so long")
		}
		outputFlag(cmd, &output)
		out = append(out, cmd)
	}
	return out
}

func trafficLine(w io.Writer, req siteapi.TrafficRequest, r *siteapi.TrafficResult) {
	state := req.Traffic
	if state == mesh.SiteAccepts {
		state = "in service"
	}
	suffix := ""
	for _, c := range r.Changes {
		if c.Action == siteapi.Unchanged {
			suffix = " already"
		}
	}
	if r.DryRun {
		suffix += " (dry run)"
	}
	fmt.Fprintf(w, "site %s is %s%s\n", req.Site, state, suffix)
}

// waitEmpty returns when a site has no request in flight any more.
func waitEmpty(cmd *cobra.Command, e *env, site string, limit time.Duration) error {
	end := time.Now().Add(limit)
	// The first figures may be from before the site knew.
	settled := time.Now().Add(2 * time.Second)
	for {
		st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
		if err != nil {
			return err
		}
		n, why := inFlightAt(st, site)
		if why == "" && n == 0 && time.Now().After(settled) {
			fmt.Fprintf(cmd.ErrOrStderr(), "no request is left at site %s\n", site)
			return nil
		}
		if time.Now().After(end) {
			if why == "" {
				why = count(n, "request") + " in flight"
			}
			return hinted{fmt.Errorf("site %s is not empty after %s: %s", site, limit, why), "it stays drained; wait again, or see: meridian status"}
		}
		select {
		case <-cmd.Context().Done():
			return errors.New("interrupted; the site stays drained")
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// inFlightAt counts the requests that a site says it has, or says why that is not known.
func inFlightAt(st *siteapi.Status, site string) (n int, why string) {
	said := &st.Self
	if site != st.Self.Site {
		said = nil
		for i := range st.Peer {
			if st.Peer[i].Site == site {
				if said = st.Peer[i].Said; said == nil {
					return 0, "its controller does not answer: " + st.Peer[i].Silence
				}
			}
		}
		if said == nil {
			return 0, "it is not known here"
		}
	}
	for _, s := range said.Services {
		n += s.InFlight
	}
	return n, ""
}

// completeSite completes the name of a site with those that the controller knows.
func completeSite(e *env) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return siteNames(cmd, e), cobra.ShellCompDirectiveNoFileComp
	}
}

// siteNames are the sites that the controller knows, none where it does not answer.
func siteNames(cmd *cobra.Command, e *env) []string {
	list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
		return c.Get(ctx, siteapi.GetRequest{Kind: mesh.KindSite})
	})
	if err != nil {
		return nil
	}
	var names []string
	for _, o := range list.Objects {
		names = append(names, o.Key.Name)
	}
	return names
}
