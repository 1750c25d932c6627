package plugin

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// groupKey is where a pod group's prices are during its scheduling cycle.
const groupKey fwk.StateKey = Name + ".group"

// GroupPlugin is TrafficAffinity that also has a say in where a pod group goes as a
// whole: of the placements (topology domains) that can take it, the one where its
// traffic costs least gets the most points.
//
// It is a type of its own because kube-scheduler takes whatever implements
// PlacementScorePlugin for one that scores placements, and that extension point is
// alpha (feature gate TopologyAwareWorkloadScheduling, Kubernetes 1.36): without the
// gate the scheduler gets a [Plugin].
type GroupPlugin struct {
	*Plugin
	// mu makes the placements of a cycle, which are scored side by side, share one group.
	mu sync.Mutex
}

var (
	_ fwk.PlacementScorePlugin     = (*GroupPlugin)(nil)
	_ fwk.PlacementScoreExtensions = (*GroupPlugin)(nil)
)

// NewGroup is [New] for a scheduler that schedules pod groups by topology.
func NewGroup(ctx context.Context, obj runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	p, err := New(ctx, obj, h)
	if err != nil {
		return nil, err
	}
	return &GroupPlugin{Plugin: p.(*Plugin)}, nil
}

// group is one pod group's scheduling cycle.
type group struct {
	// why says that nothing is priced, and then every placement is as good.
	why    string
	delays *traffic.Delays
	// members are the group's workloads by what their pods that run and those that wait
	// have with others.
	members map[mesh.Workload]*member

	mu sync.Mutex
	// placed counts the pods that a placement takes.
	placed map[*fwk.Placement]int
}

// Clone returns the group itself: no cycle is tried out from a copy of it.
func (g *group) Clone() fwk.StateData { return g }

// member is a workload of a group.
type member struct {
	// pods are those of the group and those that run: each has an even part of the traffic.
	pods  int
	peers map[mesh.Workload]traffic.Peer
	// costs are those of each node for all of the workload's traffic with pods that run.
	costs []float64
}

// ScorePlacement is what the group's traffic costs where the placement would put its pods,
// the less the better; NormalizePlacementScore turns it round. Traffic that is not known
// costs nothing anywhere, so that others decide.
func (p *GroupPlugin) ScorePlacement(_ context.Context, cs fwk.PodGroupCycleState, of fwk.PodGroupInfo, to *fwk.PodGroupAssignments) (int64, *fwk.Status) {
	g, err := p.groupOf(cs, of)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	if g.why != "" {
		return 0, nil
	}
	g.mu.Lock()
	g.placed[to.Placement] = len(to.ProposedAssignments)
	g.mu.Unlock()
	return scoreOf(g.cost(p.args.Cluster, to.ProposedAssignments)), nil
}

// PlacementScoreExtensions returns the plugin itself.
func (p *GroupPlugin) PlacementScoreExtensions() fwk.PlacementScoreExtensions { return p }

// NormalizePlacementScore gives the cheapest placement the most points and the dearest
// none. A placement that takes fewer pods than another gets none either: what it leaves
// out costs nothing there, and would have to wait.
func (p *GroupPlugin) NormalizePlacementScore(_ context.Context, cs fwk.PodGroupCycleState, of fwk.PodGroupInfo, scores []fwk.PlacementScore) *fwk.Status {
	g, err := p.groupOf(cs, of)
	if err != nil {
		return fwk.AsStatus(err)
	}
	groups.WithLabelValues(g.result()).Inc()
	most := 0
	for _, s := range scores {
		most = max(most, g.placed[s.Placement])
	}
	var costs []float64
	var at []int
	for i, s := range scores {
		if g.placed[s.Placement] == most {
			costs, at = append(costs, float64(s.Score)), append(at, i)
		}
		scores[i].Score = fwk.MinScore
	}
	for i, points := range placement.Points(costs, fwk.MaxScore) {
		scores[at[i]].Score = points
	}
	return nil
}

func (g *group) result() string {
	if g.why != "" {
		return g.why
	}
	return "scored"
}

