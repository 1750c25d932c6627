package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// build describes this program.
type build struct {
	Version   string `json:"version"`
	Revision  string `json:"revision,omitempty"`
	GoVersion string `json:"goVersion"`
	// Wire is the version of messages between processes that it speaks.
	Wire int `json:"wire"`
}

func versionCommand(version string) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program",
		Example:           "  meridian version -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build{Version: version, GoVersion: runtime.Version(), Wire: mesh.Version}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						b.Revision = s.Value
					}
				}
			}
			return print(cmd, output, b, func(w io.Writer) {
				fmt.Fprintf(w, "meridian %s (%s, wire version %d)\n", b.Version, b.GoVersion, b.Wire)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
