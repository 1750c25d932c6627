package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func getCommand(e *env) *cobra.Command {
	var output, namespace string
	cmd := &cobra.Command{
		Use:   "get [KIND [NAME]]",
		Short: "List objects and who owns them",
		Long: `Get lists the objects that a site's controller knows: the mesh's, which the hub owns,
and the site's own. With -o yaml it prints documents that apply takes.`,
		Example: `  meridian --data ./hub get
  meridian --data ./hub get Site north -o yaml`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := siteapi.GetRequest{Namespace: namespace}
			if len(args) > 0 {
				kind, err := kindOf(args[0])
				if err != nil {
					return err
				}
				r.Kind = kind
			}
			if len(args) > 1 {
				r.Name = args[1]
			}
			list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) { return c.Get(ctx, r) })
			if err != nil {
				return err
			}
			if len(list.Objects) == 0 && r.Name != "" {
				return fmt.Errorf("there is no %s %s at site %s", r.Kind, r.Name, list.Site)
			}
			switch output {
			case outYAML:
				return printDocuments(cmd.OutOrStdout(), list)
			case outName:
				for _, o := range list.Objects {
					fmt.Fprintln(cmd.OutOrStdout(), o.Key)
				}
				return nil
			}
			return print(cmd, output, list, func(w io.Writer) {
				fmt.Fprintln(w, "KIND\tNAMESPACE\tNAME\tOWNER\tNOTE")
				for _, o := range list.Objects {
					note := ""
					if o.Shadowed {
						note = "not in force: another owner has this name"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.Key.Kind, o.Key.Namespace, o.Key.Name, o.Owner, note)
				}
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only this `namespace`")
	cmd.ValidArgsFunction = completeObject(e)
	outputFlag(cmd, &output, outName)
	watchFlag(cmd)
	return cmd
}

func printDocuments(w io.Writer, list *siteapi.Objects) error {
	var buf bytes.Buffer
	for i, o := range list.Objects {
		data, err := yaml.JSONToYAML(o.Object)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key, err)
		}
		if i > 0 {
			buf.WriteString("---\n")
		}
		buf.Write(data)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// kindOf finds a kind whatever its case, in singular or plural.
func kindOf(word string) (string, error) {
	for _, k := range mesh.Kinds() {
		l := strings.ToLower(k)
		plural := l + "s"
		if stem, ok := strings.CutSuffix(l, "y"); ok && !strings.HasSuffix(l, "way") {
			plural = stem + "ies"
		}
		if w := strings.ToLower(word); w == l || w == plural {
			return k, nil
		}
	}
	return "", errUsage{fmt.Errorf("%q is not a kind: want one of %s", word, strings.Join(mesh.Kinds(), ", "))}
}

// completeObject completes KIND, then NAME with what the controller has.
func completeObject(e *env) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return mesh.Kinds(), cobra.ShellCompDirectiveNoFileComp
		case 1:
			kind, err := kindOf(args[0])
			if err != nil {
				break
			}
			list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
				return c.Get(ctx, siteapi.GetRequest{Kind: kind})
			})
			if err != nil {
				break
			}
			var names []string
			for _, o := range list.Objects {
				names = append(names, o.Key.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
