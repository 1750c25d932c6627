package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
)

// fakeNode is a node as far as the plugin looks at it.
type fakeNode struct {
	fwk.NodeInfo
	node *v1.Node
	pods []fwk.PodInfo
	// generation is another one for each, as the scheduler's are.
	generation int64
}

func (n *fakeNode) Node() *v1.Node         { return n.node }
func (n *fakeNode) GetPods() []fwk.PodInfo { return n.pods }
func (n *fakeNode) GetGeneration() int64   { return n.generation }

var generations atomic.Int64

type fakePod struct {
	fwk.PodInfo
	pod *v1.Pod
}

func (p *fakePod) GetPod() *v1.Pod { return p.pod }

type fakeCycle struct {
	fwk.CycleState
	data map[fwk.StateKey]fwk.StateData
	// group says that a pod is tried on with its group.
	group bool
}

func (c *fakeCycle) IsPodGroupSchedulingCycle() bool { return c.group }

func (c *fakeCycle) Read(k fwk.StateKey) (fwk.StateData, error) {
	if d, ok := c.data[k]; ok {
		return d, nil
	}
	return nil, fwk.ErrNotFound
}

func (c *fakeCycle) Write(k fwk.StateKey, d fwk.StateData) {
	if c.data == nil {
		c.data = map[fwk.StateKey]fwk.StateData{}
	}
	c.data[k] = d
}

func pod(app string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: app + "-x", Labels: map[string]string{"app": app}}}
}

func node(name, site string, apps ...string) *fakeNode {
	n := &fakeNode{node: &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"mesh.meridian.dev/site": site}}}, generation: generations.Add(1)}
	for _, a := range apps {
		n.pods = append(n.pods, &fakePod{pod: pod(a)})
	}
	return n
}

const matrix = `{"edges":[
 {"from":{"namespace":"shop","name":"web"},"to":{"namespace":"shop","name":"cart"},"recent":{"requestsPerS":10,"requestBytesPerS":1000000,"responseBytesPerS":1000000}},
 {"from":{"namespace":"shop","name":"web"},"to":{"namespace":"shop","name":"user"},"recent":{"requestsPerS":1,"requestBytesPerS":1000,"responseBytesPerS":1000}}]}`

const delays = `{"sites":["a","b","c"],"oneWayMs":[[0.5,10,30],[10,0.5,20],[30,20,0.5]]}`

// start makes a plugin that reads the given files; empty ones are not there.
func start(t *testing.T, matrix, delays string) *Plugin {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	raw := fmt.Sprintf(`{"matrixFile":%q,"delaysFile":%q,"maxAge":"1m"}`, write("matrix.json", matrix), write("delays.json", delays))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	p, err := New(ctx, &runtime.Unknown{Raw: []byte(raw), ContentType: runtime.ContentTypeJSON}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Plugin)
}

// cycle runs a pod through the plugin and returns the points by node, nil when the
// plugin stepped aside.
func cycle(t *testing.T, p *Plugin, cs *fakeCycle, what *v1.Pod, nodes ...*fakeNode) (points map[string]int64, refused map[string]string) {
	t.Helper()
	ctx := t.Context()
	infos := make([]fwk.NodeInfo, len(nodes))
	for i, n := range nodes {
		infos[i] = n
	}
	_, st := p.PreFilter(ctx, cs, what, infos)
	refused = map[string]string{}
	if st.IsSuccess() {
		for _, n := range infos {
			if st := p.Filter(ctx, cs, what, n); !st.IsSuccess() {
				refused[n.Node().Name] = st.Message()
			}
		}
	} else if !st.IsSkip() {
		t.Fatalf("PreFilter: %v", st)
	}
	if st := p.PreScore(ctx, cs, what, infos); st.IsSkip() {
		return nil, refused
	}
	var list fwk.NodeScoreList
	for _, n := range infos {
		s, st := p.Score(ctx, cs, what, n)
		if !st.IsSuccess() {
			t.Fatalf("Score: %v", st)
		}
		list = append(list, fwk.NodeScore{Name: n.Node().Name, Score: s})
	}
	if st := p.NormalizeScore(ctx, cs, what, list); !st.IsSuccess() {
		t.Fatal(st)
	}
	points = map[string]int64{}
	for _, s := range list {
		points[s.Name] = s.Score
	}
	return points, refused
}

