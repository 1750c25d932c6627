package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

func diffCommand(e *env) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Diff compares the given documents with the objects in force at the controller that is
asked, defaults filled in, and shows the lines that apply would take away (-) and
bring (+). Objects that the documents do not name are left alone, as apply does.

The exit code is 0 when apply would change nothing, and 1 when it would.`,
		Example: `  meridian --data ./hub diff -f mesh/`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return errUsage{errors.New("what to compare? Give -f FILE, -f DIR or -f -")}
			}
			sources, err := manifest.Read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			objects, err := parse(cmd, sources)
			if err != nil {
				return err
			}
			if objects.Len() == 0 {
				return errors.New("there is no document in the input")
			}
			live, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
				return c.Get(ctx, siteapi.GetRequest{})
			})
			if err != nil {
				return err
			}
			changed, err := diffObjects(cmd.OutOrStdout(), objects, live)
			if err == nil && changed {
				return errRefused
			}
			return err
		},
	}
	filesFlag(cmd, &files, "what to compare")
	return cmd
}

// diffObjects prints the differences and reports whether there are any.
func diffObjects(w io.Writer, objects *mesh.Objects, live *siteapi.Objects) (changed bool, err error) {
	have := map[mesh.Key]json.RawMessage{}
	for _, o := range live.Objects {
		if !o.Shadowed {
			have[o.Key] = o.Object
		}
	}
	for key, doc := range objects.All() {
		data, err := json.Marshal(doc)
		if err != nil {
			return changed, fmt.Errorf("%s: %w", key, err)
		}
		was := ""
		if old := have[key]; old != nil {
			if was, err = asYAML(old); err != nil {
				return changed, fmt.Errorf("%s: %w", key, err)
			}
		}
		is, err := asYAML(data)
		if err != nil {
			return changed, fmt.Errorf("%s: %w", key, err)
		}
		if was == is {
			continue
		}
		changed = true
		if was == "" {
			fmt.Fprintf(w, "--- %s does not exist at site %s\n+++ %s\n", key, live.Site, key)
		} else {
			fmt.Fprintf(w, "--- %s at site %s\n+++ %s\n", key, live.Site, key)
		}
		if _, err := io.WriteString(w, diffLines(was, is)); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func asYAML(data []byte) (string, error) {
	out, err := yaml.JSONToYAML(data)
	return string(out), err
}

// around is how many lines that are the same stand about those that are not.
const around = 3

// diffLines compares two texts line by line, by their longest common subsequence;
// runs of equal lines are cut short.
func diffLines(a, b string) string {
	x, y := lines(a), lines(b)
	common := make([][]int, len(x)+1)
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(x) || j < len(y); {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			out = append(out, "  "+x[i])
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+x[i])
			i++
		default:
			out = append(out, "+ "+y[j])
			j++
		}
	}
	var buf bytes.Buffer
	skipped := false
	for i, l := range out {
		near := false
		for k := max(0, i-around); k <= min(len(out)-1, i+around); k++ {
			near = near || out[k][0] != ' '
		}
		if !near {
			skipped = true
			continue
		}
		if skipped {
			buf.WriteString("  ...\n")
			skipped = false
		}
		buf.WriteString(l + "\n")
	}
	return buf.String()
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
