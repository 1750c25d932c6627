package plugin

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/meridian-mesh/meridian/scheduler/args"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// SortName is the name of the queue sort plugin.
const SortName = "TrafficSort"

// sortWithin is the span in which pods count as having come together. It bounds
// how long a pod may be overtaken by chattier ones that come after it.
const sortWithin = 10 * time.Second

// Sort orders the pods that wait: by priority, then by when they came, and among
// those of the same ten seconds by traffic: the workload that exchanges most first,
// then always the one that exchanges most with those before it, so that what talks
// is placed in a row while there is room side by side. Without usable traffic it is
// Kubernetes' own order (PrioritySort).
//
// The ranks change with the traffic, and a queue that was sorted by older ranks
// stays as it is until its pods move: the order is a wish, not a promise.
type Sort struct {
	args   *args.Args
	source *source
	ranks  atomic.Pointer[ranked]
}

type ranked struct {
	index *traffic.Index
	of    traffic.Ranks
}

var _ fwk.QueueSortPlugin = (*Sort)(nil)

// NewSort makes the plugin for the scheduler. Its args are those of TrafficAffinity,
// of which it reads the sources of traffic and maxAge.
func NewSort(ctx context.Context, obj runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	a, err := args.Read(obj)
	if err != nil {
		return nil, err
	}
	s, err := newSource(ctx, a, slog.Default().With("plugin", SortName))
	if err != nil {
		return nil, err
	}
	s.refresh(ctx)
	go s.run(ctx)
	return &Sort{args: a, source: s}, nil
}

// Name returns [SortName].
func (*Sort) Name() string { return SortName }

// Less reports that a is to be placed before b.
func (s *Sort) Less(a, b fwk.QueuedPodInfo) bool {
	p, q := a.GetPodInfo().GetPod(), b.GetPodInfo().GetPod()
	if x, y := corev1.PodPriority(p), corev1.PodPriority(q); x != y {
		return x > y
	}
	at, bt := a.GetTimestamp(), b.GetTimestamp()
	if x, y := at.Truncate(sortWithin), bt.Truncate(sortWithin); !x.Equal(y) {
		return x.Before(y)
	}
	if r := s.current(); r != nil {
		x, y := r.Of(workloadOf(s.args.Cluster, p)), r.Of(workloadOf(s.args.Cluster, q))
		if x != y {
			return x < y
		}
	}
	return at.Before(bt)
}

// current are the ranks by the newest traffic, nil where that must not be used.
func (s *Sort) current() traffic.Ranks {
	r := s.source.now.Load()
	if r.index == nil || time.Since(r.at) > s.args.MaxAge.Duration {
		return nil
	}
	k := s.ranks.Load()
	if k == nil || k.index != r.index {
		k = &ranked{r.index, r.index.Ranks()}
		s.ranks.Store(k)
	}
	return k.of
}
