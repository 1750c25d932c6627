package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

func deleteCommand(e *env) *cobra.Command {
	var files []string
	var dryRun bool
	var output, namespace string
	cmd := &cobra.Command{
		Use:   "delete (KIND NAME | -f FILE|DIR|-)",
		Short: "Remove objects",
		Long: `Delete removes one object by kind and name, or all objects of the given documents.
All of them are removed or none: one that is not there, or that somebody else owns,
is a fault.`,
		Example: `  meridian --data ./hub delete Site north
  meridian --data ./hub delete -f mesh.yaml --dry-run`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := siteapi.DeleteRequest{DryRun: dryRun}
			switch {
			case len(args) == 2 && len(files) == 0:
				kind, err := kindOf(args[0])
				if err != nil {
					return err
				}
				req.Keys = []mesh.Key{{Kind: kind, Namespace: namespace, Name: args[1]}}
			case len(args) == 0 && len(files) > 0:
				sources, err := manifest.Read(files, cmd.InOrStdin())
				if err != nil {
					return err
				}
				objects, err := parse(cmd, sources)
				if err != nil {
					return err
				}
				for key := range objects.All() {
					req.Keys = append(req.Keys, key)
				}
			default:
				return errUsage{errors.New("what to delete? Give KIND and NAME, or -f")}
			}
			res, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) { return c.Delete(ctx, req) })
			if err != nil {
				return err
			}
			return printResult(cmd, output, res)
		},
	}
	filesFlag(cmd, &files, "whose objects to delete")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", mesh.DefaultNamespace, "`namespace` of the named object")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, change nothing")
	cmd.ValidArgsFunction = completeObject(e)
	outputFlag(cmd, &output)
	return cmd
}

// parse reads documents; faults are printed and end the verb.
func parse(cmd *cobra.Command, sources []mesh.Source) (*mesh.Objects, error) {
	objects, err := mesh.ParseSources(sources)
	if faults := (*mesh.Faults)(nil); errors.As(err, &faults) {
		printFaults(cmd, faults.List)
		return nil, errRefused
	}
	return objects, err
}
