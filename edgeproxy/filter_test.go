package edgeproxy

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// parsed reads documents as a person writes them, with a gateway before them.
func parsed(t testing.TB, text string) mesh.Objects {
	t.Helper()
	o, err := mesh.ParseYAML("test.yaml", []byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: http, port: 0, protocol: HTTP}]
`+text))
	if err != nil {
		t.Fatal(err)
	}
	return *o
}

func routeText(rules string) string {
	return "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{name: ingress}]\n  rules:\n" + rules
}

func serviceText(name, addr string) string {
	return fmt.Sprintf("\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: MeshService\nmetadata: {name: %s}\nspec: {ports: [{port: 80}], endpoints: [{address: %q}]}\n", name, addr)
}

const toEcho = "backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}]"

// asked answers with what it was asked: method, host, target and fields of interest.
func asked(t *testing.T) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for k, v := range r.Header {
			if name, ok := strings.CutPrefix(k, "Respond-"); ok {
				w.Header()[name] = v
			}
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.RequestURI)
		for _, k := range slices.Sorted(maps.Keys(r.Header)) {
			if strings.HasPrefix(k, "X-T") {
				fmt.Fprintf(w, " %s=%s", k, strings.Join(r.Header[k], ","))
			}
		}
		if len(body) > 0 {
			fmt.Fprintf(w, " body=%d", len(body))
		}
	})
}

// ask sends a request without following redirections. Fields are "Name: value".
func ask(t *testing.T, method, url, host string, fields ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for _, f := range fields {
		if k, v, ok := strings.Cut(f, ": "); ok {
			req.Header.Add(k, v)
		}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestMatchesEndToEnd(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {name: plain, matches: [{path: {value: /}}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: plain}]}}], `+toEcho+`}
  - {name: v1, matches: [{headers: [{name: version, value: one}]}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: v1}]}}], `+toEcho+`}
  - {name: post, matches: [{method: POST}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: post}]}}], `+toEcho+`}
  - {name: query, matches: [{queryParams: [{name: animal, value: big whale}]}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: query}]}}], `+toEcho+`}
  - {name: regex, matches: [{path: {type: RegularExpression, value: "/v[0-9]+/.*"}}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: rule, value: regex}]}}], `+toEcho+`}
`)+serviceText("echo", asked(t))))
	for _, c := range []struct{ method, path, field, want string }{
		{"GET", "/", "", "plain"},
		{"GET", "/x", "Version: one", "v1"},
		{"GET", "/x", "Version: One", "plain"},
		{"POST", "/x", "version: one", "post"},
		{"GET", "/x?animal=big+whale", "", "query"},
		{"GET", "/x?a&animal=big%20whale&animal=cat", "", "query"},
		{"GET", "/x?animal=cat&animal=big%20whale", "", "plain"},
		{"GET", "/v12/x?animal=big+whale", "", "regex"},
		{"GET", "/xv12/x", "", "plain"},
	} {
		res, _ := ask(t, c.method, p.url(c.path), "", c.field)
		if got := res.Header.Get("rule"); got != c.want || res.StatusCode != 200 {
			t.Errorf("%s %s %s: rule %q, want %q", c.method, c.path, c.field, got, c.want)
		}
	}
}

func TestHeaderModifiers(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-T-Set, value: set}], add: [{name: X-T-Add, value: "two,three"}], remove: [x-t-gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Gone]}}
    backendRefs:
    - group: mesh.meridian.dev
      kind: MeshService
      name: echo
      port: 80
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-T-Add, value: backend}]}}
      - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Backend, value: "1"}]}}
