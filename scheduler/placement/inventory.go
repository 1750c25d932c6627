package placement

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Inventory is what there is, as people write it: nodes and the pods on them.
type Inventory struct {
	Nodes []Node `json:"nodes"`
	Pods  []Pod  `json:"pods"`
}

// Node is a node of an [Inventory].
type Node struct {
	Name string `json:"name"`
	// Site names the node's row in the delay matrix, where the matrix does not give
	// the node's site itself.
	Site string `json:"site,omitempty"`
	// Capacity is what it has for the pods of the inventory. What is 0 or left out is
	// not limited, but something must be.
	Capacity Resources `json:"capacity"`
}

// Pod is a pod of an [Inventory].
type Pod struct {
	Name     string        `json:"name"`
	Workload mesh.Workload `json:"workload"`
	// Node is where it runs, empty where it does not yet.
	Node    string  `json:"node,omitempty"`
	Request Request `json:"request"`
	// Pinned pods stay where they are.
	Pinned bool `json:"pinned,omitempty"`
}

// Request is what a pod asks for; it counts as one pod besides.
type Request struct {
	MilliCPU    int64 `json:"milliCPU,omitempty"`
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
}

// unlimited is more than any sum of requests that maxRequest lets pass.
const (
	unlimited  = int64(1) << 60
	maxRequest = int64(1) << 44 // 16 TiB, or 17 billion cores
)

// ReadInventory reads an Inventory, strictly: a field that is not known is an
// error. Faults of syntax name the line, others the node or pod, and all of them
// are told.
func ReadInventory(r io.Reader) (*Inventory, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var raw struct{ Nodes, Pods []json.RawMessage }
	if err := d.Decode(&raw); err != nil {
		if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
			return nil, fmt.Errorf("line %d: %w", lineAt(data, s.Offset), err)
		}
		return nil, err
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("line %d: there is more after the inventory's end", lineAt(data, d.InputOffset()))
	}
	inv := new(Inventory)
	var badNodes, badPods error
	inv.Nodes, badNodes = strict[Node]("nodes", raw.Nodes)
	inv.Pods, badPods = strict[Pod]("pods", raw.Pods)
	if err := errors.Join(badNodes, badPods); err != nil {
		return nil, err
	}
	return inv, inv.check()
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
}

// strict decodes the elements of a list one by one, so that a fault can name its
// element.
func strict[T any](list string, raw []json.RawMessage) ([]T, error) {
	out := make([]T, len(raw))
	var faults []error
	for i, data := range raw {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&out[i]); err != nil {
			faults = append(faults, fmt.Errorf("%s[%d]: %w", list, i, err))
		}
	}
	return out, errors.Join(faults...)
}

func (inv *Inventory) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(inv.Nodes) == 0 {
		fault("nodes: there is none")
	}
	if len(inv.Pods) == 0 {
		fault("pods: there is none")
	}
	nodes := map[string]bool{}
	for i, n := range inv.Nodes {
		switch {
		case n.Name == "":
			fault("nodes[%d]: name is missing", i)
		case nodes[n.Name]:
			fault("node %s: it is there twice", n.Name)
		case n.Capacity == Resources{}:
			fault("node %s: capacity is missing: without it all pods fit on one node; give milliCPU, memoryBytes or pods", n.Name)
		case n.Capacity.negative():
			fault("node %s: capacity %+v is negative", n.Name, n.Capacity)
		}
		nodes[n.Name] = true
	}
	pods := map[string]bool{}
	for i, p := range inv.Pods {
		switch {
		case p.Name == "":
			fault("pods[%d]: name is missing", i)
		case pods[p.Name]:
			fault("pod %s: it is there twice", p.Name)
		case p.Workload.Namespace == "" || p.Workload.Name == "":
			fault("pod %s: workload needs a namespace and a name", p.Name)
		case p.Node != "" && !nodes[p.Node]:
			fault("pod %s: node %s is not among the nodes", p.Name, p.Node)
		case p.Node == "" && p.Pinned:
			fault("pod %s: it is pinned, but to no node", p.Name)
		case p.Request.MilliCPU < 0 || p.Request.MemoryBytes < 0 || p.Request.MilliCPU > maxRequest || p.Request.MemoryBytes > maxRequest:
			fault("pod %s: request %+v: want 0 to %d", p.Name, p.Request, maxRequest)
		}
		pods[p.Name] = true
	}
	return errors.Join(faults...)
}

// Problem joins the inventory with traffic and delays. The assignment is where
// pods run; outside is the traffic in bytes per second that has an end which is
// no pod's workload, and is left out. Units are the pods, in order.
func (inv *Inventory) Problem(m *traffic.Matrix, w traffic.Window, delays *traffic.Measured) (p *Problem, at Assignment, outside float64, err error) {
	p = &Problem{}
	names := make([]string, 0, len(inv.Nodes))
	site := map[string]string{}
	index := map[string]int{}
	var faults []error
	for i, n := range inv.Nodes {
		s := n.Site
		if s == "" {
			s = delays.Nodes[n.Name]
		}
		if s == "" && slices.Contains(delays.Sites, n.Name) {
			s = n.Name
		}
		if !slices.Contains(delays.Sites, s) {
			faults = append(faults, fmt.Errorf("node %s: its site %q has no row in the delay matrix, which has %s: give the node a site", n.Name, s, few(delays.Sites)))
		}
		names, site[n.Name], index[n.Name] = append(names, n.Name), s, i
		c := n.Capacity
		for _, v := range []*int64{&c.MilliCPU, &c.MemoryBytes, &c.Pods} {
			if *v == 0 {
				*v = unlimited
			}
		}
		p.Capacity = append(p.Capacity, c)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, nil, 0, err
	}
	if p.Delays, err = traffic.NewDelays(names, func(n string) string { return site[n] }, delays.Sites, delays.OneWayMS); err != nil {
		return nil, nil, 0, err
	}
	services := map[mesh.Workload]int{}
	for _, x := range inv.Pods {
		s, ok := services[x.Workload]
		if !ok {
			s = len(p.Services)
			services[x.Workload] = s
			p.Services = append(p.Services, Service{Workload: x.Workload})
		}
		p.Units = append(p.Units, Unit{Name: x.Name, Service: s, Pinned: x.Pinned, Request: Resources{x.Request.MilliCPU, x.Request.MemoryBytes, 1}})
		n := Unplaced
		if x.Node != "" {
			n = index[x.Node]
		}
		at = append(at, n)
	}
	for _, e := range m.Edges {
		r := w.Of(e)
		from, known := services[e.From]
		to, both := services[e.To]
		if !known || !both {
			outside += r.BytesPerS()
			continue
		}
		p.Flows = append(p.Flows, Flow{From: from, To: to, Forward: r.RequestBytesPerS, Backward: r.ResponseBytesPerS})
	}
	if len(p.Flows) == 0 {
		seen := "it has no edges"
		if len(m.Edges) > 0 {
			seen = fmt.Sprintf("it tells of %s and the like, pods are of %s", m.Edges[0].From, p.Services[0].Workload)
		}
		return nil, nil, 0, fmt.Errorf("no edge of the traffic matrix is between workloads of the inventory: %s", seen)
	}
	return p, at, outside, p.Check()
}

// few names some of many.
func few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
