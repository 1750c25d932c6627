//go:build kube

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage/etcd3/testserver"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/component-base/configz"
	apitest "k8s.io/kubernetes/cmd/kube-apiserver/app/testing"
	schedapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/plugin"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
	sim "github.com/meridian-mesh/meridian/testbed/sim/placement"
)

// The cluster: nine sites, delays between them as measured (social-network), of
// eleven nodes with 4 cores each; every pod asks for half a core, so a site takes 88
// of the 300 pods.
const (
	sites        = 9
	nodesPerSite = 11
	pods         = 300
	perNode      = 8
)

// cluster is a real API server with its etcd in this process.
type cluster struct {
	cc     *rest.Config
	client kubernetes.Interface
	net    *sim.Network
	delays *traffic.Delays // between nodes
	oneWay [][]float64
	dir    string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := startAPI(t)
	c.readNetwork(t)
	c.createNodes(t)
	return c
}

// startAPI starts an API server that holds nothing.
func startAPI(t *testing.T, flags ...string) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	etcd := testserver.RunEtcd(t, nil)
	sc := storagebackend.NewDefaultConfig("registry", nil)
	sc.Transport.ServerList = etcd.Endpoints()
	srv := apitest.StartTestServerOrDie(t, nil, append([]string{"--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"}, flags...), sc)
	t.Cleanup(srv.TearDownFn)
	c.cc = srv.ClientConfig
	c.cc.QPS, c.cc.Burst = 5000, 5000
	var err error
	if c.client, err = kubernetes.NewForConfig(c.cc); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) readNetwork(t *testing.T) {
	t.Helper()
	dir := os.Getenv("MERIDIAN_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "social-network")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no measured social network: %v (set MERIDIAN_TESTDATA to the data folder)", err)
	}
	open := func(name string) *os.File {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	var err error
	if c.net, err = sim.ReadNetwork("social network", open("traffic_forward_kb_per_min.csv"), open("traffic_backward_kb_per_min.csv")); err != nil {
		t.Fatal(err)
	}
	d, err := traffic.ReadDelaysCSV(open("delay_matrix_ms.csv"))
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, sites)
	for i := range sites {
		names[i] = siteName(i)
		row := make([]float64, sites)
		for j := range sites {
			row[j] = d.MS(i, j)
		}
		c.oneWay = append(c.oneWay, row)
	}
	var nodes []string
	for i := range sites * nodesPerSite {
		nodes = append(nodes, nodeName(i))
	}
	if c.delays, err = traffic.NewDelays(nodes, func(n string) string { return n[:len("site-0")] }, names, c.oneWay); err != nil {
		t.Fatal(err)
	}
}

func siteName(i int) string { return fmt.Sprintf("site-%d", i) }
func nodeName(i int) string {
	return fmt.Sprintf("%s-node-%02d", siteName(i/nodesPerSite), i%nodesPerSite)
}

func (c *cluster) createNodes(t *testing.T) {
	t.Helper()
	has := v1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("16Gi"), "pods": resource.MustParse("110")}
	for i := range sites * nodesPerSite {
		n := &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{"kubernetes.io/hostname": nodeName(i), v1.LabelTopologyZone: siteName(i / nodesPerSite)}},
			Status:     v1.NodeStatus{Capacity: has, Allocatable: has, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}},
		}
		if _, err := c.client.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		// Admission taints new nodes as not ready, and no node controller runs here.
		n, err := c.client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n.Spec.Taints = nil
		if _, err := c.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// writeTraffic writes the measured matrix and delays where the plugin reads them.
