package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/admin"
	"github.com/meridian-mesh/meridian/edgeproxy/identity"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/logring"
	"github.com/meridian-mesh/meridian/internal/supervisor"
)

// node is the parts of one running edgeproxy.
type node struct {
	opts    options
	log     *slog.Logger
	started time.Time

	proxy    *edgeproxy.Server
	coop     *edgeproxy.Cooperation
	source   source.Source
	bus      *bus.Node // nil without a controller
	identity *identity.Agent
	workload *identity.Agent // nil beside no workload
	admin    *admin.Server   // nil with --admin off
	draining atomic.Bool
	hangup   chan os.Signal
	reopen   chan os.Signal
	replace  chan os.Signal
	requests *accesslog.Log // nil without --access-log
	// said is the end of the node's own log, lines that of the access log.
	said, lines *logring.Ring
	// unverified says that nobody's signature is asked of the configuration.
	unverified bool

	program    string // for an upgrade
	inherited  *inheritance
	taking     sync.Mutex  // a snapshot into force, or the sockets over
	handedOver atomic.Bool // another process serves on
}

// newNode opens what can fail before traffic is accepted: the state folder, the
// admin address, keys.
func newNode(o options, in *inheritance, log *slog.Logger, said *logring.Ring) (*node, error) {
	n := &node{opts: o, log: log, said: said, lines: logring.New(logring.Bytes), started: time.Now(), hangup: make(chan os.Signal, 1), reopen: make(chan os.Signal, 1), replace: make(chan os.Signal, 1), inherited: in}
	// From the first moment on: unhandled, the signals would end the process.
	signal.Notify(n.hangup, syscall.SIGHUP)
	signal.Notify(n.reopen, syscall.SIGUSR1)
	signal.Notify(n.replace, syscall.SIGUSR2)
	var err error
	if n.program, err = programPath(); err != nil {
		return nil, err
	}
	if o.stateDir != "" {
		if err := os.MkdirAll(o.stateDir, 0o700); err != nil {
			return nil, fmt.Errorf("--state-dir: %w", err)
		}
	}
	cooperation := edgeproxy.CooperationConfig{Site: o.site, Node: o.node, Log: log}
	if o.fromBus() {
		cooperation.Publish = n.publish
	}
	n.coop = edgeproxy.NewCooperation(cooperation)
	if n.requests, err = n.openAccessLog(); err != nil {
		return nil, err
	}
	n.proxy, err = edgeproxy.New(
		edgeproxy.Config{
			Site: o.site, Loops: n.loops(), MemoryLimit: int64(o.memoryLimit), Inherited: in.sockets, InheritedSessions: in.sessions,
			Resolver: o.resolver, ClientMaxAge: o.clientMaxAge, ClientMaxRequests: o.clientMaxReqs,
		},
		edgeproxy.Deps{Log: log, Sharing: n.coop, AccessLog: n.requests},
	)
	if err != nil {
		return nil, err
	}
	if n.source, err = n.openSource(); err != nil {
		return nil, err
	}
	if o.admin != adminOff {
		asked := admin.Node{
			Build:    build(),
			Config:   n.source.State,
			History:  n.source.History,
			Proxy:    n.proxy,
			Weights:  n.coop.Weights,
			Draining: n.draining.Load,
			Turn:     n.proxy.Acquire,
			Requests: n.requestLog(),
			Logs:     n.logs,
		}
		if in.admin != nil {
			n.admin, err = admin.Inherit(in.admin, asked, log)
			err = errors.Join(err, in.admin.Close())
		} else {
			n.admin, err = admin.Listen(o.admin, o.adminRemote, asked, log)
		}
	}
	return n, err
}

