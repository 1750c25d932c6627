package route

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func gateway(listeners ...mesh.Listener) *mesh.Gateway {
	return &mesh.Gateway{
		Metadata: mesh.ObjectMeta{Namespace: "default", Name: "ingress"},
		Spec:     mesh.GatewaySpec{Listeners: listeners},
	}
}

// rt builds a route of namespace/name on the gateway; rules are lists of matches,
// "=/x" exact and "/x" prefix, separated by spaces.
func rt(name string, hostnames []string, rules ...string) *mesh.HTTPRoute {
	ns, n, _ := strings.Cut(name, "/")
	r := &mesh.HTTPRoute{
		Metadata: mesh.ObjectMeta{Namespace: ns, Name: n},
		Spec:     mesh.HTTPRouteSpec{ParentRefs: []mesh.ParentRef{{Namespace: "default", Name: "ingress"}}, Hostnames: hostnames},
	}
	for _, matches := range rules {
		rule := mesh.HTTPRouteRule{BackendRefs: []mesh.BackendRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "s", Port: 80}}}
		for _, m := range strings.Fields(matches) {
			p := &mesh.PathMatch{Type: mesh.PathPrefix, Value: m}
			if m[0] == '=' {
				p.Type, p.Value = mesh.PathExact, m[1:]
			}
			rule.Matches = append(rule.Matches, mesh.HTTPRouteMatch{Path: p})
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	return r
}

func to(host, path string) *Request { return &Request{Host: []byte(host), Path: []byte(path)} }

func build(t testing.TB, listeners []mesh.Listener, routes ...*mesh.HTTPRoute) *Table {
	t.Helper()
	table, faults := Build(gateway(listeners...), listeners, &mesh.Objects{HTTPRoutes: routes})
	for _, f := range faults {
		t.Error(f)
	}
	return table
}

var anyHost = []mesh.Listener{{Name: "http", Port: 80, Protocol: mesh.ProtocolHTTP}}

func TestMatch(t *testing.T) {
	hosts := func(h ...string) []string { return h }
	table := build(t, anyHost,
		rt("default/a-any", nil, "/", "/api", "=/api/exact"),
		rt("default/b-exact", hosts("shop.example.com"), "/items", "=/items", "/items/new /items/old/"),
		rt("default/c-wild", hosts("*.example.com"), "/", "/items"),
		rt("default/d-long", hosts("*.shop.example.com"), "/deep"),
		rt("default/e-later", hosts("shop.example.com"), "/items", "/later"),
		rt("default/z-last", nil, "/api", "/other"),
		rt("other/a", nil, "/stranger"),
	)
	for _, c := range []struct{ name, host, path, want string }{
		{"no hostname", "x.org", "/", "default/a-any/0"},
		{"no host at all", "", "/", "default/a-any/0"},
		{"asterisk goes to the root", "x.org", "*", "default/a-any/0"},
		{"longer prefix first", "x.org", "/api/v1", "default/a-any/1"},
		{"whole elements only", "x.org", "/apis", "default/a-any/0"},
		{"prefix matches itself with a slash", "x.org", "/api/", "default/a-any/1"},
		{"exact before prefix", "x.org", "/api/exact", "default/a-any/2"},
		{"exact is exact", "x.org", "/api/exact/", "default/a-any/1"},
		{"last route by name", "x.org", "/other", "default/z-last/1"},
		{"route of another namespace", "x.org", "/stranger", "default/a-any/0"},
		{"exact host", "shop.example.com", "/items/1", "default/b-exact/0"},
		{"exact host, exact path", "shop.example.com", "/items", "default/b-exact/1"},
		{"second match of a rule", "shop.example.com", "/items/old", "default/b-exact/2"},
		{"tie goes to the first route", "shop.example.com", "/items/x/y", "default/b-exact/0"},
		{"later route of the same host", "shop.example.com", "/later", "default/e-later/1"},
		{"falls through to the wildcard", "shop.example.com", "/none", "default/c-wild/0"},
		{"wildcard, one label", "a.example.com", "/items", "default/c-wild/1"},
		{"wildcard, two labels", "a.b.example.com", "/items", "default/c-wild/1"},
		{"wildcard needs a label", "example.com", "/items", "default/a-any/0"},
		{"longest wildcard", "x.shop.example.com", "/deep/er", "default/d-long/0"},
		{"falls through to the shorter wildcard", "x.shop.example.com", "/items", "default/c-wild/1"},
		{"port stripped", "shop.example.com:8080", "/items", "default/b-exact/1"},
		{"case folded", "SHOP.Example.COM", "/items", "default/b-exact/1"},
		{"trailing dot", "shop.example.com.", "/items", "default/b-exact/1"},
		{"all three", "Shop.Example.com.:443", "/items", "default/b-exact/1"},
		{"IPv6", "[2001:db8::1]:80", "/", "default/a-any/0"},
		{"path case counts", "x.org", "/API", "default/a-any/0"},
		{"host of only a dot", ".", "/", "default/a-any/0"},
		{"leading dot is no label", ".example.com", "/items", "default/a-any/0"},
		{"host whose first 255 octets would match", strings.Repeat("A", 255-len(".example.com")) + ".example.com.evil", "/items", "default/a-any/0"},
		{"host beyond DNS", strings.Repeat("A.", 200) + "example.org", "/", "default/a-any/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ok := table.Match(to(c.host, c.path))
			if !ok || r.Key != c.want {
				t.Errorf("%s%s: got %+v, want %s", c.host, c.path, r, c.want)
			}
		})
	}
}

