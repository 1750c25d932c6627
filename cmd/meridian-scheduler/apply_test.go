//go:build kube

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

const shop = "shop"

// shopkeeper is what a cluster does that no process of this test does: the controller
// of a ReplicaSet that wants its pods back, their nodes' kubelets, and the counting of a
// disruption budget.
type shopkeeper struct {
	t *testing.T
	*cluster
	mu sync.Mutex
	// broken images never start, counted budgets are kept up to date, made counts pods.
	broken, counted bool
	made            int
	// least is the lowest number of ready carts that was ever seen.
	least int
}

var cartController = true

func (k *shopkeeper) pod(name, app, node string) *v1.Pod {
	p := newPod(name, app)
	p.Namespace, p.Spec.NodeName = shop, node
	if app == "cart" {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "cart-5d9", UID: "cart-replicas", Controller: &cartController}}
		p.Labels["pod-template-hash"] = "5d9"
	}
	return p
}

func (k *shopkeeper) carts(ctx context.Context) []v1.Pod {
	l, err := k.client.CoreV1().Pods(shop).List(ctx, metav1.ListOptions{LabelSelector: "app=cart"})
	if err != nil {
		if ctx.Err() == nil {
			k.t.Error(err)
		}
		return nil
	}
	return l.Items
}

func isReady(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			return true
		}
	}
	return false
}

// run keeps two carts until ctx ends.
func (k *shopkeeper) run(ctx context.Context) {
	zero := int64(0)
	for ctx.Err() == nil {
		k.mu.Lock()
		ready, alive := 0, 0
		list := k.carts(ctx)
		for i := range list {
			p := &list[i]
			switch {
			case p.DeletionTimestamp != nil:
				_ = k.client.CoreV1().Pods(shop).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}) // gone already, or tried again
				continue
			case isReady(p):
				ready++
			case p.Spec.NodeName != "":
				k.tell(ctx, p)
			}
			alive++
		}
		for ; len(list) > 0 && alive < 2; alive++ {
			k.made++
			if _, err := k.client.CoreV1().Pods(shop).Create(ctx, k.pod(fmt.Sprintf("cart-new-%d", k.made), "cart", ""), metav1.CreateOptions{}); err != nil && ctx.Err() == nil {
				k.t.Error(err)
			}
		}
		if len(list) > 0 {
			k.least = min(k.least, ready)
		}
		if k.counted {
			k.budget(ctx, int32(max(0, ready-1)))
		}
		k.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
}

// tell has the kubelet say how a pod is.
func (k *shopkeeper) tell(ctx context.Context, p *v1.Pod) {
	ready := v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue}
	status := v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{ready}}
	if k.broken {
		status = v1.PodStatus{Phase: v1.PodPending, ContainerStatuses: []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{
			Waiting: &v1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}}}}}
	}
	data, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = k.client.CoreV1().Pods(shop).Patch(ctx, p.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil {
		k.t.Error(err)
	}
}

// budget has the disruption controller allow so many evictions.
func (k *shopkeeper) budget(ctx context.Context, allowed int32) {
	b, err := k.client.PolicyV1().PodDisruptionBudgets(shop).Get(ctx, "cart", metav1.GetOptions{})
	if err == nil && (b.Status.DisruptionsAllowed != allowed || b.Status.ObservedGeneration != b.Generation) {
		b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: allowed, CurrentHealthy: allowed + 1, DesiredHealthy: 1, ExpectedPods: 2}
		_, err = k.client.PolicyV1().PodDisruptionBudgets(shop).UpdateStatus(ctx, b, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "modified") {
		k.t.Error(err)
	}
}

