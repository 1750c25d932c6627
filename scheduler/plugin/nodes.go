package plugin

import (
	"slices"
	"sync"

	"k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// nodes keeps what the last cycles found out of the nodes, since from one pod to the next
// hardly any of them changes. Its methods may be called from any goroutine.
type nodes struct {
	mu sync.Mutex
	// running are the workloads of each node's pods.
	running map[string]running
	// delays are those between objects, by the reading from.
	delays  *traffic.Delays
	from    *reading
	objects []*v1.Node
}

// running is true of a node as long as its generation, which the scheduler counts on with
// every change of the node or its pods, is the same.
type running struct {
	generation int64
	pods       []mesh.Workload
}

// between returns the delays between the nodes of a cycle, in their order.
func (k *nodes) between(r *reading, label string, infos []fwk.NodeInfo) (*traffic.Delays, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from == r && len(k.objects) == len(infos) {
		same := true
		for i, n := range infos {
			// An object is never changed, it is replaced.
			if same = k.objects[i] == n.Node(); !same {
				break
			}
		}
		if same {
			return k.delays, nil
		}
	}
	objects := make([]*v1.Node, len(infos))
	names := make([]string, len(infos))
	sites := make(map[string]string, len(infos))
	for i, n := range infos {
		objects[i] = n.Node()
		names[i] = objects[i].Name
		sites[names[i]] = siteOf(label, objects[i])
	}
	d, err := traffic.NewDelays(names, func(n string) string { return sites[n] }, r.sites.Sites, r.sites.OneWayMS)
	if err != nil {
		return nil, err
	}
	k.delays, k.from, k.objects = d, r, objects
	for name := range k.running {
		if _, there := sites[name]; !there {
			delete(k.running, name)
		}
	}
	return d, nil
}

// on returns the workloads of a node's pods that are to stay, one for each pod.
func (k *nodes) on(cluster string, n fwk.NodeInfo) []mesh.Workload {
	name, generation := n.Node().Name, n.GetGeneration()
	k.mu.Lock()
	defer k.mu.Unlock()
	was, known := k.running[name]
	if known && was.generation == generation {
		return was.pods
	}
	now := running{generation: generation, pods: slices.Grow([]mesh.Workload(nil), len(n.GetPods()))}
	for _, q := range n.GetPods() {
		if p := q.GetPod(); p.DeletionTimestamp == nil {
			now.pods = append(now.pods, workloadOf(cluster, p))
		}
	}
	if k.running == nil {
		k.running = map[string]running{}
	}
	k.running[name] = now
	return now.pods
}
