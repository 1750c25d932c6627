package edgeproxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// bypassObjects has two services behind HTTP: echo, of which some is denied, and team,
// of which little is allowed.
func bypassObjects(t *testing.T, addr string) string {
	return routeText(`
  - matches: [{path: {type: PathPrefix, value: /team}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: team, port: 80}]
  - `+toEcho) + serviceText("echo", addr) + serviceText("team", addr) + `
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: denied}
spec:
  targetRefs: [{kind: MeshService, name: echo}]
  action: deny
  rules:
  - name: paths
    to: [{paths: [{value: /admin}, {type: Exact, value: /secret}]}]
  - name: methods
    to: [{methods: [DELETE]}]
  - name: role
    to: [{headers: [{name: X-Role, value: admin}]}]
  - name: debug
    to: [{headers: [{name: X-Debug}]}]
  - name: hosts
    to: [{hosts: [internal.example.com, "*.internal.example.com"]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: allowed}
spec:
  targetRefs: [{kind: MeshService, name: team}]
  action: allow
  rules:
  - to: [{methods: [GET], paths: [{value: /team/open}], headers: [{name: X-Team, value: ops}]}]
`
}

// attempt is a request that must not reach a backend.
type attempt struct {
	class  string
	method string
	target string
	host   string
	fields []string // "Name: value"
}

func (a attempt) wire() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", a.method, a.target, a.host)
	for _, f := range a.fields {
		b.WriteString(f + "\r\n")
	}
	return b.String() + "\r\n"
}

// pseudo is the request in HTTP/2.
func (a attempt) pseudo() [][2]string {
	f := [][2]string{{":method", a.method}, {":scheme", "http"}, {":authority", a.host}, {":path", a.target}}
	for _, field := range a.fields {
		name, value, _ := strings.Cut(field, ": ")
		f = append(f, [2]string{strings.ToLower(name), value})
	}
	return f
}

