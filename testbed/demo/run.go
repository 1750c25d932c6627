package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/testbed/load"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
)

// faultAfter is how long after the step the controllers are killed: when the
// neighbours have taken over, and with enough of the hotspot to come.
const faultAfter = 3 * time.Second

// Run does everything and returns the figures. When it returns nothing that it
// started is left, whatever happened.
func Run(ctx context.Context, o Options) (*report.Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	found, err := find(o.BinDir)
	if err != nil {
		return nil, err
	}
	sc, err := plan(&o)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "meridian-demo-")
	if err != nil {
		return nil, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	d := &demo{Options: o, programs: found, scenario: sc, dir: dir, fail: fail}
	rep, err := d.run(ctx)
	fail(nil)
	if o.Keep {
		o.View.step("files and logs are kept in %s", dir)
		return rep, err
	}
	return rep, errors.Join(err, os.RemoveAll(dir))
}

// demo is one call of Run.
type demo struct {
	Options
	programs programs
	scenario *scenario.Scenario
	dir      string
	fail     context.CancelCauseFunc

	links, clients *reactor.Loop
}

func (d *demo) run(ctx context.Context) (_ *report.Report, err error) {
	stopLoops, err := d.startLoops()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopLoops()) }()

	rep := d.head()
	var c *cluster
	defer func() {
		if c != nil {
			c.close()
			c.family.close()
		}
	}()
	for n, policy := range d.Policies {
		// A mesh whose controllers were killed is not the one that the next
		// policy should be measured on.
		if c != nil && d.Fault != "" {
			c.close()
			c.family.close()
			c = nil
		}
		if c == nil {
			if c, err = d.start(ctx, n, policy); err != nil {
				return nil, err
			}
		}
		r, err := d.policy(ctx, c, policy)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", policy, err)
		}
		rep.Runs = append(rep.Runs, *r)
	}
	return rep, nil
}

// startLoops starts the threads of the relays and of the generator.
func (d *demo) startLoops() (stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	for _, into := range []**reactor.Loop{&d.links, &d.clients} {
		l, err := reactor.New()
		if err != nil {
			cancel()
			return nil, err
		}
		*into = l
	}
	for _, l := range []*reactor.Loop{d.links, d.clients} {
		go func() {
			err := l.Run(ctx)
			if err != nil {
				d.fail(err)
			}
			ended <- err
		}()
	}
	return func() error {
		cancel()
		return errors.Join(<-ended, <-ended)
	}, nil
}

// start brings up a mesh, the n-th of this demo.
func (d *demo) start(ctx context.Context, n int, policy string) (*cluster, error) {
	began := time.Now()
	dir := filepath.Join(d.dir, fmt.Sprintf("mesh-%d", n+1))
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, err
	}
	sites := len(d.Topology.Sites)
	d.View.step("starting a hub and %d sites (a controller, a proxy and %d backends each) with %d relays between them",
		sites, endpointsPerSite, sites*(sites-1))
	c := &cluster{
		topology: d.Topology, programs: d.programs, dir: dir, seed: d.Seed,
		family: newFamily(logs, d.fail),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
	}
	if err := startCluster(ctx, c, d.links, policy); err != nil {
		c.close()
		c.family.close()
		return nil, fmt.Errorf("start the mesh: %w", err)
	}
	d.View.step("the mesh is ready after %.1f s: %s", time.Since(began).Seconds(), d.Topology.Title)
	return c, nil
}

// head is the report without its runs.
func (d *demo) head() *report.Report {
	sc := d.scenario
	r := &report.Report{
		Runs: []report.Run{}, Seed: d.Seed, Version: d.Version, DurationS: d.Duration.Seconds(),
		HotSite: sc.Sites[sc.Hot].Name, SlowSite: sc.Sites[sc.Slow].Name, HotFactor: sc.HotFactor, Load: sc.Load,
	}
	for _, rate := range sc.Phase(scenario.Hotspot).Rates {
		r.HotspotLoad += rate / sc.Capacity()
	}
	for i, s := range d.Topology.Sites {
		site := report.Site{
			Name: s.Name, Lon: s.Location[0], Lat: s.Location[1], Slots: s.Slots,
			ServiceTimeMS: s.ServiceTime.Seconds() * 1e3, Capacity: s.Capacity(), Users: sc.Sites[i].Users,
		}
		for j := range d.Topology.Sites {
			site.RTTMS = append(site.RTTMS, d.Topology.RTT(i, j).Seconds()*1e3)
		}
		r.Sites = append(r.Sites, site)
	}
	return r
}

