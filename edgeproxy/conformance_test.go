package edgeproxy

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// The rules that the Gateway API's conformance suite (GATEWAY-HTTP, core) holds an
// implementation to, asked of a node with a file over real sockets. Statuses of
// objects are api/mesh's Check; filters, retries and grants have tests of their own.

const conforming = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: hosts}
spec:
  gatewayClassName: meridian
  addresses: [{value: 127.0.0.1}]
  listeners:
  - {name: exact, port: PORT1, protocol: HTTP, hostname: bar.com}
  - {name: deeper, port: PORT1, protocol: HTTP, hostname: foo.bar.com}
  - {name: wild, port: PORT1, protocol: HTTP, hostname: "*.bar.com"}
  - {name: other, port: PORT1, protocol: HTTP, hostname: "*.foo.com"}
---
HTTPRoute one, {name: hosts, sectionName: exact}, , /, a
---
HTTPRoute two, {name: hosts, sectionName: deeper}, , /, b
---
HTTPRoute three, {name: hosts, sectionName: wild}; {name: hosts, sectionName: other}, , /, c
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: crossing}
spec:
  gatewayClassName: meridian
  addresses: [{value: 127.0.0.1}]
  listeners:
  - {name: one, port: PORT2, protocol: HTTP, hostname: very.specific.com}
  - {name: two, port: PORT2, protocol: HTTP, hostname: "*.wildcard.io"}
  - {name: three, port: PORT2, protocol: HTTP, hostname: "*.anotherwildcard.io"}
---
HTTPRoute s1, {name: crossing}, non.matching.com; "*.nonmatchingwildcard.io"; very.specific.com, /s1, a
---
HTTPRoute s2, {name: crossing}, non.matching.com; wildcard.io; foo.wildcard.io; foo.bar.wildcard.io, /s2, b
---
HTTPRoute s3, {name: crossing}, non.matching.com; "*.specific.com", /s3, c
---
HTTPRoute s4, {name: crossing}, "*.anotherwildcard.io", /s4, a
---
HTTPRoute s5, {name: crossing}, specific.but.wrong.com; wildcard.io, /s5, b
---
HTTPRoute nowhere, {name: crossing, sectionName: none}, , /, a
---
HTTPRoute wrong-port, {name: crossing, port: 1}, , /, a
---
HTTPRoute elsewhere, {name: crossing, namespace: other}, , /, a
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ports}
spec:
  gatewayClassName: meridian
  addresses: [{value: 127.0.0.1}]
  listeners:
  - {name: one, port: PORT3, protocol: HTTP, hostname: foo.com}
  - {name: two, port: PORT4, protocol: HTTP, hostname: foo.com}
  - {name: three, port: PORT4, protocol: HTTP, hostname: bar.com}
