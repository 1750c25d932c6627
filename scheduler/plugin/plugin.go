// Package plugin is TrafficAffinity, a kube-scheduler plugin that puts a pod near
// what it talks to: every node is priced by the traffic with the peers that run
// (traffic times delay, see scheduler/placement), and the cheapest gets the most
// points. Other plugins go on having their say: this one only scores, but for the
// budgets that a pod asks for itself.
//
// PreFilter prices all nodes once for a pod; Filter and Score look up. Traffic that
// is absent, too old or says nothing of the pod makes the plugin step aside (Skip),
// so a dead source never keeps a pod from running; the counts of
// meridian_scheduler_pods_total and meridian_scheduler_traffic_age_seconds tell, and an
// event on the pod says on what it was decided.
//
// The package imports the scheduler framework's types and not k8s.io/kubernetes.
package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/args"
	"github.com/meridian-mesh/meridian/scheduler/placement"
)

// Name is the plugin's name in a KubeSchedulerConfiguration.
const Name = "TrafficAffinity"

// stateKey is where a pod's prices are during its scheduling cycle.
const stateKey fwk.StateKey = Name

// Plugin is one profile's TrafficAffinity.
type Plugin struct {
	args   *args.Args
	source *source
	handle fwk.Handle
	log    *slog.Logger
	clock  func() time.Time
	nodes  nodes
}

var (
	_ fwk.PreFilterPlugin     = (*Plugin)(nil)
	_ fwk.PreFilterExtensions = (*Plugin)(nil)
	_ fwk.FilterPlugin        = (*Plugin)(nil)
	_ fwk.PreScorePlugin      = (*Plugin)(nil)
	_ fwk.ScorePlugin         = (*Plugin)(nil)
	_ fwk.ScoreExtensions     = (*Plugin)(nil)
	_ fwk.ReservePlugin       = (*Plugin)(nil)
	_ fwk.EnqueueExtensions   = (*Plugin)(nil)
	_ fwk.SignPlugin          = (*Plugin)(nil)
)

// New makes the plugin for the scheduler. Its traffic is refreshed until ctx ends;
// the first reading is tried before New returns, and a source that is not there yet
// is no error.
func New(ctx context.Context, obj runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, err := args.Read(obj)
	if err != nil {
		return nil, err
	}
	log := slog.Default().With("plugin", Name)
	s, err := newSource(ctx, a, log)
	if err != nil {
		return nil, err
	}
	p := &Plugin{args: a, source: s, handle: h, log: log, clock: time.Now}
	watch(s)
	s.refresh(ctx)
	go s.run(ctx)
	return p, nil
}

// Name returns [Name].
func (*Plugin) Name() string { return Name }

// EventsToRegister names what can make room for a pod that a budget refused: pods
// that come or go, and nodes that come or change their site.
func (*Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Add | fwk.Delete}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}},
	}, nil
}

// SignPod keeps pods with known peers out of batches, since where their peers run
// changes from pod to pod. Others are alike when their workload and budgets are.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	r := p.source.now.Load()
	w := workloadOf(p.args.Cluster, pod)
	if p.usable(r) == "" && len(r.index.Peers(w)) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "its node depends on where "+w.String()+"'s peers run")
	}
	return []fwk.SignFragment{
		{Key: Name + ".workload", Value: w.String()},
		{Key: Name + ".budgets", Value: []string{pod.Annotations[AnnotationLatency], pod.Annotations[AnnotationBandwidth]}},
	}, nil
}

// usable says why a reading must not be used, empty where it may be.
func (p *Plugin) usable(r *reading) string {
	switch {
	case r.index == nil:
		return absent
	case p.clock().Sub(r.at) > p.args.MaxAge.Duration:
		return stale
	}
	return ""
}

// PreFilter prices all nodes for a pod.
func (p *Plugin) PreFilter(_ context.Context, cs fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	r := p.source.now.Load()
	why := p.usable(r)
	s := &state{why: why, age: p.clock().Sub(r.at), workload: workloadOf(p.args.Cluster, pod), open: math.Inf(1)}
	if why == "" {
		if err := p.price(s, r, pod, nodes); err != nil {
			// Never the pod's fault: it is placed as without the plugin.
			p.log.Error("nodes are not priced", "pod", pod.Namespace+"/"+pod.Name, "err", err)
			s.why = failed
		}
	}
	cs.Write(stateKey, s)
	if s.fault != nil {
		p.event(pod, v1.EventTypeWarning, "BudgetIgnored", s.fault.Error())
	}
	if s.why != "" || s.budget == (budget{}) {
		return nil, fwk.NewStatus(fwk.Skip) // nothing to filter by
	}
	return nil, nil
}

