package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func checkCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what is wrong in the mesh, and say what to do about it",
		Long: `Check has a site's controller look at the whole mesh, as it is seen from there: every
site and its clock, disk, certificates and link; every snapshot and its age; every
proxy, its listeners and capabilities and its way to each other site; every plan; every
route. Each finding comes with its remedy. What cannot be known is a finding too.

The exit code is 0 when nothing was found and 1 when something was. Sites that the
operator cordoned or drained are no finding: status shows them.`,
		Example: `  meridian --data ./hub check
  meridian --data ./north check -o json`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	outputFlag(cmd, &output)
	watchFlag(cmd)
	return cmd
}

func checkTable(w io.Writer, r *siteapi.Checked) {
	fmt.Fprintf(w, "seen from site %s\n", r.Site)
	for _, l := range r.Looked {
		fmt.Fprintf(w, "  looked at %s\n", l)
	}
	for _, f := range r.Findings {
		where := ""
		if f.Site != "" {
			where = "site " + f.Site + ": "
		}
		fmt.Fprintf(w, "\n%s %s: %s%s\n  remedy: %s\n", f.Severity, f.Code, where, f.What, f.Remedy)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "0 findings")
		return
	}
	fmt.Fprintf(w, "\n%s\n", count(len(r.Findings), "finding"))
}
