package plugin

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Why a pod is placed without regard to traffic.
const (
	absent  = "absent"
	stale   = "stale"
	failed  = "failed"
	noPeers = "no-peers"
)

// state is one pod's scheduling cycle.
type state struct {
	why      string
	age      time.Duration
	workload mesh.Workload
	budget   budget
	fault    error

	// second says that peers are those of the peers, since none of them runs yet.
	second bool

	delays *traffic.Delays
	peers  map[mesh.Workload]traffic.Peer
	// where counts the running pods of each peer by node index.
	where map[mesh.Workload]map[int]int
	costs []float64
	// open is the least price of the nodes that the pod could have had, set when they
	// are scored; +Inf where there was no choice.
	open float64
}

// Clone copies what AddPod and RemovePod change.
func (s *state) Clone() fwk.StateData {
	c := *s
	c.costs = slices.Clone(s.costs)
	c.where = make(map[mesh.Workload]map[int]int, len(s.where))
	for w, m := range s.where {
		c.where[w] = maps.Clone(m)
	}
	return &c
}

func stateOf(cs fwk.CycleState) (*state, error) {
	d, err := cs.Read(stateKey)
	if err != nil {
		return nil, fmt.Errorf("%s: read the cycle's state: %w", Name, err)
	}
	s, ok := d.(*state)
	if !ok {
		return nil, fmt.Errorf("%s: the cycle's state is a %T", Name, d)
	}
	return s, nil
}

// price fills s from what runs where.
func (p *Plugin) price(s *state, r *reading, pod *v1.Pod, nodes []fwk.NodeInfo) error {
	peers := r.index.Peers(s.workload)
	if len(peers) == 0 {
		s.why = noPeers
		return nil
	}
	s.budget, s.fault = budgetOf(pod)
	var err error
	if s.delays, err = p.nodes.between(r, p.args.SiteLabel, nodes); err != nil {
		return err
	}
	if !p.find(s, p.withSiblings(s.workload, peers), nodes) {
		// The first pods of an application: where the peers of its peers run is where
		// its peers will be drawn to.
		s.second = true
		if !p.find(s, p.withSiblings(s.workload, beyond(r.index, s.workload, peers)), nodes) {
			s.why = noPeers
			return nil
		}
	}
	s.costs = make([]float64, len(nodes))
	s.reprice()
	return nil
}

// find counts the running pods of peers by node and reports whether there is one.
func (p *Plugin) find(s *state, peers []traffic.Peer, nodes []fwk.NodeInfo) (found bool) {
	s.peers = make(map[mesh.Workload]traffic.Peer, len(peers))
	s.where = make(map[mesh.Workload]map[int]int, len(peers))
	spaces := map[string]bool{}
	for _, x := range peers {
		s.peers[x.Workload] = x
		spaces[x.Workload.Namespace] = true
	}
	for i, n := range nodes {
		for _, w := range p.nodes.on(p.args.Cluster, n) {
			if spaces[w.Namespace] && s.has(w) {
				s.add(w, i, 1)
				found = true
			}
		}
	}
	return found
}

// withSiblings adds the workload's own pods to its peers, by a part of its traffic:
// they talk to the same peers, so those that are yet to come will be drawn to them.
func (p *Plugin) withSiblings(w mesh.Workload, peers []traffic.Peer) []traffic.Peer {
	total := 0.0
	for _, x := range peers {
		total += x.Out + x.In
	}
	if *p.args.Cohesion == 0 || total == 0 {
		return peers
	}
	half := *p.args.Cohesion * total / 2
	return append(slices.Clip(peers), traffic.Peer{Workload: w, Out: half, In: half})
}

// beyond are the peers of a workload's peers, each by the lesser of the two flows.
func beyond(ix *traffic.Index, of mesh.Workload, peers []traffic.Peer) []traffic.Peer {
	at := map[mesh.Workload]int{}
	var out []traffic.Peer
	for _, p := range peers {
		for _, q := range ix.Peers(p.Workload) {
			if q.Workload == of {
				continue
			}
			i, ok := at[q.Workload]
			if !ok {
				i = len(out)
				at[q.Workload] = i
				out = append(out, traffic.Peer{Workload: q.Workload})
			}
			out[i].Out += min(p.Out, q.Out)
			out[i].In += min(p.In, q.In)
		}
	}
	return out
}

func (s *state) has(w mesh.Workload) bool { _, ok := s.peers[w]; return ok }

func (s *state) add(w mesh.Workload, node, by int) {
	m := s.where[w]
	if m == nil {
		m = map[int]int{}
		s.where[w] = m
	}
	if m[node] += by; m[node] <= 0 {
		delete(m, node)
	}
}

// count reckons with a pod that comes (1) or goes (-1).
func (s *state) count(w mesh.Workload, node string, by int) {
	if i, ok := s.delays.Node(node); ok && s.has(w) {
		s.add(w, i, by)
	}
}

// reprice prices all nodes: each peer shares its traffic out over its pods.
func (s *state) reprice() {
	placement.NodeCosts(s.delays, s.pulls(func(w mesh.Workload) (pods int) {
		for _, n := range s.where[w] {
			pods += n
		}
		return pods
	}), s.costs)
}

