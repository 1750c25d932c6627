package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

// twoSites is the configuration of two sites that share one service. Both read
// the same file; an endpoint belongs to the site it names.
func twoSites(northGateway, southGateway, northBackend, southBackend string, northSlots, southSlots int) string {
	return fmt.Sprintf(`apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: north}
spec:
  location: {type: Point, coordinates: [144.96, -37.81]}
  gateways: [{address: %[1]q}]
  links: [{to: south, rtt: 2ms}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: south}
spec:
  location: {type: Point, coordinates: [144.98, -37.85]}
  gateways: [{address: %[2]q}]
  links: [{to: north, rtt: 2ms}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: 0, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  export: {scope: mesh}
  ports: [{name: http, port: 80, protocol: http}]
  endpoints:
  - {address: %[3]q, site: north, capacity: {concurrency: %[5]d, serviceTime: 50ms}}
  - {address: %[4]q, site: south, capacity: {concurrency: %[6]d, serviceTime: 50ms}}
`, northGateway, southGateway, northBackend, southBackend, northSlots, southSlots)
}

// eastWest is the Gateway that other sites reach a site by.
func eastWest(address string) string {
	var host, port string
	for i := len(address) - 1; i >= 0; i-- {
		if address[i] == ':' {
			host, port = address[:i], address[i+1:]
			break
		}
	}
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eastwest}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: %s}]
  listeners: [{name: sites, port: %s, protocol: mesh.meridian.dev/EastWest}]
