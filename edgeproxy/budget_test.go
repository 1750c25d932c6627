package edgeproxy

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestBudget sends requests to another site, over real connections, until the budget of the
// link is used up: not one begins after that, nothing of what went over is left out of the
// count, and the own site serves on.
func TestBudget(t *testing.T) {
	const megabyte, answer = 1_000_000, 20_000
	var served, received atomic.Int64
	far := backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		served.Add(1)
		received.Add(n)
		fmt.Fprint(w, strings.Repeat("x", answer))
	})
	near := named(t, "near")
	declared := func(endpoints, gateways map[string]string) mesh.Objects {
		o := siteObjects(endpoints, gateways)
		for i := range o.Services[0].Spec.Endpoints {
			o.Services[0].Spec.Endpoints[i].Capacity.ServiceTime = mesh.Duration(time.Millisecond)
		}
		return o
	}
	cb := NewCooperation(CooperationConfig{Site: "b", Node: "n1", Log: slog.New(slog.DiscardHandler)})
	b := startProxy(t, Config{Site: "b"}, Deps{Sharing: cb}, declared(map[string]string{"b": far}, nil))
	go func() { _ = cb.Run(t.Context(), b.Server) }()
	ob := declared(map[string]string{"b": far}, nil)
	if err := cb.Configure(&mesh.Snapshot{Site: "b", Objects: ob}, func() error { b.apply(ob); return nil }); err != nil {
		t.Fatal(err)
	}
	gateways := map[string]string{"b": b.addr("eastwest").String()}

	c := NewCooperation(CooperationConfig{Site: "a", Node: "n1", Log: slog.New(slog.DiscardHandler)})
	a := startProxy(t, Config{Site: "a"}, Deps{Sharing: c}, declared(map[string]string{"b": far}, gateways))
	go func() { _ = c.Run(t.Context(), a.Server) }()
	objects := func(endpoints map[string]string, gigabytes float64) {
		t.Helper()
		o := declared(endpoints, gateways)
		o.Sites[0].Spec.Links = []mesh.SiteLink{{To: "b", Budget: &mesh.LinkBudget{GigabytesPerDay: gigabytes, ResetAt: "00:00"}}}
		if err := c.Configure(&mesh.Snapshot{Site: "a", Objects: o}, func() error { a.apply(o); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	objects(map[string]string{"b": far}, 1e-3)
	use := func() LinkUse {
		for _, l := range c.Weights(time.Time{}).Links {
			if l.Site == "b" {
				return l
			}
		}
		t.Fatal("the link is not in the view")
		return LinkUse{}
	}
	post := func() (int, string) {
		t.Helper()
		res, err := http.Post(a.url("/"), "text/plain", strings.NewReader(strings.Repeat("y", 30_000)))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	eventually(t, func() bool { return use().Most == megabyte }, "a part of the budget is granted")
	planned := func() bool {
		for _, s := range c.Weights(time.Time{}).Services {
			for _, r := range s.Remotes {
				return r.Excluded == "" && r.PriceMS > 0
			}
		}
		return false
	}
	eventually(t, planned, "the other site is heard of and planned for")
	sent := int64(0)
	for {
		status, _ := post()
		if status != http.StatusOK {
			break
		}
		if sent++; sent > 100 {
			t.Fatal("5 MB went over a link with a budget of 1 MB")
		}
	}
	bodies := sent*answer + received.Load()
	if u := use(); !u.Spent || u.Carried < megabyte || int64(u.Carried) < bodies || int64(u.Carried) > bodies+sent*1500 {
		t.Errorf("after %d requests with %d bytes of bodies the link stands at %+v", sent, bodies, u)
	}
	// One began below the budget, and no other after it.
	if most := int64(megabyte + 30_000 + answer + 1500); bodies > most || served.Load() != sent {
		t.Errorf("%d bytes in %d requests went over a link with a budget of %d; the other site served %d", bodies, sent, megabyte, served.Load())
	}
	if status, body := post(); status != http.StatusServiceUnavailable {
		t.Errorf("a request that only the other site serves: %d %q", status, body)
	}

	objects(map[string]string{"a": near, "b": far}, 1e-3)
	if status, body := post(); status != http.StatusOK || !strings.HasPrefix(body, "near") {
		t.Errorf("at home: %d %q", status, body)
	}
	// A larger budget opens it again.
	objects(map[string]string{"b": far}, 1)
	eventually(t, func() bool { return !use().Spent }, "the link opens")
	if status, _ := post(); status != http.StatusOK {
		t.Errorf("with a larger budget: %d", status)
	}
}
