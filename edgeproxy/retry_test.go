package edgeproxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// flaky fails the first requests of an id as the request's query says: fail=N with
// status code=C (0 breaks the connection), after delay=D.
type flaky struct {
	mu    sync.Mutex
	asked map[string][]time.Time
	ends  map[string]time.Time // when the last failure was answered
	pause map[string]time.Duration
}

func newFlaky() *flaky {
	return &flaky{asked: map[string][]time.Time{}, ends: map[string]time.Time{}, pause: map[string]time.Duration{}}
}

func (f *flaky) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	body, _ := io.ReadAll(r.Body)
	id := q.Get("id")
	now := time.Now()
	f.mu.Lock()
	if n := len(f.asked[id]); n > 0 {
		if p := now.Sub(f.ends[id]); n == 1 || p < f.pause[id] {
			f.pause[id] = p
		}
	}
	f.asked[id] = append(f.asked[id], now)
	n := len(f.asked[id])
	f.mu.Unlock()
	fail, _ := strconv.Atoi(q.Get("fail"))
	if n > fail {
		fmt.Fprintf(w, "attempt %d %s", n, body)
		return
	}
	if d, err := time.ParseDuration(q.Get("delay")); err == nil {
		time.Sleep(d)
	}
	f.mu.Lock()
	f.ends[id] = time.Now()
	f.mu.Unlock()
	code, _ := strconv.Atoi(q.Get("code"))
	if code == 0 {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
		return
	}
	w.WriteHeader(code)
	fmt.Fprintf(w, "failure %d of a long body %s", n, strings.Repeat("x", 10_000))
}

func (f *flaky) count(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked[id])
}

const retryRules = `
  - {matches: [{path: {value: /500}}], retry: {codes: [500], attempts: 3}, BACK}
  - {matches: [{path: {value: /all}}], retry: {codes: [500, 502, 503, 504, 429], attempts: 2}, BACK}
  - {matches: [{path: {value: /broken}}], retry: {attempts: 3}, BACK}
  - {matches: [{path: {value: /slow}}], retry: {attempts: 2}, timeouts: {backendRequest: 300ms}, BACK}
  - {matches: [{path: {value: /bounded}}], retry: {codes: [500], attempts: 9, backoff: 1s}, timeouts: {request: 2s}, BACK}
  - {matches: [{path: {value: /wait}}], retry: {codes: [500], attempts: 3, backoff: 200ms}, BACK}
  - {matches: [{path: {value: /policy}}], retry: {codes: [500]}, BACK}
`