// pulls are those of the pods that run, of which each has an even part of its workload's
// traffic; among lists how many pods share it.
func (s *state) pulls(among func(mesh.Workload) int) []placement.Pull {
	var pulls []placement.Pull
	for w, x := range s.peers {
		pods := among(w)
		for node, n := range s.where[w] {
			share := float64(n) / float64(pods)
			pulls = append(pulls, placement.Pull{Node: node, Out: x.Out * share, In: x.In * share})
		}
	}
	// The order of sums is part of the result.
	slices.SortFunc(pulls, func(a, b placement.Pull) int {
		if a.Node != b.Node {
			return a.Node - b.Node
		}
		return int(math.Copysign(1, a.Out-b.Out))
	})
	return pulls
}

func (s *state) cost(node string) (float64, bool) {
	i, ok := s.delays.Node(node)
	if !ok {
		return 0, false
	}
	return s.costs[i], true
}

func (s *state) dearest() float64 { return slices.Max(s.costs) }

// refuses says why a node breaks a budget, empty where it does not.
func (s *state) refuses(node string) string {
	i, ok := s.delays.Node(node)
	if !ok || s.second {
		return ""
	}
	across := 0.0
	for _, w := range slices.SortedFunc(maps.Keys(s.where), mesh.Workload.Compare) {
		if w == s.workload {
			continue
		}
		nearest := math.Inf(1)
		pods, away := 0, 0
		for j, n := range s.where[w] {
			nearest = math.Min(nearest, s.delays.MS(i, j)+s.delays.MS(j, i))
			pods += n
			if s.delays.SiteIndex(i) != s.delays.SiteIndex(j) {
				away += n
			}
		}
		if pods == 0 {
			continue
		}
		if s.budget.rttMS > 0 && nearest > s.budget.rttMS {
			return fmt.Sprintf("the nearest pod of %s is %.3g ms away and back, its latency budget is %.3g ms", peerName(s.workload.Cluster, w), nearest, s.budget.rttMS)
		}
		x := s.peers[w]
		across += (x.Out + x.In) * float64(away) / float64(pods)
	}
	if s.budget.bytesPerS > 0 && across > s.budget.bytesPerS {
		return fmt.Sprintf("it would exchange %s/s with other sites, its bandwidth budget is %s/s", placement.Bytes(across), placement.Bytes(s.budget.bytesPerS))
	}
	return ""
}

// result names how the pod was placed, for the count.
func (s *state) result() string {
	if s.why != "" {
		return s.why
	}
	if s.second {
		return "scored-by-peers-of-peers"
	}
	return "scored"
}

// notable reports that a node costs more than the least that was open to the pod by a
// tenth of the range: others had a say. A cheaper node that is full is no news of its
// own: pods that talk fill one node after the other.
func (s *state) notable(node string) bool {
	c, ok := s.cost(node)
	return ok && c > s.open+(slices.Max(s.costs)-slices.Min(s.costs))/10
}

// explain says what speaks for a node.
func (s *state) explain(node string) string {
	i, ok := s.delays.Node(node)
	if !ok {
		return "placed on " + node
	}
	best := 0
	for n := range s.costs {
		if s.costs[n] < s.costs[best] {
			best = n
		}
	}
	var heaviest mesh.Workload
	most := -1.0
	for w := range s.where {
		x := s.peers[w]
		if b := x.Out + x.In; w != s.workload && len(s.where[w]) > 0 && (b > most || b == most && w.Compare(heaviest) < 0) {
			heaviest, most = w, b
		}
	}
	text := fmt.Sprintf("on %s its traffic keeps %s on the wire", node, placement.Bytes(s.costs[i]))
	if best != i && s.costs[best] < s.costs[i] {
		text += fmt.Sprintf(" (the least is %s, on %s)", placement.Bytes(s.costs[best]), s.delays.Nodes()[best])
	} else {
		text += ", the least of all nodes"
	}
	if most < 0 {
		return text + fmt.Sprintf("; of what it talks to only its own replicas run; traffic is %s old", s.age.Round(time.Second))
	}
	nearest := math.Inf(1)
	for j := range s.where[heaviest] {
		nearest = math.Min(nearest, s.delays.MS(i, j)+s.delays.MS(j, i))
	}
	indirect := ""
	if s.second {
		indirect = " (through a peer that does not run yet)"
	}
	return text + fmt.Sprintf("; most of it is %s/s with %s%s, %.3g ms away and back; traffic is %s old", placement.Bytes(most), peerName(s.workload.Cluster, heaviest), indirect, nearest, s.age.Round(time.Second))
}

func (s *state) explainAbsence(maxAge time.Duration) string {
	switch s.why {
	case stale:
		return fmt.Sprintf("what is known is %s old, more than maxAge (%s)", s.age.Round(time.Second), maxAge)
	case failed:
		return "nodes could not be priced (the scheduler's log says why)"
	}
	return "none is known yet"
}
