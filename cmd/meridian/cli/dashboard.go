package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func dashboardCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Print the address of a site controller's web page",
		Long: `Dashboard prints where a browser on this machine finds the controller's web page: the
map of the mesh as it is seen from that site, each site's services, plans and
proxies, and the buttons to drain and undrain. The page is part of the controller and
loads nothing from elsewhere.

That address is on loopback and needs no login. To others the controller serves the
page over TLS with --dashboard-listen, to the users of a file (meridian dashboard user).`,
		Example: `  meridian --data ./hub dashboard`,
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := e.address()
			if err != nil {
				return err
			}
			if strings.HasPrefix(address, "unix:") {
				return hinted{errors.New("the controller listens on a Unix socket, which browsers cannot open"), "start it with --api 127.0.0.1:PORT"}
			}
			// An address that nobody answers at is no help.
			if _, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) }); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSuffix(address, "/")+"/")
			return err
		},
	}
	cmd.AddCommand(dashboardUserCommand())
	return cmd
}
