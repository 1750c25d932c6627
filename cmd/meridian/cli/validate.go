package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

// verdict is what validate prints for programs.
type verdict struct {
	Valid      bool             `json:"valid"`
	Objects    int              `json:"objects"`
	Faults     []mesh.Fault     `json:"faults"`
	Conditions []mesh.Condition `json:"conditions"`
}

func validateCommand() *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIR|-",
		Short: "Check documents without a mesh",
		Long: `Validate reads documents as apply does and prints every fault with file, line and
field. References that lead nowhere among these documents are warnings: what they
name may be elsewhere. It needs no controller.`,
		Example: `  meridian validate -f mesh/
  meridian validate -f - -o json < mesh.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return errUsage{errors.New("what to validate? Give -f FILE, -f DIR or -f -")}
			}
			sources, err := manifest.Read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			v := verdict{Valid: true, Faults: []mesh.Fault{}, Conditions: []mesh.Condition{}}
			objects, err := mesh.ParseSources(sources)
			if faults := (*mesh.Faults)(nil); errors.As(err, &faults) {
				v.Valid, v.Faults = false, faults.List
			} else if err != nil {
				return err
			} else if v.Objects = objects.Len(); v.Objects == 0 {
				v.Valid, v.Faults = false, []mesh.Fault{{Message: "there is no document in the input"}}
			} else {
				v.Conditions = append(v.Conditions, mesh.Check(objects)...)
			}
			if output == outTable {
				printConditions(cmd, v.Conditions)
				printFaults(cmd, v.Faults)
			}
			if !v.Valid && output == outTable {
				fmt.Fprintf(cmd.ErrOrStderr(), "meridian: %s\n", count(len(v.Faults), "fault"))
				return errRefused
			}
			err = print(cmd, output, v, func(w io.Writer) { fmt.Fprintf(w, "%s, no fault\n", count(v.Objects, "object")) })
			if err == nil && !v.Valid {
				return errRefused
			}
			return err
		},
	}
	filesFlag(cmd, &files, "what to check")
	outputFlag(cmd, &output)
	return cmd
}
