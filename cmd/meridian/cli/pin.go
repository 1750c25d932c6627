package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func pinCommands(e *env) []*cobra.Command {
	var out []*cobra.Command
	for _, pin := range []bool{true, false} {
		var req siteapi.PinRequest
		var output, from string
		cmd := &cobra.Command{
			Use: "pin NAMESPACE/NAME --from SITE SITE=WEIGHT...", Short: "Fix where a site's requests for a service go",
			Long: `Pin fixes, in place of the plan, which part of the requests of a site's own users goes
to which site, by weight. Sites that may not be used leave their part to the others; a
drained site takes nothing. It holds request by request, whatever the load, after
restarts and without a controller, until it is unpinned. It is kept in the TrafficPolicy that
says how the service is shared (spec.siteSharing.pins), so its owner is asked.`,
			Example: "  meridian --data ./hub weights pin default/shop --from north north=70 south=30",
			Args:    cobra.MinimumNArgs(2),
		}
		if !pin {
			cmd = &cobra.Command{
				Use: "unpin NAMESPACE/NAME --from SITE", Short: "Let the plan say again where a site's requests go",
				Long:    `Unpin ends what weights pin began. Where a policy was made for it, it is deleted.`,
				Example: "  meridian --data ./hub weights unpin default/shop --from north",
				Args:    cobra.ExactArgs(1),
			}
		}
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return errUsage{errors.New("whose requests? Give --from SITE")}
			}
			req.Service, req.From = mesh.ServiceKey(args[0]), from
			for _, word := range args[1:] {
				site, weight, ok := strings.Cut(word, "=")
				n, err := strconv.Atoi(strings.TrimSuffix(weight, "%"))
				if !ok || site == "" || err != nil || n < 0 {
					return errUsage{fmt.Errorf("%q: want SITE=WEIGHT, such as south=30", word)}
				}
				req.To = append(req.To, mesh.PinShare{Site: site, Weight: n})
			}
			r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) { return c.Pin(ctx, req) })
			if err != nil {
				return err
			}
			return printResult(cmd, output, r)
		}
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return siteNames(cmd, e), cobra.ShellCompDirectiveNoFileComp
			}
			m, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Weights, error) { return c.Weights(ctx) })
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var keys []string
			for _, k := range services(m) {
				keys = append(keys, string(k))
			}
			return keys, cobra.ShellCompDirectiveNoFileComp
		}
		cmd.Flags().StringVar(&from, "from", "", "the `site` whose own users' requests are meant")
		cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen, change nothing")
		outputFlag(cmd, &output)
		completeLive(cmd, "from", e, func(m *siteapi.Weights) (names []string) {
			for _, r := range m.Rows {
				names = append(names, r.Site)
			}
			return names
		})
		out = append(out, cmd)
	}
	return out
}
