package edgeproxy

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A service at one site alone: two slots of 10 ms, and a wait of 20 ms makes six
// requests in flight. Those of class batch may wait 5 ms, so they are refused from
// three on, while the others still get in.
func TestShedsTheLowerClassFirst(t *testing.T) {
	hold := make(chan struct{})
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) { <-hold })
	o := toOne(b)
	o.Services[0].Spec.Endpoints[0].Capacity = &mesh.Capacity{Concurrency: 2, ServiceTime: mesh.Duration(10 * time.Millisecond)}
	after := mesh.Duration(20 * time.Millisecond)
	o = with(o, mesh.TrafficPolicySpec{SiteSharing: &mesh.SiteSharing{
		Policy: mesh.SharingCooperative, ShedAfter: &after,
		PriorityClasses: []mesh.PriorityClass{{Name: "batch", Header: "X-Class", Values: []string{"batch", "bulk"}, ShedAfter: mesh.Duration(5 * time.Millisecond)}},
	}})
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)

	var wg sync.WaitGroup
	ask := func(class string) int {
		req, err := http.NewRequest(http.MethodGet, p.url("/"), nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		req.Header.Set("x-class", class)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	enter := func(class string, inFlight int) {
		t.Helper()
		wg.Go(func() {
			if got := ask(class); got != http.StatusOK {
				t.Errorf("a request that was let in got %d", got)
			}
		})
		eventually(t, func() bool {
			l := p.Loads(nil)
			return len(l) == 1 && l[0].InFlight == inFlight
		}, "a request is in flight")
	}
	for i := range 3 {
		enter([]string{"batch", "bulk", ""}[i], i+1)
	}
	if got := ask("batch"); got != http.StatusServiceUnavailable {
		t.Errorf("the fourth, of class batch: %d", got)
	}
	x, err := p.Explain(&mesh.ExplainQuery{Headers: []string{"x-class: bulk"}})
	if err != nil || x.Backends[0].Priority != "batch" || x.Backends[0].Sites[0].Chance != 0 {
		t.Errorf("explain: %+v, %v", x, err)
	}
	for i := range 3 {
		enter("other", 4+i)
	}
	if got := ask("other"); got != http.StatusServiceUnavailable {
		t.Errorf("the seventh: %d", got)
	}
	close(hold)
	wg.Wait()

	counts := map[string]uint64{}
	for _, s := range p.Stats().Shed {
		counts[string(s.Service)+" "+s.Priority] = s.N
	}
	if len(counts) != 2 || counts["default/echo batch"] != 1 || counts["default/echo "] != 1 {
		t.Errorf("shed %v", counts)
	}
	if n := p.flagged("SH"); n != 2 {
		t.Errorf("%d requests with the flag SH", n)
	}
	if got := ask("batch"); got != http.StatusOK {
		t.Errorf("when the line is gone: %d", got)
	}
}