func TestScore(t *testing.T) {
	p := start(t, matrix, delays)
	cs := &fakeCycle{}
	points, refused := cycle(t, p, cs, pod("web"), node("a1", "a", "cart", "user"), node("a2", "a"), node("b1", "b"), node("c1", "c", "user"))
	// Two sites away costs most, the peer's node itself least.
	if points["a1"] != 100 || points["c1"] != 0 || !(points["a2"] > points["b1"] && points["b1"] > points["c1"]) {
		t.Errorf("points %v", points)
	}
	if len(refused) != 0 {
		t.Errorf("refused %v without a budget", refused)
	}
	s, err := stateOf(cs)
	if err != nil {
		t.Fatal(err)
	}
	// 2 MB/s x 10 ms, and 2 kB/s of which half crosses 20 ms and half 10 ms.
	if got, _ := s.cost("b1"); got < 20000 || got > 20031 {
		t.Errorf("b1 costs %v bytes on the wire, want about 20030", got)
	}
	for _, want := range []string{"keeps 20 kB on the wire", "the least is 30 B, on a1", "2 MB/s with shop/cart, 20 ms away and back"} {
		if text := s.explain("b1"); !strings.Contains(text, want) {
			t.Errorf("explanation %q, want %q in it", text, want)
		}
	}
}

// Only where others had a say is a node worth an event: a1 and a2 are full, so b1 is the
// cheapest that is open.
func TestNotable(t *testing.T) {
	p := start(t, matrix, delays)
	infos := []fwk.NodeInfo{node("a1", "a", "cart", "user"), node("a2", "a"), node("b1", "b"), node("c1", "c", "user")}
	for _, x := range []struct {
		name string
		open []int
		want map[string]bool
	}{
		{"all open", []int{0, 1, 2, 3}, map[string]bool{"a1": false, "a2": false, "b1": true, "c1": true}},
		{"a is full", []int{2, 3}, map[string]bool{"b1": false, "c1": true}},
		{"no choice", nil, map[string]bool{"c1": false}},
	} {
		t.Run(x.name, func(t *testing.T) {
			cs := &fakeCycle{}
			if _, st := p.PreFilter(t.Context(), cs, pod("web"), infos); !st.IsSkip() {
				t.Fatalf("PreFilter: %v, want it to skip Filter", st)
			}
			var list fwk.NodeScoreList
			for _, i := range x.open {
				c, st := p.Score(t.Context(), cs, pod("web"), infos[i])
				if !st.IsSuccess() {
					t.Fatal(st)
				}
				list = append(list, fwk.NodeScore{Name: infos[i].Node().Name, Score: c})
			}
			if len(list) > 0 {
				if st := p.NormalizeScore(t.Context(), cs, pod("web"), list); !st.IsSuccess() {
					t.Fatal(st)
				}
			}
			s, err := stateOf(cs)
			if err != nil {
				t.Fatal(err)
			}
			for n, want := range x.want {
				if got := s.notable(n); got != want {
					t.Errorf("%s is notable: %v, want %v", n, got, want)
				}
			}
		})
	}
}

