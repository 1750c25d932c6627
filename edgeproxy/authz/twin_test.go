package authz

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// dice draws policies and requests out of a few words, so that they meet.
type dice struct{ *rand.Rand }

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func some[T any](d dice, chance int, of func() T) []T {
	if d.IntN(100) >= chance {
		return nil
	}
	list := make([]T, 1+d.IntN(3))
	for i := range list {
		list[i] = of()
	}
	return list
}

var (
	wordIdentities = []string{
		"spiffe://m/site/north/ns/meridian/sa/e1", "spiffe://m/site/south/ns/meridian/sa/e2", "spiffe://corp/ns/shop/sa/web",
		"spiffe://corp/ns/shop/sa/db", "spiffe://corp/ns/ns/sa/ns", "urn://x", "mailto:x", "spiffe://corp/" + strings.Repeat("a/", 20) + "b",
	}
	wordPatterns = []string{
		"spiffe://m/site/north/*", "spiffe://*/site/*/ns/*/sa/e1", "spiffe://corp/ns/shop/sa/web", "spiffe://corp/*", "*://x", "urn://x",
		"spiffe://corp/ns/*/sa/web", "spiffe://*", "spiffe://*/*",
	}
	wordPaths    = []string{"/", "/admin", "/admin/users", "/public", "/public/", "/a/b/c", "/Admin", "/a;x/b", "/%7Bx%7D", "/caf%C3%A9"}
	wordAsked    = append([]string{"*", "/admin/", "/ADMIN/users", "/admin;x", "/public/%252e%252e/admin", "/public/%2561", "/%2561dmin", "/admin.", "/a/b", "/administrator", "/public/x%5Cy", "/public/%2500", "/%C0%AEx", "/public/%25252525252e", "/x?y=/admin", "/admin%3Fx", "/%EF%BC%A1dmin", "/..%3Bx", "/%25%32%65%25%32%65"}, wordPaths...)
	wordHosts    = []string{"shop.example.com", "*.example.com", "*.com", "other.org"}
	wordAskHosts = []string{"shop.example.com", "SHOP.example.com:80", "a.b.example.com.", "example.com", "other.org", "", "[::1]:80", "x.com"}
	wordNetworks = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "::ffff:10.1.0.0/112", "2001:db8::7/128"}
	wordAddress  = []string{"10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::7", "::ffff:10.1.2.3", "fe80::1%eth0"}
	wordMethods  = []string{"GET", "POST", "DELETE"}
)

func (d dice) policy(i int) *mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{Metadata: mesh.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "default"}}
	p.Spec.Action = pick(d, mesh.ActionAllow, mesh.ActionAllow, mesh.ActionDeny, mesh.ActionAudit)
	p.Spec.DryRun = d.IntN(5) == 0
	p.Spec.TargetRefs = some(d, 50, func() mesh.AuthorizationTargetRef {
		return mesh.AuthorizationTargetRef{Kind: mesh.KindMeshService, Name: "shop"}
	})
	for range d.IntN(4) {
		p.Spec.Rules = append(p.Spec.Rules, mesh.AuthorizationRule{From: some(d, 60, d.source), To: some(d, 60, d.access)})
	}
	return p
}

func (d dice) source() mesh.AuthorizationSource {
	s := mesh.AuthorizationSource{
		Identities: some(d, 40, func() string { return pick(d, wordPatterns...) }),
		Sites:      some(d, 15, func() string { return pick(d, "north", "south") }),
		Namespaces: some(d, 15, func() string { return pick(d, "meridian", "shop", "ns", "sa") }),
		Sources:    some(d, 40, func() string { return pick(d, wordNetworks...) }),
	}
	s.Unauthenticated = d.IntN(5) == 0 || len(s.Identities)+len(s.Sites)+len(s.Namespaces)+len(s.Sources) == 0
	return s
}

func (d dice) access() mesh.AuthorizationAccess {
	a := mesh.AuthorizationAccess{
		Ports:   some(d, 20, func() int { return pick(d, 80, 443) }),
		Methods: some(d, 30, func() string { return pick(d, wordMethods...) }),
		Hosts:   some(d, 30, func() string { return pick(d, wordHosts...) }),
		Paths: some(d, 60, func() mesh.AuthorizationPath {
			return mesh.AuthorizationPath{Type: pick(d, mesh.PathExact, mesh.PathPrefix), Value: pick(d, wordPaths...)}
		}),
		Headers: some(d, 20, func() mesh.AuthorizationHeader {
			return mesh.AuthorizationHeader{Name: pick(d, "X-Role", "x-team", "x_flag"), Value: pick(d, "", "ops", "Admin")}
		}),
	}
	if len(a.Ports) == 0 && !a.OfRequests() {
		a.Ports = []int{80}
	}
	return a
}