func (c *cluster) writeTraffic(t *testing.T) (matrixFile, delaysFile string) {
	t.Helper()
	m := &traffic.Matrix{}
	for _, x := range c.net.Calls {
		r := traffic.Rates{RequestsPerS: 1, RequestBytesPerS: x.Forward, ResponseBytesPerS: x.Backward}
		m.Edges = append(m.Edges, traffic.Edge{From: workload(c.net.Services[x.From]), To: workload(c.net.Services[x.To]), Recent: r, Steady: r})
	}
	names := make([]string, sites)
	for i := range names {
		names[i] = siteName(i)
	}
	write := func(name string, v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("matrix.json", traffic.Merge(m)), write("delays.json", map[string]any{"sites": names, "oneWayMs": c.oneWay})
}

func workload(name string) mesh.Workload { return mesh.Workload{Namespace: "default", Name: name} }

// profile is the part of a scheduler's configuration that differs between runs.
type profile struct {
	plugin bool
	// only leaves no other plugin a say in the score.
	only     bool
	batching bool
	maxAge   time.Duration
	// dead takes the traffic from a NATS server that is not there, not from files.
	dead bool
	// gates are further feature gates, each with a comma before it.
	gates string
}

// cohesion leaves the score to the peers alone where nothing else may have a say.
func (p profile) cohesion() float64 {
	if p.only {
		return 0
	}
	return 0.1
}

// kubeconfig writes one for the API server and returns its path.
func (c *cluster) kubeconfig(t *testing.T) string {
	t.Helper()
	kc := clientcmdapi.NewConfig()
	kc.Clusters["c"] = &clientcmdapi.Cluster{Server: c.cc.Host, CertificateAuthorityData: c.cc.CAData, TLSServerName: c.cc.ServerName}
	kc.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: c.cc.BearerToken}
	kc.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	kc.CurrentContext = "x"
	kubeconfig := filepath.Join(c.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*kc, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// startScheduler runs what main runs, until stop is called.
func (c *cluster) startScheduler(t *testing.T, p profile) (stop func()) {
	t.Helper()
	kubeconfig := c.kubeconfig(t)
	text := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection: {leaderElect: false}\n" +
		"clientConnection: {kubeconfig: " + kubeconfig + ", qps: 5000, burst: 5000}\npercentageOfNodesToScore: 100\n" +
		"profiles:\n- schedulerName: default-scheduler\n"
	if p.plugin {
		matrix, delays := filepath.Join(c.dir, "matrix.json"), filepath.Join(c.dir, "delays.json")
		score := ""
		if p.only {
			score = "    score: {disabled: [{name: '*'}], enabled: [{name: " + plugin.Name + "}]}\n"
		}
		sort := ""
		if !p.only {
			sort = "    queueSort: {disabled: [{name: '*'}], enabled: [{name: " + plugin.SortName + "}]}\n"
		}
		from := "matrixFile: " + matrix
		if p.dead {
			token := filepath.Join(c.dir, "token")
			if err := os.WriteFile(token, []byte("nobody-asks-for-it"), 0o600); err != nil {
				t.Fatal(err)
			}
			from = "nats: {url: 'nats://127.0.0.1:1', tokenFile: " + token + "}"
		}
		text += "  plugins:\n" + sort + "    multiPoint: {enabled: [{name: " + plugin.Name + ", weight: 10}]}\n" + score +
			"  pluginConfig:\n  - name: " + plugin.Name + "\n    args: {" + from + ", delaysFile: " + delays + ", maxAge: " + p.maxAge.String() + fmt.Sprintf(", cohesion: %v}\n", p.cohesion())
		if !p.only {
			text += "  - name: " + plugin.SortName + "\n    args: {" + from + ", maxAge: " + p.maxAge.String() + "}\n"
		}
	}
	config := filepath.Join(c.dir, "scheduler.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options.NewOptions()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, f := range opts.Flags.FlagSets {
		fs.AddFlagSet(f)
	}
	if err := fs.Parse([]string{"--config", config, "--secure-port=0", fmt.Sprintf("--feature-gates=OpportunisticBatching=%v%s", p.batching, p.gates)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cc, sched, err := schedapp.Setup(ctx, opts, plugins()...)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := schedapp.Run(ctx, cc, sched); err != nil && ctx.Err() == nil {
			t.Errorf("scheduler: %v", err)
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-done
			configz.Delete("componentconfig") // the next scheduler registers it again
		})
	}
	t.Cleanup(stop)
	return stop
}

func newPod(name, service string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": service}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "x", Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("64Mi")}}}}},
	}
}

// all are the 300 pods: every service has 11, the first three 12, in an order that
// a seed decides.
func (c *cluster) all(seed uint64) []*v1.Pod {
	var out []*v1.Pod
	for i := range pods {
		s := c.net.Services[i%len(c.net.Services)]
		out = append(out, newPod(fmt.Sprintf("%s-%d", s, i), s))
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// measured is how a set of pods was scheduled.
type measured struct {
	at map[string]string // node by pod
	// span is from the first bind to the last, cpu what the whole process used.
	span, cpu time.Duration
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// create makes pods while no scheduler runs.
func (c *cluster) create(t *testing.T, list []*v1.Pod) {
	t.Helper()
	for _, p := range list {
		if _, err := c.client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// bound waits until so many pods have a node.
func (c *cluster) bound(t *testing.T, n int) measured {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := cpuTime(t)
	var m measured
	m.at = map[string]string{}
	var first time.Time
	for len(m.at) < n {
		// The server ends a watch when it likes; the next one begins with all pods.
		w, err := c.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			t.Fatalf("%d of %d pods have a node: %v", len(m.at), n, err)
		}
		for e := range w.ResultChan() {
			p, isPod := e.Object.(*v1.Pod)
			if !isPod || p.Spec.NodeName == "" || m.at[p.Name] != "" || e.Type == watch.Deleted {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			if m.at[p.Name] = p.Spec.NodeName; len(m.at) == n {
				break
			}
		}
		w.Stop()
		if ctx.Err() != nil {
			t.Fatalf("%d of %d pods have a node after three minutes", len(m.at), n)
		}
	}
	m.span, m.cpu = time.Since(first), cpuTime(t)-began
	return m
}

func (c *cluster) deletePods(t *testing.T) {
	t.Helper()
	zero := int64(0)
	if err := c.client.CoreV1().Pods("default").DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		l, err := c.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Items) == 0 {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d pods are left after a minute", len(l.Items))
		}
	}
}

// problem is the placement problem of pods that run.
func (c *cluster) problem(t *testing.T, at map[string]string, service map[string]string) (*placement.Problem, placement.Assignment) {
	t.Helper()
	p := &placement.Problem{Delays: c.delays}
	index := map[string]int{}
	for i, s := range c.net.Services {
		index[s] = i
		p.Services = append(p.Services, placement.Service{Workload: workload(s)})
	}
	for range c.delays.Nodes() {
		p.Capacity = append(p.Capacity, placement.Resources{MilliCPU: 4000, MemoryBytes: 16 << 30, Pods: 110})
	}
	for _, x := range c.net.Calls {
		p.Flows = append(p.Flows, placement.Flow{From: x.From, To: x.To, Forward: x.Forward, Backward: x.Backward})
	}
	var a placement.Assignment
	for name, node := range at {
		n, ok := c.delays.Node(node)
		if !ok {
			t.Fatalf("pod %s is on %s, which is no node", name, node)
		}
		p.Units = append(p.Units, placement.Unit{Name: name, Service: index[service[name]], Request: placement.Resources{MilliCPU: 500, MemoryBytes: 64 << 20, Pods: 1}})
		a = append(a, n)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p, a
}

func servicesOf(list []*v1.Pod) map[string]string {
	out := map[string]string{}
	for _, p := range list {
		out[p.Name] = p.Labels["app"]
	}
	return out
}
