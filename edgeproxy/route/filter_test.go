package route

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func field(name, value string) stream.Field {
	return stream.Field{Name: []byte(name), Value: []byte(value)}
}

// TestReplacePrefixMatch has the table of the Gateway API (HTTPPathModifier) and
// what follows from it for the root.
func TestReplacePrefixMatch(t *testing.T) {
	for _, c := range []struct{ path, prefix, with, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/", "/", "", "/"},
		{"/a", "/", "/xyz", "/xyz/a"},
		{"/a", "/", "", "/a"},
		{"*", "/", "/xyz", "*"},
	} {
		e := compilePath(&mesh.PathModifier{Type: mesh.ReplacePrefixMatch, ReplacePrefixMatch: &c.with}, c.prefix)
		if got := string(e.Append(nil, []byte(c.path))); got != c.want {
			t.Errorf("%s without %s, with %q: %s, want %s", c.path, c.prefix, c.with, got, c.want)
		}
	}
}

// TestLocation has the cases of the Gateway API's conformance suite
// (redirect-port-and-scheme) and those of an unknown port.
func TestLocation(t *testing.T) {
	for _, c := range []struct {
		name, scheme, host, from string
		port, listener           int
		want                     string
	}{
		{"nothing, port 80", "", "example.org", "a", 0, 80, "http://example.org/x?q"},
		{"port 80, port 80", "", "example.org", "a", 80, 80, "http://example.org/x?q"},
		{"port 8080, port 80", "", "example.org", "a", 8080, 80, "http://example.org:8080/x?q"},
		{"https, port 80", "https", "example.org", "a", 0, 80, "https://example.org/x?q"},
		{"https 443, port 80", "https", "example.org", "a", 443, 80, "https://example.org/x?q"},
		{"https 8443, port 80", "https", "example.org", "a", 8443, 80, "https://example.org:8443/x?q"},
		{"nothing, port 8080", "", "example.org", "a", 0, 8080, "http://example.org:8080/x?q"},
		{"port 80, port 8080", "", "example.org", "a", 80, 8080, "http://example.org/x?q"},
		{"https, port 8080", "https", "example.org", "a", 0, 8080, "https://example.org/x?q"},
		{"http, port 8080", "http", "example.org", "a", 0, 8080, "http://example.org/x?q"},
		{"own host", "", "", "a.example:8080", 0, 8080, "http://a.example:8080/x?q"},
		{"own host behind a forwarded port", "", "", "a.example:9999", 0, 80, "http://a.example/x?q"},
		{"own host, port of the kernel", "", "", "a.example:9999", 0, 0, "http://a.example:9999/x?q"},
		{"own IPv6 host", "https", "", "[::1]:8080", 0, 8080, "https://[::1]/x?q"},
		{"no host at all", "https", "", "", 0, 80, "/x?q"},
	} {
		r := &Redirect{scheme: c.scheme, host: c.host, port: c.port}
		if c.port == 0 && c.scheme != "" {
			r.port = wellKnown(c.scheme)
		}
		q := &Request{Host: []byte(c.from), Path: []byte("/x"), Query: []byte("q")}
		if got := string(r.AppendLocation(nil, "http", c.listener, q)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestEdits(t *testing.T) {
	e := compileEdits(&mesh.HeaderModifier{
		Set:    []mesh.HeaderValue{{Name: "X-Set", Value: "new"}},
		Add:    []mesh.HeaderValue{{Name: "X-Add", Value: "2"}},
		Remove: []string{"X-Gone"},
	})
	fields := []stream.Field{field("x-set", "1"), field("A", "1"), field("X-SET", "2"), field("x-add", "1"), field("x-gone", "1"), field("x-gone-not", "1")}
	want := "A=1 x-add=1 x-gone-not=1 X-Set=new X-Add=2"
	text := func(fields []stream.Field) string {
		var s []string
		for _, f := range fields {
			s = append(s, string(f.Name)+"="+string(f.Value))
		}
		return strings.Join(s, " ")
	}
	if got := text(e.Apply(nil, fields)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := text(e.Apply(fields[:0], fields)); got != want {
		t.Errorf("in place: got %s, want %s", got, want)
	}
}

func TestOrigins(t *testing.T) {
	c := compileCORS(&mesh.CORS{AllowOrigins: []string{"https://a.com", "http://b.com:8080", "https://*.c.com", "http://*:81", "https://d.com:443"}})
	for origin, want := range map[string]bool{
		"https://a.com": true, "https://a.com:443": true, "https://A.com": true, "https://a.com:444": false, "http://a.com": false, "https://a.com.evil.org": false,
		"http://b.com:8080": true, "http://b.com": false, "https://x.c.com": true, "https://x.y.c.com": true, "https://c.com": false, "https://evilc.com": false,
		"https://.c.com": false, "http://x.c.com": false, "http://anything.org:81": true, "http://[::1]:81": true, "https://d.com": true,
		"null": false, "": false, "https://": false, "a.com": false, "://a.com": false, "https://a.com/": false,
	} {
		if got := c.Allows([]byte(origin)); got != want {
			t.Errorf("%q: %v", origin, got)
		}
	}
	if !compileCORS(&mesh.CORS{AllowOrigins: []string{"*"}}).Allows([]byte("null")) {
		t.Error("* does not allow null")
	}
}

func TestMirrorShares(t *testing.T) {
	ref := mesh.BackendObjectRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "m"}
	percent := func(n int) *int { return &n }
	for _, c := range []struct {
		m     mesh.RequestMirror
		share float64
	}{
		{mesh.RequestMirror{BackendRef: ref}, 1},
		{mesh.RequestMirror{BackendRef: ref, Percent: percent(0)}, 0},
		{mesh.RequestMirror{BackendRef: ref, Percent: percent(100)}, 1},
		{mesh.RequestMirror{BackendRef: ref, Percent: percent(42)}, 0.42},
		{mesh.RequestMirror{BackendRef: ref, Fraction: &mesh.Fraction{Numerator: 1}}, 0.01},
		{mesh.RequestMirror{BackendRef: ref, Fraction: &mesh.Fraction{Numerator: 1, Denominator: 8}}, 0.125},
	} {
		m := compileMirror(&c.m, "default")
		const n = 1 << 14
		taken := 0
		for i := range uint64(n) {
			if m.Takes(i * (math.MaxUint64 / n)) {
				taken++
			}
		}
		if got := float64(taken) / n; math.Abs(got-c.share) > 0.001 || m.Service != "default/m" {
			t.Errorf("%+v of %s takes %v", c.m, m.Service, got)
		}
	}
}

// TestBackendFilters: a backend's filters come after the rule's and stand in
// their place where there can be one only.
func TestBackendFilters(t *testing.T) {
	edit := func(name string) mesh.HTTPRouteFilter {
		return mesh.HTTPRouteFilter{Type: mesh.FilterRequestHeaderModifier, RequestHeaderModifier: &mesh.HeaderModifier{Set: []mesh.HeaderValue{{Name: "X", Value: name}}}}
	}
	ref := mesh.BackendRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "s"}
	own := ref
	own.Filters = []mesh.HTTPRouteFilter{edit("backend"), {Type: mesh.FilterURLRewrite, URLRewrite: &mesh.URLRewrite{Hostname: "b.example"}}}
	r := rt("default/r", nil, "/")
	r.Spec.Rules[0].Filters = []mesh.HTTPRouteFilter{edit("rule"), {Type: mesh.FilterURLRewrite, URLRewrite: &mesh.URLRewrite{Hostname: "a.example"}}}
	r.Spec.Rules[0].BackendRefs = []mesh.BackendRef{own, ref, own}
	rule := build(t, anyHost, r).Rules[0]
	for i, want := range []struct{ host, x string }{{"b.example", "backend"}, {"a.example", "rule"}, {"b.example", "backend"}} {
		f := rule.Backends[i].Filters
		fields := []stream.Field{}
		for _, e := range f.Request {
			fields = e.Apply(fields[:0], fields)
		}
		if string(f.Host) != want.host || len(fields) != 1 || string(fields[0].Value) != want.x {
			t.Errorf("backend %d: host %s, fields %q; want %+v", i, f.Host, fields, want)
		}
	}
	if string(rule.Filters.Host) != "a.example" || len(rule.Filters.Request) != 1 {
		t.Errorf("the rule's filters changed: %+v", rule.Filters)
	}
}

// TestFilterFaults: what cannot be resolved is never skipped.
func TestFilterFaults(t *testing.T) {
	r := rt("default/r", nil, "/a", "/b", "/c", "/d")
	r.Spec.Rules[0].Filters = []mesh.HTTPRouteFilter{{Type: "ExternalAuth"}}
	r.Spec.Rules[1].Filters = []mesh.HTTPRouteFilter{{Type: mesh.FilterExtensionRef, ExtensionRef: &mesh.LocalObjectRef{Group: mesh.MeshGroup, Kind: mesh.KindLocalResponse, Name: "gone"}}}
	r.Spec.Rules[2].Matches[0].Headers = []mesh.HeaderMatch{{Type: mesh.MatchRegularExpression, Name: "x", Value: "("}}
	r.Spec.Rules[3].Matches[0].Path = &mesh.PathMatch{Type: mesh.MatchRegularExpression, Value: "/(a{1,20}){20}"}
	table, faults := Build(gateway(anyHost...), anyHost, &mesh.Objects{HTTPRoutes: []*mesh.HTTPRoute{r}})
	var fields []string
	for _, f := range faults {
		fields = append(fields, f.Field)
	}
	want := []string{"spec.rules[0].filters[0]", "spec.rules[1].filters[0].extensionRef", "spec.rules[2].matches[0].headers", "spec.rules[3].matches[0].path.value"}
	if !slices.Equal(fields, want) {
		t.Errorf("faults at %q, want %q", fields, want)
	}
	for _, path := range []string{"/a", "/b"} {
		if rule, ok := table.Match(to("x", path)); !ok || rule.Filters.Invalid == "" {
			t.Errorf("%s is served without its filter: %+v", path, rule)
		}
	}
	if rule, ok := table.Match(to("x", "/c")); ok {
		t.Errorf("a rule is served without its match: %+v", rule)
	}
}

// TestConditionsDoNotAllocate: expressions, joined headers and decoded parameters
// take memory of the request that is used again.
func TestConditionsDoNotAllocate(t *testing.T) {
	r := rt("default/r", nil, "/", "/")
	r.Spec.Rules[1].Matches[0] = mesh.HTTPRouteMatch{
		Path:        &mesh.PathMatch{Type: mesh.MatchRegularExpression, Value: "/api/v[0-9]+/(items|orders)/.*"},
		Method:      "GET",
		Headers:     []mesh.HeaderMatch{{Name: "X-Color", Value: "red,blue"}, {Type: mesh.MatchRegularExpression, Name: "x-version", Value: "v[0-9]+"}},
		QueryParams: []mesh.QueryParamMatch{{Name: "q", Value: "big whale"}, {Type: mesh.MatchRegularExpression, Name: "n", Value: "[0-9]+"}},
	}
	table := build(t, anyHost, r)
	q := to("a.example", "/api/v7/items/4711")
	q.Method, q.Query = []byte("GET"), []byte("a=1&q=big+whale&n=17")
	q.Fields = []stream.Field{field("x-color", "red"), field("other", "x"), field("X-Version", "v12"), field("X-Color", "blue")}
	if n := testing.AllocsPerRun(1000, func() {
		if rule, ok := table.Match(q); !ok || rule.Key != "default/r/1" {
			t.Fatalf("got %+v", rule)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
