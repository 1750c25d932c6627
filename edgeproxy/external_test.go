package edgeproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// externalText is a NetworkFunction that asks the service of its name.
func externalText(name, failure, more string) string {
	return fmt.Sprintf("\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec: {failureMode: %s, external: {service: {name: %s}%s}}\n", name, failure, name, more)
}

// external is an external function that notes what it was asked, and answers as the
// request's x-t-case says.
type external struct {
	mu    sync.Mutex
	asked []string
	gone  atomic.Int64 // requests that ended while they waited
	wait  chan struct{}
}

func (f *external) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprintf("%s %s %s body=%d,%v hop=%s user=%s", r.Method, r.Host, r.RequestURI, len(body), err, r.Header.Get("Meridian-Hop"), r.Header.Get("X-T-User")))
	f.mu.Unlock()
	h := w.Header()
	h.Set("X-T-User", "user "+r.Header.Get("X-T-Before"))
	h.Set("X-T-Other", "not mine")
	switch r.Header.Get("X-T-Case") {
	case "deny":
		h.Set("WWW-Authenticate", "Basic")
		w.WriteHeader(401)
		io.WriteString(w, "who are you?")
	case "page":
		h.Set("Meridian-Verdict", "answer")
		io.WriteString(w, "a page")
	case "error":
		w.WriteHeader(500)
	case "long":
		w.Write(make([]byte, 65<<10))
	case "cut":
		h.Set("Content-Length", "100")
		io.WriteString(w, "not whole")
	case "slow":
		select {
		case <-f.wait:
		case <-r.Context().Done():
			f.gone.Add(1)
		}
	case "empty":
		w.WriteHeader(204)
	}
}

func (f *external) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return ""
	}
	return f.asked[len(f.asked)-1]
}

// post sends a body, in chunks where it has no length.
func post(t *testing.T, url string, body io.Reader, fields ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("POST", url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "a.example"
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		req.Header.Set(k, v)
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

// externalChain is a chain in whose middle the function is asked.
func externalChain(t *testing.T, f http.Handler, failure, more string) mesh.Objects {
	return parsed(t, routeText(`
  - {`+fmt.Sprintf(byChain, "web")+toEcho+`}
`)+chainText("web", "{functions: [before, check, behind]}")+functionTexts(
		"before", `{headers: {request: {set: [{name: X-T-Before, value: "${chain.si}"}]}, response: {add: [{name: Back, value: "before ${response.status}"}]}}}`,
		"behind", `{headers: {request: {set: [{name: X-T-Behind, value: "${request.header.x-t-user} ${chain.si}"}]}, response: {add: [{name: Back, value: "behind"}]}}}`)+
		externalText("check", failure, more)+serviceText("check", backend(t, f.ServeHTTP))+serviceText("echo", asked(t)))
}

// TestExternal: what the function says of a request in the middle of its chain is what
// the hops behind it and the backend see, and a body goes by it untouched.
func TestExternal(t *testing.T) {
	f := &external{}
	p := startProxy(t, Config{Loops: 1}, Deps{}, externalChain(t, f, "closed", ", pathPrefix: /check, headers: [X-T-User], timeout: 10s"))
	want := " X-T-Before=255 X-T-Behind=user 255 253 X-T-User=user 255"
	for _, length := range []int{0, 1000, 300_000} {
		var body io.Reader
		if length > 0 {
			body = bytes.NewReader(make([]byte, length))
		}
		res, got := post(t, p.url("/a/../b?q=1"), body, "X-T-User: forged")
		if want := "POST a.example /b?q=1" + want; res.StatusCode != 200 || !strings.HasPrefix(got, want) || length > 0 && !strings.HasSuffix(got, fmt.Sprintf(" body=%d", length)) {
			t.Errorf("backend saw %q, want %q and a body of %d", got, want, length)
		}
		if back := strings.Join(res.Header["Back"], ","); back != "behind,before 200" {
			t.Errorf("response came back by %q", back)
		}
	}
	chain := p.Chains()[0]
	if got, want := f.last(), fmt.Sprintf(`POST a.example /check/b?q=1 body=0,<nil> hop="default/web";spi=%d;si=254 user=forged`, chain.SPI); got != want {
		t.Errorf("the function was asked %q, want %q", got, want)
	}
	if _, got := ask(t, "GET", p.url("/"), "a.example", "X-T-Case: empty"); !strings.HasPrefix(got, "GET a.example / X-T-Before=255 X-T-Behind=user 255 253 ") {
		t.Errorf("behind 204 the backend saw %q", got)
	}
	h := counted(t, p, "default/web", 1)
	if h.Passed != 4 || h.Timed != 4 || h.Took <= 0 || h.Kind != "external" || !strings.HasPrefix(h.Asks, "MeshService default/check, for at most 10s, without bodies") {
		t.Errorf("counted %+v", h)
	}
	// A request of HTTP/2, several at a time.
	var all sync.WaitGroup
	client := http2Client(t)
	for range 20 {
		all.Go(func() {
			res, err := client.Post(p.url("/two"), "text/plain", strings.NewReader("12345"))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), want+" body=5") {
				t.Errorf("over HTTP/2 %q, %v", b, err)
			}
		})
	}
	all.Wait()
}

