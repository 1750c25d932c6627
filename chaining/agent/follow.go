package agent

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/chaining/host"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// followEvery is the time between two echoes along paths, one path after the other, so
// that a node with many asks no more of functions and other nodes than one with few.
// followLimit is for each hop of one.
const (
	followEvery = time.Second
	followLimit = time.Second
)

// HopEcho is how long an echo request (RFC 9516) to a hop and its reply take, from the
// node where the path begins, smoothed: a quarter of the difference counts. The hop's node
// answers it before the function there works on it.
type HopEcho struct {
	SPI uint32  `json:"spi"`
	SI  uint8   `json:"si"`
	MS  float64 `json:"ms"`
}

// followed is what echoes along each path found. The zero value is ready; any
// goroutine may use it.
type followed struct {
	mu     sync.Mutex
	hops   map[uint32][]HopEcho // by SPI
	broken map[uint32]string
	failed uint64
}

// set notes what an echo along a path found. Hops that answered no more have no time.
func (f *followed) set(spi uint32, hops []HopEcho, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hops == nil {
		f.hops, f.broken = map[uint32][]HopEcho{}, map[uint32]string{}
	}
	for i := range hops {
		for _, was := range f.hops[spi] {
			if was.SI == hops[i].SI {
				hops[i].MS = was.MS + (hops[i].MS-was.MS)/4
			}
		}
	}
	f.hops[spi] = hops
	delete(f.broken, spi)
	if err != nil {
		f.broken[spi] = err.Error()
		f.failed++
	}
}

// keep forgets all paths but these.
func (f *followed) keep(spis map[uint32]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.hops, func(spi uint32, _ []HopEcho) bool { return !spis[spi] })
	maps.DeleteFunc(f.broken, func(spi uint32, _ string) bool { return !spis[spi] })
}

// all is what was found: hops in no order.
func (f *followed) all() (hops []HopEcho, broken map[uint32]string, failed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hops {
		hops = append(hops, h...)
	}
	return hops, maps.Clone(f.broken), f.failed
}

// follow sends echoes along the paths that begin at this node, one a second, until ctx
// ends.
func (a *Agent) follow(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var last uint32
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		table := a.table.Load()
		if table == nil {
			continue
		}
		status := a.Status()
		// The next by SPI after the last: whatever comes and goes, none waits for ever.
		var next, first *path.Path
		mine := map[uint32]bool{}
		for i := range status.Paths {
			p := &status.Paths[i]
			if p.Ingress != a.cfg.Node {
				continue
			}
			mine[p.SPI] = true
			if first == nil || p.SPI < first.SPI {
				first = p
			}
			if p.SPI > last && (next == nil || p.SPI < next.SPI) {
				next = p
			}
		}
		a.followed.keep(mine)
		if next == nil {
			next = first
		}
		at, ok := echoAddress(table)
		if next == nil || !ok {
			continue
		}
		last = next.SPI
		hops, err := followPath(ctx, next, netip.AddrPortFrom(at, nsh.GPEPort), table.VNI)
		if ctx.Err() != nil {
			return
		}
		a.followed.set(next.SPI, hops, err)
	}
}

// echoAddress is where the node answers echo requests; a node that sends VXLAN-GPE to
// nobody answers none.
func echoAddress(t *path.Table) (netip.Addr, bool) {
	for i := range t.Ports {
		p := &t.Ports[i]
		if p.Role != path.RoleUnderlay && p.Role != path.RoleAware {
			continue
		}
		for _, at := range []netip.Addr{p.Address, p.Address6} {
			if at.IsValid() {
				return at, true
			}
		}
	}
	return netip.Addr{}, false
}

// followPath sends echoes to the path's hops, one after the other. Those that answered
// are returned with an error, too.
func followPath(ctx context.Context, p *path.Path, node netip.AddrPort, vni uint32) ([]HopEcho, error) {
	var hops []HopEcho
	i := 0
	err := host.Trace(ctx, host.TraceConfig{Node: node, SPI: p.SPI, VNI: vni, Timeout: followLimit}, func(h host.Hop) {
		// Places where packets are classified again answer nothing: they are stepped over.
		for i < len(p.Stops) && p.Stops[i].Instance != h.Reply.Instance {
			i++
		}
		if h.Reply.Instance == "" && i < len(p.Stops) {
			return // not an answer of a hop
		}
		hops = append(hops, HopEcho{SPI: p.SPI, SI: path.SI(i), MS: h.RTT.Seconds() * 1000})
		i++
	})
	return hops, err
}