// bypasses are attempts that can be made over either version of HTTP.
func bypasses() []attempt {
	const host = "shop.example.com"
	var all []attempt
	paths := func(class string, targets ...string) {
		for _, p := range targets {
			all = append(all, attempt{class, "GET", p, host, nil})
		}
	}
	fields := func(class, target string, lists ...[]string) {
		for _, l := range lists {
			all = append(all, attempt{class, "GET", target, host, l})
		}
	}
	paths("encoding", "/%61dmin", "/%41dmin", "/adm%69n/users", "/%61%64%6d%69%6e", "/%2561dmin", "/%252561dmin", "/admin%2Fusers", "/admin%3Fx=1", "/admin%23x",
		"/%EF%BC%A1dmin", "/%73ecret", "/%C1%A1dmin", "/x%252f..%252fadmin", "/admin%2500", "/admin%00")
	paths("case", "/ADMIN", "/Admin", "/aDmIn/users", "/admiN", "/ADMIN/", "/SECRET", "/Secret", "/%41DMIN", "/aDMIN?x=/public", "/ADMIN;x")
	paths("dots", "/x/../admin", "/./admin", "/x/./../admin", "/x/%2e%2e/admin", "/x/%2e./admin", "/x/.%2E/admin", "/admin/.", "/admin/..%252fadmin", "/x/%252e%252e/admin",
		"/admin/%252e%252e/public", "/admin.", "/admin./x", "/admin%2e", "/x/..;/admin", "/../admin", "/x/%C0%AE%C0%AE/admin", "/admin/x/..")
	paths("slashes", "//admin", "///admin", "/admin/", "/admin//", "//admin//users", "/x//../admin", "/x/..//admin", "/secret/", "/secret//", "//secret", "/x%5c..%5cadmin", `/x\..\admin`, `\admin`, "/x%255c..%255cadmin", "/x%EF%BC%8F..%EF%BC%8Fadmin")
	paths("parameters", "/admin;x", "/admin;jsessionid=1", "/admin;/users", "/;x/admin", "/admin%3Bx", "/admin;a;b/users", "/admin?x", "/admin?", "/secret;x", "/secret?x", "/admin%20", "/admin%20/users", "/admin%253Bx")
	for _, m := range []string{"DELETE", "delete", "Delete", "dELETE"} {
		all = append(all, attempt{"methods", m, "/public", host, nil})
	}
	for _, f := range []string{"X-HTTP-Method-Override: DELETE", "x-http-method-override: delete", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "x-method-override: Delete", "X-Http-Method: delete"} {
		all = append(all, attempt{"methods", "POST", "/public", host, []string{f, "Content-Length: 0"}}, attempt{"methods", "GET", "/public", host, []string{f}})
	}
	fields("path overrides", "/public", []string{"X-Original-URL: /admin"}, []string{"X-Rewrite-URL: /admin"}, []string{"x-original-url: /ADMIN"}, []string{"X-Original-URL: //admin"},
		[]string{"X-Original-URL: /x/../admin"}, []string{"X-Original-URL: http://h/admin"}, []string{"X-Original-URL: /%61dmin?x"}, []string{"X-Original-URL: admin"},
		[]string{"X-Rewrite-URL: /secret"}, []string{"X-Original-URL: /public", "X-Rewrite-URL: /admin"}, []string{"X-Original-URL: /a", "X-Original-URL: /b", "X-Original-URL: /c", "X-Original-URL: /admin"})
	fields("fields", "/public", []string{"X-Role: admin"}, []string{"x-role: ADMIN"}, []string{"X-ROLE: Admin"}, []string{"X_Role: admin"}, []string{"x-role: user,admin"}, []string{"x-role: admin, user"},
		[]string{"x-role:  admin "}, []string{"x-debug: 0"}, []string{"x-debug: false"}, []string{"X_Debug: 1"}, []string{"X-Debug: "})
	fields("duplicates", "/public", []string{"x-role: user", "x-role: admin"}, []string{"x-role: admin", "x-role: user"}, []string{"x-role: a", "x-role: b", "x-role: admin"}, []string{"x-role: user", "X_ROLE: admin"},
		[]string{"x-role: ", "x-role: admin"}, []string{"x-role: ,admin"}, []string{"x-role: user ,\tadmin"})
	fields("duplicates", "/team/open", []string{"x-team: ops", "x-team: ops"}, []string{"x-team: ops", "x-team: dev"}, []string{"x-team: dev", "x-team: ops"}, []string{"x-team: ops, dev"}, []string{"x-team: ops", "x_team: dev"}, []string{"x_team: ops"})
	fields("allowed only", "/team/open", nil, []string{"x-team: dev"}, []string{"x-team: OPS"}, []string{"x-team: opsx"}, []string{"x-team: "}, []string{"x-team: ops", "X-HTTP-Method-Override: POST"},
		[]string{"x-team: ops", "X-Original-URL: /team/closed"}, []string{"x-team: ops", "X-Rewrite-URL: /admin"})
	for _, p := range []string{"/team", "/team/closed", "/team/opened", "/team/OPEN", "/team/open;x", "/team/open/%252e%252e/closed", "/team/open/..%252fclosed", "/team/open/../closed", "/team/open/%2500", "/team/open%252f..%252f..%252fadmin"} {
		all = append(all, attempt{"allowed only", "GET", p, host, []string{"x-team: ops"}})
	}
	for _, h := range []string{"internal.example.com", "INTERNAL.example.com", "internal.example.com:80", "internal.example.com.", "internal.example.com.:8080", "a.internal.example.com", "A.Internal.Example.Com", "a.b.internal.example.com:1",
		strings.Repeat("a.", 130) + "INTERNAL.example.com", "Internal.Example.Com:443"} {
		all = append(all, attempt{"hosts", "GET", "/public", h, nil})
	}
	return all
}