func TestListeners(t *testing.T) {
	listeners := []mesh.Listener{
		{Name: "one", Hostname: "one.example.com", Port: 80},
		{Name: "wild", Hostname: "*.example.com", Port: 80},
		{Name: "deep", Hostname: "*.deep.example.com", Port: 80},
	}
	onWild := rt("default/b", nil, "/wild")
	onWild.Spec.ParentRefs[0].SectionName = "wild"
	otherPort := rt("default/c", nil, "/port")
	otherPort.Spec.ParentRefs[0].Port = 81
	otherGateway := rt("default/d", nil, "/gateway")
	otherGateway.Spec.ParentRefs[0].Name = "egress"
	deep := rt("default/e", []string{"*.com"}, "/com")
	table := build(t, listeners, rt("default/a", []string{"one.example.com", "two.example.com"}, "/"), onWild, otherPort, otherGateway, deep)
	for _, c := range []struct{ host, path, want string }{
		{"one.example.com", "/", "default/a/0"},
		{"two.example.com", "/", "default/a/0"},
		{"three.example.com", "/", ""},
		{"three.example.com", "/wild", "default/b/0"},
		{"one.example.com", "/wild", "default/a/0"}, // its own listener, which route b did not join
		{"three.example.com", "/port", ""},
		{"three.example.com", "/gateway", ""},
		{"x.deep.example.com", "/wild", ""},
		{"x.deep.example.com", "/com", "default/e/0"},
		{"example.com", "/", ""},
		{"x.org", "/", ""},
	} {
		got := ""
		if r, ok := table.Match(to(c.host, c.path)); ok {
			got = r.Key
		}
		if got != c.want {
			t.Errorf("%s%s: got %q, want %q", c.host, c.path, got, c.want)
		}
	}
}

// TestListenerHostnames: all the names of a listener are its own. What its routes do not
// match falls to none of the listener's for every host.
func TestListenerHostnames(t *testing.T) {
	listeners := []mesh.Listener{
		{Name: "all", Port: 80},
		{Name: "service", Hostnames: []string{"cart.shop", "Cart.shop.svc"}, Port: 80},
	}
	onAll, onService := rt("default/a", nil, "/"), rt("default/b", nil, "/cart")
	onAll.Spec.ParentRefs[0].SectionName, onService.Spec.ParentRefs[0].SectionName = "all", "service"
	table := build(t, listeners, onAll, onService)
	for _, c := range []struct{ host, path, want string }{
		{"cart.shop", "/cart", "default/b/0"},
		{"cart.shop.svc:80", "/cart", "default/b/0"},
		{"cart.shop", "/", ""},
		{"cart.shop.svc", "/", ""},
		{"cart.shop.svc.cluster.local", "/", "default/a/0"},
		{"cart", "/cart", "default/a/0"},
	} {
		got := ""
		if r, ok := table.Match(to(c.host, c.path)); ok {
			got = r.Key
		}
		if got != c.want {
			t.Errorf("%s%s: got %q, want %q", c.host, c.path, got, c.want)
		}
	}
}