// TestExternalAnswers: what is not 2xx, or says that it is an answer, goes to the client
// as it is, by the hops before.
func TestExternalAnswers(t *testing.T) {
	f := &external{}
	p := startProxy(t, Config{Loops: 1}, Deps{}, externalChain(t, f, "closed", ", timeout: 10s"))
	for _, c := range []struct {
		what, body, field, value string
		status                   int
	}{
		{"deny", "who are you?", "WWW-Authenticate", "Basic", 401},
		{"page", "a page", "Meridian-Verdict", "", 200},
	} {
		res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-Case: "+c.what)
		if res.StatusCode != c.status || body != c.body || res.Header.Get(c.field) != c.value {
			t.Errorf("%s: %d %q %v", c.what, res.StatusCode, body, res.Header)
		}
		if back := strings.Join(res.Header["Back"], ","); back != fmt.Sprintf("before %d", c.status) {
			t.Errorf("%s: came back by %q", c.what, back)
		}
	}
	if h := counted(t, p, "default/web", 1); h.Answered != 2 {
		t.Errorf("counted %+v", h)
	}
}

// TestExternalFails: a function that gives no good answer in time has the chain's request
// refused, or passed on without what is the function's to set.
func TestExternalFails(t *testing.T) {
	for _, failure := range []string{"closed", "open"} {
		f := &external{wait: make(chan struct{})}
		o := externalChain(t, f, failure, ", headers: [x-t-user], timeout: 150ms, maxBody: 100")
		p := startProxy(t, Config{Loops: 1}, Deps{}, o)
		refuses := func(what string, status int, res *http.Response, body string) {
			t.Helper()
			switch want := " X-T-Before=255 X-T-Behind=253"; {
			case failure == "closed" && (res.StatusCode != status || !strings.HasPrefix(body, "a function that this request")):
				t.Errorf("%s: %d %q, want %d", what, res.StatusCode, body, status)
			case failure == "open" && (res.StatusCode != 200 || !strings.Contains(body, want)):
				t.Errorf("%s: %d %q, want the backend to see %q", what, res.StatusCode, body, want)
			}
		}
		for i, what := range []string{"error", "long", "cut", "slow"} {
			res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-Case: "+what, "X-T-User: forged")
			refuses(what, 503, res, body)
			h := counted(t, p, "default/web", 1)
			if h.Failed != uint64(i+1) || (h.Bypassed == h.Failed) != (failure == "open") {
				t.Errorf("%s: counted %+v", what, h)
			}
		}
		res, body := post(t, p.url("/"), bytes.NewReader(make([]byte, 101)))
		refuses("a long body", 413, res, body)
		res, body = post(t, p.url("/"), io.MultiReader(bytes.NewReader(make([]byte, 50)), bytes.NewReader(make([]byte, 100_000))))
		refuses("a long body without a length", 413, res, body)
		if failure == "open" && !strings.HasSuffix(body, " body=100050") {
			t.Errorf("of a body of 100050 bytes the backend saw %q", body)
		}
		o.Services[0].Spec.Endpoints[0].Address = refused(t)
		p.apply(o)
		res, body = ask(t, "GET", p.url("/"), "a.example")
		refuses("nobody there", 503, res, body)
		o.Services = o.Services[1:]
		p.apply(o)
		res, body = ask(t, "GET", p.url("/"), "a.example")
		refuses("no service", 503, res, body)
		if all := strings.Join(p.Problems(), "\n"); !strings.Contains(all, "function check fails: there is no MeshService default/check") {
			t.Errorf("problems do not say it:\n%s", all)
		}
	}
}

