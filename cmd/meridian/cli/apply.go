package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

// filesFlag adds -f to a command.
func filesFlag(cmd *cobra.Command, dst *[]string, use string) {
	cmd.Flags().StringArrayVarP(dst, "filename", "f", nil, use+": a `file`, a folder or - for standard input; may be given again")
}

func applyCommand(e *env) *cobra.Command {
	var files, classes []string
	var dryRun, proven bool
	var output string
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Create or change objects",
		Long: `Apply sets the objects of the given documents at the controller that is asked: the
hub's belong to the mesh, a site's to that site. All of them are taken or none; on a
fault every fault is printed. An object that somebody else owns is refused with the
owner's name.

With --prove the change has to stand the load of the last hour first: what each site's
controller remembers of its users' demand is replayed in the simulator, without the
change and with it, and the change is refused when it breaks the objective of a
service (MeshService, spec.objective) that sites share. Each half minute is held for
15 seconds; controllers remember what came since they started. Promises that are
broken without the change, too, are named and refuse nothing. When a site does not
answer, nothing is proven and nothing is changed.`,
		Example: `  meridian --data ./hub apply -f mesh/
  meridian --data ./hub apply -f mesh.yaml --prove
  meridian --data ./hub apply -f mesh.yaml --dry-run
  cat site.yaml | meridian --server http://127.0.0.1:7470 apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return errUsage{errors.New("what to apply? Give -f FILE, -f DIR or -f -")}
			}
			if len(classes) > 0 && !proven {
				return errUsage{errors.New("--class is for --prove")}
			}
			sources, err := manifest.Read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			req := siteapi.ApplyRequest{DryRun: dryRun}
			for _, s := range sources {
				req.Documents = append(req.Documents, siteapi.Document{Name: s.Name, YAML: string(s.Data)})
			}
			if proven {
				if err := proveFirst(cmd, e, req, sources, output, classes); err != nil {
					return err
				}
			}
			res, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) { return c.Apply(ctx, req) })
			if err != nil {
				return err
			}
			return printResult(cmd, output, res)
		},
	}
	filesFlag(cmd, &files, "what to apply")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and say what would happen, change nothing")
	cmd.Flags().StringSliceVar(&classes, "class", nil, "with --prove: `NAME=PART`, the part of the requests that is of a priority class")
	cmd.Flags().BoolVar(&proven, "prove", false, "replay the last hour's load with the change first, and refuse what breaks an objective")
	outputFlag(cmd, &output)
	return cmd
}

// proveFirst returns nil when the change may be made.
func proveFirst(cmd *cobra.Command, e *env, req siteapi.ApplyRequest, sources []mesh.Source, output string, classes []string) error {
	parts, err := parseParts(classes)
	if err != nil {
		return errUsage{err}
	}
	objects, err := parse(cmd, sources)
	if err != nil {
		return err
	}
	req.DryRun = true
	res, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) { return c.Apply(ctx, req) })
	if err != nil {
		return err
	}
	if len(res.Faults) > 0 {
		return printResult(cmd, output, res)
	}
	l, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (liveMesh, error) { return askLive(ctx, c, true) })
	if err != nil {
		return err
	}
	proofs, err := prove(&l, objects, parts)
	if err != nil {
		return err
	}
	if broken := proofText(cmd.ErrOrStderr(), proofs); broken > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "meridian: nothing was changed at site %s: it would break %s\n", res.Site, count(broken, "promise"))
		return errRefused
	}
	return nil
}

// printResult prints what was done, or the faults and that nothing was.
func printResult(cmd *cobra.Command, format string, res *siteapi.Result) error {
	printConditions(cmd, res.Conditions)
	if len(res.Faults) > 0 {
		if format != outTable {
			if err := print(cmd, format, res, nil); err != nil {
				return err
			}
		}
		printFaults(cmd, res.Faults)
		fmt.Fprintf(cmd.ErrOrStderr(), "meridian: nothing was changed at site %s: %s\n", res.Site, count(len(res.Faults), "fault"))
		return errRefused
	}
	return print(cmd, format, res, func(w io.Writer) {
		suffix := ""
		if res.DryRun {
			suffix = " (dry run)"
		}
		for _, c := range res.Changes {
			fmt.Fprintf(w, "%s %s%s\n", c.Key, c.Action, suffix)
		}
	})
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