func TestStepsAside(t *testing.T) {
	nodes := []*fakeNode{node("a1", "a", "cart"), node("b1", "b")}
	for name, c := range map[string]struct {
		matrix string
		pod    string
		age    time.Duration
		want   string
	}{
		"no matrix":         {"", "web", 0, absent},
		"bad matrix":        {`{"edges":[{}]}`, "web", 0, absent},
		"old matrix":        {matrix, "web", 2 * time.Minute, stale},
		"unknown workload":  {matrix, "other", 0, noPeers},
		"only replicas run": {matrix, "cart", 0, "scored"},
		"fresh and related": {matrix, "web", 0, "scored"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, c.matrix, delays)
			p.clock = func() time.Time { return time.Now().Add(c.age) }
			cs := &fakeCycle{}
			points, _ := cycle(t, p, cs, pod(c.pod), nodes...)
			s, err := stateOf(cs)
			if err != nil {
				t.Fatal(err)
			}
			if s.result() != c.want || (points == nil) != (c.want != "scored") {
				t.Errorf("placed as %s with points %v, want %s", s.result(), points, c.want)
			}
			if st := p.Reserve(t.Context(), cs, pod(c.pod), "a1"); !st.IsSuccess() {
				t.Errorf("Reserve: %v", st)
			}
			fragments, st := p.SignPod(t.Context(), pod(c.pod))
			known := (c.want == "scored" || c.want == noPeers) && c.pod != "other"
			if st.IsSuccess() == known || st.IsSuccess() == (len(fragments) == 0) {
				t.Errorf("SignPod: %v, %v", fragments, st)
			}
		})
	}
}

func TestBudgets(t *testing.T) {
	p := start(t, matrix, delays)
	nodes := []*fakeNode{node("a1", "a", "cart"), node("b1", "b"), node("c1", "c")}
	web := pod("web")
	web.Annotations = map[string]string{AnnotationLatency: "25ms"}
	_, refused := cycle(t, p, &fakeCycle{}, web, nodes...)
	if len(refused) != 1 || !strings.Contains(refused["c1"], "the nearest pod of shop/cart is 60 ms away and back, its latency budget is 25 ms") {
		t.Errorf("latency budget refuses %v", refused)
	}
	web.Annotations = map[string]string{AnnotationBandwidth: "1M"}
	_, refused = cycle(t, p, &fakeCycle{}, web, nodes...)
	if len(refused) != 2 || !strings.Contains(refused["b1"], "2 MB/s with other sites, its bandwidth budget is 1 MB/s") {
		t.Errorf("bandwidth budget refuses %v", refused)
	}
	// A mistake must not keep a pod from running.
	web.Annotations = map[string]string{AnnotationLatency: "soon", AnnotationBandwidth: "-3"}
	cs := &fakeCycle{}
	if _, refused = cycle(t, p, cs, web, nodes...); len(refused) != 0 {
		t.Errorf("a budget that cannot be read refuses %v", refused)
	}
	if s, _ := stateOf(cs); s.fault == nil {
		t.Error("nobody is told of it")
	}
}

// The first pod of a service whose peers do not run goes where their peers are.
func TestPeersOfPeers(t *testing.T) {
	p := start(t, matrix, delays)
	cs := &fakeCycle{}
	points, _ := cycle(t, p, cs, pod("cart"), node("a1", "a", "user"), node("b1", "b"), node("c1", "c"))
	if points["a1"] != 100 || points["c1"] != 0 {
		t.Errorf("points %v: cart talks to web, web to user, and user is on a1", points)
	}
	if s, _ := stateOf(cs); s.result() != "scored-by-peers-of-peers" || !strings.Contains(s.explain("a1"), "through a peer that does not run yet") {
		t.Errorf("placed as %s: %s", s.result(), s.explain("a1"))
	}
}

