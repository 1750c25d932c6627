package plugin

import (
	"strings"
	"testing"
	"time"

	"k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// fakeHandle gives the nodes of a snapshot.
type fakeHandle struct {
	fwk.Handle
	fwk.SharedLister
	fwk.NodeInfoLister
	nodes []fwk.NodeInfo
}

func (h *fakeHandle) SnapshotSharedLister() fwk.SharedLister { return h }
func (h *fakeHandle) NodeInfos() fwk.NodeInfoLister          { return h }
func (h *fakeHandle) List() ([]fwk.NodeInfo, error)          { return h.nodes, nil }

type fakeGroup struct{ pods []*v1.Pod }

func (g fakeGroup) GetUnscheduledPods() []*v1.Pod { return g.pods }
func (g fakeGroup) GetName() string               { return "g" }
func (g fakeGroup) GetNamespace() string          { return "shop" }

type fakeProposal struct {
	pod  *v1.Pod
	node string
}

func (p fakeProposal) GetPod() *v1.Pod     { return p.pod }
func (p fakeProposal) GetNodeName() string { return p.node }

// placements are what each of them would do: the nodes of the group's pods in order,
// empty where it has no room.
func placements(t *testing.T, p *Plugin, apps []string, nodes []*fakeNode, to ...string) (costs, points []int64) {
	t.Helper()
	h := &fakeHandle{}
	for _, n := range nodes {
		h.nodes = append(h.nodes, n)
	}
	p.handle = h
	g := &GroupPlugin{Plugin: p}
	var of fakeGroup
	for _, a := range apps {
		of.pods = append(of.pods, pod(a))
	}
	cs := &fakeCycle{group: true}
	var scores []fwk.PlacementScore
	for _, x := range to {
		a := &fwk.PodGroupAssignments{Placement: &fwk.Placement{Name: x}}
		for i, n := range strings.Split(x, ",") {
			if n != "" {
				a.ProposedAssignments = append(a.ProposedAssignments, fakeProposal{of.pods[i], n})
			}
		}
		s, st := g.ScorePlacement(t.Context(), cs, of, a)
		if !st.IsSuccess() {
			t.Fatalf("ScorePlacement: %v", st)
		}
		costs = append(costs, s)
		scores = append(scores, fwk.PlacementScore{Placement: a.Placement, Score: s})
	}
	if st := g.PlacementScoreExtensions().NormalizePlacementScore(t.Context(), cs, of, scores); !st.IsSuccess() {
		t.Fatalf("NormalizePlacementScore: %v", st)
	}
	for _, s := range scores {
		points = append(points, s.Score)
	}
	return costs, points
}

func TestGroupScores(t *testing.T) {
	for _, c := range []struct {
		name    string
		matrix  string
		age     time.Duration
		running []string // apps on a1, b1, c1 and the second node of c
		group   []string
		to      []string
		costs   []int64 // thousandths of a byte on the wire
		points  []int64
	}{
		// cart exchanges 2 MB/s with web, user 2 kB/s; 10 ms from a to b, 30 to c.
		{"near the chatty peer", matrix, 0, []string{"cart", "", "", ""}, []string{"web", "web"}, []string{"b1,b1", "c1,c2", "a1,a1"},
			[]int64{20_000_000, 60_000_000, 0}, []int64{67, 0, 100}},
		{"a peer on another node of the site", matrix, 0, []string{"", "", "cart", ""}, []string{"web"}, []string{"c2", "c1"},
			[]int64{1_000_000, 0}, []int64{0, 100}},
		// Half of web's traffic with cart goes to the one that waits, wherever that goes.
		{"peers inside the group", matrix, 0, []string{"cart", "", "", ""}, []string{"web", "cart"}, []string{"b1,b1", "b1,c1", "a1,a1"},
			[]int64{10_000_000, 10_000_000 + 20_000_000, 0}, nil},
		{"the whole group at one node", matrix, 0, []string{"", "", "", ""}, []string{"web", "cart"}, []string{"b1,b1", "c1,c2", "a1,b1"},
			[]int64{0, 1_000_000, 20_000_000}, []int64{100, 95, 0}},
		{"one that leaves a pod out is no bargain", matrix, 0, []string{"cart", "", "", ""}, []string{"web", "web"}, []string{"a1,", "c1,c1"},
			nil, []int64{0, 100}},
		{"through a peer that runs nowhere", matrix, 0, []string{"user", "", "", ""}, []string{"cart"}, []string{"a1", "c1"},
			nil, []int64{100, 0}},
		{"stale", matrix, 2 * time.Minute, []string{"cart", "", "", ""}, []string{"web", "web"}, []string{"a1,a1", "c1,"}, []int64{0, 0}, []int64{100, 100}},
		{"absent", "", 0, []string{"cart", "", "", ""}, []string{"web"}, []string{"a1", "c1"}, []int64{0, 0}, []int64{100, 100}},
		{"unknown workload", matrix, 0, []string{"cart", "", "", ""}, []string{"other"}, []string{"a1", "c1"}, []int64{0, 0}, []int64{100, 100}},
		{"a node that came meanwhile", matrix, 0, []string{"cart", "", "", ""}, []string{"web"}, []string{"new", "b1"}, []int64{60_000_000, 20_000_000}, []int64{0, 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, c.matrix, delays)
			none := 0.0
			p.args.Cohesion = &none
			p.clock = func() time.Time { return time.Now().Add(c.age) }
			var nodes []*fakeNode
			for i, site := range []string{"a", "b", "c", "c"} {
				name := []string{"a1", "b1", "c1", "c2"}[i]
				if c.running[i] != "" {
					nodes = append(nodes, node(name, site, c.running[i]))
				} else {
					nodes = append(nodes, node(name, site))
				}
			}
			costs, points := placements(t, p, c.group, nodes, c.to...)
			for i := range c.to {
				if c.costs != nil && max(costs[i]-c.costs[i], c.costs[i]-costs[i]) > 1000 {
					t.Errorf("placement %s costs %d, want %d", c.to[i], costs[i], c.costs[i])
				}
				if c.points != nil && points[i] != c.points[i] {
					t.Errorf("placement %s gets %d points, want %d", c.to[i], points[i], c.points[i])
				}
			}
		})
	}
}