`)+serviceText("echo", asked(t))))
	res, body := ask(t, "GET", p.url("/a"), "a.example", "X-T-Set: old", "x-t-set: older", "X-T-Add: one", "X-T-Gone: x", "X-T-Kept: k",
		"Respond-X-Set: old", "Respond-X-Add: own", "Respond-X-Gone: x", "Respond-X-Kept: k")
	if want := "GET a.example /a X-T-Add=one,two,three,backend X-T-Kept=k X-T-Set=set"; body != want {
		t.Errorf("backend saw %q\nwant %q", body, want)
	}
	got := strings.Join([]string{strings.Join(res.Header["X-Set"], ","), strings.Join(res.Header["X-Add"], ","), strings.Join(res.Header["X-Gone"], ","),
		res.Header.Get("X-Kept"), res.Header.Get("X-Backend")}, "|")
	if want := "set|own,added||k|1"; got != want {
		t.Errorf("client saw %q, want %q", got, want)
	}
}

func TestRedirects(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /host}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org}}]}
  - {matches: [{path: {value: /scheme}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]}
  - {matches: [{path: {value: /port}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 307}}]}
  - {matches: [{path: {value: /full}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org, port: 80, path: {type: ReplaceFullPath, replaceFullPath: /new}}}]}
  - {matches: [{path: {value: /old/}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: http, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 308}},
      {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: Strict, value: "1"}]}}]}
`)))
	port := fmt.Sprint(p.addr("http").Port())
	for _, c := range []struct {
		method, path, host, location string
		status                       int
	}{
		{"GET", "/host/a?b=c", "a.example:" + port, "http://example.org/host/a?b=c", 302},
		{"GET", "/scheme/a", "a.example:" + port, "https://a.example/scheme/a", 301},
		{"GET", "/scheme/%41/../b", "a.example", "https://a.example/scheme/b", 301},
		{"POST", "/port", "a.example:" + port, "https://a.example:8443/port", 307},
		{"HEAD", "/full/x?q", "a.example", "http://example.org/new?q", 302},
		{"GET", "/old", "a.example", "http://a.example/", 308},
		{"GET", "/old/x/", "a.example", "http://a.example/x/", 308},
	} {
		res, body := ask(t, c.method, p.url(c.path), c.host)
		if res.StatusCode != c.status || res.Header.Get("Location") != c.location || body != "" {
			t.Errorf("%s %s: %d %q %q, want %d %q", c.method, c.path, res.StatusCode, res.Header.Get("Location"), body, c.status, c.location)
		}
		if strings.HasPrefix(c.path, "/old") && res.Header.Get("Strict") == "" {
			t.Errorf("%s: the response was not edited", c.path)
		}
	}
	if s := p.Stats(); s.UpstreamConnects != 0 {
		t.Errorf("redirections reached a backend: %+v", s)
	}
}

