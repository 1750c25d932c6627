package edgeproxy

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestEndpointLoad has two endpoints of which one says that it is loaded: it gets
// next to nothing until it says otherwise, whichever form it says it in, and no
// client sees the word.
func TestEndpointLoad(t *testing.T) {
	for name, c := range map[string]struct{ header, loaded, idle string }{
		"own":          {"Meridian-Endpoint-Load", "1;n=50;t=5", "1;n=0;t=5"},
		"slow":         {"Meridian-Endpoint-Load", "1;n=0;t=5000", "1;n=0;t=5"},
		"ORCA as TEXT": {"Endpoint-Load-Metrics", "TEXT named_metrics.in_flight=50,named_metrics.service_time_ms=5", "TEXT named_metrics.in_flight=0,named_metrics.service_time_ms=5"},
		"ORCA as JSON": {"endpoint-load-metrics", `JSON {"named_metrics":{"in_flight":50,"service_time_ms":5}}`, `JSON {"named_metrics":{"in_flight":0,"service_time_ms":5}}`},
		"utilization":  {"Endpoint-Load-Metrics", "TEXT cpu_utilization=40", "TEXT cpu_utilization=0.01"},
	} {
		var busy atomic.Bool
		busy.Store(true)
		var asked [2]atomic.Int64
		endpoint := func(i int) string {
			return backend(t, func(w http.ResponseWriter, _ *http.Request) {
				asked[i].Add(1)
				w.Header()[c.header] = []string{c.idle}
				if i == 0 && busy.Load() {
					w.Header()[c.header] = []string{c.loaded}
				}
				fmt.Fprint(w, i)
			})
		}
		p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(endpoint(0), endpoint(1)))
		for range 100 {
			res, body := ask(t, "GET", p.url("/"), "")
			if res.StatusCode != 200 || len(res.Header["Meridian-Endpoint-Load"])+len(res.Header["Endpoint-Load-Metrics"]) > 0 {
				t.Fatalf("%s: %d %s %v", name, res.StatusCode, body, res.Header)
			}
		}
		if n := asked[0].Load(); n == 0 || n > 20 {
			t.Errorf("%s: the loaded endpoint got %d of 100 requests", name, n)
		}
	}
}

// TestEndpointSinkhole: an endpoint that fails at once and says that it is idle is
// no good one.
func TestEndpointSinkhole(t *testing.T) {
	good := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Meridian-Endpoint-Load", "1;n=1;t=5")
	})
	bad := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Meridian-Endpoint-Load", "1;n=0;t=0.01")
		w.WriteHeader(500)
	})
	none := 0
	p := startProxy(t, Config{Loops: 1}, Deps{}, with(toOne(good, bad), mesh.TrafficPolicySpec{
		OutlierDetection: &mesh.OutlierDetection{MaxEjectionPercent: &none},
	}))
	failed := 0
	for range 300 {
		if status, _ := get(t, p.url("/")); status != 200 {
			failed++
		}
	}
	if failed == 0 || failed > 30 {
		t.Errorf("%d of 300 requests failed", failed)
	}
}
