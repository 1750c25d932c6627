package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/meridian-mesh/meridian/controller/login"
	"github.com/meridian-mesh/meridian/internal/durable"
)

func dashboardUserCommand() *cobra.Command {
	var file, role string
	var remove bool
	cmd := &cobra.Command{
		Use:   "user NAME",
		Short: "Write who may log in to a controller's page from elsewhere",
		Long: `User adds a user to the file that sitecontroller --dashboard-users names, or replaces
the one of that name. The password is asked for on a terminal, and else is the first line
of the standard input; the file keeps its hash (bcrypt). A running controller reads the
file again when it changes: the sessions of a user that was removed, or has another
password, end at once.

Roles: view looks at everything; operate also drains, cordons, undrains and pins; admin
changes anything that the command line can.`,
		Example: `  meridian dashboard user ann --role operate --file /etc/meridian/dashboard-users
  meridian dashboard user ann --remove --file /etc/meridian/dashboard-users`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if file == "" {
				return errUsage{errors.New("which file? Give --file FILE, that of sitecontroller --dashboard-users")}
			}
			r, err := login.ParseRole(role)
			if err != nil {
				return errUsage{err}
			}
			data, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			users, err := login.ParseUsers(data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			_, there := users[name]
			if remove {
				if !there {
					return fmt.Errorf("%s has no user %s", file, name)
				}
				if err := durable.WriteFile(file, withoutUser(data, name), 0o600); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "user %s is removed\n", name)
				return err
			}
			password, err := askPassword(cmd)
			if err != nil {
				return err
			}
			u, err := login.NewUser(name, r, password, login.Cost)
			if err != nil {
				return err
			}
			data = withoutUser(data, name)
			if len(data) > 0 && data[len(data)-1] != '\n' {
				data = append(data, '\n')
			}
			if err := durable.WriteFile(file, append(data, u.String()+"\n"...), 0o600); err != nil {
				return err
			}
			verb := "added"
			if there {
				verb = "replaced"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "user %s is %s: %s\n", name, verb, r)
			return err
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "the `file` of users; it is made where it is not there")
	cmd.Flags().StringVar(&role, "role", string(login.View), "what the user may do: view, operate or admin")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the user out of the file")
	completeFlag(cmd, "role", string(login.View), string(login.Operate), string(login.Admin))
	return cmd
}

// withoutUser leaves out a user's line; comments and the others stay as they are.
func withoutUser(data []byte, name string) []byte {
	lines := slices.Collect(bytes.Lines(data))
	lines = slices.DeleteFunc(lines, func(line []byte) bool {
		words := strings.Fields(string(line))
		return len(words) > 0 && words[0] == name
	})
	return bytes.Join(lines, nil)
}

// askPassword asks twice on a terminal, where it is not shown.
func askPassword(cmd *cobra.Command) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var said [2]string
	for i, prompt := range []string{"password: ", "again: "} {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		data, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		said[i] = string(data)
	}
	if said[0] != said[1] {
		return "", errors.New("the two are not the same: nothing was changed")
	}
	return said[0], nil
}