// groupOf prices a group once for all of its placements, so that all are held to one
// reading of the traffic.
func (p *GroupPlugin) groupOf(cs fwk.PodGroupCycleState, of fwk.PodGroupInfo) (*group, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, err := cs.Read(groupKey); err == nil {
		g, ok := d.(*group)
		if !ok {
			return nil, fmt.Errorf("%s: the group's state is a %T", Name, d)
		}
		return g, nil
	}
	r := p.source.now.Load()
	g := &group{why: p.usable(r)}
	if g.why == "" {
		if err := p.priceGroup(g, r, of.GetUnscheduledPods()); err != nil {
			// Never the group's fault: it is placed as without the plugin.
			p.log.Error("placements are not priced", "group", of.GetNamespace()+"/"+of.GetName(), "err", err)
			g.why = failed
		}
	}
	cs.Write(groupKey, g)
	return g, nil
}

// priceGroup fills g from what runs where and the pods that wait.
func (p *GroupPlugin) priceGroup(g *group, r *reading, pods []*v1.Pod) error {
	nodes, err := p.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	if g.delays, err = p.nodes.between(r, p.args.SiteLabel, nodes); err != nil {
		return err
	}
	waiting := map[mesh.Workload]int{}
	for _, pod := range pods {
		waiting[workloadOf(p.args.Cluster, pod)]++
	}
	g.members = make(map[mesh.Workload]*member, len(waiting))
	g.placed = map[*fwk.Placement]int{}
	g.why = noPeers
	for w := range waiting {
		if m := p.member(g, r, w, waiting, nodes); m != nil {
			g.members[w] = m
			g.why = ""
		}
	}
	return nil
}

// member prices a workload of the group, nil where none of its peers runs or waits.
func (p *GroupPlugin) member(g *group, r *reading, w mesh.Workload, waiting map[mesh.Workload]int, nodes []fwk.NodeInfo) *member {
	peers := r.index.Peers(w)
	if len(peers) == 0 {
		return nil
	}
	s := &state{workload: w, delays: g.delays}
	inside := false
	for _, x := range peers {
		inside = inside || waiting[x.Workload] > 0
	}
	// Without cohesion the siblings do not draw, but share the traffic all the same.
	direct := p.withSiblings(w, peers)
	if *p.args.Cohesion == 0 {
		direct = append(direct[:len(direct):len(direct)], traffic.Peer{Workload: w})
	}
	if !p.find(s, direct, nodes) && !inside {
		if !p.find(s, p.withSiblings(w, beyond(r.index, w, peers)), nodes) {
			return nil
		}
	}
	running := func(x mesh.Workload) (n int) {
		for _, pods := range s.where[x] {
			n += pods
		}
		return n
	}
	m := &member{pods: waiting[w] + running(w), peers: s.peers, costs: make([]float64, len(nodes))}
	placement.NodeCosts(g.delays, s.pulls(func(x mesh.Workload) int { return running(x) + waiting[x] }), m.costs)
	for x, peer := range m.peers {
		if waiting[x] == 0 {
			delete(m.peers, x) // priced
			continue
		}
		n := float64(running(x) + waiting[x])
		m.peers[x] = traffic.Peer{Workload: x, Out: peer.Out / n, In: peer.In / n}
	}
	return m
}

// unknownNode is a node that the delays do not have.
const unknownNode = -1

// cost is what the group's traffic keeps on the wire, in bytes, with its pods where they
// are proposed: all of it with pods that run, and half of it with one another, since
// either end counts it.
func (g *group) cost(cluster string, proposed []fwk.ProposedAssignment) float64 {
	type spot struct {
		workload mesh.Workload
		node     int
	}
	pods := map[spot]float64{}
	var spots []spot // the order of sums is part of the result
	for _, a := range proposed {
		node, ok := g.delays.Node(a.GetNodeName())
		if !ok {
			node = unknownNode
		}
		at := spot{workloadOf(cluster, a.GetPod()), node}
		if pods[at]++; pods[at] == 1 {
			spots = append(spots, at)
		}
	}
	sum := 0.0
	for _, a := range spots {
		m := g.members[a.workload]
		if m == nil {
			continue
		}
		if a.node == unknownNode {
			// It came during the cycle: neither good nor bad is known of it.
			sum += slices.Max(m.costs) * pods[a] / float64(m.pods)
			continue
		}
		each := m.costs[a.node]
		for _, b := range spots {
			x, ok := m.peers[b.workload]
			if !ok || b.node == unknownNode || a.node == b.node {
				continue
			}
			each += pods[b] * (x.Out*g.delays.MS(a.node, b.node) + x.In*g.delays.MS(b.node, a.node)) / 1000 / 2
		}
		sum += each * pods[a] / float64(m.pods)
	}
	return sum
}

// scoreOf puts a price into a whole number.
func scoreOf(cost float64) int64 { return int64(math.Min(cost*costScale, math.MaxInt64/4)) }
