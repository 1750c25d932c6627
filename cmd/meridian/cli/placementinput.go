package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// placementFiles are what placement reads: files that flags name, and what they do not
// name of the controller.
type placementFiles struct {
	env                       *env
	inventory, matrix, delays string
}

func (f *placementFiles) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.inventory, "inventory", "", "nodes and pods, a JSON `file`")
	f.trafficFlags(cmd)
}

func (f *placementFiles) trafficFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.matrix, "matrix", "", "traffic between workloads, a JSON or CSV `file`; without it the controller is asked")
	fs.StringVar(&f.delays, "delays", "", "delays between sites or nodes, a JSON or CSV `file`; without it the controller is asked")
}

// seenTraffic is who talks to whom, and how far they are apart.
type seenTraffic struct {
	matrix *traffic.Matrix
	delays *traffic.Measured
}

// oldTraffic is the age from which a site's traffic is worth a warning: three reports
// are missing.
const oldTraffic = 20 * time.Second

// traffic reads the files, and asks the controller for what no file says.
func (f *placementFiles) traffic(cmd *cobra.Command) (s seenTraffic, err error) {
	if f.matrix != "" {
		if s.matrix, err = readWith(f.matrix, byEnding(f.matrix, traffic.ReadCSV, readMatrix)); err != nil {
			return s, err
		}
	}
	if f.delays != "" {
		if s.delays, err = readWith(f.delays, byEnding(f.delays, traffic.ReadMeasuredCSV, traffic.ReadMeasuredJSON)); err != nil {
			return s, err
		}
	}
	missing := "matrix"
	switch {
	case s.matrix != nil && s.delays != nil:
		return s, nil
	case s.matrix != nil:
		missing = "delays"
	}
	if _, err := f.env.client(); err != nil {
		return s, errUsage{fmt.Errorf("--%s is missing, and no controller to ask: %w", missing, err)}
	}
	live, err := ask(cmd, f.env, func(ctx context.Context, c *siteapi.Client) (*siteapi.Traffic, error) { return c.Traffic(ctx) })
	if err != nil {
		return s, err
	}
	if s.matrix == nil {
		if s.matrix, err = believed(live); err != nil {
			return s, err
		}
		warnOfAges(cmd.ErrOrStderr(), live)
	}
	if s.delays == nil {
		s.delays = &traffic.Measured{Sites: live.Delays.Sites, OneWayMS: live.Delays.OneWayMS}
	}
	return s, nil
}

// believed is the matrix that a controller answered with.
func believed(t *siteapi.Traffic) (*traffic.Matrix, error) {
	if len(t.Sites) == 0 {
		return nil, hinted{fmt.Errorf("no site has told who talks to whom"), "proxies tell every 5 s, if a controller gives them their configuration: is there one that runs? Ask: meridian status"}
	}
	m := traffic.Merge(&traffic.Matrix{Edges: t.Edges, Rest: t.Rest})
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("the controller's answer: %w", err)
	}
	return m, nil
}

// warnOfAges says what of the mesh's traffic is missing.
func warnOfAges(w io.Writer, t *siteapi.Traffic) {
	for _, s := range t.Sites {
		if age := time.Duration(s.AgeMS * float64(time.Millisecond)); age > oldTraffic {
			fmt.Fprintf(w, "warning: site %s last told of its traffic %s ago\n", s.Site, age.Round(time.Second))
		}
	}
	if len(t.Silent) > 0 {
		fmt.Fprintf(w, "warning: nothing is known of the traffic of %s: no node there tells of any\n", strings.Join(t.Silent, ", "))
	}
}

// readMatrix reads a matrix, or the answer of a controller that was kept in a file.
func readMatrix(r io.Reader) (*traffic.Matrix, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var kept siteapi.Traffic
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if d.Decode(&kept) == nil && !kept.Now.IsZero() {
		return believed(&kept)
	}
	return traffic.ReadJSON(bytes.NewReader(data))
}

// read makes the problem of the inventory, traffic and delays, and warns of what it
// leaves out.
func (f *placementFiles) read(cmd *cobra.Command, w traffic.Window) (*placement.Problem, placement.Assignment, error) {
	if f.inventory == "" {
		return nil, nil, errUsage{fmt.Errorf("--inventory is missing")}
	}
	s, err := f.traffic(cmd)
	if err != nil {
		return nil, nil, err
	}
	return f.problem(cmd, s, w)
}

func (f *placementFiles) problem(cmd *cobra.Command, s seenTraffic, w traffic.Window) (*placement.Problem, placement.Assignment, error) {
	inv, err := readWith(f.inventory, placement.ReadInventory)
	if err != nil {
		return nil, nil, err
	}
	return problemOf(cmd, inv, s, w)
}

func problemOf(cmd *cobra.Command, inv *placement.Inventory, s seenTraffic, w traffic.Window) (*placement.Problem, placement.Assignment, error) {
	p, at, outside, err := inv.Problem(s.matrix, w, s.delays)
	if err != nil {
		return nil, nil, err
	}
	if outside > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s/s of the matrix are left out: an end is no pod's workload\n", placement.Bytes(outside))
	}
	if n := p.Delays.Unknown(); n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d delays are not known: the longest known one, %s, is taken for them\n", n, millis(p.Delays.MaxMS()))
	}
	return p, at, nil
}

// noInventory is why there are no moves.
const noInventory = "what nodes can hold is not known: give --inventory"

// seenCrossing is what one workload asked of another at other sites, as proxies saw it.
type seenCrossing struct {
	From         mesh.Workload `json:"from"`
	To           mesh.Workload `json:"to"`
	RequestsPerS float64       `json:"requestsPerS"`
	BytesPerS    float64       `json:"bytesPerS"`
	// Of is the part of all that it asked of it.
	Of float64 `json:"of"`
}

func seenOf(s seenTraffic) []seenCrossing {
	var out []seenCrossing
	for _, e := range s.matrix.Crossing(maxCrossings) {
		x := seenCrossing{From: e.From, To: e.To, RequestsPerS: e.Across.RequestsPerS, BytesPerS: e.Across.BytesPerS()}
		if all := e.Steady.BytesPerS(); all > 0 {
			x.Of = min(1, x.BytesPerS/all)
		}
		out = append(out, x)
	}
	return out
}

func seenTable(w io.Writer, seen []seenCrossing) {
	if len(seen) == 0 {
		fmt.Fprintln(w, "no request was served at another site than its caller's")
		return
	}
	fmt.Fprint(w, "SEEN ACROSS SITES\tASKS\tBYTES/S\tREQUESTS/S\tOF ALL\n")
	for _, x := range seen {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3g\t%.0f%%\n", x.From, x.To, placement.Bytes(x.BytesPerS), x.RequestsPerS, 100*x.Of)
	}
}
