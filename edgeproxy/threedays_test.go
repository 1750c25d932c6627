package edgeproxy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/edgeproxy/identity"
)

// TestThreeDaysWithoutTheHub: nobody signs issuers for 72 hours. Each site's own renews the
// leaves of its proxies, and traffic goes between them over connections made anew; once
// leaves are not renewed it stays at home.
func TestThreeDaysWithoutTheHub(t *testing.T) {
	var clock atomic.Int64
	began := time.Now()
	now := func() time.Time { return began.Add(time.Duration(clock.Load())) }
	p := newPair(t, Deps{Now: now})
	bundle := p.trust()
	issuers := map[string]*ca.Issuer{"a": p.issuer("a"), "b": p.issuer("b")}
	p.ca = nil // the hub is gone
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { stop(); running.Wait() }()
	var issued [2]atomic.Int64
	var agents []*identity.Agent
	for i, proxy := range []*proxy{p.a, p.b} {
		site := string("ab"[i])
		var one sync.Mutex
		agent := identity.New(identity.Config{
			Site: site, Log: slog.New(slog.DiscardHandler), Now: now, Wanted: func() bool { return true }, Use: proxy.SetIdentity,
			Ask: func(_ context.Context, request []byte) ([]byte, error) {
				one.Lock()
				defer one.Unlock()
				issued[i].Add(1)
				chain, err := issuers[site].Issue("meridian", site+"-1", request, now())
				return []byte(ca.FormatChain(chain...)), err
			},
		})
		agents = append(agents, agent)
		running.Go(func() { _ = agent.Run(ctx) })
	}
	anew := func(n int) {
		b := *bundle
		b.Spec.Denied = []mesh.DeniedIdentity{{Serial: fmt.Sprintf("%x", n+1)}} // nobody's
		p.a.apply(p.objectsA(&b))
		p.b.apply(p.objectsB(&b))
	}
	const step = 4 * time.Hour
	for n := range int(72/step.Hours()) + 1 {
		for i, proxy := range []*proxy{p.a, p.b} {
			agents[i].Look()
			await(t, "an identity that lasts", func() bool {
				c := proxy.Identity()
				return c != nil && c.NotAfter.Sub(now()) > 8*time.Hour
			})
		}
		anew(n)
		if status, body := get(t, p.a.url("/")); status != 200 || body != "b" {
			t.Fatalf("after %s: %d %q", now().Sub(began), status, body)
		}
		clock.Add(int64(step))
	}
	for i := range issued {
		if n := issued[i].Load(); n < 5 || n > 12 {
			t.Errorf("proxy %d: %d certificates in 72 hours", i, n)
		}
	}
	stop()
	running.Wait()
	clock.Add(int64(ca.LeafLife))
	anew(100)
	if _, body := get(t, p.a.url("/")); body != "a 127.0.0.1" {
		t.Errorf("a day after the last renewal: served by %q", body)
	}
}
