package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

func placementCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "placement",
		Short: "Say where pods should run, by what they say to each other",
		Long: `Placement prices where pods run by traffic times delay: bytes per second times
seconds, which are the bytes on the wire between nodes at any moment.

Who talks to whom and how far sites are apart is asked of a controller, which knows
it from the mesh's proxies, unless files say it: --matrix (JSON as /traffic of a
controller has it, or CSV with the columns
from,to,requestBytesPerS,responseBytesPerS,requestsPerS) and --delays (ms one way
between sites or nodes: the scheduler's delaysFile (JSON) or a square with names
(CSV)). --inventory (JSON) has the nodes with their capacity and the pods with their
workload and node.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(placementAdvise(e), placementExplain(e), placementSimulate(e), placementApply(e))
	return cmd
}

func byEnding[T any](name string, csv, json func(io.Reader) (T, error)) func(io.Reader) (T, error) {
	if strings.EqualFold(filepath.Ext(name), ".csv") {
		return csv
	}
	return json
}

func readWith[T any](name string, read func(io.Reader) (T, error)) (out T, err error) {
	f, err := os.Open(name)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if out, err = read(f); err != nil {
		return out, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// placed is an assignment's price, for machines.
type placed struct {
	placement.Cost
	CrossSiteBytesPerS float64 `json:"crossSiteBytesPerS"`
}

func priceOf(p *placement.Problem, a placement.Assignment) placed {
	sites, _ := p.CrossBytesPerS(a)
	return placed{p.Cost(a), sites}
}

type adviseMove struct {
	Pod    string  `json:"pod"`
	From   string  `json:"from,omitempty"`
	To     string  `json:"to"`
	Gain   float64 `json:"gainWireBytes"`
	Cost   float64 `json:"costWireBytes"`
	Reason string  `json:"reason"`
}

type adviseAnswer struct {
	// Before and After are missing where there is no inventory to price.
	Before *placed      `json:"before,omitempty"`
	After  *placed      `json:"after,omitempty"`
	Moves  []adviseMove `json:"moves"`
	Why    string       `json:"why,omitempty"`
	// Crossings are reckoned from where pods run, Seen is what proxies saw cross.
	Crossings []placement.Crossing `json:"crossings"`
	Seen      []seenCrossing       `json:"seen,omitempty"`
}

// maxCrossings is how many pairs advice names.
const maxCrossings = 5

func placementAdvise(e *env) *cobra.Command {
	files := placementFiles{env: e}
	var output string
	var o placement.AdviceOptions
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Say which pods are worth moving, and which workloads talk most across sites",
		Long: `Advise looks at where all pods run and at the traffic's mean over 30 minutes. It
names the moves that save more over the horizon than they cost, in an order that
never overfills a node, and the pairs of workloads that talk most across sites: as
the proxies saw it where the matrix has that, and by where pods run. Without an
inventory it names the pairs only.`,
		Example: `  meridian --server http://127.0.0.1:7470 placement advise
  meridian placement advise --inventory cluster.json --matrix matrix.json --delays delays.json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkAdvice(&o); err != nil {
				return err
			}
			seen, err := files.traffic(cmd)
			if err != nil {
				return err
			}
			if files.inventory == "" {
				out := adviseAnswer{Moves: []adviseMove{}, Why: noInventory, Seen: seenOf(seen), Crossings: []placement.Crossing{}}
				return print(cmd, output, out, func(w io.Writer) {
					seenTable(w, out.Seen)
					fmt.Fprintf(w, "\nno moves: %s\n", noInventory)
				})
			}
			p, at, err := files.problem(cmd, seen, traffic.Steady)
			if err != nil {
				return err
			}
			if u := slices.Index(at, placement.Unplaced); u >= 0 {
				return hinted{fmt.Errorf("pod %s runs on no node: advice is for what runs", p.Units[u].Name), "give its node in the inventory, or ask: meridian placement simulate --new-only"}
			}
			a, err := placement.Advise(p, at, o)
			if err != nil {
				return err
			}
			after := slices.Clone(at)
			before := priceOf(p, at)
			out := adviseAnswer{Before: &before, Moves: []adviseMove{}, Why: a.Why, Crossings: p.Crossings(at), Seen: seenOf(seen)}
			out.Crossings = out.Crossings[:min(maxCrossings, len(out.Crossings))]
			nodes := p.Delays.Nodes()
			for _, m := range a.Moves {
				after[m.Unit] = m.To
				out.Moves = append(out.Moves, adviseMove{p.Units[m.Unit].Name, nodes[m.From], nodes[m.To], m.Gain, m.Cost, m.Reason})
			}
			then := priceOf(p, after)
			out.After = &then
			return print(cmd, output, out, func(w io.Writer) { adviseTable(w, &out) })
		},
	}
	files.flags(cmd)
	adviceFlags(cmd, &o)
	outputFlag(cmd, &output)
	return cmd
}