func TestRewrites(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /host}}], filters: [{type: URLRewrite, urlRewrite: {hostname: one.example.org}}], `+toEcho+`}
  - {matches: [{path: {value: /full}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}], `+toEcho+`}
  - {matches: [{path: {value: /prefix/}}], filters: [{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /xyz/}}}], `+toEcho+`}
  - {matches: [{path: {value: /strip}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80,
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ""}}}]}]}
`)+serviceText("echo", asked(t))))
	for _, c := range []struct{ path, want string }{
		{"/host/a?b", "GET one.example.org /host/a?b"},
		{"/full/a?b=c", "GET a.example /one?b=c"},
		{"/prefix/a", "GET b.example /xyz/a"},
		{"/prefix", "GET b.example /xyz"},
		{"/prefix/", "GET b.example /xyz/"},
		{"/prefix//a/./b/?q=/prefix", "GET b.example /xyz/a/b/?q=/prefix"},
		{"/strip", "GET a.example /"},
		{"/strip/", "GET a.example /"},
		{"/strip/a/b", "GET a.example /a/b"},
	} {
		if res, body := ask(t, "GET", p.url(c.path), "a.example"); res.StatusCode != 200 || body != c.want {
			t.Errorf("%s: %d %q, want %q", c.path, res.StatusCode, body, c.want)
		}
	}
}

func TestLocalResponses(t *testing.T) {
	page := strings.Repeat("sorry ", 5000)
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /direct}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: hello}},
      {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-By, value: proxy}]}}], `+toEcho+`}
  - {matches: [{path: {value: /page}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: sorry}}],
      backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: down, port: 80}]}
  - {matches: [{path: {value: /other}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: sorry}}], `+toEcho+`}
  - {matches: [{path: {value: /nowhere}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: gone}}], `+toEcho+`}
  - {matches: [{path: {value: /none}}]}
  - {matches: [{path: {value: /zero}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80, weight: 0}]}
  - {matches: [{path: {value: /half}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}, {group: mesh.meridian.dev, kind: MeshService, name: gone, port: 80}]}
`)+serviceText("echo", asked(t))+serviceText("down", refused(t))+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: LocalResponse
metadata: {name: hello}
spec: {statusCode: 418, contentType: application/json, body: "{}"}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: LocalResponse
metadata: {name: sorry}
spec: {contentType: text/html, body: "`+page+`", replaces: [500, 503]}
`))
	for _, c := range []struct {
		path, contentType, body string
		status                  int
	}{
		{"/direct/x", "application/json", "{}", 418},
		{"/page", "text/html", page, 503},
		{"/other", "", "GET a.example /other", 200},
		{"/nowhere", "text/plain; charset=utf-8", "the route names something that does not exist\n", 500},
		{"/none", "text/plain; charset=utf-8", "the route names something that does not exist\n", 500},
		{"/zero", "text/plain; charset=utf-8", "the route names something that does not exist\n", 500},
	} {
		res, body := ask(t, "GET", p.url(c.path), "a.example")
		if res.StatusCode != c.status || body != c.body || c.contentType != "" && res.Header.Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d %q %.60q", c.path, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
		if c.status == 418 && res.Header.Get("X-By") != "proxy" {
			t.Error("the direct response was not edited")
		}
	}
	bad := 0
	for range 400 {
		if res, _ := ask(t, "GET", p.url("/half"), "a.example"); res.StatusCode == 500 {
			bad++
		}
	}
	if bad < 140 || bad > 260 {
		t.Errorf("%d of 400 requests got 500, want about half", bad)
	}
	if problems := p.Problems(); len(problems) != 2 {
		t.Errorf("problems %q", problems)
	}
}

func TestCORS(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - matches: [{path: {value: /one}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://www.foo.com", "https://*.bar.com"], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2],
      exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600}}]
    `+toEcho+`
  - matches: [{path: {value: /any}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], allowCredentials: true}}]
    `+toEcho+`
  - matches: [{path: {value: /open}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: [PUT]}}]
    `+toEcho+`
`)+serviceText("echo", asked(t))))
	const asks = "Access-Control-Request-Method: GET"
	const names = "Access-Control-Request-Headers: x-header-1, x-header-2"
	type header = map[string]string
	for _, c := range []struct {
		name, method, path string
		fields             []string
		status             int
		want               header // of the Access-Control- fields and Vary, all of them
	}{
		{"preflight, exact origin", "OPTIONS", "/one", []string{"Origin: https://www.foo.com", asks, names}, 204, header{
			"Allow-Origin": "https://www.foo.com", "Allow-Methods": "GET, OPTIONS", "Allow-Headers": "x-header-1, x-header-2",
			"Expose-Headers": "x-header-3, x-header-4", "Max-Age": "3600", "Allow-Credentials": "true", "Vary": "Origin"}},
		{"preflight, wildcard, labels and port", "OPTIONS", "/one", []string{"Origin: https://xpto.www.bar.com:443", asks}, 204, header{
			"Allow-Origin": "https://xpto.www.bar.com:443", "Allow-Methods": "GET, OPTIONS",
			"Expose-Headers": "x-header-3, x-header-4", "Max-Age": "3600", "Allow-Credentials": "true", "Vary": "Origin"}},
		{"preflight, another origin", "OPTIONS", "/one", []string{"Origin: https://foobar.com", asks}, 403, header{"Vary": "Origin"}},
		{"preflight, another scheme", "OPTIONS", "/one", []string{"Origin: http://www.foo.com", asks}, 403, header{"Vary": "Origin"}},
		{"preflight, bare parent", "OPTIONS", "/one", []string{"Origin: https://.bar.com", asks}, 403, header{"Vary": "Origin"}},
		{"OPTIONS that is no preflight", "OPTIONS", "/one", []string{"Origin: https://foobar.com"}, 200, header{"Vary": "Origin"}},
		{"request, allowed", "GET", "/one", []string{"Origin: https://www.bar.com", "Respond-Access-Control-Allow-Origin: https://evil.com"}, 200, header{
			"Allow-Origin": "https://www.bar.com", "Allow-Credentials": "true", "Expose-Headers": "x-header-3, x-header-4", "Vary": "Origin"}},
		{"request, another origin", "GET", "/one", []string{"Origin: https://foobar.com", "Respond-Access-Control-Allow-Origin: *"}, 200, header{"Vary": "Origin"}},
		{"request, no origin", "GET", "/one", nil, 200, header{"Vary": "Origin"}},
		{"preflight, anything with credentials", "OPTIONS", "/any", []string{"Origin: http://x.org", "Access-Control-Request-Method: PUT", names}, 204, header{
			"Allow-Origin": "http://x.org", "Allow-Methods": "PUT", "Allow-Headers": "x-header-1, x-header-2", "Max-Age": "5", "Allow-Credentials": "true", "Vary": "Origin"}},
		{"preflight, any origin", "OPTIONS", "/open", []string{"Origin: https://foobar.com:12345", "Access-Control-Request-Method: PUT", names}, 204, header{
			"Allow-Origin": "*", "Allow-Methods": "PUT", "Max-Age": "5"}},
		{"request, any origin", "GET", "/open", []string{"Origin: https://foobar.com:12345"}, 200, header{"Allow-Origin": "*"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, _ := ask(t, c.method, p.url(c.path), "", c.fields...)
			got := header{}
			for k, v := range res.Header {
				if name, ok := strings.CutPrefix(k, "Access-Control-"); ok || k == "Vary" {
					got[name] = strings.Join(v, "|")
				}
			}
			if res.StatusCode != c.status || !maps.Equal(got, c.want) {
				t.Errorf("%d %v\nwant %d %v", res.StatusCode, got, c.status, c.want)
			}
		})
	}
}

