//go:build kube

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// gatewayAPI is the version of the Gateway API whose CRDs are installed. It is fetched
// beside the module: as a requirement of it, it would drag other versions of
// Kubernetes' own dependencies in.
const gatewayAPI = "sigs.k8s.io/gateway-api@v1.6.3"

// TestBridge has two sites bridge one cluster, each with a controller and a proxy as
// real processes, and looks at the cluster only through the API server and at the mesh
// only through the proxies.
//
// MERIDIAN_KUBE_PODS is how many pods there are, five to a service: 5000 are the
// measurement of docs/benchmarks.md, whose bars then have to be met.
func TestBridge(t *testing.T) {
	pods := 500
	if v := os.Getenv("MERIDIAN_KUBE_PODS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 5 {
			t.Fatalf("MERIDIAN_KUBE_PODS is %q, want a number from 5 up", v)
		}
		pods = n
	}
	full := pods >= 5000
	c := startAPI(t)
	c.installCRDs(t)
	host := localAddress(t)
	blue, green := backend(t, host, "blue"), backend(t, host, "green")
	c.fill(t, pods)
	c.post(t, "/api/v1/namespaces/default/services", `{"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]}}`)
	c.post(t, slicesPath, probeSlice(host, blue))
	c.post(t, "/apis/gateway.networking.k8s.io/v1/gatewayclasses", `{"metadata": {"name": "meridian"}, "spec": {"controllerName": "mesh.meridian.dev/gateway-controller"}}`)
	c.post(t, gatewaysPath, fmt.Sprintf(`{"metadata": {"name": "gw"}, "spec": {"gatewayClassName": "meridian", "listeners": [{"name": "http", "port": %d, "protocol": "HTTP"}]}}`, freePort(t)))
	c.post(t, routesPath, httpRoute("probe", "/probe", "probe", 80))
	c.post(t, routesPath, httpRoute("broken", "/broken", "nowhere", 80))

	bin := buildMesh(t)
	kubeconfig := c.kubeconfig(t)
	a, b := startSite(t, bin, "a", kubeconfig, "127.0.1.0/28"), startSite(t, bin, "b", kubeconfig, "127.0.2.0/28")
	port := c.gatewayPort(t)
	proxies := []*prober{{addr: "127.0.1.1:" + port}, {addr: "127.0.2.1:" + port}}
	for _, p := range proxies {
		p.until(t, "/probe", "blue", time.Minute)
	}

	t.Run("InvalidRoute", func(t *testing.T) {
		eventually(t, "the broken route's condition", func() string {
			return c.want(t, routesPath+"/broken", "ResolvedRefs", "False", "BackendNotFound")
		})
		eventually(t, "the good route's condition", func() string { return c.want(t, routesPath+"/probe", "ResolvedRefs", "True", "ResolvedRefs") })
		for _, p := range proxies {
			p.until(t, "/broken", "500", 10*time.Second)
			p.until(t, "/probe", "blue", time.Second)
		}
	})
	t.Run("OwnKinds", func(t *testing.T) {
		c.post(t, meshPath+"/meshservices", fmt.Sprintf(`{"metadata": {"name": "hand"}, "spec": {"ports": [{"port": 80}], "endpoints": [{"address": "%s:%d"}]}}`, host, green))
		c.post(t, routesPath, fmt.Sprintf(`{"metadata": {"name": "hand"}, "spec": {"parentRefs": [{"name": "gw"}],
			"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/hand"}}], "backendRefs": [{"group": "mesh.meridian.dev", "kind": "MeshService", "name": "hand", "port": 80}]}]}}`))
		for _, p := range proxies {
			p.until(t, "/hand", "green", 30*time.Second)
		}
		c.post(t, meshPath+"/geofences", `{"metadata": {"name": "only-a"}, "spec": {"targetRefs": [{"kind": "MeshService", "name": "hand"}], "allow": {"sites": ["a"]}}}`)
		proxies[1].until(t, "/hand", "503", 30*time.Second)
		proxies[0].until(t, "/hand", "green", time.Second)
		// What the schema can say the API server refuses, the rest the status.
		_, err := c.client.Discovery().RESTClient().Post().AbsPath(meshPath+"/meshservices").SetHeader("Content-Type", "application/json").
			Body(typed(t, meshPath+"/meshservices", `{"metadata": {"name": "bad"}, "spec": {"ports": [{"port": 80, "protocol": "carrier-pigeon"}]}}`)).DoRaw(t.Context())
		if !apierrors.IsInvalid(err) {
			t.Errorf("a protocol that there is none of is taken: %v", err)
		}
		c.post(t, meshPath+"/meshservices", `{"metadata": {"name": "wrong"}, "spec": {"ports": [{"port": 80}], "endpoints": [{"address": "10.0.0.1:99999"}]}}`)
		eventually(t, "the condition of a service that only the mesh can refuse", func() string {
			var o struct {
				Status struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
			c.get(t, meshPath+"/meshservices/wrong", &o)
			for _, x := range o.Status.Conditions {
				if x.Type == "Accepted" && x.Status == "False" && strings.Contains(x.Message, "spec.endpoints") {
					return ""
				}
			}
			return fmt.Sprintf("%+v", o.Status)
		})
	})
	t.Run("Validations", func(t *testing.T) { c.validations(t) })
	t.Run("Streams", func(t *testing.T) { c.streams(t, host, []string{"127.0.1.2", "127.0.2.2"}) })
	t.Run("Meshed", func(t *testing.T) { c.meshed(t, host, []string{"127.0.1.3", "127.0.2.3"}) })
	t.Run("Caller", func(t *testing.T) { c.caller(t, a, proxies[0].addr) })
	t.Run("EndpointChange", func(t *testing.T) {
		routes := (pods/5+9)/10 + 3
		eventually(t, "the Gateway's count of its routes", func() string {
			if n := c.attached(t); n != routes {
				return fmt.Sprintf("%d of %d are attached", n, routes)
			}
			return ""
		})
		versions := []string{c.version(t, routesPath+"/probe"), c.version(t, gatewaysPath+"/gw")}
		rounds := 20
		if full {
			rounds = 100
		}
		var took []time.Duration
		controllers, others := processorTime(t, a.controller, b.controller), processorTime(t, a.proxy, b.proxy)
		for i := range rounds {
			name, at := "green", green
			if i%2 == 1 {
				name, at = "blue", blue
			}
			began := time.Now()
			c.put(t, slicesPath+"/probe", probeSlice(host, at))
			var group sync.WaitGroup
			for _, p := range proxies {
				group.Go(func() { p.until(t, "/probe", name, 30*time.Second) })
			}
			group.Wait()
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		t.Logf("%d pods, an endpoint change at every proxy after: median %s, p99 %s, most %s", pods, took[len(took)/2], p99, took[len(took)-1])
		t.Logf("of the processors each change took %s at a controller and %s at a proxy, the requests that looked for it included",
			(processorTime(t, a.controller, b.controller)-controllers)/time.Duration(2*rounds), (processorTime(t, a.proxy, b.proxy)-others)/time.Duration(2*rounds))
		if full && p99 > 500*time.Millisecond {
			t.Errorf("p99 is %s, want at most 500ms", p99)
		}
		for i, path := range []string{routesPath + "/probe", gatewaysPath + "/gw"} {
			if v := c.version(t, path); v != versions[i] {
				t.Errorf("%s was written although its status did not change: version %s, was %s", path, v, versions[i])
			}
		}
	})
	for _, s := range []*site{a, b} {
		rss := residentKiB(t, s.controller.Process.Pid)
		t.Logf("%d pods, site %s: its controller has %d MB resident, its proxy %d", pods, s.name, rss>>10, residentKiB(t, s.proxy.Process.Pid)>>10)
		if full && rss > 150<<10 {
			t.Errorf("the controller of site %s has %d MB resident, want at most 150", s.name, rss>>10)
		}
	}
	t.Run("LeaderStops", func(t *testing.T) {
		leader, other := a, b
		if strings.Contains(c.holder(t), "_b_") {
			leader, other = b, a
		}
		leader.stop(t)
		c.post(t, "/api/v1/namespaces/default/services", `{"metadata": {"name": "nowhere"}, "spec": {"ports": [{"port": 80}]}}`)
		eventually(t, "the condition that the other controller writes", func() string {
			return c.want(t, routesPath+"/broken", "ResolvedRefs", "True", "ResolvedRefs")
		})
		if h := c.holder(t); !strings.Contains(h, "_"+other.name+"_") {
			t.Errorf("the lease is held by %q", h)
		}
	})
}

const (
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	gatewaysPath = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways"
	routesPath   = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
	meshPath     = "/apis/mesh.meridian.dev/v1alpha1/namespaces/default"
	crdsPath     = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
)

func probeSlice(host string, port int) string {
	return fmt.Sprintf(`{"metadata": {"name": "probe", "labels": {"kubernetes.io/service-name": "probe"}}, "addressType": "IPv4",
		"ports": [{"name": "", "port": %d, "protocol": "TCP"}], "endpoints": [{"addresses": [%q], "conditions": {"ready": true}}]}`, port, host)
}

func httpRoute(name, path, service string, port int) string {
	return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"parentRefs": [{"name": "gw"}],
		"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": %q}}], "backendRefs": [{"name": %q, "port": %d}]}]}}`, name, path, service, port)
}

// fill creates pods, five to a service, and routes to all services, ten to a route.
func (c *cluster) fill(t *testing.T, pods int) {
	t.Helper()
	type request struct{ path, body string }
	work := make(chan request)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for r := range work {
				c.post(t, r.path, r.body)
			}
		})
	}
	// Pods of real clusters are large: what was applied, volumes, conditions.
	large := strings.Repeat("x", 4<<10)
	for i := range pods / 5 {
		name := fmt.Sprintf("s%d", i)
		work <- request{"/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"ports": [{"port": 80}]}}`, name)}
		var endpoints []string
		for j := range 5 {
			pod, ip := fmt.Sprintf("%s-%d", name, j), fmt.Sprintf("10.%d.%d.%d", 64+j, i/250, i%250+1)
			work <- request{"/api/v1/namespaces/default/pods", fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"app": %q}, "annotations": {"large": %q}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}`, pod, name, large)}
			endpoints = append(endpoints, fmt.Sprintf(`{"addresses": [%q], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": %q}}`, ip, pod))
		}
		work <- request{slicesPath, fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"kubernetes.io/service-name": %q}}, "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [%s]}`,
			name, name, strings.Join(endpoints, ", "))}
	}
	for i := 0; i < pods/5; i += 10 {
		var rules []string
		for j := i; j < min(i+10, pods/5); j++ {
			rules = append(rules, fmt.Sprintf(`{"matches": [{"path": {"type": "PathPrefix", "value": "/s%d"}}], "backendRefs": [{"name": "s%d", "port": 80}]}`, j, j))
		}
		work <- request{routesPath, fmt.Sprintf(`{"metadata": {"name": "r%d"}, "spec": {"parentRefs": [{"name": "gw"}], "rules": [%s]}}`, i, strings.Join(rules, ", "))}
	}
	// A tenth more back no Service; no kubelet runs, so their status is written here.
	for i := range pods / 10 {
		pod := fmt.Sprintf("job-%d", i)
		work <- request{"/api/v1/namespaces/default/pods", fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"app": "batch-%d"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}`, pod, i/10)}
	}
	close(work)
	group.Wait()
	for i := range pods / 10 {
		c.runs(t, fmt.Sprintf("job-%d", i), fmt.Sprintf("10.70.%d.%d", i/250, i%250+1))
	}
}

// runs says of a pod what a kubelet would, where it has an address.
func (c *cluster) runs(t *testing.T, pod, ip string) {
	t.Helper()
	c.put(t, "/api/v1/namespaces/default/pods/"+pod+"/status", fmt.Sprintf(`{"status": {"phase": "Running", "podIP": %q, "podIPs": [{"ip": %[1]q}]}}`, ip))
}

// A pod that backs no Service is known by its workload where it calls: in what the site's
// controller tells of its traffic.
func (c *cluster) caller(t *testing.T, s *site, proxy string) {
	const ip = "127.9.0.7"
	c.post(t, "/api/v1/namespaces/default/pods", `{"metadata": {"name": "nightly-x", "labels": {"mesh.meridian.dev/workload": "nightly"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}`)
	c.runs(t, "nightly-x", ip)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext,
	}}
	ask := func(url string) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	want := `source_cluster="` + s.name + `",source_namespace="default",source="nightly"`
	eventually(t, "the name of who calls", func() string {
		if _, err := ask("http://" + proxy + "/probe"); err != nil {
			return err.Error()
		}
		told, err := ask(s.api + "/traffic?format=prometheus")
		if err == nil && strings.Contains(told, want) {
			return ""
		}
		return fmt.Sprintf("%v, %s", err, told)
	})
}

// kindOf is the apiVersion and kind of what a path holds; the API server wants both.
func kindOf(path string) (apiVersion, kind string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	apiVersion = parts[1]
	if parts[0] == "apis" {
		apiVersion = parts[1] + "/" + parts[2]
	}
	for plural, kind := range map[string]string{"services": "Service", "pods": "Pod", "endpointslices": "EndpointSlice", "gateways": "Gateway",
		"gatewayclasses": "GatewayClass", "httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute", "tcproutes": "TCPRoute", "tlsroutes": "TLSRoute", "udproutes": "UDPRoute", "customresourcedefinitions": "CustomResourceDefinition",
		"meshservices": "MeshService", "geofences": "GeoFence", "trafficpolicies": "TrafficPolicy", "authorizationpolicies": "AuthorizationPolicy",
		"peerauthentications": "PeerAuthentication", "sites": "Site"} {
		if slices.Contains(parts, plural) {
			return apiVersion, kind
		}
	}
	return apiVersion, ""
}

func typed(t *testing.T, path, body string) []byte {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	o["apiVersion"], o["kind"] = kindOf(path)
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (c *cluster) post(t *testing.T, path, body string) {
	t.Helper()
	_, err := c.client.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(typed(t, path, body)).DoRaw(t.Context())
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Errorf("create %s in %s: %v", body, path, err)
	}
}

func (c *cluster) put(t *testing.T, path, body string) {
	t.Helper()
	if _, err := c.client.Discovery().RESTClient().Patch(types.MergePatchType).AbsPath(path).Body([]byte(body)).DoRaw(t.Context()); err != nil {
		t.Fatalf("change %s: %v", path, err)
	}
}

func (c *cluster) get(t *testing.T, path string, into any) {
	t.Helper()
	data, err := c.client.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatalf("get %s: %v", path, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) version(t *testing.T, path string) string {
	t.Helper()
	var o struct {
		Metadata struct{ ResourceVersion string }
	}
	c.get(t, path, &o)
	return o.Metadata.ResourceVersion
}

func (c *cluster) gatewayPort(t *testing.T) string {
	t.Helper()
	var o struct {
		Spec struct{ Listeners []struct{ Port int } }
	}
	c.get(t, gatewaysPath+"/gw", &o)
	return strconv.Itoa(o.Spec.Listeners[0].Port)
}

func (c *cluster) attached(t *testing.T) int {
	t.Helper()
	var o struct {
		Status struct {
			Listeners []struct{ AttachedRoutes int }
		}
	}
	c.get(t, gatewaysPath+"/gw", &o)
	if len(o.Status.Listeners) == 0 {
		return -1
	}
	return o.Status.Listeners[0].AttachedRoutes
}

func (c *cluster) holder(t *testing.T) string {
	t.Helper()
	var o struct {
		Spec struct{ HolderIdentity string }
	}
	c.get(t, "/apis/coordination.k8s.io/v1/namespaces/default/leases/meridian-gateway-controller", &o)
	return o.Spec.HolderIdentity
}

// want says how a route's condition differs, empty for not at all. It must be of the
// object's generation.
func (c *cluster) want(t *testing.T, path, typ, status, reason string) string {
	t.Helper()
	var o struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			Parents []struct {
				Conditions []struct {
					Type, Status, Reason string
					ObservedGeneration   int64
				}
			}
		}
	}
	c.get(t, path, &o)
	for _, p := range o.Status.Parents {
		for _, x := range p.Conditions {
			if x.Type == typ && x.Status == status && x.Reason == reason && x.ObservedGeneration == o.Metadata.Generation {
				return ""
			}
		}
	}
	return fmt.Sprintf("want %s=%s/%s, have %+v", typ, status, reason, o.Status)
}

func eventually(t *testing.T, what string, wrong func() string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text := wrong()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s", what, text)
		}
	}
}

// installCRDs installs those of the Gateway API, and waits until they are served.
func (c *cluster) installCRDs(t *testing.T) {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", gatewayAPI).Output()
	if err != nil {
		t.Fatalf("download %s: %v", gatewayAPI, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(module.Dir, "config", "crd", "standard", "gateway.networking.k8s.io_*s.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s: %v", module.Dir, err)
	}
	for _, f := range files {
		if !strings.Contains(f, "vap_") {
			c.installCRD(t, f)
		}
	}
	own, err := filepath.Glob(filepath.Join("..", "..", "deploy", "crds", "*.yaml"))
	if err != nil || len(own) == 0 {
		t.Fatalf("no CRDs of the mesh's own kinds: %v", err)
	}
	for _, f := range own {
		c.installCRD(t, f)
	}
	for _, path := range []string{gatewaysPath, routesPath, meshPath + "/meshservices"} {
		eventually(t, path, func() string {
			if _, err := c.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(t.Context()); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

func (c *cluster) installCRD(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := utilyaml.NewYAMLToJSONDecoder(bytes.NewReader(text))
	for {
		var doc json.RawMessage
		if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(doc) > 4 {
			c.post(t, crdsPath, string(doc))
		}
	}
}