// TestExternalBody: a function that wants bodies sees those that fit, whole, and so does
// the backend; who waits to be asked for the body is asked.
func TestExternalBody(t *testing.T) {
	f := &external{}
	o := externalChain(t, f, "closed", ", maxBody: 32768, timeout: 10s")
	copied := make(chan int, 10)
	o.Services = append(o.Services, service("copy", backend(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		copied <- len(b)
	})))
	o.HTTPRoutes[0].Spec.Rules[0].Filters = append(o.HTTPRoutes[0].Spec.Rules[0].Filters, mesh.HTTPRouteFilter{
		Type:          mesh.FilterRequestMirror,
		RequestMirror: &mesh.RequestMirror{BackendRef: mesh.BackendObjectRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Namespace: "default", Name: "copy", Port: 80}},
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	body := make([]byte, 32768)
	for _, r := range []io.Reader{bytes.NewReader(body), io.MultiReader(bytes.NewReader(body[:10]), bytes.NewReader(body[10:]))} {
		res, got := post(t, p.url("/"), r)
		if res.StatusCode != 200 || !strings.HasSuffix(got, " body=32768") || !strings.Contains(f.last(), "body=32768,<nil>") {
			t.Errorf("%d: the function saw %q, the backend %q", res.StatusCode, f.last(), got)
		}
		select {
		case n := <-copied:
			if n != 32768 {
				t.Errorf("the mirror saw %d bytes", n)
			}
		case <-time.After(10 * time.Second):
			t.Error("the mirror saw nothing")
		}
	}
	c, err := net.Dial("tcp", p.addr("http").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	io.WriteString(c, "12345")
	if _, err := in.ReadString('\n'); err != nil { // the end of that head
		t.Fatal(err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.HasSuffix(string(got), "body=5") || !strings.Contains(f.last(), "body=5,<nil>") {
		t.Errorf("%d %q, the function saw %q", res.StatusCode, got, f.last())
	}
}

// TestExternalOfGateway: a request's class asks before its rule is sought, which sees what
// was answered, and asks again.
func TestExternalOfGateway(t *testing.T) {
	f := &external{}
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{headers: [{name: x-t-user, value: "user me"}]}], `+fmt.Sprintf(byChain, "web")+toEcho+`}
`)+chainText("all", "{functions: [check], ingress: {gateway: ingress}, match: [{}]}")+chainText("web", "{functions: [check, check]}")+
		externalText("check", "closed", ", headers: [x-t-user], timeout: 10s")+serviceText("check", backend(t, f.ServeHTTP))+serviceText("echo", asked(t))))
	if res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-Before: me"); res.StatusCode != 200 || !strings.Contains(body, "X-T-User=user me") || len(f.asked) != 3 {
		t.Errorf("%d %q, asked %q", res.StatusCode, body, f.asked)
	}
	if res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-Before: you"); res.StatusCode != 404 {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

// TestExternalWaits: while a function thinks, the configuration may change, clients may
// go, and others are served.
func TestExternalWaits(t *testing.T) {
	f := &external{wait: make(chan struct{})}
	o := externalChain(t, f, "closed", ", timeout: 10s")
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	answer := make(chan string, 1)
	go func() {
		res, body := ask(t, "GET", p.url("/"), "a.example", "X-T-Case: slow")
		answer <- fmt.Sprint(res.StatusCode, " ", body)
	}()
	eventually(t, func() bool { return f.last() != "" }, "the function is asked")
	c, err := net.Dial("tcp", p.addr("http").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\nX-T-Case: slow\r\n\r\n")
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.asked) == 2 }, "the function is asked again")
	if err := c.(*net.TCPConn).SetLinger(0); err != nil { // a reset: an end alone may be half of one
		t.Fatal(err)
	}
	c.Close()
	eventually(t, func() bool { return f.gone.Load() == 1 }, "what it asked is given up")
	if res, body := ask(t, "GET", p.url("/other"), "a.example"); res.StatusCode != 200 {
		t.Errorf("meanwhile %d %q", res.StatusCode, body)
	}
	p.apply(o)
	close(f.wait)
	if got := <-answer; !strings.HasPrefix(got, "200 GET a.example / ") {
		t.Errorf("at last %q", got)
	}
}
