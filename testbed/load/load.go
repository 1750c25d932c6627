// Package load is the demo's open-loop generator: it sends each request when it
// is due, whatever became of the earlier ones, over as many keep-alive
// connections as that takes, and measures from when it was due. A system that
// stalls so cannot slow its own measurement down (no coordinated omission).
//
// It is a minimal HTTP/1.1 client on a [reactor.Loop]: thousands of requests in
// flight cost one thread and no timers of Go's.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

// Site is where a site's users send their requests.
type Site struct {
	Name  string
	Proxy netip.AddrPort
	// Users are the positions of its users.
	Users []Position
}

// Position is a place in degrees, WGS 84.
type Position struct{ Lon, Lat float64 }

// Config is what a Generator needs.
type Config struct {
	Sites []Site
	// Host and Path make up the URL.
	Host, Path string
	// Deadline is how long a user waits from when the request was due.
	Deadline time.Duration
}

// Generator sends one run's requests after another. Its exported methods are
// safe from any goroutine but its loop's own; runs must not overlap.
type Generator struct {
	loop  *reactor.Loop
	cfg   Config
	heads [][][]byte // by site and user: the request up to its work
	sites map[string]int
	pools []pool

	run *run
}

// New prepares a generator on a loop that is running or about to.
func New(loop *reactor.Loop, cfg Config) *Generator {
	g := &Generator{loop: loop, cfg: cfg, sites: map[string]int{}, pools: make([]pool, len(cfg.Sites))}
	for i, s := range cfg.Sites {
		g.sites[s.Name] = i
		var heads [][]byte
		for _, u := range s.Users {
			heads = append(heads, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: meridian-demo\r\n%s: geo:%.6f,%.6f\r\n%s: ",
				cfg.Path, cfg.Host, wire.GeoHeader, u.Lat, u.Lon, wire.WorkHeader))
		}
		g.heads = append(g.heads, heads)
	}
	return g
}

// run is the state of one run.
type run struct {
	start    time.Duration // on the loop's clock
	arrivals []scenario.Arrival
	next     int
	results  []report.Request
	late     []time.Duration
	pending  int
	timer    *reactor.Timer
	live     []Live
	retried  int
	done     chan struct{}
}

// Result is what a run recorded.
type Result struct {
	// Requests are in the order of the arrivals.
	Requests []report.Request
	// Late says how late each request left the generator, sorted.
	Late []time.Duration
	// Retried counts requests sent again on a fresh connection because the
	// proxy had closed the kept one at the same moment.
	Retried int
}

// Live is what a site's users have seen so far in this run.
type Live struct {
	Sent, Answered, Away, Errors int
	// Waiting is the sum of the answered requests' latencies.
	Waiting time.Duration
}

// Run sends the arrivals, the first moment of the run being start, and returns
// when each was answered, failed or ran into the deadline. When ctx ends earlier
// it closes all connections and returns its error.
func (g *Generator) Run(ctx context.Context, arrivals []scenario.Arrival, start time.Time) (*Result, error) {
	r := &run{
		start: start.Sub(g.loop.Base()), arrivals: arrivals, pending: len(arrivals),
		results: make([]report.Request, len(arrivals)), late: make([]time.Duration, 0, len(arrivals)),
		live: make([]Live, len(g.cfg.Sites)), done: make(chan struct{}),
	}
	if r.pending == 0 {
		return &Result{}, nil
	}
	if !g.loop.Call(func() {
		g.run = r
		r.timer = g.loop.NewTimer(g.send)
		r.timer.Set(r.start + arrivals[0].At)
	}) {
		return nil, errors.New("load: the loop has ended")
	}
	var err error
	select {
	case <-r.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.loop.Call(func() {
		r.timer.Stop()
		g.run = nil
		for i := range g.pools {
			g.pools[i].closeAll()
		}
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(r.late)
	return &Result{Requests: r.results, Late: r.late, Retried: r.retried}, nil
}

// Live reads each site's counts so far, nil between runs.
func (g *Generator) Live() []Live {
	var out []Live
	g.loop.Call(func() {
		if g.run != nil {
			out = slices.Clone(g.run.live)
		}
	})
	return out
}

// send puts what is due on its way and waits for the next.
func (g *Generator) send() {
	r := g.run
	now := g.loop.Elapsed()
	for ; r.next < len(r.arrivals); r.next++ {
		a := &r.arrivals[r.next]
		due := r.start + a.At
		if due > now {
			r.timer.Set(due)
			return
		}
		r.late = append(r.late, now-due)
		r.results[r.next] = report.Request{At: a.At, Home: a.Site, Served: report.Nowhere}
		r.live[a.Site].Sent++
		g.pools[a.Site].dispatch(g, a.Site, r.next, false)
	}
}

// finish records how a request ended.
func (g *Generator) finish(id int, outcome report.Outcome, status, served int) {
	r := g.run
	q := &r.results[id]
	q.Latency = g.loop.Elapsed() - r.start - q.At
	q.Outcome, q.Status, q.Served = outcome, status, served
	live := &r.live[q.Home]
	if outcome == report.OK {
		live.Answered++
		live.Waiting += q.Latency
		if served != q.Home {
			live.Away++
		}
	} else {
		live.Errors++
	}
	r.pending--
	if r.pending == 0 {
		close(r.done)
	}
}

// request appends a whole request to b.
func (g *Generator) request(b []byte, id int) []byte {
	a := &g.run.arrivals[id]
	b = append(b, g.heads[a.Site][a.User]...)
	b = strconv.AppendFloat(b, a.Work, 'f', 4, 64)
	return append(b, "\r\n\r\n"...)
}