func (n *node) openSource() (source.Source, error) {
	o := n.opts
	if !o.fromBus() {
		return source.NewFiles(o.config, o.site, o.stateDir, n.apply, n.log)
	}
	if o.stateDir == "" {
		n.log.Warn("without --state-dir this node cannot start while its controller is away")
	}
	var err error
	if n.bus, err = bus.DialNode(bus.Options{URL: o.config, Name: "edgeproxy " + o.node, TokenFile: o.natsTokenFile, Log: n.log}, o.site); err != nil {
		return nil, err
	}
	n.identity = identity.New(identity.Config{
		Site: o.site, StateDir: o.stateDir, Log: n.log, Use: n.proxy.SetIdentity,
		Ask:    func(ctx context.Context, request []byte) ([]byte, error) { return n.bus.Leaf(ctx, o.node, request) },
		Wanted: func() bool { return n.proxy.TrustDomain() != "" && !n.handedOver.Load() },
	})
	b := source.BusConfig{Name: o.config, Site: o.site, StateDir: o.stateDir, Controller: n.bus, Apply: n.apply, Log: n.log}
	if b.Trust, err = source.OpenTrustKey(o.trustKey, o.natsTokenFile, n.log); err != nil {
		return nil, fmt.Errorf("--trust-key: %w", err)
	}
	n.unverified = b.Trust == nil
	n.actAsWorkload()
	return source.NewBus(b), nil
}

// apply takes a snapshot into force in every part. Calls are serial (source.Keeper).
func (n *node) apply(s *mesh.Snapshot) error {
	n.taking.Lock()
	defer n.taking.Unlock()
	if n.handedOver.Load() || n.draining.Load() {
		// It may have waited for the upgrade: what it opened now nobody would serve,
		// and run.json is the other process's.
		return source.ErrLeaving
	}
	if err := n.coop.Configure(s, func() error { return n.proxy.Apply(s) }); err != nil {
		return err
	}
	if n.identity != nil {
		n.identity.Look()
	}
	if n.workload != nil {
		n.workload.Look()
	}
	for _, p := range n.proxy.Problems() {
		n.log.Warn("part of the configuration cannot be served", "generation", s.Generation, "problem", p)
	}
	if err := n.writeRunFile(); err != nil {
		n.log.Error("run.json is not written", "err", err)
	}
	return nil
}

// run serves until stop is done, then drains. Everything it starts has ended
// when it returns.
func (n *node) run(stop context.Context) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var parts sync.WaitGroup
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	defer n.startAccessLog()() // ends last, after the requests that the end cuts
	defer parts.Wait()
	defer cancel(nil)

	part("proxy", n.proxy.Run)
	takesOver := n.inherited.report != nil
	if n.admin != nil && !takesOver {
		part("admin", n.admin.Run)
	}
	part("cooperation", func(ctx context.Context) error { return n.coop.Run(ctx, n.proxy) })
	if n.bus != nil {
		part("identity", n.identity.Run)
		if n.workload != nil {
			part("workload identity", n.workload.Run)
		}
		part("weights", n.takeWeights)
		told := edgeproxy.NewTraffic(edgeproxy.TrafficConfig{Site: n.opts.site, Node: n.opts.node, Publish: n.publishTraffic, Log: n.log})
		part("traffic", func(ctx context.Context) error { return told.Run(ctx, n.proxy) })
		for verb, answer := range map[string]bus.Verb{bus.VerbExplain: answers(n.proxy.Explain), bus.VerbTap: answers(n.proxy.Tap), bus.VerbFailed: answers(n.proxy.Failed), bus.VerbLogs: answers(n.logs), bus.VerbTrace: answers(n.trace)} {
			if err := n.bus.Serve(ctx, n.opts.node, verb, answer); err != nil {
				return err
			}
		}
	}
	// A stopping node takes no new configuration, which could open listeners.
	follow, unfollow := context.WithCancel(ctx)
	defer unfollow()
	if err := n.source.Start(follow); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	part("source", func(context.Context) error { return n.source.Run(follow) })
	part("reload", n.reloadOnHangup)
	part("watchdog", func(ctx context.Context) error { return supervisor.FeedWatchdog(ctx, n.log, n.proxy.Alive) })
	if takesOver {
		if err := n.takeOver(ctx, stop); err != nil {
			return err
		}
		if n.admin != nil {
			part("admin", n.admin.Run)
		}
	}
	supervisor.Tell(n.log, supervisor.Ready)
	n.log.Info("edgeproxy runs", "version", version, "config", n.opts.config, "site", n.opts.site, "node", n.opts.node, "admin", n.adminAddress())

	if err := n.untilOver(ctx, stop); err != nil {
		return err
	}
	unfollow()
	n.taking.Lock()
	n.draining.Store(true)
	n.taking.Unlock()
	n.log.Info("draining", "timeout", n.opts.drainTimeout)
	limit, done := context.WithTimeout(ctx, n.opts.drainTimeout)
	defer done()
	drain := n.proxy.Drain
	if n.handedOver.Load() {
		drain = n.leave
	} else {
		supervisor.Tell(n.log, supervisor.Stopping)
	}
	if err := drain(limit); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("drain: %w", err)
	}
	if limit.Err() != nil {
		n.log.Warn("requests were cut: --drain-timeout has passed", "timeout", n.opts.drainTimeout)
	}
	n.log.Info("edgeproxy stops")
	if n.handedOver.Load() {
		return nil // run.json is the other process's
	}
	return n.removeRunFile()
}

