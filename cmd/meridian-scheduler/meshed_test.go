//go:build kube

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// meshed has routes whose parents are Services, and a Gateway at which requests between
// services come in; clients call the Services by their names, through the proxies at
// addresses.
func (c *cluster) meshed(t *testing.T, host string, addresses []string) {
	port := freePort(t)
	c.post(t, gatewaysPath, fmt.Sprintf(`{"metadata": {"name": "mesh", "labels": {"mesh.meridian.dev/mesh": "true"}},
		"spec": {"gatewayClassName": "meridian", "listeners": [{"name": "http", "port": %d, "protocol": "HTTP"}]}}`, port))
	serve := func(name, labels string) {
		c.post(t, "/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata": {"name": %q, "labels": {%s}}, "spec": {"ports": [{"name": "http", "port": %d}]}}`, name, labels, port))
		c.post(t, slicesPath, fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"kubernetes.io/service-name": %q}}, "addressType": "IPv4",
			"ports": [{"name": "http", "port": %d, "protocol": "TCP"}], "endpoints": [{"addresses": [%q], "conditions": {"ready": true}}]}`, name, name, bilingual(t, host, name), host))
	}
	route := func(kind, name, parents, rules string) {
		c.post(t, apiPath+"/"+kind, fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"parentRefs": [%s], "rules": [%s]}}`, name, parents, rules))
	}
	to := func(service string, weight int) string {
		return fmt.Sprintf(`{"name": %q, "port": %d, "weight": %d}`, service, port, weight)
	}
	const service = `{"group": "", "kind": "Service", "name": %q}`
	serve("cart", `"mesh.meridian.dev/mesh": "true"`)
	serve("basket", "")
	serve("cart-v1", "")
	serve("cart-v2", "")
	serve("wild", "")
	serve("talk", "")
	route("httproutes", "wild", `{"name": "mesh"}`, `{"backendRefs": [`+to("wild", 1)+`]}`)
	for _, address := range addresses {
		at := fmt.Sprintf("%s:%d", address, port)
		c.says(t, at, "basket.default", "/", "", "wild")                         // no route makes it a service of the mesh
		c.says(t, at, "cart.default.svc.cluster.local", "/anywhere", "", "cart") // its label does
	}
	// Two parents; a header, a path, and shares of the rest of /cart.
	route("httproutes", "cart", fmt.Sprintf(service+", "+service, "cart", "basket"),
		`{"matches": [{"headers": [{"name": "x-version", "value": "2"}]}], "backendRefs": [`+to("cart-v2", 1)+`]},
		 {"matches": [{"path": {"type": "Exact", "value": "/cart/old"}}], "backendRefs": [`+to("cart-v1", 1)+`]},
		 {"matches": [{"path": {"type": "PathPrefix", "value": "/cart"}}], "backendRefs": [`+to("cart-v1", 1)+`, `+to("cart-v2", 3)+`]}`)
	route("grpcroutes", "talk", fmt.Sprintf(service, "talk"), `{"matches": [{"method": {"service": "a.B"}}], "backendRefs": [`+to("talk", 1)+`]}`)
	// Those that are not served, and one of which a part leads nowhere.
	route("tcproutes", "whole", fmt.Sprintf(service, "wild"), `{"backendRefs": [`+to("wild", 1)+`]}`)
	route("httproutes", "named", fmt.Sprintf(service+`], "hostnames": ["example.com"`, "wild"), `{"backendRefs": [`+to("wild", 1)+`]}`)
	route("httproutes", "consumer", `{"group": "", "kind": "Service", "name": "kubernetes", "namespace": "kube-system"}`, `{"backendRefs": [`+to("wild", 1)+`]}`)
	route("httproutes", "half", fmt.Sprintf(service, "wild"), `{"matches": [{"path": {"type": "Exact", "value": "/gone"}}], "backendRefs": [`+to("gone", 1)+`]}, {"backendRefs": [`+to("cart-v1", 1)+`]}`)
	for path, want := range map[string][2]string{
		"httproutes/cart": {"Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"}, "grpcroutes/talk": {"Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"},
		"httproutes/half":  {"Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"},
		"tcproutes/whole":  {"Accepted=False/UnsupportedValue"},
		"httproutes/named": {"Accepted=False/UnsupportedValue"}, "httproutes/consumer": {"Accepted=False/ConsumerRouteUnsupported"},
	} {
		for _, w := range want {
			if w == "" {
				continue
			}
			typ, rest, _ := strings.Cut(w, "=")
			status, reason, _ := strings.Cut(rest, "/")
			eventually(t, "conditions of "+path, func() string { return c.want(t, apiPath+"/"+path, typ, status, reason) })
		}
	}
	var o struct {
		Status struct {
			Parents []struct{ ParentRef map[string]any }
		}
	}
	c.get(t, routesPath+"/cart", &o)
	for i, name := range []string{"cart", "basket"} {
		if got := fmt.Sprint(o.Status.Parents[i].ParentRef); got != fmt.Sprintf("map[group: kind:Service name:%s]", name) {
			t.Errorf("the status has parentRef %s", got)
		}
	}
	for _, address := range addresses {
		at := fmt.Sprintf("%s:%d", address, port)
		for _, name := range []string{"cart", "cart.default", "Cart.default.svc", "basket.default.svc.cluster.local", fmt.Sprintf("basket:%d", port)} {
			c.says(t, at, name, "/", "2", "cart-v2")
			c.says(t, at, name, "/cart/old", "", "cart-v1")
			c.says(t, at, name, "/", "", "404") // and not the route of every host
		}
		c.says(t, at, "elsewhere.example", "/", "", "wild")
		c.says(t, at, "wild.default", "/gone", "", "500")
		c.says(t, at, "wild.default", "/", "", "cart-v1")
		got := map[string]int{}
		for range 200 {
			got[ask(t, at, "cart.default", "/cart/x", "")]++
		}
		// Shares of 1 and 3; with 200 requests, 20 of one is four and a half deviations off.
		if got["cart-v1"]+got["cart-v2"] != 200 || got["cart-v1"] < 20 || got["cart-v1"] > 80 {
			t.Errorf("of 200 requests with weights 1 and 3: %v", got)
		}
		for path, want := range map[string]string{"/a.B/C": "talk", "/a.C/C": "404"} {
			eventually(t, "gRPC at "+at+path, func() string {
				if got := call(t, at, "talk.default", path); got != want {
					return fmt.Sprintf("%s, want %s", got, want)
				}
				return ""
			})
		}
	}
	// What a Service's routes are is no count of the Gateway's, and endpoints that change
	// are nothing to write.
	var g struct {
		Status struct {
			Listeners []struct{ AttachedRoutes int }
		}
	}
	c.get(t, gatewaysPath+"/mesh", &g)
	if len(g.Status.Listeners) != 1 || g.Status.Listeners[0].AttachedRoutes != 1 {
		t.Errorf("the Gateway counts %+v, want 1 route at its one listener", g.Status.Listeners)
	}
	quiet := []string{routesPath + "/cart", gatewaysPath + "/mesh", apiPath + "/grpcroutes/talk", routesPath + "/half"}
	before := make([]string, len(quiet))
	for i, path := range quiet {
		before[i] = c.version(t, path)
	}
	c.put(t, slicesPath+"/cart-v1", fmt.Sprintf(`{"ports": [{"name": "http", "port": %d, "protocol": "TCP"}]}`, bilingual(t, host, "moved")))
	for _, address := range addresses {
		c.says(t, fmt.Sprintf("%s:%d", address, port), "cart.default", "/cart/old", "", "moved")
	}
	for i, path := range quiet {
		if v := c.version(t, path); v != before[i] {
			t.Errorf("%s was written although its status did not change: version %s, was %s", path, v, before[i])
		}
	}
	// Without the route the labelled Service is its endpoints again, the other is none of the mesh's.
	if _, err := c.client.Discovery().RESTClient().Delete().AbsPath(routesPath + "/cart").DoRaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		at := fmt.Sprintf("%s:%d", address, port)
		c.says(t, at, "cart.default", "/", "2", "cart")
		c.says(t, at, "basket.default", "/", "2", "wild")
	}
}

// says waits until a proxy answers so a request for a host.
func (c *cluster) says(t *testing.T, at, host, path, version, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("http://%s%s at %s, x-version %q", host, path, at, version), func() string {
		if got := ask(t, at, host, path, version); got != want {
			return fmt.Sprintf("says %q, want %q", got, want)
		}
		return ""
	})
}

// ask returns the body of the answer, or its status where that is not 200.
func ask(t *testing.T, at, host, path, version string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	if version != "" {
		r.Header.Set("X-Version", version)
	}
	return said(http.DefaultClient.Do(r))
}

// call sends what a call of gRPC is to those that look only at its head.
func call(t *testing.T, at, host, path string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+path, strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	text := said(client.Do(r))
	if strings.HasPrefix(text, "grpc ") {
		return map[string]string{"grpc 12": "404"}[text] // unimplemented
	}
	return text
}

func said(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	switch status := resp.Header.Get("Grpc-Status"); {
	case err != nil:
		return err.Error()
	case status != "":
		return "grpc " + status
	case resp.StatusCode != http.StatusOK:
		return fmt.Sprint(resp.StatusCode)
	}
	return string(body)
}

// bilingual answers with its name, in HTTP/1.1 and in HTTP/2 without TLS.
func bilingual(t *testing.T, host, name string) int {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }), ReadHeaderTimeout: time.Minute, Protocols: &http.Protocols{}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}
