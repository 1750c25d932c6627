package edgeproxy

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Two services on a machine with two slots: the one's requests are the other's line.
func TestServicesThatShareAMachine(t *testing.T) {
	hold := make(chan struct{})
	b := backend(t, func(_ http.ResponseWriter, _ *http.Request) { <-hold })
	o := toOne(b)
	o.Services = append(o.Services, service("other", b), service("third", b))
	for i, pool := range []string{"box", "box", ""} {
		o.Services[i].Spec.Endpoints[0].Capacity = &mesh.Capacity{Concurrency: 2 - i%2, ServiceTime: mesh.Duration(10 * time.Millisecond), Pool: pool}
	}
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", prefixRule("/other", backendRef("other")), prefixRule("/third", backendRef("third")), prefixRule("/", backendRef("echo")))}
	after := mesh.Duration(10 * time.Millisecond)
	o = with(o, mesh.TrafficPolicySpec{SiteSharing: &mesh.SiteSharing{Policy: mesh.SharingCooperative, ShedAfter: &after}})
	o.TrafficPolicies[0].Spec.TargetRefs = append(o.TrafficPolicies[0].Spec.TargetRefs, mesh.PolicyTargetRef{Kind: mesh.KindMeshService, Name: "third"})
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)

	loads := map[mesh.ServiceKey]ServiceLoad{}
	look := func() {
		for _, l := range p.Loads(nil) {
			loads[l.Service] = l
		}
	}
	look()
	if got := fmt.Sprint(loads["default/echo"].Mates, loads["default/echo"].Slots, loads["default/other"].Mates, loads["default/other"].Slots, loads["default/third"].Mates, loads["default/third"].Slots); got != "[default/other] 2 [default/echo] 2 [] 2" {
		t.Errorf("mates and slots: %s", got)
	}
	var wg sync.WaitGroup
	for i, path := range []string{"/other", "/other", "/", "/other"} { // 2 slots and a wait of 10 ms are 4 requests
		wg.Go(func() {
			if status, _ := get(t, p.url(path)); status != 200 {
				t.Errorf("a request that was let in got %d", status)
			}
		})
		eventually(t, func() bool { look(); return loads["default/other"].InFlight+loads["default/echo"].InFlight == i+1 }, "a request is in flight")
	}
	if status, _ := get(t, p.url("/")); status != 503 {
		t.Errorf("the machine is full of the other service's requests: %d", status)
	}
	wg.Go(func() { get(t, p.url("/third")) })
	eventually(t, func() bool { look(); return loads["default/third"].InFlight == 1 }, "a service with a machine of its own serves")
	close(hold)
	wg.Wait()
	look()
	// The one of echo met an endpoint of its own that was idle, and a machine that was
	// not: its time says nothing of the work.
	if l := loads["default/echo"]; l.Unqueued != 0 || l.Completions != 1 {
		t.Errorf("unqueued %d of %d", l.Unqueued, l.Completions)
	}
	if status, _ := get(t, p.url("/")); status != 200 {
		t.Errorf("when it is empty: %d", status)
	}
}
