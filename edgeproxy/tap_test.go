package edgeproxy

import (
	"net/http"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A tap sees what a loop served, and what failed is kept with how things stood.
func TestTap(t *testing.T) {
	o := toOne(backend(t, func(http.ResponseWriter, *http.Request) {}))
	o.HTTPRoutes = append(o.HTTPRoutes, routeTo("gone", prefixRule("/gone", backendRef("gone"))))
	dead := refused(t)
	o.Services = append(o.Services, service("gone", dead))
	p := startProxy(t, Config{Site: "north", Loops: 2}, Deps{}, o)
	send := func(path, id string, want int) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, p.url(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Request-Id", id)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	send("/before", "before", 200)
	q := mesh.TapQuery{Session: "a", Filter: mesh.TapFilter{Status: "2xx"}}
	if _, err := p.Tap(&q); err != nil {
		t.Fatal(err)
	}
	send("/a", "one", 200)
	send("/gone/x", "two", 503)
	var seen []mesh.EndedRequest
	eventually(t, func() bool {
		a, err := p.Tap(&q)
		if err != nil {
			t.Fatal(err)
		}
		q.After = a.Seq
		seen = append(seen, a.Requests...)
		return len(seen) > 0
	}, "the tap sees a request")
	if len(seen) != 1 || seen[0].ID != "one" || seen[0].Path != "/a" || seen[0].Site != "north" || seen[0].Service != "default/echo" || seen[0].Rule != "default/all/0" || seen[0].Attempts != 1 {
		t.Errorf("%+v", seen)
	}
	if since := time.Since(seen[0].Time); since < 0 || since > time.Minute {
		t.Errorf("it began %v ago", since)
	}
	var failed *mesh.FailedAnswer
	eventually(t, func() bool {
		var err error
		if failed, err = p.Failed(&mesh.FailedQuery{ID: "two"}); err != nil {
			t.Fatal(err)
		}
		return len(failed.Requests) > 0
	}, "what failed is kept")
	r := failed.Requests[0]
	if failed.Kept != 1 || r.Flag != "UF" || r.Endpoint != dead || r.Explanation == nil {
		t.Fatalf("%+v", failed)
	}
	if b := r.Explanation.Backends; len(b) != 1 || b[0].Service != "default/gone" || len(b[0].Endpoints) != 1 || b[0].Endpoints[0].Address != dead {
		t.Errorf("%+v", r.Explanation)
	}
}

// TestHotPath_tap holds the rules while taps are on that want nothing of it.
func TestHotPath_tap(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, hotObjects(fixedBackend(t)))
	q := mesh.TapQuery{Session: "a", Filter: mesh.TapFilter{Host: "h7.example.com", ID: "0123456789abcdef"}}
	if _, err := p.Tap(&q); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	asked := make(chan struct{})
	go func() { // or they go off
		defer close(asked)
		for {
			if _, err := p.Tap(&q); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	allocatesNothing(t, p, 20_000, 1)
	close(stop)
	<-asked
}