func TestFaults(t *testing.T) {
	r := rt("default/bad", nil, "/ok", "no-slash", "/a/../../b", "/a?b", "*", "/good")
	r.Spec.Rules[0].BackendRefs = append(r.Spec.Rules[0].BackendRefs, mesh.BackendRef{Name: "core", Port: 80})
	stray := r.Spec.Rules[1].BackendRefs[0]
	stray.Namespace = "other"
	r.Spec.Rules[0].BackendRefs = append(r.Spec.Rules[0].BackendRefs, stray)
	r.Spec.Rules[5].Matches[0].Path.Type = "Wildcard"
	stranger := rt("default/host", []string{"x.org"}, "/")
	listeners := []mesh.Listener{{Name: "l", Hostname: "*.example.com", Port: 80}}
	table, faults := Build(gateway(listeners...), listeners, &mesh.Objects{HTTPRoutes: []*mesh.HTTPRoute{r, stranger}})
	var fields []string
	for _, f := range faults {
		fields = append(fields, f.Object.String()+" "+f.Field)
	}
	want := []string{
		"HTTPRoute/default/bad spec.rules[0].backendRefs[1]",
		"HTTPRoute/default/bad spec.rules[0].backendRefs[2]",
		"HTTPRoute/default/bad spec.rules[1].matches[0].path.value",
		"HTTPRoute/default/bad spec.rules[2].matches[0].path.value",
		"HTTPRoute/default/bad spec.rules[3].matches[0].path.value",
		"HTTPRoute/default/bad spec.rules[4].matches[0].path.value",
		"HTTPRoute/default/bad spec.rules[5].matches[0].path.type",
		"HTTPRoute/default/host spec.hostnames",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("got %q\nwant %q", fields, want)
	}
	m, ok := table.Match(to("a.example.com", "/ok"))
	if !ok || len(m.Backends) != 3 || m.Backends[0].Invalid != "" || m.Backends[1].Invalid == "" {
		t.Errorf("the rule with one bad backend: %+v", m)
	}
}

func TestConfiguredPathsAreNormalised(t *testing.T) {
	table := build(t, anyHost, rt("default/a", nil, "/caf%c3%a9//%61/"))
	_, path, _ := Normalize([]byte("/./caf%C3%A9/a/x"), nil)
	if _, ok := table.Match(&Request{Path: path}); !ok {
		t.Errorf("%s does not match", path)
	}
}

func TestRuleMembers(t *testing.T) {
	d := mesh.Duration(3 * time.Second)
	r := rt("default/r", nil, "/", "/b")
	r.Spec.Rules[1].Name = "named"
	r.Spec.Rules[1].Timeouts = &mesh.RouteTimeouts{Request: &d}
	r.Spec.Rules[1].BackendRefs[0].Namespace = "default"
	table := build(t, anyHost, r)
	got := *table.Rules[1]
	if got.Key != "default/r/named" || got.Index != 1 || got.Request != 3*time.Second || got.BackendRequest != 0 ||
		got.Backends[0].Service != "default/s" || got.Backends[0].Port != 80 || got.Backends[0].Weight != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestPick(t *testing.T) {
	for name, weights := range map[string][]int{"even": {1, 1}, "shares": {90, 9, 1}, "zero": {0, 3, 0, 1}, "large": {1000000, 1000000, 1}} {
		t.Run(name, func(t *testing.T) {
			r := rt("default/r", nil, "/")
			r.Spec.Rules[0].BackendRefs = nil
			total := 0
			for i, w := range weights {
				r.Spec.Rules[0].BackendRefs = append(r.Spec.Rules[0].BackendRefs,
					mesh.BackendRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: strconv.Itoa(i), Weight: &w})
				total += w
			}
			rule := build(t, anyHost, r).Rules[0]
			rnd := rand.New(rand.NewPCG(1, 1))
			const n = 100000
			count := map[*Backend]int{}
			for range n {
				count[rule.Pick(rnd.Uint64())]++
			}
			for i, w := range weights {
				p := float64(w) / float64(total)
				if d := math.Abs(float64(count[&rule.Backends[i]]) - n*p); d > 5*math.Sqrt(n*p*(1-p)) {
					t.Errorf("backend %d got %d of %d, want %.0f", i, count[&rule.Backends[i]], n, n*p)
				}
			}
			// the ends of the range
			if rule.Pick(0) == nil || rule.Pick(math.MaxUint64) == nil {
				t.Error("nothing picked")
			}
		})
	}
	zero := 0
	r := rt("default/r", nil, "/", "/none")
	r.Spec.Rules[0].BackendRefs[0].Weight = &zero
	r.Spec.Rules[1].BackendRefs = nil
	for _, rule := range build(t, anyHost, r).Rules {
		if b := rule.Pick(7); b != nil {
			t.Errorf("%s picked %+v", rule.Key, b)
		}
	}
}

