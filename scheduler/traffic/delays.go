package traffic

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// MaxDelayMS is the longest delay that is believed, a minute.
const MaxDelayMS = 60e3

// Delays holds the time that a byte takes between any two nodes, in milliseconds
// one way. Nodes of one site share a row. The zero value has no nodes.
type Delays struct {
	nodes []string
	index map[string]int
	site  []int
	sites []string
	ms    []float64 // between sites, row from; NaN where not known
	// far is what is taken where nothing is known: the longest known one.
	far     float64
	unknown int
}

// Measured is what was measured between sites, as people write it.
type Measured struct {
	// Nodes gives each node's site.
	Nodes map[string]string `json:"nodes"`
	// Sites names the rows and columns of OneWayMS.
	Sites []string `json:"sites"`
	// OneWayMS[i][j] is the delay from Sites[i] to Sites[j] in ms, half a round trip
	// where only that is known. A negative number means that nothing is known; the
	// longest known delay is taken then. The diagonal is the delay between two nodes
	// of the site; on the node itself it is 0.
	OneWayMS [][]float64 `json:"oneWayMs"`
}

// ReadMeasuredJSON reads a [Measured], strictly: a field that is not known is an
// error. [NewDelays] says what numbers are believed.
func ReadMeasuredJSON(r io.Reader) (*Measured, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var m Measured
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("delay matrix: %w", err)
	}
	return &m, nil
}

// ReadDelaysJSON reads a [Measured]; node order is that of names.
func ReadDelaysJSON(r io.Reader, nodes []string) (*Delays, error) {
	m, err := ReadMeasuredJSON(r)
	if err != nil {
		return nil, err
	}
	return NewDelays(nodes, func(n string) string { return m.Nodes[n] }, m.Sites, m.OneWayMS)
}

// ReadDelaysCSV reads what [ReadMeasuredCSV] reads as delays between nodes, each
// of which is its own site.
func ReadDelaysCSV(r io.Reader) (*Delays, error) {
	m, err := ReadMeasuredCSV(r)
	if err != nil {
		return nil, err
	}
	return NewDelays(m.Sites, func(n string) string { return n }, m.Sites, m.OneWayMS)
}

// ReadMeasuredCSV reads a square of numbers, ms one way from the row's site to the
// column's. A first row and column of names may lead it; otherwise the sites are
// node-1, node-2 and so on.
func ReadMeasuredCSV(r io.Reader) (*Measured, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("delay matrix: %w", err)
	}
	var names []string
	if len(rows) > 0 && strings.TrimSpace(rows[0][0]) == "" {
		names = rows[0][1:]
		rows = rows[1:]
	}
	ms := make([][]float64, len(rows))
	order := make([]string, 0, len(rows))
	for i, row := range rows {
		if names != nil {
			order = append(order, row[0])
			row = row[1:]
		} else {
			order = append(order, fmt.Sprintf("node-%d", i+1))
		}
		for j, cell := range row {
			v, err := strconv.ParseFloat(strings.TrimSpace(cell), 64)
			if err != nil {
				return nil, fmt.Errorf("delay matrix: row %d, column %d: %q is not a number of milliseconds", i+1, j+1, cell)
			}
			ms[i] = append(ms[i], v)
		}
	}
	if names != nil {
		// Rows may come in another order than columns.
		at := map[string]int{}
		for i, n := range order {
			at[n] = i
		}
		sorted := make([][]float64, len(names))
		for i, n := range names {
			j, ok := at[n]
			if !ok {
				return nil, fmt.Errorf("delay matrix: column %q has no row", n)
			}
			sorted[i] = ms[j]
		}
		ms, order = sorted, names
	}
	return &Measured{Sites: order, OneWayMS: ms}, nil
}

// NewDelays makes the delays of nodes, in that order, from those between sites.
// siteOf names a node's site; a site that is not in sites, or "", has no known
// delay to any other. A NaN, infinite or too long delay is refused; a negative one
// means that nothing is known.
func NewDelays(nodes []string, siteOf func(node string) string, sites []string, oneWayMS [][]float64) (*Delays, error) {
	d := &Delays{nodes: nodes, index: make(map[string]int, len(nodes)), far: 0}
	for i, n := range nodes {
		if _, twice := d.index[n]; twice {
			return nil, fmt.Errorf("delay matrix: node %q is there twice", n)
		}
		d.index[n] = i
	}
	if len(oneWayMS) != len(sites) {
		return nil, fmt.Errorf("delay matrix: %d sites but %d rows", len(sites), len(oneWayMS))
	}
	at := map[string]int{}
	for i, s := range sites {
		if _, twice := at[s]; twice {
			return nil, fmt.Errorf("delay matrix: site %q is there twice", s)
		}
		at[s] = i
		if len(oneWayMS[i]) != len(sites) {
			return nil, fmt.Errorf("delay matrix: row %d (%s) has %d numbers, want one for each of %d sites", i+1, s, len(oneWayMS[i]), len(sites))
		}
		for j, v := range oneWayMS[i] {
			if math.IsNaN(v) || math.IsInf(v, 0) || v > MaxDelayMS {
				return nil, fmt.Errorf("delay matrix: from %s to %s: %v ms: want 0 to %g, or a negative number where nothing is known", s, sites[j], v, MaxDelayMS)
			}
			d.far = math.Max(d.far, v)
		}
	}
	d.sites = append(d.sites, sites...)
	d.site = make([]int, len(nodes))
	for i, n := range nodes {
		s := siteOf(n)
		k, ok := at[s]
		if !ok {
			// Nodes of one unknown site are near each other all the same.
			k = len(d.sites)
			d.sites = append(d.sites, s)
			if s != "" {
				at[s] = k
			}
		}
		d.site[i] = k
	}
	n := len(d.sites)
	d.ms = make([]float64, n*n)
	for i := range n {
		for j := range n {
			v := -1.0
			if i < len(sites) && j < len(sites) {
				v = oneWayMS[i][j]
			} else if i == j {
				v = 0
			}
			if v < 0 {
				v = d.far
				d.unknown++
			}
			d.ms[i*n+j] = v
		}
	}
	return d, nil
}

// MS is the delay from node i to node j, one way: 0 on the node itself.
func (d *Delays) MS(i, j int) float64 {
	if i == j {
		return 0
	}
	return d.ms[d.site[i]*len(d.sites)+d.site[j]]
}

// Nodes are the nodes in order; the caller must not change them.
func (d *Delays) Nodes() []string { return d.nodes }

// Node returns the index of a node.
func (d *Delays) Node(name string) (int, bool) { i, ok := d.index[name]; return i, ok }

// Site names a node's site, empty where it is not known.
func (d *Delays) Site(node int) string { return d.sites[d.site[node]] }

// SiteIndex is the same for two nodes of one site.
func (d *Delays) SiteIndex(node int) int { return d.site[node] }

// Sites is the number of sites that SiteIndex tells apart.
func (d *Delays) Sites() int { return len(d.sites) }

// Between is the delay between two sites by SiteIndex, for two nodes that differ.
func (d *Delays) Between(from, to int) float64 { return d.ms[from*len(d.sites)+to] }

// MaxMS is the longest known delay, which stands in for those that are not known.
func (d *Delays) MaxMS() float64 { return d.far }

// Unknown counts the pairs of sites whose delay is not known.
func (d *Delays) Unknown() int { return d.unknown }
