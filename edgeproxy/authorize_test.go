package edgeproxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// policyText is an AuthorizationPolicy of the spec.
func policyText(name, spec string) string {
	return "\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

const (
	ofEcho    = "targetRefs: [{kind: MeshService, name: echo}]"
	ofIngress = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}]"
	ofRoute   = "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]"
)

func (p *proxy) decisions(policy string) string {
	p.t.Helper()
	for _, c := range p.Stats().Authorization {
		if c.Policy == "default/"+policy {
			return strings.TrimPrefix(fmt.Sprint(c.Decisions), "map")
		}
	}
	return "none"
}

// TestAuthorization: what each kind of target lets pass, by whichever version of HTTP,
// and how it is told.
func TestAuthorization(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, parsed(t, routeText("  - "+toEcho)+serviceText("echo", asked(t))))
	base := routeText(`
  - matches: [{path: {value: /old}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
    `+toEcho+`
  - matches: [{path: {value: /away}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]
  - matches: [{path: {value: /page}}]
    filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: page}}]
    `+toEcho+`
  - `+toEcho) + serviceText("echo", asked(t)) + "\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: LocalResponse\nmetadata: {name: page}\nspec: {body: Denied, statusCode: 404, replaces: [403]}\n"
	h2, n := http2Client(t), 0
	for _, x := range []struct {
		name, policies, method, path string
		want                         int
		details                      string
	}{
		{"none", "", "GET", "/", 200, "via_upstream"},
		{"nobody is allowed", policyText("none", "{"+ofEcho+", action: allow}"), "GET", "/", 403, "rbac_access_denied_matched_policy[none]"},
		{"deny by name", policyText("d", "{"+ofEcho+", action: deny, rules: [{name: all}]}"), "GET", "/", 403, "rbac_access_denied_matched_policy[default/d/all]"},
		{"deny wins", policyText("a", "{"+ofEcho+", action: allow, rules: [{}]}") + policyText("d", "{"+ofEcho+", action: deny, rules: [{}]}"), "GET", "/", 403, "rbac_access_denied_matched_policy[default/d/0]"},
		{"audit decides nothing", policyText("d", "{"+ofEcho+", action: audit, rules: [{}]}"), "GET", "/", 200, "via_upstream"},
		{"nor does a dry run", policyText("d", "{"+ofEcho+", action: deny, dryRun: true, rules: [{}]}") + policyText("a", "{"+ofEcho+", action: allow, dryRun: true}"), "GET", "/", 200, "via_upstream"},
		{"all targets must allow", policyText("a", "{"+ofEcho+", action: allow, rules: [{}]}") + policyText("g", "{"+ofIngress+", action: allow}"), "GET", "/", 403, "rbac_access_denied_matched_policy[none]"},
		{"the site", policyText("s", "{action: deny, rules: [{to: [{methods: [POST]}]}]}"), "POST", "/", 403, "rbac_access_denied_matched_policy[default/s/0]"},
		{"a route", policyText("r", "{"+ofRoute+", action: deny, rules: [{to: [{paths: [{value: /a}]}]}]}"), "GET", "/a/b", 403, "rbac_access_denied_matched_policy[default/r/0]"},
		{"another path of it", policyText("r", "{"+ofRoute+", action: deny, rules: [{to: [{paths: [{value: /a}]}]}]}"), "GET", "/ab", 200, "via_upstream"},
		{"what is forwarded counts", policyText("r", "{"+ofEcho+", action: deny, rules: [{to: [{paths: [{value: /new}], hosts: [inner.example.com]}]}]}"), "GET", "/old/x", 403, "rbac_access_denied_matched_policy[default/r/0]"},
		{"what came does not", policyText("r", "{"+ofEcho+", action: deny, rules: [{to: [{paths: [{value: /old}]}]}]}"), "GET", "/old/x", 200, "via_upstream"},
		{"redirects", policyText("g", "{"+ofIngress+", action: deny, rules: [{}]}"), "GET", "/away", 403, "rbac_access_denied_matched_policy[default/g/0]"},
		{"error pages", policyText("g", "{"+ofIngress+", action: deny, rules: [{}]}"), "GET", "/page", 404, "rbac_access_denied_matched_policy[default/g/0]"},
		{"an address", policyText("a", "{"+ofEcho+", action: allow, rules: [{from: [{sources: [127.0.0.0/8]}]}]}"), "GET", "/", 200, "via_upstream"},
		{"another address", policyText("a", "{"+ofEcho+", action: allow, rules: [{from: [{sources: [10.0.0.0/8]}]}]}"), "GET", "/", 403, "rbac_access_denied_matched_policy[none]"},
		{"no identity", policyText("a", "{"+ofEcho+`, action: allow, rules: [{from: [{identities: ["spiffe://*/*"]}]}]}`), "GET", "/", 403, "rbac_access_denied_matched_policy[none]"},
		{"unauthenticated", policyText("a", "{"+ofEcho+", action: allow, rules: [{from: [{unauthenticated: true}]}]}"), "GET", "/", 200, "via_upstream"},
		{"the service's port", policyText("a", "{"+ofEcho+", action: allow, rules: [{to: [{ports: [80]}]}]}"), "GET", "/", 200, "via_upstream"},
		{"another port", policyText("a", "{"+ofEcho+", action: allow, rules: [{to: [{ports: [81]}]}]}"), "GET", "/", 403, "rbac_access_denied_matched_policy[none]"},
		{"a path that nobody can tell", policyText("d", "{"+ofEcho+", action: deny, rules: [{to: [{paths: [{value: /admin}]}]}]}"), "GET", "/x%2500", 403, "rbac_access_denied_unclear"},
	} {
		p.apply(parsed(t, base+x.policies))
		for _, c := range []*http.Client{{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, h2} {
			req, err := http.NewRequest(x.method, p.url(x.path), nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			flag := "-"
			if x.want >= 400 {
				flag = "AD"
			}
			n++
			if got := lines(n)[n-1]; res.StatusCode != x.want || !strings.HasSuffix(got, flag+" "+x.details) {
				t.Errorf("%s: %s %d, log %q, want %d %s", x.name, res.Proto, res.StatusCode, got, x.want, x.details)
			}
		}
	}
}

func TestAuthorizationCounts(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	p := startProxy(t, Config{}, Deps{}, parsed(t, routeText("  - "+toEcho)+serviceText("echo", b)+
		policyText("allow", "{"+ofEcho+", action: allow, rules: [{to: [{methods: [GET]}]}]}")+
		policyText("audit", "{"+ofEcho+", action: audit, rules: [{to: [{methods: [POST]}]}, {to: [{paths: [{value: /x}]}]}]}")+
		policyText("deny", "{"+ofEcho+", action: deny, rules: [{to: [{paths: [{value: /d}]}]}]}")+
		policyText("dry", "{"+ofEcho+", action: deny, dryRun: true, rules: [{to: [{paths: [{value: /x}]}]}]}")))
	for _, x := range []string{"GET /", "GET /x", "POST /x", "GET /d", "POST /"} {
		method, path, _ := strings.Cut(x, " ")
		if _, _, err := do(t, method, p.url(path), ""); err != nil {
			t.Fatal(err)
		}
	}
	for policy, want := range map[string]string{"allow": "[allowed:2 denied:2]", "audit": "[audited:3]", "deny": "[denied:1]", "dry": "[would_deny:2]", "other": "none"} {
		if got := p.decisions(policy); got != want {
			t.Errorf("%s: %s, want %s", policy, got, want)
		}
	}
}

// A mirror's policies hold for copies.
func TestAuthorizationOfMirrors(t *testing.T) {
	var copies atomic.Int64
	mirror := backend(t, func(http.ResponseWriter, *http.Request) { copies.Add(1) })
	rules := "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {group: mesh.meridian.dev, kind: MeshService, name: copy, port: 80}}}]\n    " + toEcho
	base := routeText(rules) + serviceText("echo", asked(t)) + serviceText("copy", mirror)
	p := startProxy(t, Config{}, Deps{}, parsed(t, base+policyText("m", "{targetRefs: [{kind: MeshService, name: copy}], action: deny, rules: [{to: [{paths: [{value: /private}]}]}]}")))
	for _, path := range []string{"/private", "/public"} {
		if status, _ := get(t, p.url(path)); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}
	await(t, "a copy", func() bool { return copies.Load() > 0 })
	if n := p.Stats().MirrorsDropped; n != 1 || copies.Load() != 1 {
		t.Errorf("%d copies, %d dropped", copies.Load(), n)
	}
}

func TestAuthorizationOfGRPC(t *testing.T) {
	var served atomic.Int64
	b := http2Backend(t, func(http.ResponseWriter, *http.Request) { served.Add(1) })
	o := bothWays(b)
	o.AuthorizationPolicies = parsed(t, policyText("d", "{targetRefs: [{kind: MeshService, name: two}], action: deny, rules: [{to: [{paths: [{value: /two.Shop/Drop}]}]}]}")).AuthorizationPolicies
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", prefixRule("/", backendRef("two")))}
	p := startProxy(t, Config{}, Deps{}, o)
	req, err := http.NewRequest("POST", p.url("/two.Shop/Drop"), bytes.NewReader([]byte("ping")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("TE", "trailers")
	res, err := http2Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Grpc-Message") == "" || res.Header.Get("Content-Type") != "application/grpc" || served.Load() != 0 {
		t.Errorf("%d %v, %d served", res.StatusCode, res.Header, served.Load())
	}
}

func TestAuthorizationOfStreams(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	o := tcpTo(tcpBackend(t, echoTCP))
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	n := 0
	for _, x := range []struct {
		name, policy, details string
	}{
		{"another network", "{" + ofEcho + ", action: allow, rules: [{from: [{sources: [10.0.0.0/8]}]}]}", "rbac_access_denied_matched_policy[none]"},
		{"this network", "{" + ofEcho + ", action: allow, rules: [{from: [{sources: [127.0.0.0/8]}], to: [{ports: [80]}]}]}", ""},
		{"a path allows nothing", "{" + ofEcho + ", action: allow, rules: [{to: [{paths: [{value: /}]}]}]}", "rbac_access_denied_matched_policy[none]"},
		{"a path denies all", "{" + ofEcho + ", action: deny, rules: [{to: [{paths: [{value: /x}]}]}]}", "rbac_access_denied_matched_policy[default/p/0]"},
		{"the route", "{targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: all}], action: deny, rules: [{}]}", "rbac_access_denied_matched_policy[default/p/0]"},
		{"the site", "{action: deny, rules: [{from: [{unauthenticated: true}]}]}", "rbac_access_denied_matched_policy[default/p/0]"},
	} {
		o.AuthorizationPolicies = parsed(t, policyText("p", x.policy)).AuthorizationPolicies
		p.apply(o)
		n++
		if x.details != "" {
			p.reset("tcp")
			if got := lines(n)[n-1]; got != "AD "+x.details {
				t.Errorf("%s: log %q", x.name, got)
			}
			continue
		}
		c := p.stream("tcp")
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if k, err := c.Read(make([]byte, 5)); err != nil || k == 0 {
			t.Errorf("%s: %d %v", x.name, k, err)
		}
		c.Close()
		lines(n)
	}
}

func TestAuthorizationOfDatagrams(t *testing.T) {
	var served atomic.Int64
	o := udpTo(udpBackend(t, func(_ *net.UDPAddr, p []byte) []byte { served.Add(1); return p }))
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	c, err := net.Dial("udp", p.addr("udp").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answered := func() bool {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 10))
		return err == nil
	}
	await(t, "an answer", answered)
	// A session that is open is judged again, and gets nothing more.
	o.AuthorizationPolicies = parsed(t, policyText("p", "{"+ofEcho+", action: allow, rules: [{from: [{sources: [10.0.0.0/8]}]}]}")).AuthorizationPolicies
	p.apply(o)
	await(t, "silence", func() bool { return !answered() })
	n := served.Load()
	for range 5 {
		answered()
	}
	if served.Load() != n {
		t.Errorf("%d datagrams reach the backend", served.Load()-n)
	}
	o.AuthorizationPolicies = nil
	p.apply(o)
	await(t, "an answer again", answered)
}

// TestAuthorizationEastWest: another site's proxy is judged by its certificate and by
// what it says of its client; who is no proxy of the mesh says nothing.
func TestAuthorizationEastWest(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	for _, x := range []struct {
		name, spec string
		want       int
	}{
		{"its site", "{" + ofEcho + ", action: allow, rules: [{from: [{sites: [a]}]}]}", 200},
		{"another site", "{" + ofEcho + ", action: allow, rules: [{from: [{sites: [c]}]}]}", 403},
		{"its identity", "{" + ofEcho + `, action: allow, rules: [{from: [{identities: ["spiffe://mesh.example/site/a/ns/*/sa/a-1"]}]}]}`, 200},
		{"another identity", "{" + ofEcho + `, action: allow, rules: [{from: [{identities: ["spiffe://mesh.example/site/a/ns/*/sa/a-2"]}]}]}`, 403},
		{"its namespace", "{" + ofEcho + `, action: deny, rules: [{from: [{namespaces: [meridian]}]}]}`, 403},
		{"a client without identity", "{" + ofEcho + `, action: allow, rules: [{from: [{unauthenticated: true, sites: [a]}]}]}`, 200},
		{"its client's address", "{" + ofEcho + `, action: allow, rules: [{from: [{sources: [127.0.0.1/32]}]}]}`, 200},
		{"another address", "{" + ofEcho + `, action: allow, rules: [{from: [{sources: [127.0.0.2/32]}]}]}`, 403},
		{"the gateway", "{" + ofIngress + `, action: deny, rules: [{from: [{sites: [a]}]}]}`, 403},
	} {
		b := p.objectsB(p.trust())
		b.AuthorizationPolicies = parsed(t, policyText("p", x.spec)).AuthorizationPolicies
		p.b.apply(b)
		before := p.served.Load()
		status, _ := get(t, p.a.url("/"))
		if reached := p.served.Load() > before; status != x.want || reached != (x.want == 200) {
			t.Errorf("%s: %d, reached the backend: %v", x.name, status, reached)
		}
	}
	// What such a proxy says of its client's certificate is believed; in the name of the
	// own mesh it is not.
	ask := func(fields string) int {
		t.Helper()
		conn, err := tls.Dial("tcp", p.b.addr("eastwest").String(), &tls.Config{Certificates: []tls.Certificate{p.leaf("a", "a-1", time.Now())}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\n%s\r\n", fields)
		var b [12]byte
		if _, err := conn.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		var status int
		fmt.Sscanf(string(b[:]), "HTTP/1.1 %d", &status)
		return status
	}
	for _, x := range []struct {
		spec, fields string
		want         int
	}{
		{"action: allow, rules: [{from: [{identities: [spiffe://corp/ns/shop/sa/web]}]}]", "X-Forwarded-Client-Cert: Hash=1;Subject=\"CN=a,O=b\";URI=spiffe://corp/ns/shop/sa/web\r\n", 200},
		{"action: allow, rules: [{from: [{identities: [spiffe://corp/ns/shop/sa/web]}]}]", "X-Forwarded-Client-Cert: URI=spiffe://corp/ns/shop/sa/web,URI=spiffe://corp/ns/shop/sa/db\r\n", 403},
		{"action: allow, rules: [{from: [{identities: [spiffe://corp/ns/shop/sa/web]}]}]", "X-Forwarded-Client-Cert: Subject=\"a;URI=spiffe://corp/ns/shop/sa/web\"\r\n", 403},
		{"action: allow, rules: [{from: [{identities: [spiffe://mesh.example/site/b/*]}]}]", "X-Forwarded-Client-Cert: URI=spiffe://mesh.example/site/b/ns/x/sa/y\r\n", 403},
		{"action: allow, rules: [{from: [{unauthenticated: true}]}]", "X-Forwarded-Client-Cert: URI=spiffe://mesh.example/site/b/ns/x/sa/y\r\n", 403},
		{"action: deny, rules: [{from: [{identities: [spiffe://corp/ns/shop/sa/web]}]}]", "X-Forwarded-Client-Cert: Subject=\"a\r\n", 403},
		{"action: deny, rules: [{from: [{identities: [spiffe://corp/ns/shop/sa/web]}]}]", "X-Forwarded-Client-Cert: URI=spiffe://corp/ns/shop/sa/db\r\n", 200},
		{"action: deny, rules: [{from: [{sources: [10.0.0.0/8]}]}]", "X-Forwarded-For: 192.0.2.1, 10.1.2.3\r\n", 403},
		{"action: deny, rules: [{from: [{sources: [10.0.0.0/8]}]}]", "X-Forwarded-For: 10.1.2.3, 192.0.2.1\r\n", 200},
		{"action: deny, rules: [{from: [{sources: [10.0.0.0/8]}]}]", "X-Forwarded-For: what\r\n", 403},
	} {
		b := p.objectsB(p.trust())
		b.AuthorizationPolicies = parsed(t, policyText("p", "{"+ofEcho+", "+x.spec+"}")).AuthorizationPolicies
		p.b.apply(b)
		if got := ask(x.fields); got != x.want {
			t.Errorf("%s by %q: %d, want %d", x.spec, x.fields, got, x.want)
		}
	}
}

// A policy that cannot be compiled refuses the configuration; the one before goes on.
func TestAuthorizationRefusesConfiguration(t *testing.T) {
	base := routeText("  - "+toEcho) + serviceText("echo", asked(t))
	p := startProxy(t, Config{}, Deps{}, parsed(t, base+policyText("p", "{"+ofEcho+", action: allow}")))
	o := parsed(t, base+policyText("p", "{"+ofEcho+", action: deny, rules: [{}]}"))
	o.AuthorizationPolicies[0].Spec.Action = "maybe" // of a version to come
	err := p.Apply(&mesh.Snapshot{Generation: mesh.Generation{Incarnation: 1, Counter: 1 << 40}, Objects: o})
	if err == nil || !strings.Contains(err.Error(), `AuthorizationPolicy/default/p: spec.action: "maybe" is not known to this build`) {
		t.Errorf("%v", err)
	}
	o = parsed(t, base+policyText("p", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress, sectionName: http}], action: deny, rules: [{}]}"))
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, mesh.Listener{Name: "other", Port: 18080, Protocol: mesh.ProtocolHTTP, Hostname: "x.example.com"})
	o.Gateways[0].Spec.Listeners[0].Port = 18080
	err = p.Apply(&mesh.Snapshot{Generation: mesh.Generation{Incarnation: 1, Counter: 1<<40 + 1}, Objects: o})
	if err == nil || !strings.Contains(err.Error(), "shares its port") {
		t.Errorf("%v", err)
	}
	if status, _ := get(t, p.url("/")); status != 403 {
		t.Errorf("the configuration before is not in force: %d", status)
	}
}

// A policy of a listener is for the names of services too that a bridge has added at its
// port, and there is none for those names alone.
func TestAuthorizationOfListenerWithServices(t *testing.T) {
	base := routeText("  - "+toEcho) + serviceText("echo", asked(t))
	p := startProxy(t, Config{}, Deps{}, parsed(t, base))
	apply := func(section string, counter uint64, more ...mesh.Listener) error {
		o := parsed(t, base+policyText("p", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress, sectionName: "+section+"}], action: deny, rules: [{}]}"))
		l := &o.Gateways[0].Spec.Listeners
		(*l)[0].Port = freePorts(t, 1)[0]
		*l = append(*l, mesh.Listener{Name: "service", Port: (*l)[0].Port, Protocol: mesh.ProtocolHTTP, Hostnames: []string{"a.shop", "localhost"}})
		for _, m := range more {
			m.Port = freePorts(t, 1)[0]
			(*l)[0].Port, (*l)[1].Port = freePorts(t, 1)[0], m.Port
			*l = append(*l, m)
		}
		return p.Apply(&mesh.Snapshot{Generation: mesh.Generation{Incarnation: 1, Counter: counter}, Objects: o})
	}
	if err := apply("service", 1<<40); err == nil || !strings.Contains(err.Error(), "shares its port") {
		t.Errorf("%v", err)
	}
	if err := apply("service", 1<<40, mesh.Listener{Name: "another", Protocol: mesh.ProtocolHTTP, Hostnames: []string{"b.shop"}}); err == nil || !strings.Contains(err.Error(), "shares its port") {
		t.Errorf("beside another service's: %v", err)
	}
	if err := apply("http", 1<<40+1); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		u := strings.Replace(p.url("/"), "127.0.0.1", host, 1)
		if status, _ := get(t, u); status != 403 {
			t.Errorf("%s: %d, want 403", u, status)
		}
	}
}