// naiveMatch walks over all routes, rules and matches and keeps the best by the
// words of the Gateway API. It knows one listener without hostname.
func naiveMatch(routes []*mesh.HTTPRoute, host, path string, q *Request) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	host = strings.TrimSuffix(host, ".")
	type candidate struct {
		kind, hostLen, exact, pathLen, method, headers, params int
		route                                                  string
		rule                                                   int
	}
	var best *candidate
	for _, r := range routes {
		hostnames := r.Spec.Hostnames
		if len(hostnames) == 0 {
			hostnames = []string{""}
		}
		for _, h := range hostnames {
			kind := 0
			switch {
			case h == "":
			case h == host:
				kind = 2
			case strings.HasPrefix(h, "*") && strings.HasSuffix(host, h[1:]) && len(host) > len(h[1:]):
				kind = 1
			default:
				continue
			}
			for i, rule := range r.Spec.Rules {
				for _, m := range rule.Matches {
					v, exact := m.Path.Value, 0
					if m.Path.Type == mesh.PathExact {
						if exact = 2; v != path {
							continue
						}
					} else if m.Path.Type == mesh.MatchRegularExpression {
						if exact = 1; regexp.MustCompile(v).FindString(path) != path {
							continue
						}
					} else if v = strings.TrimSuffix(v, "/"); path != v && !strings.HasPrefix(path, v+"/") {
						continue
					}
					if !naiveConditions(&m, q) {
						continue
					}
					c := &candidate{kind, len(h), exact, len(v), min(len(m.Method), 1), len(m.Headers), len(m.QueryParams), r.Metadata.Namespace + "/" + r.Metadata.Name, i}
					if best == nil || cmp.Or(cmp.Compare(c.kind, best.kind), cmp.Compare(c.hostLen, best.hostLen),
						cmp.Compare(c.exact, best.exact), cmp.Compare(c.pathLen, best.pathLen), cmp.Compare(c.method, best.method),
						cmp.Compare(c.headers, best.headers), cmp.Compare(c.params, best.params),
						-cmp.Compare(c.route, best.route), -cmp.Compare(c.rule, best.rule)) > 0 {
						best = c
					}
				}
			}
		}
	}
	if best == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", best.route, best.rule)
}

// naiveConditions asks net/http and net/url.
func naiveConditions(m *mesh.HTTPRouteMatch, q *Request) bool {
	holds := func(kind, want, have string) bool {
		if kind == mesh.MatchRegularExpression {
			return regexp.MustCompile("^(?:" + want + ")$").MatchString(have)
		}
		return want == have
	}
	header := http.Header{}
	for _, f := range q.Fields {
		header.Add(string(f.Name), string(f.Value))
	}
	for _, h := range m.Headers {
		if v := header.Values(h.Name); len(v) == 0 || !holds(h.Type, h.Value, strings.Join(v, ",")) {
			return false
		}
	}
	values, err := url.ParseQuery(string(q.Query))
	for _, p := range m.QueryParams {
		if v := values[p.Name]; err != nil || len(v) == 0 || !holds(p.Type, p.Value, v[0]) {
			return false
		}
	}
	return m.Method == "" || m.Method == string(q.Method)
}

