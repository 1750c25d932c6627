package cluster

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
)

// zoneLabel is a node's zone, its site where no label says more.
const zoneLabel = "topology.kubernetes.io/zone"

type meta struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               string            `json:"uid"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
	OwnerReferences   []owner           `json:"ownerReferences"`
}

type owner struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	Controller bool   `json:"controller"`
}

// controller is who makes a new one of an object that goes; zero for nobody.
func (m *meta) controller() owner {
	for _, o := range m.OwnerReferences {
		if o.Controller {
			return o
		}
	}
	return owner{}
}

type node struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Unschedulable bool `json:"unschedulable"`
	} `json:"spec"`
	Status struct {
		Allocatable map[string]string `json:"allocatable"`
		Conditions  []condition       `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

type container struct {
	Resources struct {
		Requests map[string]string `json:"requests"`
	} `json:"resources"`
}

type pod struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		NodeName      string            `json:"nodeName"`
		SchedulerName string            `json:"schedulerName"`
		NodeSelector  map[string]string `json:"nodeSelector"`
		Containers    []container       `json:"containers"`
		Affinity      struct {
			NodeAffinity struct {
				Required *struct{} `json:"requiredDuringSchedulingIgnoredDuringExecution"`
			} `json:"nodeAffinity"`
		} `json:"affinity"`
		Volumes []struct {
			Claim *struct {
				Name string `json:"claimName"`
			} `json:"persistentVolumeClaim"`
		} `json:"volumes"`
	} `json:"spec"`
	Status struct {
		Phase             string      `json:"phase"`
		Conditions        []condition `json:"conditions"`
		ContainerStatuses []struct {
			Name  string `json:"name"`
			State struct {
				Waiting *struct {
					Reason  string `json:"reason"`
					Message string `json:"message"`
				} `json:"waiting"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

func (p *pod) key() string { return p.Metadata.Namespace + "/" + p.Metadata.Name }

func (p *pod) ready() bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c condition) bool { return c.Type == "Ready" && c.Status == "True" })
}

// over reports whether a pod has ended, or is ending.
func (p *pod) over() bool {
	return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" || p.Metadata.DeletionTimestamp != ""
}

// workload names whose pod it is, as the scheduler's plugin does.
func (p *pod) workload(cluster string) mesh.Workload {
	w := mesh.Workload{Cluster: cluster, Namespace: p.Metadata.Namespace}
	o := p.Metadata.controller()
	w.Name = cmp.Or(p.Metadata.Labels[kube.WorkloadLabel], o.Name)
	if hash := p.Metadata.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" && w.Name == o.Name {
		w.Name = strings.TrimSuffix(o.Name, "-"+hash)
	}
	w.Name = cmp.Or(w.Name, p.Metadata.Labels["app.kubernetes.io/name"], p.Metadata.Labels["app"], p.Metadata.Name)
	return w
}

// Options say how a cluster is read.
type Options struct {
	// Cluster is its name in the traffic matrix.
	Cluster string
	// SiteLabel is the node label that names its site.
	SiteLabel string
	// Scheduler is the one that places pods by traffic: those of others stay.
	Scheduler string
}

// Inventory reads nodes and the pods that run. A pod is pinned where an eviction would
// lose it or could not move it; pinned tells why, by pod.
func (c *Cluster) Inventory(ctx context.Context, o Options) (inv *placement.Inventory, pinned map[string]string, err error) {
	var nodes []node
	if err := list(ctx, c, "/api/v1/nodes", &nodes); err != nil {
		return nil, nil, err
	}
	var pods []pod
	if err := list(ctx, c, "/api/v1/pods", &pods); err != nil {
		return nil, nil, err
	}
	inv, pinned = &placement.Inventory{}, map[string]string{}
	used := map[string]*placement.Resources{}
	for i := range nodes {
		used[nodes[i].Metadata.Name] = &placement.Resources{}
	}
	for i := range pods {
		p := &pods[i]
		if p.over() || used[p.Spec.NodeName] == nil {
			continue // advice is for what runs
		}
		x := placement.Pod{Name: p.key(), Workload: p.workload(o.Cluster), Node: p.Spec.NodeName}
		if x.Request, err = request(p); err != nil {
			return nil, nil, err
		}
		u := used[p.Spec.NodeName]
		u.MilliCPU, u.MemoryBytes, u.Pods = u.MilliCPU+x.Request.MilliCPU, u.MemoryBytes+x.Request.MemoryBytes, u.Pods+1
		if why := stays(p, o.Scheduler); why != "" {
			x.Pinned, pinned[x.Name] = true, why
		}
		inv.Pods = append(inv.Pods, x)
	}
	for i := range nodes {
		n := &nodes[i]
		x := placement.Node{Name: n.Metadata.Name, Site: cmp.Or(n.Metadata.Labels[o.SiteLabel], n.Metadata.Labels[zoneLabel])}
		for key, into := range map[string]*int64{"cpu": &x.Capacity.MilliCPU, "memory": &x.Capacity.MemoryBytes, "pods": &x.Capacity.Pods} {
			v, err := quantity(cmp.Or(n.Status.Allocatable[key], "0"))
			if err != nil {
				return nil, nil, fmt.Errorf("node %s: allocatable %s: %w", x.Name, key, err)
			}
			if key == "cpu" {
				v *= 1000
			}
			*into = int64(v)
		}
		if n.Spec.Unschedulable || !slices.ContainsFunc(n.Status.Conditions, func(c condition) bool { return c.Type == "Ready" && c.Status == "True" }) {
			// It takes no more than it has.
			if x.Capacity = *used[x.Name]; x.Capacity.Pods == 0 {
				continue
			}
		}
		inv.Nodes = append(inv.Nodes, x)
	}
	return inv, pinned, nil
}

// stays says why a pod is not moved, empty where it may be.
func stays(p *pod, scheduler string) string {
	switch o := p.Metadata.controller(); {
	case o.UID == "":
		return "no controller would make it again"
	case o.Kind == "DaemonSet" || o.Kind == "Node":
		return "each node has its own"
	case o.Kind == "Job":
		return "a Job's work would begin anew"
	case p.Metadata.Namespace == "kube-system":
		return "it is of the cluster itself"
	case p.Metadata.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false":
		return "its annotation says that it is not safe to evict"
	case p.Spec.SchedulerName != scheduler:
		return fmt.Sprintf("its scheduler is %s, which does not place by traffic", p.Spec.SchedulerName)
	case len(p.Spec.NodeSelector) > 0 || p.Spec.Affinity.NodeAffinity.Required != nil:
		return "it may run on some nodes only"
	}
	for _, v := range p.Spec.Volumes {
		if v.Claim != nil {
			return "its volume " + v.Claim.Name + " may not follow"
		}
	}
	return ""
}

func request(p *pod) (r placement.Request, err error) {
	for _, c := range p.Spec.Containers {
		for key, into := range map[string]*int64{"cpu": &r.MilliCPU, "memory": &r.MemoryBytes} {
			text := c.Resources.Requests[key]
			if text == "" {
				continue
			}
			v, err := quantity(text)
			if err != nil {
				return r, fmt.Errorf("pod %s: request of %s: %w", p.key(), key, err)
			}
			if key == "cpu" {
				v *= 1000
			}
			*into += int64(math.Ceil(v))
		}
	}
	return r, nil
}

// suffixes of a resource.Quantity.
var suffixes = []struct {
	text string
	by   float64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"Pi", 1 << 50}, {"Ei", 1 << 60},
	{"n", 1e-9}, {"u", 1e-6}, {"m", 1e-3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15}, {"E", 1e18},
}

// quantity reads a resource.Quantity.
func quantity(s string) (float64, error) {
	digits, by := s, 1.0
	for _, x := range suffixes {
		if rest, ok := strings.CutSuffix(s, x.text); ok {
			digits, by = rest, x.by
			break
		}
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0, fmt.Errorf("%q is no quantity", s)
	}
	return v * by, nil
}

// page is how many objects one answer has.
const page = 500

// list reads all objects of a path, page after page.
func list[T any](ctx context.Context, c *Cluster, path string, into *[]T) error {
	for next := ""; ; {
		q := url.Values{"limit": {strconv.Itoa(page)}}
		if next != "" {
			q.Set("continue", next)
		}
		var answer struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := c.do(ctx, "GET", path+"?"+q.Encode(), nil, &answer); err != nil {
			return err
		}
		*into = append(*into, answer.Items...)
		if next = answer.Metadata.Continue; next == "" {
			return nil
		}
	}
}
