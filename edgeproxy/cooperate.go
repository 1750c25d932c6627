package edgeproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/budget"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/geo/rtt"
)

// tickEvery is how often a node plans anew, but at rest ([pulse]).
const tickEvery = 100 * time.Millisecond

// CooperationConfig is what a Cooperation needs to know of its node.
type CooperationConfig struct {
	// Site and Node name this node; without a site nothing is shared.
	Site, Node string
	// Publish sends the node's report to the site's controller; nil where there
	// is none. It must not block.
	Publish func(*mesh.NodeReport) error
	Log     *slog.Logger
}

// Cooperation shares the load of this node's services with other sites: it turns
// the data path's counters and what other sites say in band into the gates that
// the loops ask, and goes on alone when the controller is silent. It is the
// Sharing of a [Server].
//
// Locks: mu before gatesMu.
type Cooperation struct {
	CooperationConfig
	ledger share.Ledger
	peers  chan []peer // to the prober
	woken  chan struct{}

	mu       sync.Mutex
	node     *share.Node
	now      func() int64 // the loops' clock; nil before Run
	services []share.Service
	ways     []way
	rtts     map[string]*rtt.Estimate
	last     map[mesh.ServiceKey]inForce
	counts   map[mesh.ServiceKey]*share.Counters
	plan     []mesh.ServiceWeights // the controller's last
	changes  history
	said     map[string]bool
	mute     map[string]fault // by site, where the last probe failed
	// alone keeps the budgets of a node that has no controller; began is the origin of
	// its clock.
	alone budget.Book
	began time.Time

	gatesMu sync.Mutex
	// current serves; next is being applied, nil otherwise.
	current, next *sharing
	sites         map[string]*siteState
}

// way is how another site is reached, and what is known of the way beforehand.
type way struct {
	share.Peer
	addresses []string
	budget    budget.Limit // where Budget says that there is one
}

// sharing is what one snapshot shares, as the loops use it.
type sharing struct {
	services map[mesh.ServiceKey]bool
	up       map[mesh.ServiceKey]bool // has an endpoint at home
	gates    map[mesh.ServiceKey]*gate
	reports  map[mesh.ServiceKey]*report
}

// inForce is what was decided for one service at the last tick.
type inForce struct {
	share share.Share
	since time.Time
	kept  ShareChange
	// inFlight is at home's endpoints.
	inFlight int
}

var _ upstream.Sharing = (*Cooperation)(nil)

// NewCooperation returns a Cooperation that shares nothing yet.
func NewCooperation(cfg CooperationConfig) *Cooperation {
	c := &Cooperation{
		CooperationConfig: cfg,
		peers:             make(chan []peer, 1),
		woken:             make(chan struct{}, 1),
		rtts:              map[string]*rtt.Estimate{},
		last:              map[mesh.ServiceKey]inForce{},
		counts:            map[mesh.ServiceKey]*share.Counters{},
		said:              map[string]bool{},
		mute:              map[string]fault{},
		sites:             map[string]*siteState{},
		current:           &sharing{},
	}
	c.began = time.Now()
	id := share.Identity{Site: cfg.Site, Node: cfg.Node, Epoch: uint64(c.began.UnixNano())}
	c.node = share.NewNode(id, new(price.Curves), &c.ledger)
	return c
}

// Configure prepares for a snapshot, calls apply, which asks for its gates, and
// keeps what was there when apply fails. Calls must be serial.
func (c *Cooperation) Configure(s *mesh.Snapshot, apply func() error) error {
	services, ways, next := c.read(s)
	c.mu.Lock()
	oldServices, oldWays := c.services, c.ways
	err := c.configure(services, ways)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.gatesMu.Lock()
	c.next = next
	c.gatesMu.Unlock()

	err = apply()

	c.gatesMu.Lock()
	if err == nil {
		c.current = c.next
	}
	c.next = nil
	c.gatesMu.Unlock()
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return errors.Join(err, c.configure(oldServices, oldWays))
	}
	if len(services) == 0 {
		ways = nil // nothing to ask for
	}
	c.probe(ways)
	return nil
}

// configure needs mu.
func (c *Cooperation) configure(services []share.Service, ways []way) error {
	peers := make([]share.Peer, len(ways))
	for i, w := range ways {
		peers[i] = w.Peer
	}
	if err := c.node.Configure(services, peers); err != nil {
		return err
	}
	c.services, c.ways = services, ways
	c.wake()
	estimates := map[string]*rtt.Estimate{}
	for _, w := range ways {
		e := c.rtts[w.Site]
		if e == nil {
			fresh := rtt.NewEstimate(fromMS(w.RTTMS))
			e = &fresh
		}
		estimates[w.Site] = e
	}
	c.rtts = estimates
	for site := range c.mute {
		if c.rtts[site] == nil {
			delete(c.mute, site)
		}
	}
	for key := range c.last {
		if !hasService(services, key) {
			delete(c.last, key)
		}
	}
	return nil
}

