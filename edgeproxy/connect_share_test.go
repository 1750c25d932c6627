package edgeproxy

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestConnectionsAreSharedByOpenOnes is TestSessionsAreSharedByOpenOnes of TCP: two sites
// with room for five connections each.
func TestConnectionsAreSharedByOpenOnes(t *testing.T) {
	var here, there atomic.Int64
	hold := func(n *atomic.Int64) func(*net.TCPConn) {
		return func(c *net.TCPConn) { n.Add(1); io.Copy(io.Discard, c); n.Add(-1) }
	}
	endpoints := map[string]string{"a": tcpBackend(t, hold(&here)), "b": tcpBackend(t, hold(&there))}
	a, ca := cooperating(t, "a")
	b, cb := cooperating(t, "b")
	gateways := map[string]string{"a": a.addr("eastwest").String(), "b": b.addr("eastwest").String()}
	objects := func() mesh.Objects {
		o := siteStreams(endpoints, gateways)
		// The listeners that were there stay, so that the sites are found.
		o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("http", 0))
		o.Sites = o.Sites[:2]
		for i := range o.Services[0].Spec.Endpoints {
			o.Services[0].Spec.Endpoints[i].Capacity = &mesh.Capacity{Concurrency: 5, ServiceTime: mesh.Duration(5 * time.Millisecond)}
		}
		return o
	}
	a.share(ca, objects())
	b.share(cb, objects())
	inForce := func() *ServiceSharesInForce {
		for _, s := range ca.Weights(time.Time{}).Services {
			return &s
		}
		return nil
	}
	eventually(t, func() bool {
		s := inForce()
		if s == nil {
			return false
		}
		for _, r := range s.Remotes {
			if r.Site == "b" && r.Excluded == "" && r.Limit > 0 {
				return true
			}
		}
		return false
	}, "site a knows of site b and counts sessions")
	var open []net.Conn
	for i := range 8 {
		open = append(open, a.stream("tcp"))
		want := int64(i + 1)
		eventually(t, func() bool { return here.Load()+there.Load() == want }, "a connection is there")
		time.Sleep(3 * tickEvery) // a report goes round: the next plan knows of it
	}
	if h, th := here.Load(), there.Load(); h > 5 || th > 5 || h < 2 {
		t.Errorf("%d connections here and %d there, of 5 each", h, th)
	}
	if l := b.Loads(nil)[0]; l.InFlight != int(there.Load()) {
		t.Errorf("b counts %d in flight, %d are there", l.InFlight, there.Load())
	}
	for _, c := range open {
		c.Close()
	}
	eventually(t, func() bool { return here.Load()+there.Load() == 0 }, "the connections are closed")
	eventually(t, func() bool { s := inForce(); return s != nil && s.InFlight == 0 && s.HomeLimit > 0 }, "home is known to be empty")
	a.stream("tcp")
	eventually(t, func() bool { return here.Load() == 1 }, "a connection at home")
}
