package cli

import "github.com/spf13/cobra"

// more are the verbs that need no controller to be there: each in its own file.
func more(version string) []*cobra.Command {
	return []*cobra.Command{demoCommand(version), demoBackendCommand(), simCommand(), chainCommand(), functionCommand()}
}