func TestMatchTwin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	pick := func(s []string) string { return s[rnd.IntN(len(s))] }
	patterns := []string{"a.com", "b.a.com", "c.b.a.com", "*.a.com", "*.b.a.com", "*.com", "d.org"}
	elements := []string{"x", "y", "xy"}
	randomPath := func() string {
		p := ""
		for range rnd.IntN(4) {
			p += "/" + pick(elements)
		}
		if p == "" || rnd.IntN(4) == 0 {
			p += "/"
		}
		return p
	}
	for range 300 {
		var routes []*mesh.HTTPRoute
		for i := range 1 + rnd.IntN(8) {
			var hostnames, rules []string
			for range rnd.IntN(3) {
				hostnames = append(hostnames, pick(patterns))
			}
			for range 1 + rnd.IntN(3) {
				m := ""
				for range 1 + rnd.IntN(2) {
					m += pick([]string{"", "="}) + randomPath() + " "
				}
				rules = append(rules, m)
			}
			r := rt(fmt.Sprintf("%s/r%d", "default", rnd.IntN(3)*10+i), hostnames, rules...)
			for _, rule := range r.Spec.Rules {
				for i := range rule.Matches {
					m := &rule.Matches[i]
					if rnd.IntN(3) == 0 {
						m.Method = pick([]string{"GET", "PUT"})
					}
					for _, name := range []string{"A", "b", "C"}[rnd.IntN(4):] {
						m.Headers = append(m.Headers, mesh.HeaderMatch{Type: pick([]string{"", mesh.MatchRegularExpression}), Name: name, Value: pick([]string{"1", "2|1", "1,2", ".*"})})
					}
					for _, name := range []string{"p", "q q"}[rnd.IntN(3):] {
						m.QueryParams = append(m.QueryParams, mesh.QueryParamMatch{Type: pick([]string{"", mesh.MatchRegularExpression}), Name: name, Value: pick([]string{"1", "1 2", "[12 ]+"})})
					}
					if rnd.IntN(5) == 0 {
						m.Path = &mesh.PathMatch{Type: mesh.MatchRegularExpression, Value: pick([]string{"/x", "/x/.*", "/[xy]+", "/x|/y", ".*/xy/?"})}
					}
				}
			}
			routes = append(routes, r)
		}
		rnd.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
		table := build(t, anyHost, routes...)
		for range 100 {
			host := pick([]string{"a.com", "b.a.com", "C.b.a.com", "z.a.com:80", "z.z.b.a.com", "d.org.", "e.org", "com", ""})
			path := randomPath()
			got := ""
			q := to(host, path)
			q.Method = []byte(pick([]string{"GET", "PUT", "POST"}))
			for range rnd.IntN(5) {
				q.Fields = append(q.Fields, stream.Field{Name: []byte(pick([]string{"a", "A", "B", "c"})), Value: []byte(pick([]string{"1", "2", "", "1,2"}))})
			}
			q.Query = []byte(pick([]string{"", "p=1", "p=2&p=1", "q+q=1%202&p=1", "q%20q=1+2", "p", "&&p=1&", "p=1=1"}))
			if r, ok := table.Match(q); ok {
				got = r.Key
			}
			if want := naiveMatch(routes, host, path, q); got != want {
				t.Fatalf("%q %q: %s ?%s %q: got %q, twin says %q", host, path, q.Method, q.Query, q.Fields, got, want)
			}
		}
	}
}

func manyRoutes(n int) []*mesh.HTTPRoute {
	var routes []*mesh.HTTPRoute
	for i := range n {
		routes = append(routes, rt(fmt.Sprintf("default/r%05d", i), []string{fmt.Sprintf("h%d.example.com", i%100), "*.wild.org"},
			fmt.Sprintf("/api/v%d/items =/exact/%d", i, i), "/"))
	}
	return routes
}

func TestNoAllocations(t *testing.T) {
	table := build(t, anyHost, manyRoutes(50)...)
	target, buf := []byte("/api/v7/items/4711?x=1"), make([]byte, 0, 256)
	rough := []byte("/api//v7/./items/%34711?x=1")
	for _, host := range []string{"h7.example.com", "H7.Example.Com:8080", "a.b.wild.org"} {
		h := []byte(host)
		if n := testing.AllocsPerRun(1000, func() {
			_, path, ok := Normalize(target, buf)
			if !ok {
				t.Fatal("refused")
			}
			r, ok := table.Match(&Request{Host: h, Path: path})
			if !ok {
				t.Fatal("no rule")
			}
			r.Pick(42)
			if _, _, ok = Normalize(rough, buf); !ok {
				t.Fatal("refused")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

// TestLongPathIsNotDear: a path of thousands of elements costs no more look-ups
// than the deepest prefix has elements.
func TestLongPathIsNotDear(t *testing.T) {
	table := build(t, anyHost, rt("default/a", nil, "/a/a/a"))
	path := []byte(strings.Repeat("/a", 4000))
	p := table.listeners.any.hosts.any
	if p.elements != 3 || p.length != 6 {
		t.Fatalf("bounds %d %d", p.elements, p.length)
	}
	if r, ok := table.Match(&Request{Path: path}); !ok || r.Key != "default/a/0" {
		t.Errorf("got %v", r)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{50, 5000} {
		table := build(b, anyHost, manyRoutes(n)...)
		host, target := []byte("h7.example.com"), []byte("/api/v7/items/4711?x=1")
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, path, _ := Normalize(target, nil)
				if _, ok := table.Match(&Request{Host: host, Path: path}); !ok {
					b.Fatal("no rule")
				}
			}
		})
	}
}
