package traffic

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Edge, Rest and Rates are what reports between processes carry.
type (
	// Edge is what one workload asks of another.
	Edge = mesh.TrafficEdge
	// Rest is the traffic of one workload that no edge tells of.
	Rest = mesh.TrafficRest
	// Rates are means per second.
	Rates = mesh.TrafficRates
)

// Limits of what is believed: past them a figure is a mistake of units or of a
// counter, not traffic.
const (
	// MaxBytesPerS is 100 Tb/s.
	MaxBytesPerS = 12.5e12
	// MaxRequestsPerS is a billion.
	MaxRequestsPerS = 1e9
	// MaxEdges bounds a matrix that is read from outside.
	MaxEdges = 1 << 20
)

// Matrix is traffic between workloads. Edges are sorted by From and To, without
// repetition, and Rest by Workload; [Matrix.Check] says whether that and the
// numbers are so.
type Matrix struct {
	Edges []Edge `json:"edges"`
	Rest  []Rest `json:"rest,omitempty"`
}

// pair is an edge's key.
type pair struct{ from, to mesh.Workload }

func (p pair) compare(o pair) int {
	return cmp.Or(p.from.Compare(o.from), p.to.Compare(o.to))
}

func keyOf(e Edge) pair { return pair{e.From, e.To} }

// checkRates names the first number of r that cannot be.
func checkRates(r Rates) error {
	for _, f := range []struct {
		name     string
		v, limit float64
	}{
		{"requestsPerS", r.RequestsPerS, MaxRequestsPerS},
		{"requestBytesPerS", r.RequestBytesPerS, MaxBytesPerS},
		{"responseBytesPerS", r.ResponseBytesPerS, MaxBytesPerS},
	} {
		switch {
		case math.IsNaN(f.v) || math.IsInf(f.v, 0):
			return fmt.Errorf("%s is %v: it must be a finite number", f.name, f.v)
		case f.v < 0:
			return fmt.Errorf("%s is %v: it must not be negative", f.name, f.v)
		case f.v > f.limit:
			return fmt.Errorf("%s is %g: more than %g is taken for a mistake of units", f.name, f.v, f.limit)
		}
	}
	return nil
}

// Check returns what is wrong with m, naming the workloads, or nil.
func (m *Matrix) Check() error {
	for i, e := range m.Edges {
		if e.From.Name == "" || e.To.Name == "" {
			return fmt.Errorf("edges[%d]: a workload has no name", i)
		}
		if i > 0 && keyOf(m.Edges[i-1]).compare(keyOf(e)) >= 0 {
			return fmt.Errorf("edges[%d] (%s to %s) is out of order or there twice", i, e.From, e.To)
		}
		if err := checkRates(e.Recent); err != nil {
			return fmt.Errorf("edges[%d] (%s to %s): recent.%w", i, e.From, e.To, err)
		}
		if err := checkRates(e.Steady); err != nil {
			return fmt.Errorf("edges[%d] (%s to %s): steady.%w", i, e.From, e.To, err)
		}
		if err := checkRates(e.Across); err != nil {
			return fmt.Errorf("edges[%d] (%s to %s): across.%w", i, e.From, e.To, err)
		}
	}
	for i, r := range m.Rest {
		if i > 0 && m.Rest[i-1].Workload.Compare(r.Workload) >= 0 {
			return fmt.Errorf("rest[%d] (%s) is out of order or there twice", i, r.Workload)
		}
		for name, rates := range map[string]Rates{"out": r.Out, "in": r.In} {
			if err := checkRates(rates); err != nil {
				return fmt.Errorf("rest[%d] (%s): %s.%w", i, r.Workload, name, err)
			}
		}
	}
	return nil
}

// ReadJSON reads a matrix as [Matrix] is written, in any order of edges; edges of
// the same pair add up. What cannot be is refused.
func ReadJSON(r io.Reader) (*Matrix, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var m Matrix
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("traffic matrix: %w", err)
	}
	if len(m.Edges) > MaxEdges {
		return nil, fmt.Errorf("traffic matrix: %d edges, at most %d are read", len(m.Edges), MaxEdges)
	}
	out := Merge(&m)
	if err := out.Check(); err != nil {
		return nil, fmt.Errorf("traffic matrix: %w", err)
	}
	return out, nil
}