// What waits together is placed in a row, the chattiest first; priority and a wait
// of more than ten seconds come before traffic.
func TestSort(t *testing.T) {
	s := &Sort{args: start(t, matrix, "").args, source: start(t, matrix, "").source}
	now := time.Unix(1000, 0)
	queued := func(app string, after time.Duration, priority int32) *fakeQueued {
		p := pod(app)
		p.Spec.Priority = &priority
		return &fakeQueued{pod: &fakePod{pod: p}, at: now.Add(after)}
	}
	for _, c := range []struct {
		name string
		a, b *fakeQueued
	}{
		{"web exchanges more than user", queued("web", time.Second, 0), queued("user", 0, 0)},
		{"what is known comes before what is not", queued("user", time.Second, 0), queued("other", 0, 0)},
		{"priority decides first", queued("other", time.Second, 5), queued("web", 0, 0)},
		{"a long wait counts more than traffic", queued("other", 0, 0), queued("web", 11*time.Second, 0)},
		{"the same workload by time", queued("web", 0, 0), queued("web", time.Second, 0)},
	} {
		if !s.Less(c.a, c.b) || s.Less(c.b, c.a) {
			t.Error(c.name)
		}
	}
	s.args.MaxAge.Duration = -1 // any traffic is too old now
	if s.Less(queued("web", time.Second, 0), queued("user", 0, 0)) {
		t.Error("stale traffic decides the order")
	}
}

type fakeQueued struct {
	fwk.QueuedPodInfo
	pod fwk.PodInfo
	at  time.Time
}

func (q *fakeQueued) GetPodInfo() fwk.PodInfo { return q.pod }
func (q *fakeQueued) GetTimestamp() time.Time { return q.at }

// Preemption tries out what is without a pod, on a clone.
func TestPreFilterExtensions(t *testing.T) {
	p := start(t, matrix, delays)
	a1, c1 := node("a1", "a", "cart"), node("c1", "c", "cart")
	web := pod("web")
	cs := &fakeCycle{}
	cycle(t, p, cs, web, a1, c1)
	s, err := stateOf(cs)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := s.cost("c1")
	clone := &fakeCycle{}
	clone.Write(stateKey, s.Clone())
	if st := p.RemovePod(t.Context(), clone, web, a1.pods[0], a1); !st.IsSuccess() {
		t.Fatal(st)
	}
	c, _ := stateOf(clone)
	if got, _ := c.cost("c1"); got != 0 {
		t.Errorf("with the only other pod gone c1 costs %v", got)
	}
	if got, _ := s.cost("c1"); got != before {
		t.Error("the clone shares its prices with the original")
	}
	if st := p.AddPod(t.Context(), clone, web, a1.pods[0], a1); !st.IsSuccess() {
		t.Fatal(st)
	}
	if got, _ := c.cost("c1"); got != before {
		t.Errorf("after adding it again c1 costs %v, want %v", got, before)
	}
}