func (d dice) request() *Request {
	q := &Request{
		Caller:      Caller{Address: netip.MustParseAddr(pick(d, wordAddress...)), Unclear: d.IntN(20) == 0},
		Port:        pick(d, 80, 443, 0),
		ServicePort: pick(d, 80, 443, 0), HTTP: d.IntN(5) > 0,
	}
	if d.IntN(20) == 0 {
		q.Address = netip.Addr{}
	}
	if d.IntN(3) == 0 {
		q.Client = []byte(pick(d, wordIdentities...))
	}
	if d.IntN(3) == 0 {
		q.Peer, q.Site = []byte(wordIdentities[0]), []byte("north")
	}
	if !q.HTTP {
		return q
	}
	q.Method, q.Host = []byte(pick(d, "GET", "POST", "get", "DELETE")), []byte(pick(d, wordAskHosts...))
	for {
		if _, path, ok := route.Normalize([]byte(pick(d, wordAsked...)), nil); ok {
			q.Path = path
			break
		}
	}
	field := func(name, value string) {
		q.Fields = append(q.Fields, stream.Field{Name: []byte(name), Value: []byte(value)})
	}
	for range d.IntN(3) {
		field(pick(d, "x-role", "X-Role", "x_role", "X-Team", "x-flag"), pick(d, "ops", "Ops", "admin", "user, admin", "Admin", "", "ops,ops"))
	}
	if d.IntN(8) == 0 {
		field(pick(d, "X-HTTP-Method-Override", "x-http-method", "x-method-override"), pick(d, "DELETE", "get", ""))
	}
	if d.IntN(8) == 0 {
		field(pick(d, "X-Original-URL", "x-rewrite-url"), pick(d, "/admin", "//admin", "/public//", "http://h/admin?x", "admin", "/public", "http://h", "/%252"))
	}
	return q
}

var twinTargets = []Target{{}, {Kind: mesh.KindMeshService, Namespace: "default", Name: "shop"}}

// TestTwin compares the compiled tables with the policies read from top to bottom.
func TestTwin(t *testing.T) {
	seed := rand.Uint64()
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	denied, n := 0, 0
	for range 1500 {
		o := &mesh.Objects{}
		for i := range 1 + d.IntN(5) {
			o.AuthorizationPolicies = append(o.AuthorizationPolicies, d.policy(i))
		}
		compiled, err := Compile(o, nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var j Judge
		for range 25 {
			q := d.request()
			n++
			if differ(t, o, compiled, &j, q) {
				denied++
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
	if denied < n/10 || denied > n*9/10 {
		t.Errorf("seed %d: %d of %d are denied: the dice show one side only", seed, denied, n)
	}
}

// differ compares both for all targets and reports whether the request is denied.
func differ(t *testing.T, o *mesh.Objects, compiled *Policies, j *Judge, q *Request) bool {
	t.Helper()
	x, err := Explain(o, q, twinTargets)
	if err != nil {
		t.Fatal(err)
	}
	// As they would be with dry runs in force.
	wet := &mesh.Objects{}
	for _, p := range o.AuthorizationPolicies {
		c := *p
		c.Spec.DryRun = false
		wet.AuthorizationPolicies = append(wet.AuthorizationPolicies, &c)
	}
	would, err := Explain(wet, q, twinTargets)
	if err != nil {
		t.Fatal(err)
	}
	j.Begin(q)
	k := 0
	for _, target := range twinTargets {
		s := compiled.Of(target)
		if s == nil {
			continue
		}
		d := j.Judge(s)
		said := x.Targets[k]
		if d.Denied != said.Denied {
			t.Errorf("%s: compiled says %+v, read says %s\n%s\n%s", target, d, said.Why, show(q), mustYAML(t, o))
		}
		if d.Rule != nil {
			if words := d.Rule.Namespace + "/" + d.Rule.Policy.Name + " rule " + d.Rule.Name; !strings.HasSuffix(said.Why, words) {
				t.Errorf("%s: compiled names %s, read says %s\n%s\n%s", target, words, said.Why, show(q), mustYAML(t, o))
			}
		} else if strings.Contains(said.Why, " rule ") {
			t.Errorf("%s: compiled names no rule, read says %s\n%s\n%s", target, said.Why, show(q), mustYAML(t, o))
		}
		if d.Would != would.Targets[k].Denied {
			t.Errorf("%s: with dry runs compiled says %v, read says %s\n%s\n%s", target, d.Would, would.Targets[k].Why, show(q), mustYAML(t, o))
		}
		k++
	}
	if k != len(x.Targets) {
		t.Errorf("%d targets have policies, explained are %d", k, len(x.Targets))
	}
	return !x.Allowed
}

func show(q *Request) string {
	return fmt.Sprintf("%s %s http=%v unclear=%v peer=%s client=%s site=%s %d/%d %q %q %q %q", q.Address, "", q.HTTP, q.Unclear, q.Peer, q.Client, q.Site, q.Port, q.ServicePort, q.Method, q.Host, q.Path, q.Fields)
}

func mustYAML(t *testing.T, o *mesh.Objects) string {
	t.Helper()
	b, err := mesh.ToYAML(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzJudge compares both for a request that the fuzzer makes.
func FuzzJudge(f *testing.F) {
	for i, p := range wordAsked {
		f.Add(uint64(i), p, "shop.example.com", "x-role", "user, admin", "spiffe://corp/ns/shop/sa/web")
	}
	f.Fuzz(func(t *testing.T, seed uint64, target, host, name, value, identity string) {
		_, path, ok := route.Normalize([]byte(target), nil)
		if !ok {
			return
		}
		d := dice{rand.New(rand.NewPCG(seed, 2))}
		o := &mesh.Objects{}
		for i := range 3 {
			o.AuthorizationPolicies = append(o.AuthorizationPolicies, d.policy(i))
		}
		compiled, err := Compile(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := d.request()
		q.HTTP, q.Method, q.Host, q.Path, q.Client = true, []byte("GET"), []byte(host), path, []byte(identity)
		q.Fields = []stream.Field{{Name: []byte(name), Value: []byte(value)}}
		if !token(name) || !ascii(host+identity) {
			return
		}
		differ(t, o, compiled, new(Judge), q)
	})
}

func token(s string) bool { return s != "" && ascii(s) && !strings.ContainsAny(s, " \t\r\n:") }

func ascii(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < ' ' || c > '~' })
}