func mirrorTo(share string) string {
	return "filters: [{type: RequestMirror, requestMirror: {backendRef: {group: mesh.meridian.dev, kind: MeshService, name: copy, port: 80}" + share + "}}]"
}

func TestMirror(t *testing.T) {
	seen := make(chan string, 1000) // more than are sent: a full one would hold the backend
	copies := backend(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s %s %d %v", r.Method, r.Host, r.RequestURI, r.Header.Get("X-T"), len(b), err)
		w.WriteHeader(500)
		w.Write(bytes.Repeat([]byte("x"), 300<<10))
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /all}}], `+mirrorTo("")+`, `+toEcho+`}
  - {matches: [{path: {value: /third}}], `+mirrorTo(", fraction: {numerator: 1, denominator: 3}")+`, `+toEcho+`}
  - {matches: [{path: {value: /no}}], `+mirrorTo(", percent: 0")+`, `+toEcho+`}
`)+serviceText("echo", asked(t))+serviceText("copy", copies)))
	if _, body := ask(t, "GET", p.url("/all?q"), "a.example", "X-T: 7"); body != "GET a.example /all?q X-T=7" {
		t.Errorf("client got %q", body)
	}
	next := func() string {
		select {
		case s := <-seen:
			return s
		case <-time.After(5 * time.Second):
			t.Fatal("no copy came")
		}
		return ""
	}
	if got := next(); got != "GET a.example /all?q 7 0 <nil>" {
		t.Errorf("copy %q", got)
	}
	for _, size := range []int{1, 5000, 300 << 10} {
		res, err := http.Post(p.url("/all"), "text/plain", io.MultiReader(bytes.NewReader(make([]byte, size)))) // chunked
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !strings.HasSuffix(string(body), fmt.Sprintf(" body=%d", size)) {
			t.Errorf("client got %q", body)
		}
		if size > 64<<10 {
			continue // the copy may have fallen behind
		}
		if got := next(); !strings.HasSuffix(got, fmt.Sprintf(" %d <nil>", size)) {
			t.Errorf("copy of %d bytes: %q", size, got)
		}
	}
	before := p.Stats().Mirrored
	for range 300 {
		ask(t, "GET", p.url("/third"), "")
		ask(t, "GET", p.url("/no"), "")
	}
	if n := p.Stats().Mirrored - before; n < 60 || n > 140 {
		t.Errorf("%d of 300 requests copied, want about 100", n)
	}
}

// TestMirrorNeverHinders: whatever the mirror does, the client sees nothing of it.
func TestMirrorNeverHinders(t *testing.T) {
	var stuck atomic.Int32
	release := make(chan struct{})
	hangs := backend(t, func(w http.ResponseWriter, r *http.Request) {
		stuck.Add(1)
		<-release
	})
	defer close(release)
	for name, addr := range map[string]string{"hangs": hangs, "refuses": refused(t)} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {`+mirrorTo("")+`, `+toEcho+`}
`)+serviceText("echo", asked(t))+serviceText("copy", addr)))
			// More than a hanging mirror takes, with what the kernel holds for it: the
			// copy is dropped, the request is not.
			const size = 24 << 20
			res, err := http.Post(p.url("/"), "text/plain", io.MultiReader(bytes.NewReader(make([]byte, size))))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if !strings.HasSuffix(string(body), fmt.Sprint(" body=", size)) {
				t.Errorf("client got %q", body)
			}
			if n := p.Stats().MirrorsDropped; name == "hangs" && n != 1 {
				t.Errorf("%d copies dropped, want 1", n)
			}
			for range 300 {
				if res, _ := ask(t, "GET", p.url("/"), ""); res.StatusCode != 200 {
					t.Fatal(res.Status)
				}
			}
			s := p.Stats()
			if name == "hangs" && (s.MirrorsDropped < 40 || s.Mirrored > 300) {
				t.Errorf("%d copied, %d dropped", s.Mirrored, s.MirrorsDropped)
			}
		})
	}
}

