package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func checkCommand(e *env) *cobra.Command {
	var output, scheduler, gates string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what is wrong in the mesh, and say what to do about it",
		Long: `Check has a site's controller look at the whole mesh, as it is seen from there: every
site and its clock, disk, certificates and link; every snapshot and its age; every
proxy, its listeners and capabilities and its way to each other site; every plan; every
route. Each finding comes with its remedy. What cannot be known is a finding too.

The exit code is 0 when nothing was found and 1 when something was. Sites that the
operator cordoned or drained are no finding: status shows them.

With --scheduler-config it looks at that file instead, a KubeSchedulerConfiguration, and
needs no controller: whether a profile scores nodes by traffic, and whether it gets to
score all of them; and, for one that scores placements of pod groups, whether the feature
gates for that are on, of which the file says nothing: --feature-gates does. The plugins'
own arguments are checked when the scheduler starts.`,
		Example: `  meridian --data ./hub check
  meridian --data ./north check -o json
  meridian check --scheduler-config scheduler.yaml`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed(schedulerFlag) {
				return checkScheduler(cmd, scheduler, gates, output)
			}
			if cmd.Flags().Changed(gatesFlag) {
				return fmt.Errorf("--%s is about a scheduler's configuration: give --%s too", gatesFlag, schedulerFlag)
			}
			r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Checked, error) { return c.Check(ctx) })
			if err != nil {
				return err
			}
			if err := print(cmd, output, r, func(w io.Writer) { checkTable(w, r) }); err != nil {
				return err
			}
			if len(r.Findings) > 0 {
				return errRefused
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&scheduler, schedulerFlag, "", "look at this KubeSchedulerConfiguration instead, a YAML or JSON `file`")
	cmd.Flags().StringVar(&gates, gatesFlag, "", "the `gates` that the scheduler is started with, as it gets them: Gate=true,Gate=false")
	outputFlag(cmd, &output)
	watchFlag(cmd)
	return cmd
}

const (
	schedulerFlag = "scheduler-config"
	gatesFlag     = "feature-gates"
)

func checkScheduler(cmd *cobra.Command, file, gates, output string) error {
	on, err := readGates(gates)
	if err != nil {
		return err
	}
	c, err := readWith(file, readSchedulerConfig)
	if err != nil {
		return err
	}
	r := c.find(file, on)
	err = print(cmd, output, r, func(w io.Writer) { findingsTable(w, r.Looked, r.Findings) })
	if err == nil && len(r.Findings) > 0 {
		return errRefused
	}
	return err
}

func checkTable(w io.Writer, r *siteapi.Checked) {
	fmt.Fprintf(w, "seen from site %s\n", r.Site)
	findingsTable(w, r.Looked, r.Findings)
}

func findingsTable(w io.Writer, looked []string, findings []siteapi.Finding) {
	for _, l := range looked {
		fmt.Fprintf(w, "  looked at %s\n", l)
	}
	for _, f := range findings {
		where := ""
		if f.Site != "" {
			where = "site " + f.Site + ": "
		}
		fmt.Fprintf(w, "\n%s %s: %s%s\n  remedy: %s\n", f.Severity, f.Code, where, f.What, f.Remedy)
	}
	if len(findings) == 0 {
		fmt.Fprintln(w, "0 findings")
		return
	}
	fmt.Fprintf(w, "\n%s\n", count(len(findings), "finding"))
}