func adviceFlags(cmd *cobra.Command, o *placement.AdviceOptions) {
	fs := cmd.Flags()
	fs.DurationVar(&o.Horizon, "horizon", time.Hour, "how long things are expected to stay as they are")
	fs.DurationVar(&o.Disruption, "disruption", 30*time.Second, "how long a pod that moves counts as far from all its peers")
	fs.Float64Var(&o.MinGain, "min-gain", 0.02, "the least part of the cost that is worth acting on")
	fs.IntVar(&o.MaxMoves, "max-moves", 0, "at most so many moves, the best first; 0: any number")
	fs.Uint64Var(&o.Seed, "seed", 1, "what the search draws from")
}

func checkAdvice(o *placement.AdviceOptions) error {
	if o.Horizon <= 0 || o.Disruption <= 0 || !(o.MinGain > 0 && o.MinGain < 1) || o.MaxMoves < 0 {
		return errUsage{errors.New("want --horizon and --disruption above 0, --min-gain between 0 and 1, --max-moves not negative")}
	}
	return nil
}

func adviseTable(w io.Writer, a *adviseAnswer) {
	priceTable(w, *a.Before, *a.After)
	if len(a.Seen) > 0 {
		fmt.Fprintln(w)
		seenTable(w, a.Seen)
	}
	if len(a.Crossings) > 0 {
		fmt.Fprint(w, "\nACROSS SITES NOW\t\tBYTES/S\tON THE WIRE\n")
	}
	for _, c := range a.Crossings {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.A, c.B, placement.Bytes(c.BytesPerS), placement.Bytes(c.WireBytes))
	}
	if a.Why != "" {
		fmt.Fprintf(w, "\nno advice: %s\n", a.Why)
		return
	}
	fmt.Fprint(w, "\nPOD\tFROM\tTO\tSAVES\tCOSTS\tWHY\n")
	for _, m := range a.Moves {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Pod, m.From, m.To, signedBytes(m.Gain), placement.Bytes(m.Cost), m.Reason)
	}
}

// signedBytes is for gains, which are negative where a move only makes room.
func signedBytes(b float64) string {
	if b < 0 {
		return "-" + placement.Bytes(-b)
	}
	return placement.Bytes(b)
}

func priceTable(w io.Writer, before, after placed) {
	fmt.Fprint(w, "\tNOW\tTHEN\n")
	fmt.Fprintf(w, "bytes on the wire\t%s\t%s\n", placement.Bytes(before.WireBytes), placement.Bytes(after.WireBytes))
	fmt.Fprintf(w, "across sites\t%s/s\t%s/s\n", placement.Bytes(before.CrossSiteBytesPerS), placement.Bytes(after.CrossSiteBytesPerS))
	fmt.Fprintf(w, "over capacity\t%.3g nodes\t%.3g nodes\n", before.Over, after.Over)
}

type explainPeer struct {
	Workload  string  `json:"workload"`
	Node      string  `json:"node"`
	BytesPerS float64 `json:"bytesPerS"`
}

type explainNode struct {
	Node      string  `json:"node"`
	Site      string  `json:"site"`
	Points    int64   `json:"points"`
	WireBytes float64 `json:"wireBytes"`
	Fits      bool    `json:"fits"`
	Here      bool    `json:"here"`
}

type explainAnswer struct {
	Pod      string        `json:"pod"`
	Workload string        `json:"workload"`
	Peers    []explainPeer `json:"peers"`
	Nodes    []explainNode `json:"nodes"`
}

// bestPoints is kube-scheduler's highest score.
const bestPoints = 100