func hasService(services []share.Service, key mesh.ServiceKey) bool {
	return slices.ContainsFunc(services, func(s share.Service) bool { return s.Key == key })
}

// probe tells the prober whom to follow: the nearest sites, as many as one plan
// uses, so that a large mesh costs a site no more than a small one. Only the
// newest set counts.
func (c *Cooperation) probe(ways []way) {
	near := slices.SortedStableFunc(slices.Values(ways), func(a, b way) int { return cmp.Compare(a.RTTMS, b.RTTMS) })
	set := make([]peer, 0, len(ways))
	for _, w := range near {
		if len(w.addresses) > 0 && len(set) < plan.MaxRemotes {
			set = append(set, peer{w.Site, w.addresses})
		}
	}
	select {
	case <-c.peers:
	default:
	}
	c.peers <- set
}

// Loads is the data path as the cooperation asks it; [Server] is one.
type Loads interface {
	Now() int64
	Loads(dst []ServiceLoad) []ServiceLoad
}

// Ways are ways to other sites that are more than a connection; [Server] knows them.
type Ways interface {
	// Secure makes of a connection to a site's proxy what requests there go over. It
	// closes the connection where it fails.
	Secure(ctx context.Context, site string, conn net.Conn) (net.Conn, error)
}

// Run ticks and probes until ctx ends.
func (c *Cooperation) Run(ctx context.Context, loads Loads) error {
	if c.Site == "" {
		<-ctx.Done()
		return nil
	}
	c.mu.Lock()
	c.now = loads.Now
	c.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	p := &prober{source: c.Site, answered: c.answered, result: c.probed, secure: plainly}
	if ways, ok := loads.(Ways); ok {
		p.secure = ways.Secure
	}
	wg.Go(func() { p.run(ctx, c.peers) })
	var watch *loop.Watch
	if s, ok := loads.(*Server); ok {
		watch = s.watch
	}
	pulse := newPulse(watch, c.woken)
	defer pulse.stop()
	var buf []ServiceLoad
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.woken:
			pulse.wake()
		case at := <-pulse.timer.C:
			var busy bool
			buf, busy = c.tick(loads, buf)
			pulse.ticked(at, busy)
		}
	}
}

// wake has the next tick come as soon as ever.
func (c *Cooperation) wake() {
	select {
	case c.woken <- struct{}{}:
	default: // it is awake by that
	}
}

func plainly(_ context.Context, _ string, conn net.Conn) (net.Conn, error) { return conn, nil }

// SetWeights takes a plan of the site's controller.
func (c *Cooperation) SetWeights(w *mesh.Weights) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return // the next one comes in half a second
	}
	switch err := c.node.SetWeights(c.now(), w); {
	case errors.Is(err, share.ErrOld): // it came twice or out of order: nobody's fault
	case err != nil:
		c.once("weights are refused", err)
	default:
		if !reflect.DeepEqual(w.Services, c.plan) {
			c.wake()
		}
		c.plan = w.Services
	}
}

// once logs a fault of a kind a single time: what comes twice a second must not
// fill the log. It needs mu.
func (c *Cooperation) once(what string, err error) {
	if key := what + err.Error(); !c.said[key] && len(c.said) < 256 {
		c.said[key] = true
		c.Log.Warn(what, "err", err)
	}
}

// tick decides what is in force until the next, in 100 ms or, while nothing is busy, later.
// With other sites to share with something always is: what they say is to be known
// before somebody asks.
func (c *Cooperation) tick(loads Loads, buf []ServiceLoad) (_ []ServiceLoad, busy bool) {
	now, wall := loads.Now(), time.Now()
	buf = loads.Loads(buf[:0])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hearBoxes(now)
	if c.Publish == nil {
		c.budgetAlone(wall)
	}
	counters := c.counters(buf)
	out := c.node.Tick(now, counters)
	c.publishGates(out.Shares)
	for i := range out.Shares {
		s := &out.Shares[i]
		c.remember(s, counters[s.Service], wall)
	}
	for i := range out.Report.Links {
		l := &out.Report.Links[i]
		l.Fault, l.Probe = c.mute[l.Site].kind, c.mute[l.Site].said
	}
	if out.Publish && c.Publish != nil {
		if err := c.Publish(&out.Report); err != nil {
			c.once("report is not sent", err)
		}
	}
	return buf, out.Busy || len(c.ways) > 0 && len(c.services) > 0
}

