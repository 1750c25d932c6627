package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/compare"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
	"github.com/meridian-mesh/meridian/testbed/sim/scenario"
)

// simFlags are the command line of `meridian sim run` and `compare`.
type simFlags struct {
	scenarios, policies []string
	seeds, data, output string
	delays              []float64
	stayHome            float64
	shed                float64
	strict              bool
}

func simCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate how sites share load, and compare sharing rules",
		Long: `Sim runs meshes of sites in virtual time: the product's own decision code (price,
plan, gate, in-band reports), the exact optimum's static weights, a rule that knows
every queue at once, and the published rules of others, all on the same requests.
A run is exact by its seed. Scenarios are shipped or read from YAML files.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(simRunCommand(), simCompareCommand(), simListCommand())
	return cmd
}

func simListCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "list", Short: "List the shipped scenarios and the policies", Args: cobra.NoArgs,
		Example: "  meridian sim list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SCENARIO\tSITES\tWHAT HAPPENS")
			for _, name := range scenario.Names() {
				f, err := scenario.Open(name)
				if err != nil {
					return err
				}
				sites := "needs --data"
				sc, err := f.Build(data)
				switch {
				case err == nil:
					sites = strconv.Itoa(len(sc.Network.Sites))
				case !errors.Is(err, scenario.ErrNoData):
					return err
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", name, sites, f.Title)
			}
			fmt.Fprintf(w, "\nPOLICIES\t\t%s\n", strings.Join(policy.Names(), " "))
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&data, "data", os.Getenv("MERIDIAN_TESTDATA"), "`folder` of real networks: eua, topology-zoo (MERIDIAN_TESTDATA)")
	return cmd
}

func simRunCommand() *cobra.Command {
	f := simFlags{}
	cmd := &cobra.Command{
		Use: "run", Short: "Run one scenario under one policy, beside the optimum", Args: cobra.NoArgs,
		Example: `  meridian sim run
  meridian sim run --scenario ring-cut --policies meridian-bus --seeds 7
  meridian sim run -f mine.yaml -o html > mine.html`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSim(cmd, &f) },
	}
	f.register(cmd, []string{"ring-step"}, []string{policy.NameMeridian, policy.NameOptimum}, "100")
	return cmd
}

func simCompareCommand() *cobra.Command {
	f := simFlags{}
	cmd := &cobra.Command{
		Use: "compare", Short: "Compare policies in scenarios over several seeds", Args: cobra.NoArgs,
		Long: `Compare runs every policy in every scenario with every seed and relates it to the
exact optimum's static weights in the same simulator, switched at the instant of
change. For the product's policies it says which bars are kept; with --strict a
missed bar makes the exit code 1.`,
		Example: `  meridian sim compare
  meridian sim compare --scenario ring-step,ring-cut --delays 0,1,3,5 --seeds 200-207
  meridian sim compare --scenario all --data ../shared/data -o html > report.html`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSim(cmd, &f) },
	}
	f.register(cmd, []string{"ring-step"}, policy.Names(), "100-103")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "fail when the product misses a bar")
	return cmd
}

func (f *simFlags) register(cmd *cobra.Command, scenarios, policies []string, seeds string) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&f.scenarios, "scenario", "f", scenarios, "shipped scenarios by name, `files`, or all")
	fs.StringSliceVar(&f.policies, "policies", policies, "policies to run; waterfall@0.7 and slate@10 set their number")
	fs.StringVar(&f.seeds, "seeds", seeds, "`seeds`: a list or range, such as 1,2 or 100-103")
	fs.Float64SliceVar(&f.delays, "delays", []float64{1}, "how late reports are over the bus, in `periods` of 500 ms")
	fs.Float64Var(&f.stayHome, "stay-home", 0, "the product's h: how many times dearer home may be; 0 for its default")
	fs.Float64Var(&f.shed, "shed-after", 0, "the product refuses requests that would wait longer than this many `ms`; 0 as the scenario says")
	fs.StringVar(&f.data, "data", os.Getenv("MERIDIAN_TESTDATA"), "`folder` of real networks: eua, topology-zoo (MERIDIAN_TESTDATA)")
	fs.StringVarP(&f.output, "output", "o", "table", "table, json, csv or html")
	completeFlag(cmd, "output", "table", "json", "csv", "html")
	completeFlag(cmd, "scenario", append(scenario.Names(), "all")...)
	completeFlag(cmd, "policies", policy.Names()...)
}

// parseSeeds reads 1,2,7-9.
func parseSeeds(s string) ([]uint64, error) {
	var out []uint64
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err := strconv.ParseUint(strings.TrimSpace(from), 10, 32)
		b := a
		if err == nil && ranged {
			b, err = strconv.ParseUint(strings.TrimSpace(to), 10, 32)
		}
		if err != nil || b < a || b-a > 1000 {
			return nil, fmt.Errorf("--seeds %q: want numbers and ranges, such as 1,2 or 100-103", s)
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out, nil
}

// build loads what the flags name. Of "all", what needs absent data is left out
// and named.
func (f *simFlags) build(cmd *cobra.Command) ([]*sim.Scenario, error) {
	names := f.scenarios
	all := len(names) == 1 && names[0] == "all"
	if all {
		names = scenario.Names()
	}
	var out []*sim.Scenario
	for _, name := range names {
		sc, err := scenario.Load(name, f.data)
		if all && errors.Is(err, scenario.ErrNoData) {
			fmt.Fprintf(cmd.ErrOrStderr(), "left out: %v (give --data)\n", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, sc)
	}
	return out, nil
}

func runSim(cmd *cobra.Command, f *simFlags) error {
	write := map[string]func(*compare.Result, io.Writer) error{
		"table": (*compare.Result).Table, "csv": (*compare.Result).CSV, "html": (*compare.Result).HTML,
		"json": func(r *compare.Result, w io.Writer) error {
			enc := json.NewEncoder(w)
			return enc.Encode(r)
		},
	}[f.output]
	if write == nil {
		return errUsage{fmt.Errorf("--output %q is not table, json, csv or html", f.output)}
	}
	seeds, err := parseSeeds(f.seeds)
	if err != nil {
		return errUsage{err}
	}
	for _, d := range f.delays {
		if !(d >= 0 && d <= 20) {
			return errUsage{fmt.Errorf("--delays %v: want 0 to 20 periods", d)}
		}
	}
	for _, p := range f.policies {
		if _, err := policy.New(p, policy.Options{}); err != nil {
			return errUsage{err}
		}
	}
	scenarios, err := f.build(cmd)
	if err != nil {
		return err
	}
	// Runs hold little memory and drop much: collecting it rarely saves a fifth.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	progress := cmd.ErrOrStderr()
	live := columnsOf(progress) != nil
	res, err := compare.Run(ctx, compare.Options{
		Scenarios: scenarios, Policies: f.policies, Seeds: seeds, Delays: f.delays, StayHome: f.stayHome, ShedAfterMS: f.shed,
		Progress: func(done, all int, what string) {
			switch {
			case live:
				fmt.Fprintf(progress, "\r\x1b[K%d of %d runs: %s", done, all, what)
			case done == all || done%max(1, all/10) == 0:
				fmt.Fprintf(progress, "%d of %d runs\n", done, all)
			}
		},
	})
	if live {
		fmt.Fprint(progress, "\r\x1b[K")
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if err := write(res, cmd.OutOrStdout()); err != nil {
		return err
	}
	if missed := res.Missed(); f.strict && len(missed) > 0 {
		return fmt.Errorf("bars missed: %s", strings.Join(missed, "; "))
	}
	return nil
}
