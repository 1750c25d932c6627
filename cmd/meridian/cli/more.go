package cli

import "github.com/spf13/cobra"

// more are the verbs that, or most of whose verbs, need no controller to be there:
// each in its own file.
func more(e *env, version string) []*cobra.Command {
	return []*cobra.Command{demoCommand(version), demoBackendCommand(), simCommand(), chainCommand(e), functionCommand(), placementCommand(e), configCommand(e)}
}
