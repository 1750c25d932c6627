package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/store"
)

const (
	defaultTokenTTL = time.Hour
	joinTimeout     = 30 * time.Second
)

func joinCommand(e *env) *cobra.Command {
	var where place
	prepare := false
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this machine a site of a mesh, and run it",
		Long: `Join asks the hub that made the token to take this site in. The site makes a key of
its own, of which only the public half leaves; the hub is checked by the hash of its
CA in the token. What the site needs is written into its data folder (--data, by
default a folder of the site's name here), and the sitecontroller on it is started in
place of this command. A token works once; after an error the same command may be
repeated.`,
		Example: `  meridian join meridian1.eyJ... --location 145.0,-37.7 --gateway 10.2.0.1:15443
  meridian join meridian1.eyJ... --data /var/lib/meridian --prepare`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := join.ParseToken(args[0])
			if err != nil {
				return errUsage{err}
			}
			document, err := where.document(t.Site)
			if err != nil {
				return err
			}
			dir := e.data
			if dir == "" {
				dir = t.Site
			}
			if err := joinFolder(cmd.Context(), dir, t, document); err != nil {
				return err
			}
			program, err := sibling("sitecontroller")
			if prepare || err != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "site %s has joined. Start it:\n  sitecontroller --data %s\n", t.Site, absolute(dir))
				if !prepare {
					return err
				}
				return nil
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "site %s has joined; running %s --data %s\n", t.Site, program, absolute(dir))
			err = syscall.Exec(program, []string{program, "--data", absolute(dir)}, os.Environ())
			return fmt.Errorf("run %s: %w", program, err)
		},
	}
	cmd.Flags().BoolVar(&prepare, "prepare", false, "join and say how to start the sitecontroller, but do not start it")
	where.flags(cmd)
	return cmd
}

func joinFolder(ctx context.Context, dir string, t join.Token, document string) (err error) {
	folder, err := store.Open(dir)
	if err != nil {
		return err
	}
	// Closed before the sitecontroller takes the folder over.
	defer func() { err = errors.Join(err, folder.Close()) }()
	ctx, done := context.WithTimeout(ctx, joinTimeout)
	defer done()
	_, err = join.Join(ctx, folder, t, document)
	return err
}

// sibling finds a program beside this one, or else in the path.
func sibling(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", hinted{fmt.Errorf("%s is neither beside meridian nor in the path", name), "install it, then run the command above"}
	}
	return p, nil
}