// untilOver returns when this process is to end: because stop is done, or because
// another one has taken over.
func (n *node) untilOver(ctx, stop context.Context) error {
	defer signal.Stop(n.replace)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop.Done():
			return nil
		case <-n.replace:
			if n.upgrade(stop) {
				return nil
			}
		}
	}
}

// takeOver tells the process before this one to go, once a snapshot is in force.
func (n *node) takeOver(ctx, stop context.Context) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for n.source.State().Snapshot == nil {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop.Done():
			return errors.New("stopped before it was ready")
		case <-t.C:
		}
	}
	return n.inherited.tell(handoverReady)
}

// publish sends a report to the controller; it is the acknowledgement of
// snapshots too. Without a connection there is nobody to tell.
func (n *node) publish(r *mesh.NodeReport) error {
	if n.handedOver.Load() {
		return nil // the other process reports
	}
	s := n.source.State()
	if s.Snapshot != nil {
		r.Applied = s.Snapshot.Generation
	}
	if s.Refused != nil {
		r.Refused, r.RefusedWhy = s.Refused.Generation, s.Refused.Why
	}
	if c := n.proxy.Identity(); c != nil && n.proxy.TrustDomain() != "" {
		r.Identity = identityOf(c)
	}
	if n.workload != nil && n.proxy.TrustDomain() != "" {
		r.Workload = &mesh.NodeWorkload{Name: n.opts.workload, Identity: identityOf(n.proxy.Workload())}
	}
	r.Unverified = n.unverified
	r.Problems = n.proxy.Problems()
	r.Problems = r.Problems[:min(len(r.Problems), mesh.MaxProblems)]
	if err := n.bus.PublishReport(r); !errors.Is(err, bus.ErrNotConnected) {
		return err
	}
	return nil
}

// publishTraffic tells the controller who talked to whom. What a process that hands
// its sockets over still carries is told of by it alone, so it goes on.
func (n *node) publishTraffic(r *mesh.NodeTraffic) error { return n.bus.PublishNodeTraffic(r) }

// trace sends one request to a listener of this proxy.
func (n *node) trace(q *mesh.TraceQuery) (*mesh.Traced, error) {
	return admin.Trace(n.proxy, n.opts.site, n.opts.node, q)
}

// answers is a question of the controller's, of JSON in and out.
func answers[In, Out any](f func(*In) (*Out, error)) bus.Verb {
	return func(_ context.Context, request []byte) ([]byte, error) {
		var q In
		if err := json.Unmarshal(request, &q); err != nil {
			return nil, fmt.Errorf("request cannot be read: %w", err)
		}
		out, err := f(&q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}
}

// takeWeights hands the controller's plans on until ctx ends.
func (n *node) takeWeights(ctx context.Context) error {
	plans, err := n.bus.Weights(ctx)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-plans:
			n.coop.SetWeights(w.Value)
		}
	}
}

// reloadOnHangup hands SIGHUP on until ctx ends.
func (n *node) reloadOnHangup(ctx context.Context) error {
	defer signal.Stop(n.hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.hangup:
			n.reload(ctx)
		}
	}
}

// reload has the source read again and tells the supervisor when it did, or
// after a while: a folder may be on a network that hangs.
func (n *node) reload(ctx context.Context) {
	supervisor.TellReloading(n.log)
	was := n.source.State().CheckedAt
	n.source.Reload()
	n.proxy.LookAtCertificates()
	for range 500 {
		if n.bus != nil || ctx.Err() != nil || n.source.State().CheckedAt != was {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	supervisor.Tell(n.log, supervisor.Ready)
}

func (n *node) adminAddress() string {
	if n.admin == nil {
		return adminOff
	}
	return n.admin.Address()
}
