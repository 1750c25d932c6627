package plugin

import (
	"strings"

	"k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// LabelWorkload names a pod's workload where its owner does not.
const LabelWorkload = "mesh.meridian.dev/workload"

// workloadOf is the workload that a pod belongs to: its label, else its controller
// (a ReplicaSet's Deployment), else its app label, else itself.
func workloadOf(cluster string, p *v1.Pod) mesh.Workload {
	w := mesh.Workload{Cluster: cluster, Namespace: p.Namespace}
	if w.Name = p.Labels[LabelWorkload]; w.Name != "" {
		return w
	}
	if o := metav1.GetControllerOfNoCopy(p); o != nil {
		w.Name = o.Name
		if hash := p.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			// In two cuts: joined, the suffix would be built for each pod of each cycle.
			if name, ok := strings.CutSuffix(o.Name, hash); ok {
				if name, ok = strings.CutSuffix(name, "-"); ok {
					w.Name = name
				}
			}
		}
		return w
	}
	for _, l := range []string{"app.kubernetes.io/name", "app"} {
		if w.Name = p.Labels[l]; w.Name != "" {
			return w
		}
	}
	w.Name = p.Name
	return w
}

// siteOf is a node's site: its label, else its zone.
func siteOf(label string, n *v1.Node) string {
	if s := n.Labels[label]; s != "" {
		return s
	}
	return n.Labels[v1.LabelTopologyZone]
}
