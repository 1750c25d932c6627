//go:build kube

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	scheduling "k8s.io/api/scheduling/v1alpha2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
)

// groupGates are the alpha gates that pod groups with a topology need in 1.36.
const groupGates = ",GenericWorkload=true,GangScheduling=true,TopologyAwareWorkloadScheduling=true"

// A group of pods whose traffic is with a service of one site, then of another: the whole
// group lands on that site, by its placements' scores alone, since each site has room and
// the scheduler's own scores see no difference. Then the traffic is too old, and the
// group is placed all the same.
func TestPodGroup(t *testing.T) {
	if offered(t) {
		t.Fatal("the plugin scores placements while the gate is off")
	}
	c := startAPI(t, "--feature-gates="+strings.TrimPrefix(groupGates, ","), "--runtime-config=scheduling.k8s.io/v1alpha2=true")
	if !utilfeature.DefaultFeatureGate.Enabled(features.TopologyAwareWorkloadScheduling) || !offered(t) {
		t.Fatal("the plugin scores no placements though the gate is on")
	}
	c.createNodes(t)
	matrix := filepath.Join(c.dir, "matrix.json")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Nine sites in a row, 5 ms from one to the next.
	names, rows := []string{}, []string{}
	for i := range sites {
		names = append(names, fmt.Sprintf("%q", siteName(i)))
		row := []string{}
		for j := range sites {
			row = append(row, fmt.Sprint(0.5+5*float64(max(i-j, j-i))))
		}
		rows = append(rows, "["+strings.Join(row, ",")+"]")
	}
	write("delays.json", fmt.Sprintf(`{"sites":[%s],"oneWayMs":[%s]}`, strings.Join(names, ","), strings.Join(rows, ",")))

	// What the group talks to runs already.
	settled := []*v1.Pod{newPod("north-db-0", "north-db"), newPod("south-db-0", "south-db")}
	settled[0].Spec.NodeName, settled[1].Spec.NodeName = nodeName(1), nodeName(7*nodesPerSite)
	c.create(t, settled)

	for i, x := range []struct {
		name, north, south string
		old                time.Duration
		site, result       string
	}{
		{"north", "2e6", "1e3", 0, siteName(0), "scored"},
		{"south", "1e3", "2e6", 0, siteName(7), "scored"},
		{"stale", "1e3", "2e6", time.Hour, "", "stale"},
	} {
		t.Run(x.name, func(t *testing.T) {
			edge := `{"from":{"namespace":"default","name":"front"},"to":{"namespace":"default","name":"%s-db"},"recent":{"requestsPerS":1,"requestBytesPerS":%s,"responseBytesPerS":%[2]s}}`
			inner := `{"from":{"namespace":"default","name":"front"},"to":{"namespace":"default","name":"side"},"recent":{"requestsPerS":1,"requestBytesPerS":10,"responseBytesPerS":10}}`
			write("matrix.json", `{"edges":[`+fmt.Sprintf(edge, "north", x.north)+","+fmt.Sprintf(edge, "south", x.south)+","+inner+`]}`)
			then := time.Now().Add(-x.old)
			if err := os.Chtimes(matrix, then, then); err != nil {
				t.Fatal(err)
			}
			before := metric(t, `meridian_scheduler_pod_groups_total{result="`+x.result+`"}`)
			podsCounted := func() (n float64) {
				// The first side that is tried on finds no front yet.
				for _, r := range []string{"scored", "scored-by-peers-of-peers", "no-peers", "stale", "unreserved"} {
					n += metric(t, `meridian_scheduler_pods_total{result="`+r+`"}`)
				}
				return n
			}
			beforePods := podsCounted()
			stop := c.startScheduler(t, profile{plugin: true, maxAge: time.Minute, gates: groupGates})
			defer stop()
			group := c.createGroup(t, "shop-"+x.name, 6)
			at := c.bound(t, len(settled)+(i+1)*len(group)).at
			on := map[string]int{}
			for _, p := range group {
				on[at[p.Name][:len("site-0")]]++
			}
			if len(on) != 1 || x.site != "" && on[x.site] == 0 {
				t.Errorf("the group's pods are on %v, want all on %s", on, x.site)
			}
			if got := metric(t, `meridian_scheduler_pod_groups_total{result="`+x.result+`"}`) - before; got != 1 {
				t.Errorf("%v groups are counted as %s, want 1", got, x.result)
			}
			if got := podsCounted() - beforePods; got != float64(len(group)) {
				t.Errorf("%v pods are counted, want %d: those that were tried on do not count", got, len(group))
			}
		})
	}
}

// offered says whether the plugin that the scheduler makes now scores placements.
func offered(t *testing.T) bool {
	t.Helper()
	raw := fmt.Sprintf(`{"matrixFile":%q}`, filepath.Join(t.TempDir(), "none.json"))
	p, err := trafficAffinity(t.Context(), &runtime.Unknown{Raw: []byte(raw), ContentType: runtime.ContentTypeJSON}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return reflect.TypeOf(p).Implements(reflect.TypeFor[fwk.PlacementScorePlugin]())
}

// createGroup makes a pod group that wants all of its pods in one zone: front and side in turns.
func (c *cluster) createGroup(t *testing.T, name string, pods int) []*v1.Pod {
	t.Helper()
	g := &scheduling.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	g.Spec.SchedulingPolicy.Gang = &scheduling.GangSchedulingPolicy{MinCount: int32(pods)}
	g.Spec.SchedulingConstraints = &scheduling.PodGroupSchedulingConstraints{Topology: []scheduling.TopologyConstraint{{Key: v1.LabelTopologyZone}}}
	if _, err := c.client.SchedulingV1alpha2().PodGroups("default").Create(t.Context(), g, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var list []*v1.Pod
	for i := range pods {
		p := newPod(fmt.Sprintf("%s-%d", name, i), []string{"front", "side"}[i%2])
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &name}
		list = append(list, p)
	}
	c.create(t, list)
	return list
}