func placementExplain(e *env) *cobra.Command {
	files := placementFiles{env: e}
	var output string
	cmd := &cobra.Command{
		Use:   "explain POD",
		Short: "Say what every node would cost a pod, and which peers decide",
		Long: `Explain prices every node for one pod by the traffic's mean over 5 minutes, all
other pods staying where they are. POINTS is the score for traffic alone, over all
nodes. The scheduler scores only the nodes that its filters leave, adds its other
scores, and with cohesion lets a workload's own pods draw each other.`,
		Example:           `  meridian placement explain cart-7d9f --inventory cluster.json --matrix matrix.csv --delays delays.csv`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, at, err := files.read(cmd, traffic.Recent)
			if err != nil {
				return err
			}
			u := slices.IndexFunc(p.Units, func(u placement.Unit) bool { return u.Name == args[0] })
			if u < 0 {
				return fmt.Errorf("%s: there is no pod %s", files.inventory, args[0])
			}
			prices, peers := p.Explain(at, u, bestPoints)
			nodes := p.Delays.Nodes()
			out := explainAnswer{Pod: args[0], Workload: p.Services[p.Units[u].Service].Workload.String(), Peers: []explainPeer{}}
			for _, x := range peers {
				out.Peers = append(out.Peers, explainPeer{p.Services[x.Service].Workload.String(), nodes[x.Node], x.BytesPerS})
			}
			for _, x := range prices {
				out.Nodes = append(out.Nodes, explainNode{nodes[x.Node], p.Delays.Site(x.Node), x.Points, x.WireBytes, x.Fits, at[u] == x.Node})
			}
			return print(cmd, output, out, func(w io.Writer) { explainPodTable(w, &out) })
		},
	}
	files.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func explainPodTable(w io.Writer, a *explainAnswer) {
	fmt.Fprintf(w, "%s of %s\n", a.Pod, a.Workload)
	if len(a.Peers) == 0 {
		fmt.Fprint(w, "no peer of it runs: all nodes are the same to it\n")
	} else {
		fmt.Fprint(w, "\nPEER\tON\tBYTES/S\n")
	}
	for _, p := range a.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Workload, p.Node, placement.Bytes(p.BytesPerS))
	}
	fmt.Fprint(w, "\nNODE\tSITE\tPOINTS\tON THE WIRE\tROOM\t\n")
	for _, n := range a.Nodes {
		room, here := "yes", ""
		if !n.Fits {
			room = "no"
		}
		if n.Here {
			here = "runs here"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", n.Node, n.Site, n.Points, placement.Bytes(n.WireBytes), room, here)
	}
}

type simulatedPod struct {
	Pod  string `json:"pod"`
	From string `json:"from,omitempty"`
	To   string `json:"to"`
}

type simulateAnswer struct {
	Before placed `json:"before"`
	After  placed `json:"after"`
	// Moved counts pods that had a node and have another.
	Moved int            `json:"moved"`
	Pods  []simulatedPod `json:"pods"`
}

func placementSimulate(e *env) *cobra.Command {
	files := placementFiles{env: e}
	var output string
	var o placement.Options
	var newOnly bool
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Place all pods, or those without a node, and price the result",
		Long: `Simulate places all but the pinned pods by the traffic's mean over 30 minutes, as
if moving cost nothing. What it saves is about the most that moves could bring
(see advise for those that are worth it). With --new-only pods that run stay, and only those
without a node are placed; NOW is then without them.`,
		Example:           `  meridian placement simulate --inventory cluster.json --matrix matrix.csv --delays delays.csv -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, at, err := files.read(cmd, traffic.Steady)
			if err != nil {
				return err
			}
			for u := range p.Units {
				if newOnly && at[u] >= 0 {
					p.Units[u].Pinned = true
				}
			}
			r, err := placement.Assign(p, at, o)
			if err != nil {
				return err
			}
			out := simulateAnswer{Before: priceOf(p, at), After: priceOf(p, r.At), Pods: []simulatedPod{}}
			nodes := p.Delays.Nodes()
			for u, n := range r.At {
				x := simulatedPod{Pod: p.Units[u].Name, To: nodes[n]}
				if b := at[u]; b >= 0 {
					x.From = nodes[b]
					if b != n {
						out.Moved++
					}
				}
				out.Pods = append(out.Pods, x)
			}
			if out.After.Over > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: not everything fits: nodes are over their capacity")
			}
			return print(cmd, output, out, func(w io.Writer) {
				priceTable(w, out.Before, out.After)
				fmt.Fprintf(w, "\nPOD\tNOW\tTHEN\n")
				for _, x := range out.Pods {
					from := x.From
					if from == "" {
						from = "-"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", x.Pod, from, x.To)
				}
			})
		},
	}
	files.flags(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&newOnly, "new-only", false, "place only pods without a node")
	fs.Uint64Var(&o.Seed, "seed", 1, "what the search draws from")
	outputFlag(cmd, &output)
	return cmd
}