func TestWorkloadOf(t *testing.T) {
	yes := true
	owned := func(kind, name, hash string) *v1.Pod {
		p := pod("labelled")
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
		p.Labels["pod-template-hash"] = hash
		return p
	}
	named := owned("ReplicaSet", "web-55d", "55d")
	named.Labels[LabelWorkload] = "chosen"
	bare := pod("x")
	bare.Labels = nil
	for want, p := range map[string]*v1.Pod{
		"web": owned("ReplicaSet", "web-55d", "55d"), "alone": owned("ReplicaSet", "alone", ""),
		"web55d": owned("ReplicaSet", "web55d", "55d"), "web-66e": owned("ReplicaSet", "web-66e", "55d"),
		"db": owned("StatefulSet", "db", ""), "chosen": named, "labelled": pod("labelled"), "x-x": bare,
	} {
		if got := workloadOf("c", p); got.Name != want || got.Namespace != "shop" || got.Cluster != "c" {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestArgsAreStrict(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`: "no source of traffic",
		`{"matrixFile":"m","metrics":{"dialect":"istio","url":"http://x"}}`: "matrixFile and metrics are set together",
		`{"metrics":{"dialect":"consul","every":"1ms"}}`:                    "metrics.url is missing",
		`{"metrics":{"dialect":"consul","url":"http://x"}}`:                 `dialect "consul" is not known`,
		`{"nats":{"tokenFile":"x"}}`:                                        "nats.url is missing",
		`{"nats":{"url":"nats://x","tokenFile":"a","nkeyFile":"b"}}`:        "nats.tokenFile and nats.nkeyFile are both set",
		`{"nats":{"url":"nats://x","tokenFile":"/nowhere"}}`:                "nats: bus: token file: open /nowhere",
		`{"matrixFile":"m","maxAge":"-1s"}`:                                 "maxAge is -1s",
		`{"matrixFile":"m","events":"some"}`:                                `events is "some"`,
		`{"matrixFile":"m","cohesion":2}`:                                   "cohesion is 2",
		`{"matrixFile":"m","maximumAge":"1s"}`:                              `unknown field "maximumAge"`,
	} {
		if _, err := New(t.Context(), &runtime.Unknown{Raw: []byte(raw)}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

// 500 nodes, 5,000 workloads, 15,000 pods: the bar for one pod is 5 ms at the 99th
// percentile. The benchmark prints the percentiles by the clock, which need a quiet
// machine, and of the thread's processor time, which others hardly disturb.
func BenchmarkCycle500(b *testing.B) {
	var m strings.Builder
	m.WriteString(`{"edges":[`)
	for i := range 5000 {
		for j := range 4 {
			if i+j > 0 {
				m.WriteByte(',')
			}
			fmt.Fprintf(&m, `{"from":{"namespace":"shop","name":"w%d"},"to":{"namespace":"shop","name":"w%d"},"recent":{"requestBytesPerS":%d,"responseBytesPerS":10}}`, i, (i+1+j*97)%5000, 100+i)
		}
	}
	m.WriteString(`]}`)
	dir := b.TempDir()
	path := filepath.Join(dir, "m.json")
	if err := os.WriteFile(path, []byte(m.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	pl, err := New(b.Context(), &runtime.Unknown{Raw: []byte(fmt.Sprintf(`{"matrixFile":%q,"maxAge":"1h"}`, path))}, nil)
	if err != nil {
		b.Fatal(err)
	}
	p := pl.(*Plugin)
	yes := true
	infos := make([]fwk.NodeInfo, 500)
	list := make(fwk.NodeScoreList, 500)
	for i := range infos {
		n := node(fmt.Sprintf("n%d", i), fmt.Sprintf("site%d", i/10))
		for j := range 30 {
			w := (i*30 + j) % 5000
			x := pod("x")
			x.Labels = map[string]string{"pod-template-hash": "55d", "app": "x"}
			x.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: fmt.Sprintf("w%d-55d", w), Controller: &yes}}
			n.pods = append(n.pods, &fakePod{pod: x})
		}
		infos[i] = n
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var took, used []time.Duration
	ctx := b.Context()
	for i := 0; b.Loop(); i++ {
		w := pod(fmt.Sprintf("w%d", i%5000))
		// As the pod before this one changed the node that it was put on.
		infos[i%len(infos)].(*fakeNode).generation = generations.Add(1)
		busy, began := threadTime(b), time.Now()
		cs := &fakeCycle{}
		if _, st := p.PreFilter(ctx, cs, w, infos); !st.IsSkip() {
			b.Fatal(st)
		}
		if st := p.PreScore(ctx, cs, w, infos); !st.IsSuccess() {
			b.Fatal(st)
		}
		for j, n := range infos {
			s, _ := p.Score(ctx, cs, w, n)
			list[j] = fwk.NodeScore{Name: n.Node().Name, Score: s}
		}
		p.NormalizeScore(ctx, cs, w, list)
		took, used = append(took, time.Since(began)), append(used, threadTime(b)-busy)
	}
	for unit, d := range map[string][]time.Duration{"us": took, "cpu-us": used} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), "p50-"+unit)
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), "p99-"+unit)
	}
}

// threadTime is the processor time that this thread has had.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
