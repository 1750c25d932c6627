package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/demo"
	"github.com/meridian-mesh/meridian/testbed/emu"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// demoFlags are the command line of `meridian demo`.
type demoFlags struct {
	duration           time.Duration
	seed               uint64
	sites, maxSites    int
	policies           []string
	sitesCSV, usersCSV string
	fault, output      string
	keep               bool
}

func demoCommand(version string) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a small mesh on this machine and measure how its sites share load",
		Long: `Demo starts a mesh of real processes on this machine: a hub, and per site a
controller, a proxy and HTTP backends, joined by relays that add the delay of the
real distance. Users then send requests to their nearest site, in four phases: calm;
hotspot, where one site gets about twice what it can serve; slow, where another
site works three times longer on each request; recovery. The same requests are
sent under each sharing policy in turn, and a table compares what the users saw.

It needs no root and no fixed port, and everything it starts ends with it. The
binaries meridian, edgeproxy and sitecontroller must be in one folder.

Progress goes to standard error, the result to standard output. The exit code is 0
when the mesh ran and 1 when something failed.`,
		Example: `  meridian demo
  meridian demo --duration 1m --policies cooperative,none
  meridian demo --policies cooperative --fault controllers
  meridian demo -o json > result.json
  meridian demo --sites-csv site-optus-melbCBD.csv --users-csv users-melbcbd-generated.csv --max-sites 8`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, &f, version) },
	}
	fs := cmd.Flags()
	fs.DurationVar(&f.duration, "duration", 30*time.Second, "length of one policy's run, at least 15s")
	fs.Uint64Var(&f.seed, "seed", 1, "what the arrivals, their work and the users' positions are drawn from")
	fs.IntVar(&f.sites, "sites", 6, "how many sites of the embedded topology to use, 3 to 6")
	fs.StringSliceVar(&f.policies, "policies", report.Policies(), "sharing policies to run, in this order")
	fs.BoolVar(&f.keep, "keep", false, "keep the temporary folder with all files and logs")
	fs.StringVarP(&f.output, "output", "o", "table", "table or json")
	fs.StringVar(&f.sitesCSV, "sites-csv", "", "take the sites from a `file` with columns SITE_ID, LATITUDE, LONGITUDE, NAME (EUA data sets)")
	fs.StringVar(&f.usersCSV, "users-csv", "", "take the users from a `file` with columns Latitude, Longitude (EUA data sets)")
	fs.IntVar(&f.maxSites, "max-sites", 8, "with --sites-csv: how many sites to take, those nearest the middle of all")
	fs.StringVar(&f.fault, "fault", "", "break something during the hotspot: controllers kills the hub and the controllers of the two sites involved")
	completeFlag(cmd, "policies", report.Policies()...)
	completeFlag(cmd, "output", "table", "json")
	completeFlag(cmd, "fault", demo.FaultControllers)
	return cmd
}

func runDemo(cmd *cobra.Command, f *demoFlags, version string) error {
	if f.output != "table" && f.output != "json" {
		return errUsage{fmt.Errorf("--output %q is not table or json", f.output)}
	}
	topology, err := f.topology()
	if err != nil {
		return err
	}
	progress := cmd.ErrOrStderr()
	opts := demo.Options{
		Topology: topology, Duration: f.duration, Seed: f.seed, Policies: f.policies, Fault: f.fault, Keep: f.keep, Version: version,
		View: demo.NewView(progress, columnsOf(progress), os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"),
	}
	if err := opts.Validate(); err != nil {
		return errUsage{err}
	}
	// The relays and the generator each hold a thread of the scheduler; what else
	// runs here must not wait for them.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	ctx, stop := signal.NotifyContext(cmd.Context(), ends...)
	defer stop()
	// A second signal ends this process at once, and with it all that it started.
	context.AfterFunc(ctx, func() { signal.Reset(ends...) })
	rep, err := demo.Run(ctx, opts)
	if ctx.Err() != nil {
		return errors.New("interrupted; all that the demo started has ended")
	}
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if f.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(rep)
	}
	_, err = io.WriteString(out, rep.Table())
	return err
}

// topology is the mesh that the flags ask for.
func (f *demoFlags) topology() (*topo.Topology, error) {
	if (f.sitesCSV == "") != (f.usersCSV == "") {
		return nil, errUsage{errors.New("--sites-csv and --users-csv belong together: give both or none")}
	}
	if f.sitesCSV == "" {
		t := topo.Default(f.seed)
		if f.sites < 3 || f.sites > len(t.Sites) {
			return nil, errUsage{fmt.Errorf("--sites %d: the embedded topology has %d sites and the scenario needs 3; more come from --sites-csv", f.sites, len(t.Sites))}
		}
		return t.First(f.sites), nil
	}
	if f.maxSites < 3 {
		return nil, errUsage{fmt.Errorf("--max-sites %d: the scenario needs at least 3 sites", f.maxSites)}
	}
	sites, err := os.Open(f.sitesCSV)
	if err != nil {
		return nil, fmt.Errorf("--sites-csv: %w", err)
	}
	defer sites.Close()
	users, err := os.Open(f.usersCSV)
	if err != nil {
		return nil, fmt.Errorf("--users-csv: %w", err)
	}
	defer users.Close()
	return topo.FromEUA(topo.Input{Name: f.sitesCSV, Reader: sites}, topo.Input{Name: f.usersCSV, Reader: users}, f.maxSites, f.seed)
}

// columnsOf tells the width of the terminal that w writes to, nil when it is none.
func columnsOf(w io.Writer) func() int {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return func() int {
		size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
		if err != nil || size.Col == 0 {
			return 80 // a terminal that does not say
		}
		return int(size.Col)
	}
}

// demoBackendCommand is one site's backends, a process of the demo.
func demoBackendCommand() *cobra.Command {
	var cfg emu.Config
	var runFile string
	cmd := &cobra.Command{
		Use:    "demo-backend",
		Short:  "Serve as one site's backends in the demo",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return emu.Run(ctx, cfg, runFile)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&cfg.Site, "site", "", "`name` of the site, told in responses")
	fs.IntVar(&cfg.Endpoints, "endpoints", 1, "how many servers share the slots")
	fs.IntVar(&cfg.Slots, "slots", 1, "how many requests are worked on at once")
	fs.DurationVar(&cfg.ServiceTime, "service-time", 20*time.Millisecond, "mean time of one request")
	fs.Uint64Var(&cfg.Seed, "seed", 1, "what the work of requests that do not say theirs is drawn from")
	fs.StringVar(&runFile, "run-file", "", "`file` to write the addresses to")
	for _, name := range []string{"site", "run-file"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag above is missing
		}
	}
	return cmd
}
