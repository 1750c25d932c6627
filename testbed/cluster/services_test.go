//go:build cluster

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const callerImage = "meridian.test/caller:1"

// services has a pod call a Service whose requests a route shares: by the Service's
// address, which kube-proxy brings to a real proxy, and a client outside by its names.
// All of it is examples/kubernetes/mesh.yaml.
func services(t *testing.T, c *cluster) {
	program := filepath.Join(t.TempDir(), "caller")
	goBuild(t, []string{"CGO_ENABLED=0"}, program, "./testbed/cluster/testdata/caller")
	c.command(t, "image", program, callerImage)
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "kubernetes", "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.apply(t, string(example))
	c.apply(t, deployment("cart-v1", 1, ""))
	c.apply(t, deployment("cart-v2", 1, ""))
	c.apply(t, `apiVersion: v1
kind: Pod
metadata: {name: caller, labels: {app: caller}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: caller
    image: `+callerImage+`
    args: [":8080"]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`)
	caller := c.ready(t, "caller", 1)[0]
	first, second := c.ready(t, "cart-v1", 1)[0].IP, c.ready(t, "cart-v2", 1)[0].IP
	at := objectPath(gatewayVersion, "HTTPRoute", "cart")
	eventually(t, "the route's condition", func() error { return c.condition(t, at, "Accepted", "True", "Accepted") })
	var service struct{ Spec struct{ ClusterIP string } }
	c.get(t, objectPath("v1", "Service", "cart"), &service)

	// fromPod is what the pod hears: the status and, after it, who answered.
	cl := c.newClient()
	defer cl.http.CloseIdleConnections()
	get := func(address, host, version string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("X-Version", version)
		resp, err := cl.http.Do(r)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		who, _, _ := strings.Cut(string(body), ":")
		return fmt.Sprint(resp.StatusCode, " ", who)
	}
	fromPod := func(path, version string) string {
		q := url.Values{"url": {"http://" + service.Spec.ClusterIP + path}, "version": {version}}
		text := get("http://"+caller.IP+":8080/?"+q.Encode(), "", "")
		return strings.TrimPrefix(text, "200 ")
	}
	is := func(what string, ask func() string, want string) {
		t.Helper()
		eventually(t, what, func() error {
			if got := ask(); !strings.HasPrefix(got, want) {
				return fmt.Errorf("hears %q, want %q", got, want)
			}
			return nil
		})
	}
	shares := func(what string, ask func() string) {
		t.Helper()
		got := map[string]int{}
		for range 200 {
			got[ask()]++
		}
		// One in ten of 200; 2 and 50 are more than four deviations off.
		if one, two := got["200 "+first], got["200 "+second]; one+two != 200 || two < 2 || two > 50 {
			t.Errorf("%s: of 200 requests with weights 9 and 1: %v", what, got)
		}
	}
	is("the pod, version 2", func() string { return fromPod("/cart/1", "2") }, "200 "+second)
	is("the pod, what no rule matches", func() string { return fromPod("/", "2") }, "404")
	shares("the pod", func() string { return fromPod("/cart", "") })
	for range 20 {
		if got := fromPod("/cart", "2"); got != "200 "+second {
			t.Errorf("the pod, version 2, hears %q", got)
		}
	}
	var gw struct {
		Status struct {
			Addresses []struct{ Value string }
			Listeners []struct{ AttachedRoutes int }
		}
	}
	c.get(t, objectPath(gatewayVersion, "Gateway", "mesh"), &gw)
	if len(gw.Status.Addresses) != 1 || len(gw.Status.Listeners) != 1 || gw.Status.Listeners[0].AttachedRoutes != 0 {
		t.Fatalf("the Gateway's status: %+v", gw.Status)
	}
	outside := "http://" + gw.Status.Addresses[0].Value
	for _, host := range []string{"cart", "cart.default", "cart.default.svc.cluster.local"} {
		is(host, func() string { return get(outside+"/cart", host, "2") }, "200 "+second)
		is(host+", what no rule matches", func() string { return get(outside+"/", host, "") }, "404")
		shares(host, func() string { return get(outside+"/cart", host, "") })
	}
	is("another name", func() string { return get(outside+"/cart", "example.com", "2") }, "404")

	// A route that leads nowhere has its condition; the other serves.
	c.apply(t, `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart-broken}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules: [{matches: [{path: {value: /broken}}], backendRefs: [{name: nowhere, port: 80}]}]
`)
	broken := objectPath(gatewayVersion, "HTTPRoute", "cart-broken")
	eventually(t, "the broken route's condition", func() error { return c.condition(t, broken, "ResolvedRefs", "False", "BackendNotFound") })
	is("the pod, a route that leads nowhere", func() string { return fromPod("/broken", "") }, "500")
	is("the pod, the other route", func() string { return fromPod("/cart", "2") }, "200 "+second)

	// Without routes the Service's address leads nowhere, as before.
	for _, o := range []string{at, broken} {
		if err := c.api.Delete().AbsPath(o).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	is("the pod, without a route", func() string { return fromPod("/cart", "2") }, "502")
	eventually(t, "the end of the EndpointSlice", func() error {
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		c.get(t, objectPath("discovery.k8s.io/v1", "EndpointSlice", ""), &list, "labelSelector", "kubernetes.io/service-name=cart")
		if len(list.Items) > 0 {
			return fmt.Errorf("there is %v", list.Items)
		}
		return nil
	})
	for _, o := range []string{objectPath(gatewayVersion, "Gateway", "mesh"), objectPath("v1", "Pod", "caller"), objectPath("apps/v1", "Deployment", "cart-v1"), objectPath("apps/v1", "Deployment", "cart-v2")} {
		if err := c.api.Delete().AbsPath(o).Do(t.Context()).Error(); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	c.gone(t, "cart-v1")
	c.gone(t, "cart-v2")
}