// Merge adds matrices up. The result is the same for any order and grouping of
// what is merged, but for the rounding of sums that the grouping makes: addition
// follows a total order of the numbers, not of the arguments.
func Merge(ms ...*Matrix) *Matrix {
	edges := map[pair][]Edge{}
	rest := map[mesh.Workload][]Rest{}
	for _, m := range ms {
		if m == nil {
			continue
		}
		for _, e := range m.Edges {
			edges[keyOf(e)] = append(edges[keyOf(e)], e)
		}
		for _, r := range m.Rest {
			rest[r.Workload] = append(rest[r.Workload], r)
		}
	}
	out := &Matrix{Edges: make([]Edge, 0, len(edges))}
	for _, k := range slices.SortedFunc(maps.Keys(edges), pair.compare) {
		same := edges[k]
		slices.SortFunc(same, func(a, b Edge) int {
			return cmp.Or(compareRates(a.Recent, b.Recent), compareRates(a.Steady, b.Steady), compareRates(a.Across, b.Across))
		})
		sum := Edge{From: k.from, To: k.to}
		for _, e := range same {
			sum.Recent, sum.Steady, sum.Across = sum.Recent.Plus(e.Recent), sum.Steady.Plus(e.Steady), sum.Across.Plus(e.Across)
		}
		out.Edges = append(out.Edges, sum)
	}
	for _, w := range slices.SortedFunc(maps.Keys(rest), mesh.Workload.Compare) {
		same := rest[w]
		slices.SortFunc(same, func(a, b Rest) int { return cmp.Or(compareRates(a.Out, b.Out), compareRates(a.In, b.In)) })
		sum := Rest{Workload: w}
		for _, r := range same {
			sum.Out, sum.In = sum.Out.Plus(r.Out), sum.In.Plus(r.In)
		}
		out.Rest = append(out.Rest, sum)
	}
	return out
}

func compareRates(a, b Rates) int {
	return cmp.Or(cmp.Compare(a.RequestsPerS, b.RequestsPerS),
		cmp.Compare(a.RequestBytesPerS, b.RequestBytesPerS), cmp.Compare(a.ResponseBytesPerS, b.ResponseBytesPerS))
}

// Total is the recent traffic of all edges and of what is in no edge. Traffic in
// Rest was told of once by each end, so half of both is what flowed.
func (m *Matrix) Total() Rates {
	var edges, rest Rates
	for _, e := range m.Edges {
		edges = edges.Plus(e.Recent)
	}
	for _, r := range m.Rest {
		rest = rest.Plus(r.Out).Plus(r.In)
	}
	return edges.Plus(scaled(rest, 0.5))
}

func scaled(r Rates, by float64) Rates {
	return Rates{RequestsPerS: r.RequestsPerS * by, RequestBytesPerS: r.RequestBytesPerS * by, ResponseBytesPerS: r.ResponseBytesPerS * by}
}

// Bound keeps the edges that are among the k heaviest (recent bytes, then
// requests) of either end, and adds up the others in Rest. Nothing is lost from
// [Matrix.Total]. k below 1 keeps none.
func (m *Matrix) Bound(k int) *Matrix {
	order := make([]int, len(m.Edges))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := m.Edges[a], m.Edges[b]
		return cmp.Or(cmp.Compare(y.Recent.BytesPerS(), x.Recent.BytesPerS()),
			cmp.Compare(y.Recent.RequestsPerS, x.Recent.RequestsPerS), keyOf(x).compare(keyOf(y)))
	})
	rank := map[mesh.Workload]int{}
	dropped := &Matrix{Rest: m.Rest}
	keep := make([]bool, len(m.Edges))
	byEnd := map[mesh.Workload]*Rest{}
	end := func(w mesh.Workload) *Rest {
		if byEnd[w] == nil {
			byEnd[w] = &Rest{Workload: w}
		}
		return byEnd[w]
	}
	for _, i := range order {
		e := m.Edges[i]
		keep[i] = rank[e.From] < k || rank[e.To] < k
		rank[e.From]++
		rank[e.To]++
		if keep[i] {
			continue
		}
		from, to := end(e.From), end(e.To)
		from.Out = from.Out.Plus(e.Recent)
		to.In = to.In.Plus(e.Recent)
	}
	more := &Matrix{}
	for _, r := range byEnd {
		more.Rest = append(more.Rest, *r)
	}
	out := Merge(dropped, more)
	for i, e := range m.Edges {
		if keep[i] {
			out.Edges = append(out.Edges, e)
		}
	}
	return out
}

