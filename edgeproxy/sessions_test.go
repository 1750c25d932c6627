package edgeproxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// cooperating is a proxy of a site that shares with others, without a controller.
func cooperating(t *testing.T, site string) (*proxy, *Cooperation) {
	t.Helper()
	return reporting(t, site, nil)
}

// reporting is one whose reports, meant for a controller, are handed to publish.
func reporting(t *testing.T, site string, publish func(*mesh.NodeReport) error) (*proxy, *Cooperation) {
	t.Helper()
	c := NewCooperation(CooperationConfig{Site: site, Node: "n-" + site, Log: slog.New(slog.DiscardHandler), Publish: publish})
	p := startProxy(t, Config{Site: site, Loops: 1}, Deps{Sharing: c}, siteObjects(nil, nil))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, p.Server) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, c
}

func (p *proxy) share(c *Cooperation, o mesh.Objects) {
	p.t.Helper()
	p.snap.Generation.Counter++
	next := p.snap
	next.Objects = o
	if err := c.Configure(&next, func() error { return p.Apply(&next) }); err != nil {
		p.t.Fatal(err)
	}
	p.snap = next
}

// Two sites with room for five tunnels each. Eight that are opened at the one are
// spread by the open ones, none beyond what a site holds, and quiet tunnels make no
// site suspect. When they are closed, new ones stay home.
func TestSessionsAreSharedByOpenOnes(t *testing.T) {
	hold := func(c *net.TCPConn, in *bufio.Reader, _ *http.Request) { io.Copy(io.Discard, in) }
	var here, there atomic.Int64
	count := func(n *atomic.Int64) func(*net.TCPConn, *bufio.Reader, *http.Request) {
		return func(c *net.TCPConn, in *bufio.Reader, r *http.Request) { n.Add(1); hold(c, in, r); n.Add(-1) }
	}
	endpoints := map[string]string{"a": switching(t, switched, count(&here)), "b": switching(t, switched, count(&there))}
	a, ca := cooperating(t, "a")
	b, cb := cooperating(t, "b")
	gateways := map[string]string{"a": a.addr("eastwest").String(), "b": b.addr("eastwest").String()}
	objects := func() mesh.Objects {
		o := siteObjects(endpoints, gateways)
		o.Sites = o.Sites[:2]
		for i := range o.Services[0].Spec.Endpoints {
			o.Services[0].Spec.Endpoints[i].Capacity = &mesh.Capacity{Concurrency: 5, ServiceTime: mesh.Duration(5 * time.Millisecond), Unit: mesh.UnitSessions}
		}
		return o
	}
	a.share(ca, objects())
	b.share(cb, objects())
	known := func() *RemoteShareInForce {
		for _, s := range ca.Weights(time.Time{}).Services {
			for i := range s.Remotes {
				if r := &s.Remotes[i]; r.Site == "b" && r.Excluded == "" && r.Limit > 0 {
					return r
				}
			}
		}
		return nil
	}
	eventually(t, func() bool { return known() != nil }, "site a knows of site b")

	var open []net.Conn
	for i := range 8 {
		c, _ := a.open("")
		open = append(open, c)
		want := int64(i + 1)
		eventually(t, func() bool { return here.Load()+there.Load() == want }, "a tunnel is there")
		time.Sleep(3 * tickEvery) // a report goes round: the next plan knows of it
	}
	if h, th := here.Load(), there.Load(); h > 5 || th > 5 || h < 2 {
		t.Errorf("%d tunnels here and %d there, of 5 each", h, th)
	}
	for range 30 { // longer than a site may be silent
		if r := known(); r == nil || r.Suspect != "" || r.Outstanding != 0 {
			t.Fatalf("with quiet tunnels to it site b is %+v", r)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, c := range open {
		c.Close()
	}
	eventually(t, func() bool { return here.Load()+there.Load() == 0 }, "the tunnels are closed")
	eventually(t, func() bool {
		w := ca.Weights(time.Time{}).Services
		return len(w) == 1 && w[0].InFlight == 0 && w[0].HomeLimit > 0
	}, "home is known to be empty")
	a.open("")
	eventually(t, func() bool { return here.Load() == 1 }, "a tunnel at home")
}
