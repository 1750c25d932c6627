package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// watchFlag lets a verb that shows something show it again and again. It is called
// after the command's other flags are there.
func watchFlag(cmd *cobra.Command) {
	var every time.Duration
	f := cmd.Flags()
	f.DurationVarP(&every, "watch", "w", 0, "show it again every 2s, or as often as is said (--watch=5s), until interrupted")
	f.Lookup("watch").NoOptDefVal = "2s"
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !f.Changed("watch") {
			return inner(cmd, args)
		}
		if every < 100*time.Millisecond {
			return errUsage{fmt.Errorf("--watch=%s: at most ten times a second", every)}
		}
		return watch(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), every, func() error { return inner(cmd, args) })
	}
}

// watch shows until it is interrupted. What fails is said and tried again, but for
// wrong usage; on a terminal each picture takes the place of the last.
func watch(ctx context.Context, stdout, stderr io.Writer, every time.Duration, show func() error) error {
	clear := isTerminal(stdout) && os.Getenv("TERM") != "dumb"
	for {
		if clear {
			fmt.Fprint(stdout, "\x1b[H\x1b[2J")
		}
		err := show()
		u := errUsage{}
		switch {
		case err == nil, errors.Is(err, errRefused), ctx.Err() != nil:
		case errors.As(err, &u):
			return err
		default:
			fmt.Fprintf(stderr, "meridian: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// isTerminal reports whether what is written there is seen by a person at once.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