func TestTimeoutsOfRules(t *testing.T) {
	slow := backend(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(400 * time.Millisecond):
		}
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /request}}], timeouts: {request: 50ms}, `+toEcho+`}
  - {matches: [{path: {value: /attempt}}], timeouts: {backendRequest: 50ms}, `+toEcho+`}
  - {matches: [{path: {value: /none}}], timeouts: {request: 0s, backendRequest: 0s}, `+toEcho+`}
  - {matches: [{path: {value: /}}], `+toEcho+`}
`)+serviceText("echo", slow)+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec: {targetRefs: [{kind: MeshService, name: echo}], timeouts: {request: 100ms}, retries: {attempts: 0}}
`))
	for path, want := range map[string]int{"/request": 504, "/attempt": 504, "/none": 200, "/": 504} {
		if res, _ := ask(t, "GET", p.url(path), ""); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}

func TestCurlFollowsRedirect(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 308}}]}
  - {matches: [{path: {value: /new}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-T, value: yes it is}]}}], `+toEcho+`}
`)+serviceText("echo", asked(t))))
	host := p.addr("http").String()
	out, err := exec.Command(curl, "-sSL", "--max-time", "10", "-d", "hello", "http://"+host+"/old/a?b").CombinedOutput()
	if want := "POST " + host + " /new/a?b X-T=yes it is body=5"; err != nil || string(out) != want {
		t.Errorf("curl got %q, %v; want %q", out, err, want)
	}
}
