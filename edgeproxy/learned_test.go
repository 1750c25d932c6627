package edgeproxy

import (
	"io"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
)

// lastReport keeps the newest report of a node, and what came in band.
type lastReport struct {
	mu       sync.Mutex
	own, far mesh.ServiceReport
}

func (l *lastReport) publish(r *mesh.NodeReport) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range r.Services {
		l.own = s.ServiceReport
	}
	for _, h := range r.Heard {
		l.far = h.Service
	}
	return nil
}

func (l *lastReport) echo() mesh.ServiceReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own
}

func (l *lastReport) heard() mesh.ServiceReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.far
}

// slotted is a backend that works on so many requests at once, each for about so long,
// and lets the others wait in turn.
func slotted(t *testing.T, slots int, each time.Duration) string {
	free := make(chan struct{}, slots)
	return backend(t, func(w http.ResponseWriter, _ *http.Request) {
		free <- struct{}{}
		time.Sleep(each)
		<-free
		io.WriteString(w, "done")
	})
}

// askFrom has n clients ask one after the other until stop is closed.
func (p *proxy) askFrom(n int, stop <-chan struct{}) *sync.WaitGroup {
	var all sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
	url := "http://" + p.addr("http").String() + "/"
	for range n {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := client.Get(url)
				if err != nil {
					p.t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
					p.t.Errorf("status %d, %v", r.StatusCode, err)
				}
				r.Body.Close()
			}
		})
	}
	p.t.Cleanup(client.CloseIdleConnections)
	return &all
}

// Nobody says how many slots the backends of two sites have. While the load is light
// a lower bound is known and everything stays home; when it is heavy the first site
// finds about how many there are, tries the other one, which nobody used before, and
// sends it its part. What is learned goes along in band.
func TestSlotsAreLearned(t *testing.T) {
	const slots, each = 4, 10 * time.Millisecond
	endpoints := map[string]string{"a": slotted(t, slots, each), "b": slotted(t, slots, each)}
	var saidA, saidB lastReport
	a, ca := reporting(t, "a", saidA.publish)
	b, cb := reporting(t, "b", saidB.publish)
	gateways := map[string]string{"a": a.addr("eastwest").String(), "b": b.addr("eastwest").String()}
	objects := func() mesh.Objects {
		o := siteObjects(endpoints, gateways)
		o.Sites = o.Sites[:2]
		for i := range o.Services[0].Spec.Endpoints {
			o.Services[0].Spec.Endpoints[i].Capacity = nil
		}
		return o
	}
	a.share(ca, objects())
	b.share(cb, objects())

	stop := make(chan struct{})
	clients := a.askFrom(2, stop)
	served := func() uint64 { return a.Loads(nil)[0].Completions }
	eventually(t, func() bool { return served() > 100 }, "100 requests of two clients")
	if r := saidA.echo(); r.Learned != mesh.SlotsLowerBound || r.Slots < 1 || r.Slots > 2 {
		t.Errorf("with two in flight site a says %g slots, %q", r.Slots, r.Learned)
	}
	if s := ca.Weights(time.Time{}).Services[0]; s.Off == "" || s.HomeShare != 1 {
		t.Errorf("by a lower bound it shares: %+v", s)
	}
	if n := b.Loads(nil)[0].Arrivals; n != 0 {
		t.Errorf("site b got %d requests", n)
	}
	more := a.askFrom(14, stop)
	// A busy machine can make any one estimate wrong for a while, so the right ones are
	// waited for.
	found := func(r mesh.ServiceReport) bool {
		return r.Learned == mesh.SlotsSettled && math.Abs(r.Slots-slots) <= 1
	}
	eventually(t, func() bool { return found(saidA.echo()) }, "site a settled near its slots")
	eventually(t, func() bool { return b.Loads(nil)[0].Arrivals > 300 }, "site b, which served nobody, was found")
	eventually(t, func() bool { return found(saidB.echo()) }, "site b settled near its slots")
	eventually(t, func() bool { return found(saidA.heard()) }, "site a heard of it in band")
	if s := ca.Weights(time.Time{}).Services[0]; s.Source != share.SourceStandby || s.Off != "" {
		t.Errorf("without a controller: %+v", s)
	}
	close(stop)
	clients.Wait()
	more.Wait()
}