// Crossing returns the n edges that carry the most steady bytes both ways between
// sites, as the proxies saw it, the heaviest first; edges that stay inside a site are
// not among them.
func (m *Matrix) Crossing(n int) []Edge {
	out := slices.DeleteFunc(slices.Clone(m.Edges), func(e Edge) bool { return e.Across == (Rates{}) })
	slices.SortStableFunc(out, func(a, b Edge) int { return cmp.Compare(b.Across.BytesPerS(), a.Across.BytesPerS()) })
	return out[:min(n, len(out))]
}

// Heaviest returns the n edges of the most steady bytes both ways, the heaviest
// first.
func (m *Matrix) Heaviest(n int) []Edge {
	out := slices.Clone(m.Edges)
	slices.SortStableFunc(out, func(a, b Edge) int { return cmp.Compare(b.Steady.BytesPerS(), a.Steady.BytesPerS()) })
	return out[:min(n, len(out))]
}

// Peer is one workload's traffic with another, seen from the first: Out flows
// from it and In to it, bytes per second, whoever asks.
type Peer struct {
	Workload mesh.Workload
	Out, In  float64
	// RequestsPerS counts requests in both directions.
	RequestsPerS float64
}

// Index finds the peers of a workload. It is immutable.
type Index struct {
	peers map[mesh.Workload][]Peer
	rest  map[mesh.Workload]float64
}

// Window says which mean is meant.
type Window int

// The two means of a matrix.
const (
	Recent Window = iota // about 5 minutes: where a new pod should go
	Steady               // about 30 minutes: whether a move would last
)

// Of returns the mean of e.
func (w Window) Of(e Edge) Rates {
	if w == Steady {
		return e.Steady
	}
	return e.Recent
}

// Index prepares m for lookups by workload. A workload's traffic with itself is
// left out: its replicas seldom talk, and where they do they are spread on purpose.
func (m *Matrix) Index(w Window) *Index {
	type ends struct{ a, b mesh.Workload }
	at := map[ends]int{}
	ix := &Index{peers: map[mesh.Workload][]Peer{}, rest: map[mesh.Workload]float64{}}
	add := func(of, peer mesh.Workload, out, in, requests float64) {
		k := ends{of, peer}
		i, ok := at[k]
		if !ok {
			i = len(ix.peers[of])
			at[k] = i
			ix.peers[of] = append(ix.peers[of], Peer{Workload: peer})
		}
		p := &ix.peers[of][i]
		p.Out, p.In, p.RequestsPerS = p.Out+out, p.In+in, p.RequestsPerS+requests
	}
	for _, e := range m.Edges {
		if e.From == e.To {
			continue
		}
		r := w.Of(e)
		add(e.From, e.To, r.RequestBytesPerS, r.ResponseBytesPerS, r.RequestsPerS)
		add(e.To, e.From, r.ResponseBytesPerS, r.RequestBytesPerS, r.RequestsPerS)
	}
	for _, r := range m.Rest {
		ix.rest[r.Workload] = r.Out.BytesPerS() + r.In.BytesPerS()
	}
	return ix
}

// Peers returns the peers of a workload, which the caller must not change.
func (x *Index) Peers(of mesh.Workload) []Peer { return x.peers[of] }

// Len is the number of workloads with a peer.
func (x *Index) Len() int { return len(x.peers) }

// RestBytesPerS is the traffic of a workload whose other end is not known.
func (x *Index) RestBytesPerS(of mesh.Workload) float64 { return x.rest[of] }