// PreFilterExtensions keep prices right while preemption is tried out.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return p }

// AddPod reckons with one more pod on a node.
func (p *Plugin) AddPod(_ context.Context, cs fwk.CycleState, _ *v1.Pod, added fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return p.change(cs, added, node, 1)
}

// RemovePod reckons with one less.
func (p *Plugin) RemovePod(_ context.Context, cs fwk.CycleState, _ *v1.Pod, removed fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return p.change(cs, removed, node, -1)
}

func (p *Plugin) change(cs fwk.CycleState, pod fwk.PodInfo, node fwk.NodeInfo, by int) *fwk.Status {
	s, err := stateOf(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if s.why != "" {
		return nil
	}
	s.count(workloadOf(p.args.Cluster, pod.GetPod()), node.Node().Name, by)
	s.reprice()
	return nil
}

// Filter refuses nodes that break a budget of the pod's own.
func (p *Plugin) Filter(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	s, err := stateOf(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if s.why != "" {
		return nil
	}
	if why := s.refuses(node.Node().Name); why != "" {
		return fwk.NewStatus(fwk.Unschedulable, why)
	}
	return nil
}

// PreScore steps aside where there is nothing to say.
func (p *Plugin) PreScore(_ context.Context, cs fwk.CycleState, _ *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	s, err := stateOf(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if s.why != "" {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// costScale keeps fractions of a byte on the wire in a whole number.
const costScale = 1000

// Score is the node's price, the less the better; NormalizeScore turns it round.
func (p *Plugin) Score(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := stateOf(cs)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	c, ok := s.cost(node.Node().Name)
	if !ok {
		// A node that came during the cycle: neither good nor bad is known of it.
		c = s.dearest()
	}
	return scoreOf(c), nil
}

// ScoreExtensions returns the plugin itself.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore gives the cheapest node the most points and the dearest none.
func (p *Plugin) NormalizeScore(_ context.Context, cs fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	s, err := stateOf(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	costs := make([]float64, len(scores))
	for i := range scores {
		costs[i] = float64(scores[i].Score)
		s.open = min(s.open, costs[i]/costScale)
	}
	for i, points := range placement.Points(costs, fwk.MaxScore) {
		scores[i].Score = points
	}
	return nil
}

// Reserve tells what the pod's node was decided on: an event on the pod, and a count.
func (p *Plugin) Reserve(_ context.Context, cs fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	s, err := stateOf(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if cs.IsPodGroupSchedulingCycle() {
		return nil // tried on; what comes of it is reserved once more
	}
	placed.WithLabelValues(s.result()).Inc()
	switch s.why {
	case "":
		// An event is a write to the API server, a fifth of what placing a pod costs.
		if p.args.Events == args.EventsAll || p.args.Events == args.EventsNotable && s.notable(node) {
			p.event(pod, v1.EventTypeNormal, "TrafficPlaced", s.explain(node))
		}
	case absent, stale, failed:
		if p.args.Events != args.EventsNone {
			p.event(pod, v1.EventTypeWarning, "TrafficUnknown", fmt.Sprintf("placed on %s without traffic: %s", node, s.explainAbsence(p.args.MaxAge.Duration)))
		}
	}
	return nil
}

// Unreserve takes the count back: the pod did not get the node after all.
func (p *Plugin) Unreserve(_ context.Context, cs fwk.CycleState, _ *v1.Pod, _ string) {
	if cs.IsPodGroupSchedulingCycle() {
		return
	}
	placed.WithLabelValues("unreserved").Inc()
}

func (p *Plugin) event(pod *v1.Pod, kind, reason, text string) {
	if p.handle == nil {
		return
	}
	if rec := p.handle.EventRecorder(); rec != nil {
		rec.Eventf(pod, nil, kind, reason, "Scheduling", "%s", text)
	}
}

// peerName prints a workload without a cluster that is this one.
func peerName(cluster string, w mesh.Workload) string {
	if w.Cluster == cluster {
		w.Cluster = ""
	}
	return w.String()
}
