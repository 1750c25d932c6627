package placement

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// seeds is how many cases a test takes; the Makefile's sim-placement asks for all.
func seeds(t *testing.T, few int) int {
	t.Helper()
	v := os.Getenv("MERIDIAN_PLACEMENT_SEEDS")
	if v == "" {
		return few
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("MERIDIAN_PLACEMENT_SEEDS is %q, want a number of cases", v)
	}
	return n
}

func socialNetwork(t *testing.T) (*Network, []*traffic.Delays) {
	t.Helper()
	dir := os.Getenv("MERIDIAN_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "social-network")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no measured social network: %v (set MERIDIAN_TESTDATA to the data folder)", err)
	}
	open := func(name string) *os.File {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	n, err := ReadNetwork("DeathStarBench's social network as TraDE measured it (27 services, 9 nodes of 4 cores)",
		open("traffic_forward_kb_per_min.csv"), open("traffic_backward_kb_per_min.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Services) != 27 {
		t.Fatalf("%d services, want 27", len(n.Services))
	}
	var ds []*traffic.Delays
	for _, name := range []string{"delay_matrix_ms.csv", "delay_matrix2_ms.csv"} {
		d, err := traffic.ReadDelaysCSV(open(name))
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	return n, ds
}

func row(t *testing.T, r *Result, rule string) Row {
	t.Helper()
	for _, x := range r.Rows {
		if x.Rule == rule {
			return x
		}
	}
	t.Fatalf("no rule %s", rule)
	return Row{}
}

// The claims of docs/benchmarks.md on the measured network.
func TestSocialNetwork(t *testing.T) {
	n, ds := socialNetwork(t)
	r, err := Compare(n, func(seed uint64) (*traffic.Delays, error) { return ds[seed%2], nil }, seeds(t, 12))
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + r.Markdown())
	batch, online := row(t, r, "ours, batch"), row(t, r, "ours, pod by pod")
	if batch.Ratio > 1.05 {
		t.Errorf("batch costs %.3f times the annealed placement, want 1.05 at most", batch.Ratio)
	}
	if batch.Overfull+online.Overfull > 0 {
		t.Errorf("nodes over capacity in %d and %d cases", batch.Overfull, online.Overfull)
	}
	// Where TraDE overfills nodes its cost may be out of reach for what does not.
	if m := r.Moves; m.Reached < r.Cases*9/10 || m.Ours >= m.TraDE || m.More > m.Fewer/10 {
		t.Errorf("moves for TraDE's gain: %+v of %d cases", m, r.Cases)
	}
	if nm := row(t, r, "NetMARKS"); batch.Ratio >= nm.Ratio {
		t.Errorf("batch %.3f is not better than NetMARKS %.3f", batch.Ratio, nm.Ratio)
	}
}

func TestGenerated(t *testing.T) {
	for _, size := range [][3]int{{60, 20, 6}, {500, 200, 2}} {
		if testing.Short() || os.Getenv("MERIDIAN_PLACEMENT_SEEDS") == "" && size[0] > 100 {
			continue // a minute: make sim-placement
		}
		n := Generate(size[0], uint64(size[0]))
		n.Title += " services on " + strconv.Itoa(size[1]) + " nodes, 4 to a site"
		few := min(seeds(t, 2), size[2])
		r, err := Compare(n, func(seed uint64) (*traffic.Delays, error) { return Sites(size[1], 4, 30, seed) }, few)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("\n" + r.Markdown())
		if b := row(t, r, "ours, batch"); b.Overfull > 0 || b.Ratio > row(t, r, "ours, pod by pod").Ratio {
			t.Errorf("batch: %+v", b)
		}
	}
}

// Two prices of the same placements, written apart.
func TestEvaluatorAgreesWithTheProblem(t *testing.T) {
	d, err := Sites(8, 2, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCase(Generate(20, 3), d, 1)
	if err != nil {
		t.Fatal(err)
	}
	start, _ := Rules[0].Place(c, nil, 1)
	e := newEvaluator(c.Problem, start)
	before, cost := e.around(3, 5), c.Problem.Cost(e.at).WireBytes
	n, m := e.at[3], e.at[5]
	e.put(3, m)
	e.put(5, n)
	got, want := e.around(3, 5)-before, c.Problem.Cost(e.at).WireBytes-cost
	if d := got - want; d > 1e-6 || d < -1e-6 {
		t.Errorf("a swap changes the cost by %v, or by %v", got, want)
	}
}

func TestLatencyFollowsTheCallGraph(t *testing.T) {
	d, err := traffic.ReadDelaysCSV(strings.NewReader("0,1\n3,0\n"))
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{Services: []string{"a", "b", "c"}, Calls: []Call{{0, 1, 1, 1}, {0, 2, 1, 1}, {1, 2, 1, 1}}}
	c, err := NewCase(n, d, 1)
	if err != nil {
		t.Fatal(err)
	}
	// a and c together: a to b 4, b to c 4, a to c 0.
	seq, par := c.LatencyMS(placement.Assignment{0, 1, 0})
	if seq != 8 || par != 8 {
		t.Errorf("sequential %v, parallel %v, want 8 and 8", seq, par)
	}
	seq, par = c.LatencyMS(placement.Assignment{0, 1, 1})
	if seq != 8 || par != 4 {
		t.Errorf("sequential %v, parallel %v, want 8 and 4", seq, par)
	}
}

func TestReadNetworkRefuses(t *testing.T) {
	const good = ",a,b\na,0,1\nb,2,0\n"
	for bad, want := range map[string]string{
		",a,b\na,0,1\n":         "1 rows for 2 columns",
		",a,b\nb,0,1\na,2,0\n":  "row 1 is b, its column a",
		",a,b\na,0,-1\nb,2,0\n": "row a, column b",
		",a,b\na,0,x\nb,2,0\n":  "row a, column b",
		",a,c\na,0,1\nc,2,0\n":  "row 2 is b in one matrix and c in the other",
		"":                      "no rows",
	} {
		if _, err := ReadNetwork("x", strings.NewReader(good), strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}
