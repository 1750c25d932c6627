package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/manifest"
	"github.com/meridian-mesh/meridian/testbed/sim/whatif"
)

func whatifCommand(e *env) *cobra.Command {
	var output, service string
	var lose, cuts, files, classes []string
	var scale float64
	var seed uint64
	cmd := &cobra.Command{
		Use:   "whatif",
		Short: "Say what a change would do to the mesh as it is now",
		Long: `Whatif takes each site's capacity, demand and round trips as its controller has them
now, and runs the simulator twice, as the mesh is and as it would be: without a
site, with a link cut, with more demand, with other documents. It changes nothing.
The decision code is the product's own; service times are taken as exponential.

With -f the documents are set first, as apply would: endpoints and their capacity,
who may use a service, links, drained sites, sharing policies and pins. What was
measured of a site's capacity counts on in the ratio of what is declared then and
now. Of a site's own objects only those count that the asked controller has.

Which requests are of a priority class is not known to a controller: --class says which
part. Services that count open sessions, or share a machine with others (capacity.pool),
are left out.

BUSY is the part of a site's capacity in use, with what it serves for others. A
site over 95 % would be overloaded.`,
		Example: `  meridian --data ./hub whatif --lose-site north
  meridian --data ./hub whatif --cut north-east --scale 1.3 --service default/shop
  meridian --data ./hub whatif -f change.yaml`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			change := whatif.Change{Lose: lose, Scale: scale}
			if len(lose)+len(cuts)+len(files) == 0 && !cmd.Flags().Changed("scale") {
				return errUsage{errors.New("what change? give --lose-site, --cut, --scale or -f")}
			}
			parts, err := parseParts(classes)
			if err != nil {
				return errUsage{err}
			}
			var set *mesh.Objects
			if len(files) > 0 {
				sources, err := manifest.Read(files, cmd.InOrStdin())
				if err != nil {
					return err
				}
				if set, err = parse(cmd, sources); err != nil {
					return err
				}
				if set.Len() == 0 {
					return errors.New("there is no document in the input")
				}
			}
			l, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (liveMesh, error) { return askLive(ctx, c, false) })
			if err != nil {
				return err
			}
			before, after, err := l.documents(set)
			if err != nil {
				return err
			}
			was, is := whatif.Declare(before), whatif.Declare(after)
			worlds, notes := l.worlds(was)
			for _, n := range notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", n)
			}
			if err := classParts(parts, worlds, was, is); err != nil {
				return errUsage{err}
			}
			answers := map[mesh.ServiceKey]*whatif.Answer{}
			var keys []mesh.ServiceKey
			for _, k := range servicesOf(worlds) {
				if service != "" && k != mesh.ServiceKey(service) {
					continue
				}
				for _, c := range cuts {
					p, err := splitPair(c, worlds[k])
					if err != nil {
						return errUsage{err}
					}
					change.Cut = append(change.Cut, p)
				}
				if set != nil {
					if change.Documents = is[k]; is[k] == nil {
						return fmt.Errorf("service %s would not be shared between sites any more: there is nothing to simulate", k)
					}
				}
				a, err := whatif.Run(*worlds[k], change, seed)
				if err != nil {
					return fmt.Errorf("service %s: %w", k, err)
				}
				answers[k], keys = a, append(keys, k)
				change.Cut = nil
			}
			if len(keys) == 0 {
				return fmt.Errorf("no service %s is shared between sites", service)
			}
			return print(cmd, output, answers, func(w io.Writer) {
				for _, k := range keys {
					whatifTable(w, k, answers[k])
				}
			})
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&lose, "lose-site", nil, "`sites` that are gone with all their endpoints")
	fs.StringSliceVar(&cuts, "cut", nil, "`A-B`: sites that cannot reach each other")
	fs.Float64Var(&scale, "scale", 1, "demand everywhere, times this")
	fs.StringSliceVar(&classes, "class", nil, "`NAME=PART`: part of the requests that is of a priority class; others are of none")
	filesFlag(cmd, &files, "documents to set first")
	fs.StringVar(&service, "service", "", "only this service, `namespace/name`")
	fs.Uint64Var(&seed, "seed", 1, "what arrivals and work are drawn from")
	outputFlag(cmd, &output)
	return cmd
}

// splitPair reads A-B, where names may hold dashes themselves.
func splitPair(s string, w *whatif.World) ([2]string, error) {
	for i := range s {
		if s[i] != '-' {
			continue
		}
		a, b := s[:i], s[i+1:]
		has := func(n string) bool {
			return slices.ContainsFunc(w.Sites, func(s whatif.Site) bool { return s.Name == n })
		}
		if has(a) && has(b) {
			return [2]string{a, b}, nil
		}
	}
	return [2]string{}, fmt.Errorf("--cut %q: want two sites, such as north-east for north and east", s)
}

func servicesOf(worlds map[mesh.ServiceKey]*whatif.World) []mesh.ServiceKey {
	var out []mesh.ServiceKey
	for k := range worlds {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func whatifTable(w io.Writer, k mesh.ServiceKey, a *whatif.Answer) {
	fmt.Fprintf(w, "%s\tNOW\tTHEN\n", k)
	fmt.Fprintf(w, "mean\t%.1fms\t%.1fms\n", a.Before.MeanMS, a.After.MeanMS)
	fmt.Fprintf(w, "p99\t%.1fms\t%.1fms\n", a.Before.P99MS, a.After.P99MS)
	fmt.Fprintf(w, "errors\t%s\t%s\n", percent(a.Before.Errors), percent(a.After.Errors))
	fmt.Fprintf(w, "served elsewhere\t%s\t%s\n", percent(a.Before.Away), percent(a.After.Away))
	for _, c := range a.Classes {
		name := c.Class
		if name == "" {
			name = "no class"
		}
		fmt.Fprintf(w, "%s: mean, errors\t%.1fms, %s\t%.1fms, %s\n", name, c.Before.MeanMS, percent(c.Before.Errors), c.After.MeanMS, percent(c.After.Errors))
	}
	for _, s := range a.Sites {
		then := percent(s.After)
		switch {
		case s.Lost:
			then = "lost"
		case s.Closed:
			then = "closed"
		}
		fmt.Fprintf(w, "busy %s\t%s\t%s\n", s.Site, percent(s.Before), then)
	}
	if len(a.Overloaded) > 0 {
		fmt.Fprintf(w, "overloaded: %s\n", strings.Join(a.Overloaded, ", "))
	}
	fmt.Fprintln(w)
}