// bypassHTTP1 are attempts that only HTTP/1.1 can make.
func bypassHTTP1() (all []attempt) {
	const host = "shop.example.com"
	for _, target := range []string{
		"http://shop.example.com/admin", "http://shop.example.com/ADMIN", "http://other/admin", "HTTP://shop.example.com/admin", "http://shop.example.com//admin", "http://shop.example.com/x/../admin",
		"http://internal.example.com/public", "http://INTERNAL.example.com:80/public", "http://internal.example.com./public", "http://internal.example.com", "http://a.internal.example.com/?x", "https://shop.example.com/admin",
	} {
		all = append(all, attempt{"absolute form", "GET", target, host, nil})
	}
	for _, f := range [][]string{
		{"X-Team: ops", "Connection: X-Team"}, {"X-Team: ops", "Connection: close, x-team"}, {"x-team: ops", "Connection: keep-alive", "Connection: x-team"}, {"X-Team: ops", "Connection: X-TEAM"},
		{"Connection: x-team", "x-team: ops", "x-team: ops"}, {"X-Team: ops", "Connection: x-team, x-role"}, {"X-Team: ops", "Connection:x-team"}, {"X-Team: ops", "Connection: ,x-team,"}, {"X-Team: ops", "Connection: upgrade, x-team", "Upgrade: websocket"},
		{"X-Team: ops", "Connection: x-team;x=1, x-team"},
	} {
		all = append(all, attempt{"nominated fields", "GET", "/team/open", host, f})
	}
	for _, f := range [][]string{
		{"Connection: x-other", "X-Role: admin"}, {"Connection: x-role-x", "x-role: admin"}, {"X-Role : admin"}, {" X-Role: admin"}, {"X-Role: admin\r\n folded"}, {"X-Role:\tadmin"}, {"Host: internal.example.com"}, {"X-Role: user\nX-Role: admin"},
		{"X-Role: us\x00er"}, {"Transfer-Encoding: chunked", "Content-Length: 5", "X-Role: admin"},
	} {
		all = append(all, attempt{"framing", "GET", "/public", host, f})
	}
	return all
}

// bypassHTTP2 are lists of fields that only HTTP/2 can send.
func bypassHTTP2() [][][2]string {
	get, scheme, shop, path := [2]string{":method", "GET"}, [2]string{":scheme", "http"}, [2]string{":authority", "shop.example.com"}, [2]string{":path", "/public"}
	admin, inside := [2]string{":path", "/admin"}, [2]string{":authority", "internal.example.com"}
	return [][][2]string{
		{get, scheme, shop, path, admin},
		{get, scheme, shop, admin, path},
		{get, scheme, path, shop, inside},
		{get, scheme, path, inside, shop},
		{get, [2]string{":method", "DELETE"}, scheme, shop, path},
		{[2]string{":method", "DELETE"}, get, scheme, shop, path},
		{get, scheme, shop, path, {"host", "internal.example.com"}},
		{get, scheme, path, {"host", "internal.example.com"}},
		{get, scheme, shop, path, {"x-a", "1"}, admin},
		{get, scheme, shop, {":path", "admin"}},
		{get, scheme, shop, {":path", ""}},
		{get, scheme, shop, {":path", "http://shop.example.com/admin"}},
		{get, scheme, shop, {":path", "/public HTTP/1.1\r\nX-Role: admin"}},
		{{":method", "GET /admin HTTP/1.1\r\nHost: x\r\n\r\nGET"}, scheme, shop, path},
		{get, {":scheme", "http://shop.example.com/admin?"}, shop, admin},
		{get, scheme, {":authority", "user@internal.example.com"}, path},
		{get, scheme, {":authority", "shop.example.com, internal.example.com"}, path},
		{get, scheme, shop, path, {"X-Role", "admin"}},
		{get, scheme, shop, path, {"x-role", "admin"}, {"connection", "x-role"}},
		{get, scheme, shop, {":path", "/team/open"}, {"x-team", "ops"}, {"connection", "x-team"}},
		{get, scheme, shop, path, {":protocol", "websocket"}, {"x-role", "admin"}},
		{{":method", "CONNECT"}, {":authority", "internal.example.com:80"}},
		{get, scheme, shop, path, {"x-role", "user\r\nx-role: admin"}},
		{get, scheme, shop, path, {"transfer-encoding", "chunked"}, {"x-role", "admin"}},
		{get, scheme, shop, path, {"x-role:", "admin"}},
	}
}

