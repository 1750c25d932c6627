package edgeproxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// functionTexts are documents of a NetworkFunction for each pair of name and native
// function.
func functionTexts(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec: {native: %s}\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

func chainText(name, spec string) string {
	return fmt.Sprintf("\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: ServiceChain\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

const byChain = "filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: ServiceChain, name: %s}}], "

// counted finds a hop's counters.
func counted(t *testing.T, p *proxy, chain string, hop int) Hop {
	t.Helper()
	for _, c := range p.Chains() {
		if c.Name == chain {
			return c.Hops[hop]
		}
	}
	t.Fatalf("no chain %s: %+v", chain, p.Chains())
	return Hop{}
}

// TestChainOfRoute: requests of a rule pass its chain in order, and their responses
// the other way round; those of another rule do not.
func TestChainOfRoute(t *testing.T) {
	p := startProxy(t, Config{Loops: 1, Site: "north"}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /in}}], `+fmt.Sprintf(byChain, "web")+toEcho+`}
  - {matches: [{path: {value: /out}}], `+toEcho+`}
`)+chainText("web", "{functions: [first, second]}")+functionTexts(
		"first", `{headers: {request: {set: [{name: X-T-Way, value: "${source.site} ${chain.si}"}]}, response: {add: [{name: Back, value: "${function} ${response.status}"}]}}}`,
		"second", `{headers: {request: {set: [{name: X-T-Way, value: "${request.header.x-t-way}, ${chain.si} ${route}"}]}, response: {add: [{name: Back, value: "${function}"}]}}}`,
	)+serviceText("echo", asked(t))))
	res, body := ask(t, "GET", p.url("/in/a"), "a.example", "X-T-Way: forged")
	if want := "GET a.example /in/a X-T-Way=north 255, 254 default/r/0"; body != want {
		t.Errorf("backend saw %q, want %q", body, want)
	}
	if got := strings.Join(res.Header["Back"], ","); got != "second,first 200" {
		t.Errorf("response came back by %q", got)
	}
	if res, body := ask(t, "GET", p.url("/out"), "a.example", "X-T-Way: own"); body != "GET a.example /out X-T-Way=own" || res.Header["Back"] != nil {
		t.Errorf("beside the chain: %q %v", body, res.Header)
	}
	if h := counted(t, p, "default/web", 1); h.Passed != 1 || h.SI != 254 || h.Kind != "headers" {
		t.Errorf("counted %+v", h)
	}
	if c := p.Chains()[0]; len(c.Takes) != 1 || c.Takes[0] != "HTTPRoute/default/r/0" || c.SPI == 0 {
		t.Errorf("chain %+v", c)
	}
}

// TestChainOfGateway: the most specific class takes a request, before its route is
// sought, which sees what the chain did.
func TestChainOfGateway(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{headers: [{name: x-t-app, value: video}]}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: video}]}}], `+toEcho+`}
  - {`+toEcho+`}
`)+chainText("all", "{functions: [tag], ingress: {gateway: ingress}, match: [{}]}")+
		chainText("api", `{functions: [mark], ingress: {gateway: ingress, listener: http}, match: [{hosts: ["*.example"], paths: [{value: /api}, {type: Exact, value: /one}], methods: [GET, POST], headers: [{name: x-tier, value: gold}]}]}`)+
		functionTexts("tag", `{tagger: {header: X-T-App, tags: [{name: video, hosts: [v.example]}]}}`,
			"mark", `{headers: {request: {set: [{name: X-T-Mark, value: "1"}]}}}`)+serviceText("echo", asked(t))))
	for _, c := range []struct{ method, path, host, field, want, rule string }{
		{"GET", "/", "v.example", "X-T-App: forged", "GET v.example / X-T-App=video", "video"},
		{"GET", "/", "w.example", "X-T-App: video", "GET w.example /", ""},
		{"GET", "/api/x", "w.example", "X-Tier: gold", "GET w.example /api/x X-T-Mark=1", ""},
		{"POST", "/one", "w.example", "X-Tier: gold", "POST w.example /one X-T-Mark=1", ""},
		{"PUT", "/api/x", "w.example", "X-Tier: gold", "PUT w.example /api/x", ""},
		{"GET", "/api/x", "w.example", "X-Tier: tin", "GET w.example /api/x", ""},
		{"GET", "/api/x", "w.other", "X-Tier: gold", "GET w.other /api/x", ""},
	} {
		res, body := ask(t, c.method, p.url(c.path), c.host, c.field)
		if got := strings.ReplaceAll(body, " X-Tier="+strings.TrimPrefix(c.field, "X-Tier: "), ""); got != c.want || res.Header.Get("rule") != c.rule {
			t.Errorf("%s %s%s %s: %q by %q, want %q by %q", c.method, c.host, c.path, c.field, got, res.Header.Get("rule"), c.want, c.rule)
		}
	}
}