// TestRouteRetry: the cases of the Gateway API's conformance tests for retry, and
// what they leave open.
func TestRouteRetry(t *testing.T) {
	for _, endpoints := range []int{1, 3} { // a retry may have nowhere else to go
		f := newFlaky()
		var addrs []string
		for range endpoints {
			addrs = append(addrs, backend(t, f.serve))
		}
		o := parsed(t, routeText(strings.ReplaceAll(retryRules, "BACK", toEcho))+serviceText("echo", addrs[0]))
		o.Services[0] = service("echo", addrs...)
		p := startProxy(t, Config{Loops: 1}, Deps{}, o)
		var all sync.WaitGroup
		for i, c := range []struct {
			method, path, query string
			status, asked       int
		}{
			{"GET", "/500", "code=500&fail=2", 200, 3},
			{"GET", "/500", "code=500&fail=4", 500, 4},
			{"GET", "/500", "code=503&fail=2", 503, 1},
			{"GET", "/all", "code=502&fail=1", 200, 2},
			{"GET", "/all", "code=504&fail=3", 504, 3},
			{"GET", "/all", "code=429&fail=1", 200, 2},
			{"GET", "/broken", "fail=2", 200, 3},
			{"GET", "/broken", "fail=9", 503, 4},
			{"GET", "/slow", "code=500&fail=2&delay=1500ms", 200, 3},
			{"GET", "/slow", "code=500&fail=3&delay=1500ms", 504, 3},
			{"GET", "/bounded", "code=500&fail=99", 504, 2},
			{"GET", "/policy", "code=500&fail=2", 200, 3},
			{"GET", "/policy", "code=500&fail=3", 500, 3},
			{"PUT", "/500", "code=500&fail=2", 200, 3},
			// What may have been done must not be done twice (RFC 9110 9.2.2).
			{"POST", "/500", "code=500&fail=1", 500, 1},
			{"POST", "/broken", "fail=1", 503, 1},
		} {
			all.Go(func() {
				id := fmt.Sprintf("%d-%d", endpoints, i)
				body := ""
				if c.method != "GET" {
					body = strings.Repeat("b", 5000)
				}
				status, text, err := do(t, c.method, p.url(c.path+"?id="+id+"&"+c.query), body)
				if err != nil || status != c.status {
					t.Errorf("%d endpoints, %s %s?%s: %d %v, want %d", endpoints, c.method, c.path, c.query, status, err, c.status)
				}
				if n := f.count(id); n != c.asked {
					t.Errorf("%d endpoints, %s %s?%s: asked %d times, want %d", endpoints, c.method, c.path, c.query, n, c.asked)
				}
				if status == 200 && text != fmt.Sprintf("attempt %d %s", c.asked, body) {
					t.Errorf("%s %s: %.40q", c.method, c.path, text)
				}
				if status == 500 && !strings.HasPrefix(text, fmt.Sprintf("failure %d", c.asked)) {
					t.Errorf("%s %s: the last response is not passed on: %.40q", c.method, c.path, text)
				}
			})
		}
		all.Wait()
		for _, e := range p.Endpoints() {
			if e.InFlight != 0 {
				t.Errorf("%d requests in flight at %v after all are over", e.InFlight, e.Address)
			}
		}
	}
}

// TestRetryBackoff: no attempt comes earlier than the rule says.
func TestRetryBackoff(t *testing.T) {
	f := newFlaky()
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(strings.ReplaceAll(retryRules, "BACK", toEcho))+serviceText("echo", backend(t, f.serve))))
	if status, _, err := do(t, "GET", p.url("/wait?id=a&code=500&fail=3"), ""); err != nil || status != 200 {
		t.Fatal(status, err)
	}
	if f.count("a") != 4 || f.pause["a"] < 200*time.Millisecond {
		t.Errorf("%d attempts, one only %v after the one before", f.count("a"), f.pause["a"])
	}
}

// TestRetryClientLeaves: a client that goes away while an attempt waits ends it.
func TestRetryClientLeaves(t *testing.T) {
	f := newFlaky()
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {retry: {codes: [500], attempts: 3, backoff: 1h}, `+toEcho+`}
`)+serviceText("echo", backend(t, f.serve))))
	c := p.dial("http")
	fmt.Fprintf(c, "GET /?id=a&code=500&fail=3 HTTP/1.1\r\nHost: x\r\n\r\n")
	await(t, "the first attempt is answered", func() bool { return p.Endpoints()[0].Failures == 1 })
	_ = c.(*net.TCPConn).SetLinger(0) // an end alone says that the client has sent all
	c.Close()
	await(t, "the connection is gone", func() bool { return p.Stats().Connections == 0 })
	if f.count("a") != 1 || p.Endpoints()[0].InFlight != 0 {
		t.Errorf("%d attempts, %d in flight", f.count("a"), p.Endpoints()[0].InFlight)
	}
}

// TestRetryBudget: when everything fails, retries stay a share of the requests
// and the backend's own answer is what clients get beyond it.
func TestRetryBudget(t *testing.T) {
	f := newFlaky()
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {retry: {codes: [503], attempts: 5, backoff: 0s}, `+toEcho+`}
`)+serviceText("echo", backend(t, f.serve))))
	start := time.Now()
	const n = 500
	for i := range n {
		if status, _, err := do(t, "GET", p.url(fmt.Sprintf("/?id=%d&code=503&fail=9", i)), ""); err != nil || status != 503 {
			t.Fatal(status, err)
		}
	}
	allowed := 100 + n/5 + int(10*time.Since(start).Seconds()) + 1
	if got := int(p.Stats().Retries); got < n/5 || got > allowed {
		t.Errorf("%d retries of %d requests, at most %d are allowed", got, n, allowed)
	}
}