// policy runs the scenario once.
func (d *demo) policy(ctx context.Context, c *cluster, name string) (*report.Run, error) {
	if err := c.usePolicy(ctx, name); err != nil {
		return nil, err
	}
	g, err := c.generator(d.clients)
	if err != nil {
		return nil, err
	}
	before, err := d.dropped(ctx, c)
	if err != nil {
		return nil, err
	}
	arrivals := d.scenario.Arrivals(d.Seed)
	cpuBefore, err := c.family.cpuTime()
	if err != nil {
		return nil, err
	}

	start := time.Now().Add(100 * time.Millisecond)
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	type loaded struct {
		result *load.Result
		err    error
	}
	done := make(chan loaded, 1)
	go func() {
		result, err := g.Run(runCtx, arrivals, start)
		done <- loaded{result, err}
	}()
	watching := make(chan struct{})
	go func() { c.watch.run(runCtx); close(watching) }()

	fault, err := d.direct(runCtx, c, name, g, start, func() bool { return len(done) > 0 })
	if err != nil {
		cancel()
	}
	out := <-done
	cancel()
	<-watching
	if err = errors.Join(err, out.err); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	spent := time.Since(start)

	cpuAfter, err := c.family.cpuTime()
	if err != nil {
		return nil, err
	}
	after, err := d.dropped(ctx, c)
	if err != nil {
		return nil, err
	}
	step := d.scenario.Phase(scenario.Hotspot)
	weights := c.watch.timeline(start, d.scenario.Duration())
	if d.Keep {
		if err := d.keepRecords(name, out.result.Requests, weights); err != nil {
			return nil, err
		}
	}
	run := &report.Run{
		Policy: name, Fault: fault, Phases: report.PhaseStats(d.scenario, out.result.Requests, clientDeadline),
		Sharing: report.MeasureSharing(weights, len(c.topology.Sites), d.scenario.Hot,
			report.Span{From: step.From, To: step.To}, report.FirstOver(d.scenario, arrivals)),
		ErrorKinds: report.ErrorKinds(out.result.Requests), Dropped: after - before,
		GeneratorLateMS: report.LateP99MS(out.result.Late),
		CPU:             (cpuAfter - cpuBefore).Seconds() / spent.Seconds(),
	}
	return run, nil
}

// dropped sums what the backends never worked on.
func (d *demo) dropped(ctx context.Context, c *cluster) (int, error) {
	sum := 0
	for _, b := range c.backends {
		s, err := b.Stats(ctx)
		if err != nil {
			return 0, err
		}
		sum += s.Dropped
	}
	return sum, nil
}

// direct makes happen what the scenario wants besides requests, and shows it all,
// until the last request is done.
func (d *demo) direct(ctx context.Context, c *cluster, policy string, g *load.Generator, start time.Time, done func() bool) (string, error) {
	slow := d.scenario.Phase(scenario.Slow)
	killAt := d.scenario.Phase(scenario.Hotspot).From + faultAfter
	if d.Fault == "" {
		killAt = d.scenario.Duration() + time.Hour
	}
	fault := ""
	factor := 1.0
	meter := newMeter(d.scenario)
	nextFrame := start
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		at := time.Since(start)
		if fault == "" && at >= killAt {
			fault = d.killControllers(c, at)
		}
		want := 1.0
		if at >= slow.From && at < slow.To {
			want = scenario.SlowFactor
		}
		if want != factor {
			if err := c.backends[slow.Slow].SetFactor(ctx, want); err != nil {
				return fault, fmt.Errorf("slow %s down: %w", d.scenario.Sites[slow.Slow].Name, err)
			}
			factor = want
		}
		if now := time.Now(); !now.Before(nextFrame) {
			nextFrame = now.Add(d.View.every())
			d.View.show(meter.frame(policy, at, g.Live(), c.watch.shares(), c.plane.killed))
		}
		select {
		case <-ctx.Done():
			d.View.erase()
			return fault, context.Cause(ctx)
		case <-tick.C:
		}
	}
	d.View.erase()
	d.View.step("%s: done", policy)
	return fault, nil
}

// killControllers kills, as a crash would, the hub and the controllers of the hot
// site and of the site that helps it most at this moment.
func (d *demo) killControllers(c *cluster, at time.Duration) string {
	hot := d.scenario.Hot
	helper, most := -1, -1.0
	for _, r := range c.watch.shares()[hot].Remotes {
		for i, name := range c.names() {
			if name == r.Site && r.Share > most {
				helper, most = i, r.Share
			}
		}
	}
	names := []string{"the hub", "the controller of " + d.scenario.Sites[hot].Name}
	victims := []int{hot}
	if helper >= 0 {
		victims = append(victims, helper)
		names = append(names, "the controller of "+d.scenario.Sites[helper].Name)
	}
	c.plane.kill(victims)
	text := fmt.Sprintf("%s killed at %.1f s", strings.Join(names, ", "), at.Seconds())
	d.View.step("%s", text)
	return text
}