// TestChainPolices: what is beyond the rate is answered here, with what hops before it
// say of responses; a request with a body too, and the connection goes on.
func TestChainPolices(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {`+fmt.Sprintf(byChain, "web")+toEcho+`}
`)+chainText("web", "{functions: [sign, limit, behind]}")+functionTexts(
		"sign", `{headers: {response: {set: [{name: Signed, value: "${response.status}"}]}}}`,
		"limit", `{policer: {requestsPerSecond: 0.01, burst: 2}}`,
		"behind", `{headers: {response: {set: [{name: Behind, value: "1"}]}}}`)+serviceText("echo", asked(t))))
	for i, want := range []string{"200", "200", "429", "429"} {
		res, body := ask(t, []string{"GET", "POST"}[i%2], p.url("/"), "a.example")
		if got := fmt.Sprint(res.StatusCode); got != want || res.Header.Get("Signed") != want || (res.Header.Get("Behind") == "") != (want == "429") {
			t.Errorf("request %d: %s %q %v, want %s", i, got, body, res.Header, want)
		}
		if want == "429" && (res.Header.Get("Retry-After") == "" || body != "too many requests\n" || res.Header.Get("Content-Type") == "") {
			t.Errorf("answer %q %v", body, res.Header)
		}
	}
	if h := counted(t, p, "default/web", 1); h.Passed != 2 || h.Answered != 2 {
		t.Errorf("counted %+v", h)
	}
	limited := uint64(0)
	for _, r := range p.Stats().Requests {
		if r.Flag == "RL" && r.Class == 4 {
			limited += r.N
		}
	}
	if limited != 2 || p.Stats().UpstreamConnects != 1 {
		t.Errorf("%d were counted as limited, stats %+v", limited, p.Stats())
	}
}

// TestChainBroken: what cannot be served refuses its share, or lets it pass, as its
// failure mode says, and is a problem.
func TestChainBroken(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /closed}}], `+fmt.Sprintf(byChain, "closed")+toEcho+`}
  - {matches: [{path: {value: /open}}], `+fmt.Sprintf(byChain, "open")+toEcho+`}
  - {matches: [{path: {value: /none}}], `+fmt.Sprintf(byChain, "none")+toEcho+`}
  - {matches: [{path: {value: /ingress}}], `+fmt.Sprintf(byChain, "ingress")+toEcho+`}
  - {matches: [{path: {value: /rest}}], `+toEcho+`}
`)+chainText("closed", "{functions: [gone]}")+chainText("open", "{functions: [gone], failureMode: open}")+
		chainText("ingress", "{functions: [gone], ingress: {gateway: elsewhere}, match: [{}]}")+serviceText("echo", asked(t))))
	for path, want := range map[string]int{"/closed": 503, "/open": 200, "/none": 500, "/ingress": 500, "/rest": 200} {
		if res, body := ask(t, "GET", p.url(path), "a.example"); res.StatusCode != want {
			t.Errorf("%s: %d %q, want %d", path, res.StatusCode, body, want)
		}
	}
	all := strings.Join(p.Problems(), "\n")
	for _, want := range []string{"ServiceChain/default/closed: there is no NetworkFunction default/gone", "there is no ServiceChain default/none", "has an ingress of its own"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems do not say %q:\n%s", want, all)
		}
	}
	x, err := p.Explain(&mesh.ExplainQuery{Host: "a.example", Path: "/closed"})
	if err != nil || len(x.Backends) != 1 || len(x.Backends[0].Chains) != 1 || !strings.Contains(x.Backends[0].Chains[0], "refuses requests (503)") {
		t.Errorf("explained %+v, %v", x, err)
	}
}

// TestHotPath_chain holds chains of all native functions, at the gateway and of the
// rule, to the hot path's rules.
func TestHotPath_chain(t *testing.T) {
	o := hotObjects(fixedBackend(t))
	more := parsed(t, routeText(`
  - {`+fmt.Sprintf(byChain, "rule")+toEcho+`}
`)+chainText("rule", "{functions: [enrich, limit]}")+chainText("class", "{functions: [tag], ingress: {gateway: ingress}, match: [{hosts: [\"*.example.com\"], paths: [{value: /api}]}]}")+
		functionTexts("enrich", `{headers: {request: {set: [{name: X-Field-03, value: "${source.address} ${chain.spi}"}], add: [{name: X-New, value: "${request.header.x-field-04} ${source.site}"}], remove: [x-field-05]},
			response: {set: [{name: Server, value: edge}]}}}`,
			"limit", `{policer: {requestsPerSecond: 1000000, per: client}}`,
			"tag", `{tagger: {header: X-App, tags: [{name: a, hosts: ["*.example.com"]}]}}`))
	for _, r := range o.HTTPRoutes {
		for i := range r.Spec.Rules {
			r.Spec.Rules[i].Filters = more.HTTPRoutes[0].Spec.Rules[0].Filters
		}
	}
	o.ServiceChains, o.NetworkFunctions = more.ServiceChains, more.NetworkFunctions
	hotPath(t, Deps{}, o, 1, 30_000)
}
