// Package cli is the command line of meridian, one file per verb. Verbs that ask
// a mesh speak to one site's controller (siteapi); validate and version work
// without one.
//
// Results go to standard output, errors and hints to standard error. Exit codes:
// 0 done, 1 refused or failed, 2 wrong usage.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// callTimeout bounds what is asked of a controller, unless --timeout says otherwise.
const callTimeout = 20 * time.Second

// hinted is an error that says what to do about it.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error without its hint.
func (h hinted) Unwrap() error { return h.error }

// errRefused ends a verb whose faults have been printed.
var errRefused = errors.New("refused")

// errUsage marks wrong usage that is found only when a verb runs.
type errUsage struct{ error }

// env is what verbs share: where the controller is.
type env struct {
	server, data, context string
	timeout               time.Duration
}

// Main runs one command line and returns the exit code.
func Main(version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := New(version)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ran := false
	root.PersistentPreRun = func(*cobra.Command, []string) { ran = true }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errRefused) {
		return exitFailed
	}
	fmt.Fprintf(stderr, "meridian: %v\n", err)
	if h := (hinted{}); errors.As(err, &h) {
		fmt.Fprintf(stderr, "hint: %s\n", h.hint)
	}
	if u := (errUsage{}); !ran || errors.As(err, &u) {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// New returns the root command with all verbs.
func New(version string) *cobra.Command {
	e := &env{}
	root := &cobra.Command{
		Use:   "meridian",
		Short: "See and change a Meridian mesh",
		Long: `Meridian shows how a mesh of sites shares its load and changes its configuration.

Most verbs ask the controller of one site. It is found by --server or
MERIDIAN_SERVER (http://host:port or unix:/path), by --data or MERIDIAN_DATA
(the data folder of a sitecontroller on this machine), or by a context that was
kept (meridian context).

The exit code is 0 when it was done, 1 when it was refused or failed, 2 for wrong
usage. Results go to standard output, errors and hints to standard error.`,
		Example: `  meridian --data ./hub status
  meridian --server http://127.0.0.1:7470 apply -f mesh.yaml --dry-run
  meridian validate -f mesh/`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	p := root.PersistentFlags()
	p.StringVar(&e.server, "server", os.Getenv("MERIDIAN_SERVER"), "`address` of a site's controller: http://host:port or unix:/path (MERIDIAN_SERVER)")
	p.StringVar(&e.data, "data", os.Getenv("MERIDIAN_DATA"), "data `folder` of a sitecontroller on this machine (MERIDIAN_DATA)")
	p.StringVar(&e.context, "context", os.Getenv("MERIDIAN_CONTEXT"), "`name` of a context, in place of --server and --data (MERIDIAN_CONTEXT); see meridian context")
	p.DurationVar(&e.timeout, "timeout", callTimeout, "how long to wait for the controller's answer")
	root.AddCommand(
		contextCommand(), describeCommand(e), diffCommand(e), editCommand(e), bugReportCommand(e, version),
		statusCommand(e), explainCommand(e), checkCommand(e), certCommand(e), authzCommand(e), topCommand(e), tapCommand(e), traceCommand(e), logsCommand(e), dashboardCommand(e), weightsCommand(e), whatifCommand(e), siteCommand(e), tokenCommand(e), joinCommand(e), backupCommand(e, version), restoreCommand(e), getCommand(e), applyCommand(e), deleteCommand(e),
		validateCommand(), versionCommand(version),
	)
	root.AddCommand(more(e, version)...)
	return root
}

// address is where the controller is: http://host:port or unix:/path.
func (e *env) address() (string, error) {
	server, data := e.server, e.data
	if server == "" && data == "" {
		c, err := contextNamed(e.context)
		if err != nil {
			return "", err
		}
		server, data = c.Server, c.Data
	}
	if server == "" && data != "" {
		r, err := siteapi.ReadRunFile(data)
		if err != nil {
			return "", hinted{err, "start it with: sitecontroller --site NAME --data " + data}
		}
		server = r.API
	}
	if server == "" {
		return "", hinted{errors.New("which controller?"), "give --data DIR of a sitecontroller on this machine, or --server http://host:port (or set MERIDIAN_DATA or MERIDIAN_SERVER, or a context: meridian context set)"}
	}
	return server, nil
}

// client finds the controller.
func (e *env) client() (*siteapi.Client, error) {
	server, err := e.address()
	if err != nil {
		return nil, err
	}
	c, err := siteapi.Dial(server)
	if err != nil {
		return nil, errUsage{err}
	}
	return c, nil
}

// ask calls the controller with a deadline.
func ask[T any](cmd *cobra.Command, e *env, f func(context.Context, *siteapi.Client) (T, error)) (T, error) {
	var zero T
	c, err := e.client()
	if err != nil {
		return zero, err
	}
	if e.timeout <= 0 {
		return zero, errUsage{fmt.Errorf("--timeout %s: want how long to wait", e.timeout)}
	}
	ctx, done := context.WithTimeout(cmd.Context(), e.timeout)
	defer done()
	out, err := f(ctx, c)
	if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil {
		return zero, hinted{fmt.Errorf("no answer within %s", e.timeout), "wait longer with --timeout"}
	}
	if u := (*siteapi.UnreachableError)(nil); errors.As(err, &u) {
		return zero, hinted{err, "is the sitecontroller running, and is this its API address? Its run.json has it"}
	}
	return out, err
}