// budgetAlone grants a node without a controller what the budgets of its links leave, by
// its own count since it started. It needs mu.
func (c *Cooperation) budgetAlone(wall time.Time) {
	limits := map[string]budget.Limit{}
	for _, w := range c.ways {
		if w.Budget {
			limits[w.Site] = w.budget
		}
	}
	clock := wall.Sub(c.began)
	c.alone.Tick(wall, clock, limits)
	for site := range limits {
		c.alone.Note(clock, site, c.Node, uint64(c.began.UnixNano()), c.ledger.Meter(site).Carried(), nil)
	}
	links, _ := c.alone.Share(wall)
	c.node.SetLinks(links)
}

// counters are the loads as the node takes them, in memory of the Cooperation's
// own. It needs mu.
func (c *Cooperation) counters(loads []ServiceLoad) map[mesh.ServiceKey]*share.Counters {
	c.gatesMu.Lock()
	up := c.current.up
	c.gatesMu.Unlock()
	for i := range loads {
		l := &loads[i]
		count := c.counts[l.Service]
		if count == nil {
			count = &share.Counters{From: map[string]uint64{}}
			c.counts[l.Service] = count
		}
		from, mates := count.From, count.Mates[:0]
		clear(from)
		for _, f := range l.From {
			from[f.Site] = f.N
		}
		*count = share.Counters{
			Demand: l.Demand, Served: l.Arrivals, From: from, Completed: l.Completions,
			FreeStarts: l.UnqueuedStarts, Unqueued: l.Unqueued,
			UnqueuedMS: float64(l.UnqueuedNS) / 1e6, UnqueuedSqMS: float64(l.UnqueuedSqUS) / 1e6,
			InFlight: l.InFlight, Slots: float64(l.Slots), Levels: l.Levels, Up: up[l.Service],
			Mates: append(mates, l.Mates...), DeclaredMS: ms(l.ServiceTime),
		}
	}
	if len(c.counts) > len(loads) {
		maps.DeleteFunc(c.counts, func(key mesh.ServiceKey, _ *share.Counters) bool {
			return !slices.ContainsFunc(loads, func(l ServiceLoad) bool { return l.Service == key })
		})
	}
	return c.counts
}

// remember keeps what is in force and, where it is a change, its history. It needs mu.
func (c *Cooperation) remember(s *share.Share, counters *share.Counters, wall time.Time) {
	was, known := c.last[s.Service]
	is := inForce{share: *s, since: was.since, kept: was.kept}
	if counters != nil {
		is.inFlight = counters.InFlight
	}
	change := ShareChange{
		AtMS: wall.UnixMilli(), Service: string(s.Service), Source: s.Source,
		HomeLimit: s.Weights.HomeLimit, Shares: map[string]float64{c.Site: s.Weights.HomeWeight},
	}
	for _, r := range s.Weights.Remotes {
		if r.Weight > 0 {
			change.Shares[r.Site] = r.Weight
		}
	}
	var last *ShareChange
	if known {
		last = &was.kept
	}
	if c.changes.add(change, last) {
		is.since, is.kept = wall, change
	}
	c.last[s.Service] = is
}

// probed takes the outcome of a probe.
func (c *Cooperation) probed(site string, took time.Duration, loads [][]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if _, known := c.mute[site]; !known {
			c.Log.Warn("site does not answer", "site", site, "err", err)
		}
		c.mute[site] = faultOf(err)
		return
	}
	if _, was := c.mute[site]; was {
		delete(c.mute, site)
		c.Log.Info("site answers again", "site", site, "rtt", took)
	}
	now := c.now()
	if e := c.rtts[site]; e != nil {
		wall := time.Now()
		e.Observe(wall, took)
		c.node.MeasureRTT(site, float64(e.RTT(wall))/1e6)
	}
	var r inband.Report
	for _, value := range loads {
		if err := r.Parse(value); err != nil {
			c.once("load report is refused", fmt.Errorf("site %s: %w", site, err))
			continue
		}
		if string(r.Site) != site {
			err := fmt.Errorf("the gateway of site %s answers for site %q", site, r.Site)
			c.once("load report is refused", err)
			c.mute[site] = fault{mesh.ProbeOtherSite, err.Error()}
			continue
		}
		if hasService(c.services, mesh.ServiceKey(r.Service)) {
			c.ledger.Live(mesh.ServiceKey(r.Service), site).Heard(now, r.InFlight)
			c.node.Hear(now, &r)
		}
	}
}

// answered is when a site last answered a request of a user.
func (c *Cooperation) answered(site string) time.Time {
	c.mu.Lock()
	now := c.now
	c.mu.Unlock()
	c.gatesMu.Lock()
	s := c.sites[site]
	c.gatesMu.Unlock()
	if s == nil || now == nil {
		return time.Time{}
	}
	at := s.answeredNS.Load()
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(now() - at))
}

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