---
HTTPRoute first, {name: ports, port: PORT3}, , /, a
---
HTTPRoute second, {name: ports, port: PORT4, sectionName: two}, , /, b
---
HTTPRoute never, {name: ports, port: PORT3, sectionName: three}, , /, c
`

// conformObjects writes the short lines "HTTPRoute name, parents, hostnames,
// prefix, service" out.
func conformObjects(t *testing.T, services map[string]string, ports []int) mesh.Objects {
	t.Helper()
	var text strings.Builder
	for _, line := range strings.Split(conforming, "\n") {
		short, ok := strings.CutPrefix(line, "HTTPRoute ")
		if !ok {
			fmt.Fprintln(&text, line)
			continue
		}
		// The parents hold commas of their own.
		name, rest, _ := strings.Cut(short, ", ")
		end := strings.LastIndex(rest, "}")
		parents := strings.ReplaceAll(rest[:end+1], "}; {", "}, {")
		f := strings.Split(strings.TrimPrefix(rest[end+1:], ", "), ", ")
		hostnames := strings.ReplaceAll(f[0], ";", ",")
		fmt.Fprintf(&text, "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s}\nspec:\n  parentRefs: [%s]\n  hostnames: [%s]\n  rules:\n  - matches: [{path: {value: %s}}]\n    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: %s, port: 80}]\n",
			name, parents, hostnames, f[1], f[2])
	}
	for name, addr := range services {
		text.WriteString(serviceText(name, addr))
	}
	out := text.String()
	for i, p := range ports {
		out = strings.ReplaceAll(out, fmt.Sprintf("PORT%d", i+1), fmt.Sprint(p))
	}
	o, err := mesh.ParseYAML("conformance", []byte(out))
	if err != nil {
		t.Fatal(err)
	}
	return *o
}

// freePorts are ports that nobody listens at now.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func TestConformanceHosts(t *testing.T) {
	services := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		services[name] = backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(name)) })
	}
	ports := freePorts(t, 4)
	startProxy(t, Config{Loops: 1}, Deps{}, conformObjects(t, services, ports))
	for _, c := range []struct {
		port       int
		host, path string
		want       string // empty for 404
	}{
		// HTTPRouteListenerHostnameMatching
		{0, "bar.com", "/", "a"}, {0, "foo.bar.com", "/", "b"}, {0, "baz.bar.com", "/", "c"}, {0, "multiple.prefixes.bar.com", "/", "c"},
		{0, "multiple.prefixes.foo.com", "/", "c"}, {0, "foo.com", "/", ""}, {0, "no.matching.host", "/", ""}, {0, "BAR.com:1234", "/", "a"},
		// HTTPRouteHostnameIntersection
		{1, "very.specific.com", "/s1", "a"}, {1, "very.specific.com:1234", "/s1", "a"}, {1, "non.matching.com", "/s1", ""},
		{1, "foo.nonmatchingwildcard.io", "/s1", ""}, {1, "foo.wildcard.io", "/s1", ""}, {1, "very.specific.com", "/non-matching-prefix", ""},
		{1, "foo.wildcard.io", "/s2", "b"}, {1, "foo.bar.wildcard.io", "/s2", "b"}, {1, "wildcard.io", "/s2", ""}, {1, "very.specific.com", "/s2", ""},
		{1, "very.specific.com", "/s3", "c"}, {1, "foo.specific.com", "/s3", ""}, {1, "foo.wildcard.io", "/s3", ""},
		{1, "foo.anotherwildcard.io", "/s4", "a"}, {1, "foo.bar.anotherwildcard.io", "/s4", "a"}, {1, "anotherwildcard.io", "/s4", ""},
		{1, "very.specific.com", "/s4", ""}, {1, "wildcard.io", "/s5", ""}, {1, "specific.but.wrong.com", "/s5", ""},
		// HTTPRouteInvalidParentRef...: routes to no listener serve nothing
		{1, "very.specific.com", "/", ""},
		// HTTPRouteListenerPortMatching
		{2, "foo.com", "/", "a"}, {3, "foo.com", "/", "b"}, {3, "bar.com", "/", ""}, {2, "bar.com", "/", ""},
	} {
		res, body := ask(t, "GET", fmt.Sprintf("http://127.0.0.1:%d%s", ports[c.port], c.path), c.host)
		if res.StatusCode == 404 {
			body = ""
		}
		if body != c.want || res.StatusCode != 200 && res.StatusCode != 404 {
			t.Errorf("port %d, %s%s: %d %q, want %q", c.port+1, c.host, c.path, res.StatusCode, body, c.want)
		}
	}
}

// TestConformanceMatching has rules whose service is the rule's name.
func TestConformanceMatching(t *testing.T) {
	says := func(rule string) string {
		return "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: \"" + rule + "\"}]}}], " + toEcho + "}"
	}
	second := strings.Replace(routeText(`
  - {matches: [{path: {value: /v2}}], `+says("other route")+`
  - {matches: [{path: {value: /match}, headers: [{name: version, value: one}]}], `+says("other route, header")+`
`), "{name: r}", "{name: s}", 1)
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}], `+says("1")+`
  - {matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}], `+says("2")+`
  - {matches: [{path: {type: Exact, value: /match}}], `+says("exact")+`
  - {matches: [{path: {value: /match/}}], `+says("prefix")+`
  - {matches: [{path: {value: /match/prefix/}}], `+says("longer")+`
  - {matches: [{path: {value: /match/prefix/one}}], `+says("longest")+`
  - {matches: [{path: {value: /h}, headers: [{name: version, value: two}, {name: color, value: orange}]}], `+says("both headers")+`
  - {matches: [{path: {value: /h}, headers: [{name: color, value: blue}]}, {path: {value: /h}, headers: [{name: color, value: green}]}], `+says("either header")+`
  - {matches: [{path: {value: /q}, queryParams: [{name: animal, value: whale}]}], `+says("whale")+`
  - {matches: [{path: {value: /q}, queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}], `+says("blue dolphin")+`
  - {matches: [{path: {value: /q}, headers: [{name: version, value: one}]}, {path: {value: /q}, queryParams: [{name: animal, value: shark}]}], `+says("header or shark")+`
  - {matches: [{path: {value: /m}, method: POST}], `+says("POST")+`
  - {matches: [{path: {value: /m}, headers: [{name: a, value: b}, {name: c, value: d}]}], `+says("headers")+`
`)+second+serviceText("echo", asked(t))))
	for _, c := range []struct{ method, path, field, want string }{
		// HTTPRouteMatching
		{"GET", "/", "", "1"}, {"GET", "/example", "", "1"}, {"GET", "/", "Version: one", "1"}, {"GET", "/v2", "", "2"}, {"GET", "/v2/example", "", "2"},
		{"GET", "/", "Version: two", "2"}, {"GET", "/v2/", "", "2"}, {"GET", "/v2example", "", "1"}, {"GET", "/foo/v2/example", "", "1"},
		// HTTPRoutePathMatchOrder, HTTPRouteExactPathMatching
		{"GET", "/match", "", "exact"}, {"GET", "/match/any", "", "prefix"}, {"GET", "/match/prefix/any", "", "longer"}, {"GET", "/match/prefix/one/any", "", "longest"},
		{"GET", "/match/", "", "prefix"}, {"GET", "/Match", "", "1"},
		// HTTPRouteMatchingAcrossRoutes: an exact path is before a prefix with a header
		{"GET", "/match", "Version: one", "exact"}, {"GET", "/match/any", "Version: one", "other route, header"},
		// HTTPRouteHeaderMatching
		{"GET", "/h", "Version: two\nColor: orange", "both headers"}, {"GET", "/h", "Color: blue", "either header"}, {"GET", "/h", "Color: green", "either header"},
		{"GET", "/h", "Color: orange", "1"}, {"GET", "/h", "Color: purple", "1"},
		// HTTPRouteQueryParamMatching
		{"GET", "/q?animal=whale", "", "whale"}, {"GET", "/q?animal=dolphin&color=blue", "", "blue dolphin"}, {"GET", "/q?color=blue&animal=dolphin", "", "blue dolphin"},
		{"GET", "/q?animal=dolphin", "", "1"}, {"GET", "/q?ANIMAL=whale", "", "1"}, {"GET", "/q?animal=shark", "", "header or shark"},
		{"GET", "/q?animal=whale", "Version: one", "header or shark"},
		// HTTPRouteMethodMatching: a method is before headers
		{"POST", "/m", "A: b\nC: d", "POST"}, {"GET", "/m", "A: b\nC: d", "headers"}, {"GET", "/m", "", "1"},
	} {
		res, _ := ask(t, c.method, p.url(c.path), "", strings.Split(c.field, "\n")...)
		if got := res.Header.Get("rule"); got != c.want || res.StatusCode != 200 {
			t.Errorf("%s %s %q: %d, rule %q, want %q", c.method, c.path, c.field, res.StatusCode, got, c.want)
		}
	}
}