// sendHTTP2 sends one request of the fields, without compression, and waits for what
// the proxy makes of it. It returns the type of the frame that said it.
func (p *proxy) sendHTTP2(fields [][2]string) byte {
	p.t.Helper()
	frame := func(kind, flags byte, id uint32, payload []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		b = append(b, flags)
		return append(binary.BigEndian.AppendUint32(b, id), payload...)
	}
	text := func(b []byte, s string) []byte {
		if len(s) < 127 {
			b = append(b, byte(len(s)))
		} else { // RFC 7541 5.1
			b = append(b, 127)
			n := len(s) - 127
			for ; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
			b = append(b, byte(n))
		}
		return append(b, s...)
	}
	var block []byte
	for _, f := range fields {
		block = text(text(append(block, 0), f[0]), f[1])
	}
	c := p.dial("http")
	defer c.Close()
	out := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil)...)
	if _, err := c.Write(append(out, frame(1, 5, 1, block)...)); err != nil {
		p.t.Fatal(err)
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return 0
		}
		n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			return 0
		}
		switch head[3] {
		case 1, 3, 7: // HEADERS, RST_STREAM, GOAWAY
			return head[3]
		}
	}
}

// TestAuthorizationBypass tries to get past policies and judges by what a backend is
// sent: it must be sent nothing.
func TestAuthorizationBypass(t *testing.T) {
	b := &recorder{}
	addr := rawBackend(t, b.serve)
	p := startProxy(t, Config{Loops: 1, times: worker.DefaultTimes}, Deps{}, parsed(t, bypassObjects(t, addr)))
	seen := func() string { return strings.Join(b.take(), "|") }
	count := map[string]int{}
	// What is allowed gets there, so that silence says something.
	for _, a := range []attempt{
		{"", "GET", "/public", "shop.example.com", nil}, {"", "GET", "/administrator", "shop.example.com", []string{"x-role: user"}},
		{"", "GET", "/team/open/x", "shop.example.com", []string{"x-team: ops"}}, {"", "GET", "/secrets", "external.example.com", nil},
	} {
		if res := p.say(a.wire(), 1, a.method); !strings.HasPrefix(res, "HTTP/1.1 200") {
			t.Fatalf("%s: %.100q", a.target, res)
		}
		if got := seen(); !strings.Contains(got, a.target) {
			t.Fatalf("%s: the backend got %q", a.target, got)
		}
		p.sendHTTP2(a.pseudo())
		if got := seen(); !strings.Contains(got, a.target) {
			t.Fatalf("%s by HTTP/2: the backend got %q", a.target, got)
		}
	}
	for _, a := range append(bypasses(), bypassHTTP1()...) {
		count[a.class]++
		res := p.say(a.wire(), 1, a.method)
		if got := seen(); got != "" {
			t.Errorf("%s: %q reaches the backend as %q", a.class, a.wire(), got)
		}
		if !strings.HasPrefix(res, "HTTP/1.1 4") {
			t.Errorf("%s: %q is answered %.60q", a.class, a.wire(), res)
		}
	}
	for _, a := range bypasses() {
		count[a.class+" by HTTP/2"]++
		p.sendHTTP2(a.pseudo())
		if got := seen(); got != "" {
			t.Errorf("%s by HTTP/2: %q reaches the backend as %q", a.class, a.pseudo(), got)
		}
	}
	for _, fields := range bypassHTTP2() {
		count["pseudo-headers"]++
		p.sendHTTP2(fields)
		if got := seen(); got != "" {
			t.Errorf("pseudo-headers: %q reaches the backend as %q", fields, got)
		}
	}
	total := 0
	for class, n := range count {
		if total += n; n < 10 {
			t.Errorf("%s: only %d attempts", class, n)
		}
	}
	t.Logf("%d attempts: %v", total, count)
	if denied := p.Stats().Authorization[1].Decisions["denied"]; denied < 100 {
		t.Errorf("the policy counts %d requests denied", denied)
	}
}
