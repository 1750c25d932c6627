//go:build cluster

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

const echoImage = "meridian.test/echo:1"

// deployment is a service of pods that answer with their own address. A pod that ends
// goes on serving for three seconds, as Kubernetes wants it of those whose clients
// must not notice.
func deployment(name string, replicas int, more string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 2}}
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      %[3]s
      containers:
      - name: echo
        image: %[4]s
        env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        args: ["$(IP):8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80, targetPort: 8080}]}
`, name, replicas, more, echoImage)
}

func httpRoute(name, service string) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%[1]s}}]
    backendRefs: [{name: %[2]s, port: 80}]
`, name, service)
}

const gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: meridian
  listeners: [{name: http, port: 80, protocol: HTTP}]
`

const (
	gatewayVersion = "gateway.networking.k8s.io/v1"
	perSecond      = 150
)

// TestCluster has a real cluster whose scheduler is ours, two sites that bridge it,
// and real proxies that bring requests to its pods, while pods and nodes come and go.
func TestCluster(t *testing.T) {
	c := start(t, "test")
	c.writeTraffic(t)
	bin := t.TempDir()
	goBuild(t, nil, bin+"/", "./cmd/sitecontroller", "./cmd/edgeproxy")
	goBuild(t, []string{"CGO_ENABLED=0"}, filepath.Join(bin, "echo"), "./examples/echo")
	c.command(t, "image", filepath.Join(bin, "echo"), echoImage)
	c.install(t)
	kubeconfig := c.account(t)
	c.apply(t, gateway)
	c.apply(t, deployment("web", 4, ""))
	c.apply(t, deployment("other", 1, ""))
	c.apply(t, httpRoute("web", "web"))
	c.apply(t, httpRoute("other", "other"))
	a, b := c.startSite(t, bin, "a", kubeconfig, 1), c.startSite(t, bin, "b", kubeconfig, 2)
	webs := []string{"http://" + a.gateway + "/web", "http://" + b.gateway + "/web"}
	web := c.ready(t, "web", 4)

	t.Run("Routes", func(t *testing.T) {
		other := c.ready(t, "other", 1)
		for _, s := range []*site{a, b} {
			c.answeredBy(t, "http://"+s.gateway+"/web", web)
			c.answeredBy(t, "http://"+s.gateway+"/other", other)
		}
		for _, n := range c.Nodes {
			if len(on(web, n.Name)) != 2 {
				t.Errorf("of 4 pods without traffic %d are on %s: %v", len(on(web, n.Name)), n.Name, web)
			}
		}
		for _, at := range []string{objectPath(gatewayVersion, "GatewayClass", "meridian"), objectPath(gatewayVersion, "Gateway", "gw"), objectPath(gatewayVersion, "HTTPRoute", "web")} {
			eventually(t, at, func() error { return c.condition(t, at, "Accepted", "True", "Accepted") })
		}
	})
	t.Run("InvalidRoute", func(t *testing.T) {
		c.apply(t, httpRoute("broken", "nowhere"))
		at := objectPath(gatewayVersion, "HTTPRoute", "broken")
		eventually(t, "the broken route's condition", func() error { return c.condition(t, at, "ResolvedRefs", "False", "BackendNotFound") })
		cl := c.newClient()
		for _, s := range []*site{a, b} {
			eventually(t, "the broken route's answer", func() error {
				if got := cl.ask(t.Context(), "http://"+s.gateway+"/broken"); got.err == nil || got.err.Error()[:3] != "500" {
					return fmt.Errorf("want 500, have %w", got.err)
				}
				return nil
			})
			c.answeredBy(t, "http://"+s.gateway+"/web", web)
		}
	})
	t.Run("Services", func(t *testing.T) { services(t, c) })
	t.Run("Placement", func(t *testing.T) { placement(t, c) })

	// From here on endpoints change and nothing that a status speaks of.
	writes, quiet := c.statusWrites(t), map[string]string{}
	for _, at := range []string{
		objectPath(gatewayVersion, "GatewayClass", "meridian"), objectPath(gatewayVersion, "Gateway", "gw"),
		objectPath(gatewayVersion, "HTTPRoute", "web"), objectPath(gatewayVersion, "HTTPRoute", "other"), objectPath(gatewayVersion, "HTTPRoute", "broken"),
	} {
		quiet[at] = c.version(t, at)
	}
	at := objectPath("apps/v1", "Deployment", "web")
	t.Run("Scale", func(t *testing.T) {
		l := c.load(t, perSecond, webs...)
		c.merge(t, at, `{"spec": {"replicas": 8}}`)
		c.answeredBy(t, webs[0], c.ready(t, "web", 8))
		c.merge(t, at, `{"spec": {"replicas": 2}}`)
		c.answeredBy(t, webs[1], c.ready(t, "web", 2))
		c.gone(t, "web")
		c.merge(t, at, `{"spec": {"replicas": 4}}`)
		c.answeredBy(t, webs[0], c.ready(t, "web", 4))
		none(t, "4 pods, 8, 2, 4", l.stop())
	})
	t.Run("Rollout", func(t *testing.T) {
		before := addresses(c.ready(t, "web", 4))
		l := c.load(t, perSecond, webs...)
		c.merge(t, at, `{"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}}`)
		var after []pod
		eventually(t, "only new pods", func() error {
			after = c.pods(t, "web")
			for _, p := range after {
				if before[p.IP] {
					return fmt.Errorf("%s is of the old ones", p.Name)
				}
			}
			if len(after) != 4 {
				return errNotYet
			}
			return nil
		})
		c.answeredBy(t, webs[0], after)
		c.answeredBy(t, webs[1], after)
		c.gone(t, "web")
		none(t, "rollout", l.stop())
	})
	lost := c.Nodes[1].Name
	t.Run("Drain", func(t *testing.T) {
		l := c.load(t, perSecond, webs...)
		c.merge(t, objectPath("v1", "Node", lost), `{"spec": {"unschedulable": true}}`)
		for _, p := range on(c.ready(t, "web", 4), lost) {
			c.post(t, objectPath("v1", "Pod", p.Name)+"/eviction", fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q}}`, p.Name), nil)
		}
		var left []pod
		eventually(t, "all pods on the other node", func() error {
			if left = c.pods(t, "web"); len(left) != 4 || len(on(left, lost)) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
		c.answeredBy(t, webs[0], left)
		c.gone(t, "web")
		none(t, "drain of "+lost, l.stop())
		c.merge(t, objectPath("v1", "Node", lost), `{"spec": {"unschedulable": false}}`)
	})
	t.Run("NodeLoss", func(t *testing.T) {
		c.merge(t, at, `{"spec": {"replicas": 8}}`)
		all := c.ready(t, "web", 8)
		stay := on(all, c.Nodes[0].Name)
		if len(stay) == 8 || len(stay) == 0 {
			t.Fatalf("all pods are on one node: %v", all)
		}
		c.answeredBy(t, webs[0], all)
		l := c.load(t, perSecond, webs...)
		time.Sleep(time.Second)
		cut := time.Now()
		c.command(t, "exec", "ip", "link", "set", lost, "down")
		eventually(t, "notice of the loss", func() error {
			if c.nodeReady(t, lost) || len(c.pods(t, "web")) != len(stay) {
				return errNotYet
			}
			return nil
		})
		noticed := time.Now()
		c.answeredBy(t, webs[0], stay)
		c.answeredBy(t, webs[1], stay)
		// What the proxies have been told must have reached them by now.
		told := time.Now()
		time.Sleep(2 * time.Second)
		c.command(t, "exec", "ip", "link", "set", lost, "up")
		eventually(t, "the node's return", func() error {
			if !c.nodeReady(t, lost) || len(c.pods(t, "web")) != 8 {
				return errNotYet
			}
			return nil
		})
		c.answeredBy(t, webs[0], all)
		c.answeredBy(t, webs[1], all)
		var before, blind, after []answer
		for _, x := range l.stop() {
			switch {
			case x.sent.Before(cut):
				before = append(before, x)
			case x.sent.Before(told):
				blind = append(blind, x)
			default:
				after = append(after, x)
			}
		}
		t.Logf("Kubernetes noticed the loss after %.1f s, all proxies knew %.0f ms later; until then %d of %d requests failed, the slowest took %s",
			noticed.Sub(cut).Seconds(), float64(told.Sub(noticed).Milliseconds()), len(failed(blind)), len(blind), slowest(blind).Round(time.Millisecond))
		// Half of the endpoints are silent: proxies that did not find out themselves
		// would fail every other request.
		if 10*len(failed(blind)) > len(blind) {
			t.Errorf("without notice %d of %d requests failed", len(failed(blind)), len(blind))
		}
		none(t, "before the loss", before)
		none(t, "after notice, and when the node returned", after)
	})
	t.Run("NoNeedlessStatus", func(t *testing.T) {
		for at, version := range quiet {
			if v := c.version(t, at); v != version {
				t.Errorf("%s was written although its status did not change: version %s, was %s", at, v, version)
			}
		}
		// A write of what is there already makes no new version, but is one.
		if n := c.statusWrites(t); writes == 0 || n != writes {
			t.Errorf("%d requests to write a status, %d before endpoints changed", n, writes)
		}
	})
	t.Run("Chart", func(t *testing.T) { c.chart(t, c.pods(t, "web")) })
}

// backs are services that talk to front and to nobody else. Each has one pod, so
// nothing else draws them together.
var backs = []string{"back-1", "back-2", "back-3", "back-4"}

// writeTraffic tells the scheduler so. Its plugin looks every two seconds whether the
// file has changed.
func (c *cluster) writeTraffic(t *testing.T) {
	t.Helper()
	rates := traffic.Rates{RequestsPerS: 500, RequestBytesPerS: 1e6, ResponseBytesPerS: 1e6}
	matrix := &traffic.Matrix{}
	for _, back := range backs {
		matrix.Edges = append(matrix.Edges, traffic.Edge{
			From: mesh.Workload{Namespace: "default", Name: "front"}, To: mesh.Workload{Namespace: "default", Name: back}, Recent: rates, Steady: rates,
		})
	}
	b, err := json.Marshal(traffic.Merge(matrix))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.state.Scheduler, "matrix.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// placement has the scheduler put pods beside those that they talk to, now on one
// node and now on the other.
func placement(t *testing.T, c *cluster) {
	// round says on which nodes the pods come to be.
	round := func(node string) (at []string) {
		c.apply(t, deployment("front", 1, "nodeSelector: {kubernetes.io/hostname: "+node+"}"))
		c.ready(t, "front", 1)
		for _, back := range backs {
			c.apply(t, deployment(back, 1, ""))
		}
		for _, back := range backs {
			at = append(at, c.ready(t, back, 1)[0].Node)
		}
		for _, app := range append(backs, "front") {
			c.merge(t, objectPath("apps/v1", "Deployment", app), `{"spec": {"replicas": 0}}`)
		}
		for _, app := range append(backs, "front") {
			c.ready(t, app, 0)
		}
		c.gone(t, "front") // until then it is on its old node, too
		return at
	}
	same := func(at []string, node string) bool {
		return len(at) == len(backs) && strings.Count(strings.Join(at, " "), node) == len(backs)
	}
	for _, n := range []node{c.Nodes[1], c.Nodes[0]} {
		if at := round(n.Name); !same(at, n.Name) {
			t.Errorf("front is on %s, and those that it talks to on %v", n.Name, at)
		}
	}
}
