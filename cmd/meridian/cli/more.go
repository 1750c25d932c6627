package cli

import "github.com/spf13/cobra"

// more are the verbs that need no controller to be there: each in its own file.
func more(string) []*cobra.Command {
	return nil
}