func (k *shopkeeper) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// meridian placement apply moves carts to the redis that they talk to, through the
// eviction of a real API server and by a real scheduler with the plugin.
func placementApply(t *testing.T, c *cluster) {
	bin := filepath.Join(t.TempDir(), "meridian")
	build := exec.Command("go", "build", "-o", bin, "./cmd/meridian")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cart, redis := mesh.Workload{Namespace: shop, Name: "cart"}, mesh.Workload{Namespace: shop, Name: "redis"}
	rates := traffic.Rates{RequestsPerS: 10, RequestBytesPerS: 1e6, ResponseBytesPerS: 1e6}
	matrix, err := json.Marshal(traffic.Matrix{Edges: []traffic.Edge{{From: cart, To: redis, Recent: rates, Steady: rates}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "matrix.json"), matrix, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	one := intstr.FromInt32(1)
	if _, err := c.client.PolicyV1().PodDisruptionBudgets(shop).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "cart"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cart"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k := &shopkeeper{t: t, cluster: c, least: 2}
	for _, p := range []*v1.Pod{k.pod("redis-0", "redis", nodeName(5*nodesPerSite)), k.pod("cart-a", "cart", nodeName(0)), k.pod("cart-b", "cart", nodeName(1))} {
		if p, err = c.client.CoreV1().Pods(shop).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		k.tell(ctx, p)
	}
	k.budget(ctx, 0)
	running, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { k.run(running) })
	stop := c.startScheduler(t, profile{plugin: true, only: true, maxAge: time.Hour})
	defer stop()

	kubeconfig := c.kubeconfig(t)
	apply := func(flags ...string) (string, error) {
		cmd := exec.CommandContext(ctx, bin, append([]string{"placement", "apply", "--kubeconfig", kubeconfig, "--scheduler", "default-scheduler",
			"--matrix", filepath.Join(c.dir, "matrix.json"), "--delays", filepath.Join(c.dir, "delays.json")}, flags...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	names := func() (out []string) {
		for _, p := range k.carts(ctx) {
			out = append(out, p.Name)
		}
		return out
	}
	says := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}

	// Without --yes nothing is changed, and the budget's word is heard.
	out, err := apply()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	says(out, "1/2 would evict shop/cart-", "site-0-node-0", "it exchanges 1 MB/s with shop/redis", "violate the pod's disruption budget", "nothing was changed")
	// With it the budget is heeded: nothing is evicted for as long as it refuses.
	out, err = apply("--yes", "--within", "3s")
	if err == nil {
		t.Error("it goes on against the budget")
	}
	says(out, "1/2 waiting: Cannot evict pod", "stopped after 0 of 2 moves", "is not evicted within 3s", "The disruption budget cart")
	if got := fmt.Sprint(names()); got != "[cart-a cart-b]" {
		t.Errorf("the carts are %s", got)
	}
	// A pod that does not come back: it stops there, and says why in the cluster's words.
	k.set(func() { k.broken, k.counted = true, true })
	out, err = apply("--yes", "--within", "8s")
	if err == nil {
		t.Error("it goes on without one of two carts")
	}
	says(out, "1/2 evicting shop/cart-", "stopped after 0 of 2 moves", "1 of 2 are ready after", "ImagePullBackOff: no such image")
	if got := names(); len(got) != 2 || !strings.HasPrefix(got[1], "cart-new-") {
		t.Errorf("the carts are %v", got)
	}
	// It will not begin while a cart is missing; once all is well it ends what it began.
	out, err = apply("--yes", "--within", "8s")
	if err == nil {
		t.Error("it evicts the last cart that is ready")
	}
	says(out, "stopped after 0 of 1 moves", "ImagePullBackOff")
	k.set(func() { k.broken = false })
	out, err = apply("--yes", "--within", "1m")
	for began := time.Now(); err != nil && strings.Contains(out, "ImagePullBackOff") && time.Since(began) < time.Minute; {
		out, err = apply("--yes", "--within", "1m")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	says(out, "1/1 evicting shop/cart-", "is ready on site-5-node-", "done: 1 moved")
	for _, p := range k.carts(ctx) {
		if !strings.HasPrefix(p.Spec.NodeName, siteName(5)) {
			t.Errorf("%s is on %s", p.Name, p.Spec.NodeName)
		}
	}
	k.set(func() {
		if k.least < 1 {
			t.Errorf("at one time %d carts were ready", k.least)
		}
	})
	out, err = apply("--yes")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	says(out, "nothing to move")
}
