package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

// chainKinds are the kinds that chain apply takes.
var chainKinds = []string{mesh.KindChainNode, mesh.KindNetworkFunction, mesh.KindServiceChain, mesh.KindAfSfcRequirement}

func chainApplyCommand(e *env, agent *string) *cobra.Command {
	var files []string
	var dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Create or change chains, and see them in force",
		Long: `Apply gives ChainNode, NetworkFunction, ServiceChain and AfSfcRequirement documents
to a site's controller, as 'meridian apply' does, and refuses others. With --agent it then waits
until that agent serves them, and fails with the agent's reason when it does not, or
when a chain among them has no path.`,
		Example: `  meridian chain apply -f web.yaml --data ./hub --agent http://127.0.0.1:15010
  meridian chain apply -f web.yaml --data ./hub --dry-run`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return errUsage{errors.New("what to apply? Give -f FILE, -f DIR or -f -")}
			}
			sources, err := manifest.Read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			chains, err := chainsOf(sources)
			if err != nil {
				return err
			}
			var before *chainStatus
			if *agent != "" && !dryRun {
				if before, err = askAgent(cmd.Context(), *agent); err != nil {
					return err
				}
				if c := before.Configuration; c != nil && c.Connected == nil {
					return hinted{fmt.Errorf("the agent of node %s serves %s and asks no controller; nothing was changed", before.Node, c.Source),
						"start it with --config nats://..., or leave --agent out"}
				}
			}
			req := siteapi.ApplyRequest{DryRun: dryRun}
			for _, s := range sources {
				req.Documents = append(req.Documents, siteapi.Document{Name: s.Name, YAML: string(s.Data)})
			}
			res, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) { return c.Apply(ctx, req) })
			if err != nil {
				return err
			}
			if err := printResult(cmd, outTable, res); err != nil || before == nil {
				return err
			}
			changed := slices.ContainsFunc(res.Changes, func(c siteapi.Change) bool { return c.Action != siteapi.Unchanged })
			return awaitChains(cmd, *agent, before, changed, chains, wait)
		},
	}
	filesFlag(cmd, &files, "what to apply")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and say what would happen, change nothing")
	cmd.Flags().DurationVar(&wait, "wait", 20*time.Second, "how long the agent may take")
	return cmd
}

// chainsOf are the names of the chains in documents, none of which may be of a kind
// that has nothing to do with chains.
func chainsOf(sources []mesh.Source) ([]string, error) {
	objects, err := mesh.ParseSources(sources)
	if err != nil {
		return nil, err
	}
	var chains []string
	for key := range objects.All() {
		if !slices.Contains(chainKinds, key.Kind) {
			return nil, hinted{fmt.Errorf("%s is no part of a chain; nothing was changed", key), "'meridian apply' takes documents of all kinds"}
		}
		if key.Kind == mesh.KindServiceChain {
			chains = append(chains, key.Namespace+"/"+key.Name)
		}
	}
	return chains, nil
}

// awaitChains waits until the agent serves what was applied.
func awaitChains(cmd *cobra.Command, agent string, before *chainStatus, changed bool, chains []string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	last := "it has not heard of it"
	for {
		s, err := askAgent(ctx, agent)
		switch {
		case ctx.Err() != nil:
			return hinted{fmt.Errorf("applied, but node %s does not serve it after %v: %s", before.Node, limit, last), "'meridian chain list' and /readyz?verbose of the agent say more"}
		case err != nil:
			return err
		case changed && !s.newer(before):
			if s.Configuration != nil && s.Configuration.Refused != "" {
				last = s.Configuration.Refused
			}
		case !s.Ready:
			last = s.Fault
		default:
			missing := false
			for _, name := range chains {
				if c, err := s.find(name); err != nil {
					last, missing = err.Error(), true
				} else if len(c.SPIs) == 0 {
					return fmt.Errorf("applied, but on node %s chain %s has no path: %s", s.Node, name, c.Refused)
				}
			}
			if !missing {
				for _, name := range chains {
					c, _ := s.find(name) // it was found above
					fmt.Fprintf(cmd.OutOrStdout(), "chain %s is in force on node %s: %s, %s\n", name, s.Node, count(len(c.SPIs), "path"), c.state())
				}
				return nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// newer reports whether the agent serves another generation than before.
func (s *chainStatus) newer(before *chainStatus) bool {
	switch {
	case s.Configuration == nil || s.Configuration.Generation == nil:
		return false
	case before.Configuration == nil || before.Configuration.Generation == nil:
		return true
	}
	return s.Configuration.Generation.Compare(*before.Configuration.Generation) > 0
}