`, host, port)
}

// outcome is what users of a run saw.
type outcome struct {
	requests, errors int
	median, worst    time.Duration
	firstError       string
}

// drive sends rate requests a second for d, whether or not answers come back.
func drive(t *testing.T, url string, rate int, d time.Duration) outcome {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 15 * time.Second}
	defer c.CloseIdleConnections()
	var (
		mu    sync.Mutex
		out   outcome
		times []time.Duration
		wg    sync.WaitGroup
	)
	start := time.Now()
	for i := range rate * int(d.Milliseconds()) / 1000 {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		wg.Go(func() {
			resp, err := c.Get(url)
			if err == nil {
				err = resp.Body.Close()
				if err == nil && resp.StatusCode != 200 {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out.requests++
			times = append(times, time.Since(due))
			if err != nil {
				out.errors++
				out.firstError = err.Error()
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	out.median, out.worst = times[len(times)/2], times[len(times)-1]
	return out
}

func weightsOf(t *testing.T, p *proxy) edgeproxy.WeightsView {
	t.Helper()
	status, body := p.ask("/weights")
	var v edgeproxy.WeightsView
	if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil {
		t.Fatalf("/weights: %d %v\n%s", status, err, body)
	}
	return v
}

// Two sites without a controller: what they know of each other comes in band.
func TestSites_overflow(t *testing.T) {
	north, south := startBackend(t, "north", slots(2, 50*time.Millisecond)), startBackend(t, "south", slots(8, 50*time.Millisecond))
	gatewayN, gatewayS := deadAddress(t), deadAddress(t)
	config := twoSites(gatewayN, gatewayS, north.address(), south.address(), 2, 8)
	dir := t.TempDir()
	pathN, pathS := filepath.Join(dir, "north.yaml"), filepath.Join(dir, "south.yaml")
	put(t, pathN, config+eastWest(gatewayN))
	put(t, pathS, config+eastWest(gatewayS))
	n := start(t, t.TempDir(), "--config", pathN, "--site", "north", "--node", "n")
	s := start(t, t.TempDir(), "--config", pathS, "--site", "south", "--node", "s")
	eventually(t, "north hears south's load in band", func() bool {
		v := weightsOf(t, n)
		return len(v.Services) == 1 && len(v.Services[0].Remotes) == 1 && v.Services[0].Remotes[0].Excluded == "" && v.Services[0].Remotes[0].AgeMS > 0
	})

	// A calm site keeps its own. On a busy machine requests come in bunches, and
	// some of a bunch may rightly leave.
	if o := drive(t, n.ingress(), 10, 2*time.Second); o.errors > 0 {
		t.Errorf("calm: %+v", o)
	}
	if away := south.requests.Load(); away > 10 {
		t.Errorf("a calm site sent %d of 20 requests away", away)
	}

	// 100 requests a second at a site that serves 40: the other takes over.
	o := drive(t, n.ingress(), 100, 4*time.Second)
	t.Logf("hot: %+v, served by north %d, south %d", o, north.requests.Load(), south.requests.Load())
	if o.errors > 0 {
		t.Errorf("hot: %d of %d failed: %s", o.errors, o.requests, o.firstError)
	}
	// Alone north would have 240 requests waiting at the end, 6 s for the last.
	if o.median > time.Second {
		t.Errorf("hot: median %v", o.median)
	}
	if away := south.requests.Load(); away < 150 {
		t.Errorf("south served %d of 400", away)
	}
	v := weightsOf(t, n)
	if len(v.History) == 0 {
		t.Fatal("no change of shares is kept")
	}
	if last := v.History[len(v.History)-1]; last.Shares["south"] < 0.3 || last.Source != "standby" {
		t.Errorf("last change: %+v", last)
	}
	// What came from the other site is served at south and never sent back.
	if v := weightsOf(t, s); v.Services[0].Remotes[0].Share > 0 {
		t.Errorf("south sends %+v", v.Services[0].Remotes)
	}
	n.says("/metrics", `meridian_upstream_requests_total{service="default/echo",site="south",endpoint="`+gatewayS+`"}`)
}

// A neighbour that is configured but not there costs its users nothing.
func TestSites_deadGateway(t *testing.T) {
	north := startBackend(t, "north", slots(2, 50*time.Millisecond))
	gatewayN, gatewayS := deadAddress(t), deadAddress(t)
	path := filepath.Join(t.TempDir(), "north.yaml")
	put(t, path, twoSites(gatewayN, gatewayS, north.address(), deadAddress(t), 2, 8)+eastWest(gatewayN))
	n := start(t, t.TempDir(), "--config", path, "--site", "north", "--node", "n")
	o := drive(t, n.ingress(), 60, 2*time.Second)
	if o.errors > 0 {
		t.Errorf("%d of %d failed: %s", o.errors, o.requests, o.firstError)
	}
	if r := weightsOf(t, n).Services[0].Remotes[0]; r.Excluded == "" && r.Suspect == "" {
		t.Errorf("nothing says why south gets nothing: %+v", r)
	}
}

// A neighbour that dies while it helps: requests under way there may be lost with
// it only where they cannot be sent again, and GET can.
func TestSites_gatewayDies(t *testing.T) {
	north, south := startBackend(t, "north", slots(2, 50*time.Millisecond)), startBackend(t, "south", slots(8, 50*time.Millisecond))
	gatewayN, gatewayS := deadAddress(t), deadAddress(t)
	config := twoSites(gatewayN, gatewayS, north.address(), south.address(), 2, 8)
	dir := t.TempDir()
	pathN, pathS := filepath.Join(dir, "north.yaml"), filepath.Join(dir, "south.yaml")
	put(t, pathN, config+eastWest(gatewayN))
	put(t, pathS, config+eastWest(gatewayS))
	n := start(t, t.TempDir(), "--config", pathN, "--site", "north", "--node", "n")
	s := start(t, t.TempDir(), "--config", pathS, "--site", "south", "--node", "s")
	done := make(chan outcome)
	go func() { done <- drive(t, n.ingress(), 80, 3*time.Second) }()
	eventually(t, "south helps", func() bool { return south.requests.Load() > 20 })
	s.kill()
	if o := <-done; o.errors > 0 {
		t.Errorf("%d of %d failed: %s", o.errors, o.requests, o.firstError)
	}
}

// A drained site sends its users away by its own configuration, with no controller,
// and serves them again when nobody else can.
func TestSites_drained(t *testing.T) {
	north, south := startBackend(t, "north", slots(8, time.Millisecond)), startBackend(t, "south", slots(8, time.Millisecond))
	gatewayN, gatewayS := deadAddress(t), deadAddress(t)
	config := twoSites(gatewayN, gatewayS, north.address(), south.address(), 8, 8)
	drained := strings.Replace(config, "links: [{to: south, rtt: 2ms}]", "links: [{to: south, rtt: 2ms}]\n  traffic: drained", 1)
	dir := t.TempDir()
	pathN, pathS := filepath.Join(dir, "north.yaml"), filepath.Join(dir, "south.yaml")
	put(t, pathN, drained+eastWest(gatewayN))
	put(t, pathS, drained+eastWest(gatewayS))
	n := start(t, t.TempDir(), "--config", pathN, "--site", "north", "--node", "n")
	s := start(t, t.TempDir(), "--config", pathS, "--site", "south", "--node", "s")
	eventually(t, "north sends its users to south", func() bool {
		v := weightsOf(t, n)
		return len(v.Services) == 1 && v.Services[0].HomeLimit == 0 && len(v.Services[0].Remotes) == 1 && v.Services[0].Remotes[0].Share > 0.999
	})
	was := north.requests.Load()
	if o := drive(t, n.ingress(), 30, 2*time.Second); o.errors > 0 || north.requests.Load() != was {
		t.Errorf("%+v, and %d requests were served at the drained site", o, north.requests.Load()-was)
	}
	if v := weightsOf(t, s); v.Services[0].Remotes[0].Excluded != "drained by its operator" {
		t.Errorf("south says of north: %+v", v.Services[0].Remotes[0])
	}
	s.kill()
	if o := drive(t, n.ingress(), 30, 2*time.Second); o.errors > 0 || north.requests.Load() == was {
		t.Errorf("alone: %+v, %d requests were served at the drained site", o, north.requests.Load()-was)
	}
}
