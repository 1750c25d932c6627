package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/backup"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

func backupCommand(e *env, version string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "backup -o FILE",
		Short: "Save what a site cannot get back from others",
		Long: `Backup writes the keys, the settings and the configuration of the site whose data
folder is given (--data) into one file. Its controller must be running, and may go on.
For a hub that is the mesh's configuration, its CA and the list of the sites that
joined. The file holds secrets: it is made readable for you alone; keep it so.`,
		Example: `  meridian --data ./centre backup -o centre.backup`,
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.data == "" {
				return errUsage{errors.New("of which site? Give --data DIR: a backup reads the data folder itself")}
			}
			if file == "" {
				return errUsage{errors.New("into which file? Give -o FILE")}
			}
			b, err := backup.Take(e.data)
			if err != nil {
				return err
			}
			objects, err := ask(cmd, &env{data: e.data, timeout: e.timeout}, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
				return c.Get(ctx, siteapi.GetRequest{})
			})
			if err != nil {
				return err
			}
			b.Site, b.Taken, b.Version, b.Revision = objects.Site, time.Now().UTC(), version, objects.Revision
			for _, o := range objects.Objects {
				if o.Owner == objects.Owner {
					b.Objects = append(b.Objects, backup.Object{Key: o.Key, Value: o.Object})
				}
			}
			data, err := b.Encode()
			if err != nil {
				return err
			}
			if err := store.WriteFile(file, data, 0o600); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "site %s: %s and %s in %s\n", b.Site, count(len(b.Objects), "object"), count(len(b.Files), "file"), file)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output-file", "o", "", "the `file` to write")
	return cmd
}

func restoreCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a site's data folder of a backup",
		Long: `Restore makes a data folder (--data), which must be empty, of a backup. The controller
that is started on it takes the lost one's place: its sites and nodes know it by its
keys, and follow it because it is a new incarnation, whatever they heard since the
backup was taken. What was configured after that is gone, at every site.

Be sure that the old controller does not come back: there would be two.`,
		Example: `  meridian --data ./centre restore centre.backup && sitecontroller --data ./centre`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.data == "" {
				return errUsage{errors.New("into which folder? Give --data DIR")}
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			b, err := backup.Decode(data)
			if err != nil {
				return err
			}
			if err := b.Restore(e.data, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "site %s as of %s, %s. Start it:\n  sitecontroller --data %s\n",
				b.Site, b.Taken.Local().Format("2006-01-02 15:04:05"), count(len(b.Objects), "object"), absolute(e.data))
			return nil
		},
	}
}