// TestAuthorizationBehindFunctions: an external function's word is judged as the backend
// will get it, by the policies that are in force when it has been given.
func TestAuthorizationBehindFunctions(t *testing.T) {
	f := &external{wait: make(chan struct{})}
	o := externalChain(t, f, "closed", ", headers: [X-T-User], timeout: 10s")
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	for _, x := range []struct {
		policy string
		want   int
	}{
		{"{" + ofEcho + ", action: allow, rules: [{to: [{headers: [{name: X-T-User, value: user 255}]}]}]}", 200},
		{"{" + ofEcho + ", action: allow, rules: [{to: [{headers: [{name: X-T-User, value: forged}]}]}]}", 403},
		{"{" + ofRoute + ", action: deny, rules: [{to: [{headers: [{name: X-T-Behind}]}]}]}", 403},
	} {
		o.AuthorizationPolicies = parsed(t, policyText("p", x.policy)).AuthorizationPolicies
		p.apply(o)
		if res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-User: forged"); res.StatusCode != x.want {
			t.Errorf("%s: %d %q", x.policy, res.StatusCode, body)
		}
	}
	o.AuthorizationPolicies = nil
	p.apply(o)
	asked := len(f.asked)
	answer := make(chan int, 1)
	go func() {
		res, _ := ask(t, "GET", p.url("/"), "a.example", "X-T-Case: slow")
		answer <- res.StatusCode
	}()
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.asked) > asked }, "the function is asked")
	o.AuthorizationPolicies = parsed(t, policyText("p", "{"+ofRoute+", action: deny, rules: [{}]}")).AuthorizationPolicies
	p.apply(o)
	close(f.wait)
	if got := <-answer; got != 403 {
		t.Errorf("after the policy came: %d", got)
	}
}
