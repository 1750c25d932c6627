package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Forwarder is what puts tables in force.
type Forwarder interface {
	// Apply makes the table the one in force, or leaves the last one.
	Apply(t *path.Table) error
	Counts() (map[uint32]datapath.Count, error)
	Drops() (map[path.Reason]uint64, error)
}

// echoer is a Forwarder that works on echo requests (RFC 9516) itself.
type echoer interface{ AnswersEchoes() }

// Config is how an agent runs.
type Config struct {
	// Node is this node's name among ChainNodes.
	Node string
	// Settle is how long new paths are known here before flows take them, so that the
	// other nodes know them too. Only where there are others.
	Settle time.Duration
	// Drain is how long flows may stay on paths that a change has replaced.
	Drain time.Duration
	// Linger is how long packets may be under way on a path that no flow takes any more.
	Linger time.Duration
	Log    *slog.Logger
	// Redirector is nil where nothing of the node can be redirected.
	Redirector Redirector
	// Configuration tells where documents come from and what was refused, for who asks
	// the agent; nil where that is of no interest.
	Configuration func() Configuration
}

// Configuration is where an agent's documents come from, and how far it got with them.
type Configuration struct {
	Source string `json:"source"`
	// Generation is that of the snapshot in force, which came into force at AppliedAt.
	Generation *mesh.Generation `json:"generation,omitempty"`
	AppliedAt  time.Time        `json:"appliedAt,omitzero"`
	// Restored says that it is the last good copy on disk, and nothing was heard since.
	Restored bool `json:"restored,omitempty"`
	// Refused is why something newer is not served.
	Refused  string `json:"refused,omitempty"`
	Refusals uint64 `json:"refusals"`
	// Connected says whether there is a connection to the controller; nil of files.
	Connected *bool `json:"connected,omitempty"`
}

// Defaults of Config.
const (
	DefaultSettle = 500 * time.Millisecond
	DefaultDrain  = 5 * time.Minute
	DefaultLinger = 2 * time.Second
)

// reconcileEvery is how often what was taken away from outside is put back: a link,
// a port that is there again.
const reconcileEvery = time.Second

// Agent runs one node's chains. Make it with New; Run it once.
type Agent struct {
	cfg      Config
	dp       Forwarder
	machine  machine
	wishes   chan wish
	turns    chan struct{} // see Alive
	ended    chan struct{} // closed when Run has returned
	events   chan healthEvent
	probes   probeTimes
	followed followed

	table atomic.Pointer[path.Table] // in force

	mu     sync.Mutex
	status Status
}

// Status is what the agent thinks of itself.
type Status struct {
	Node string `json:"node"`
	// Ready is false until a table is in force, and while the last attempt failed.
	Ready bool `json:"ready"`
	// Fault is why the wish of the documents is not what forwards.
	Fault string `json:"fault,omitempty"`
	// View is the step of a change that is in force: flip when nothing is under way.
	View   string        `json:"view,omitempty"`
	Chains []ChainStatus `json:"chains"`
	Paths  []path.Path   `json:"paths"`
	// Instances are those of functions on this node.
	Instances int `json:"instances"`
	// Down are the instances that no path has, with the reason: this node's that do not
	// answer, and those of nodes that cannot be reached.
	Down    map[string]string `json:"down,omitempty"`
	Applied uint64            `json:"applied"` // tables, since the agent's start
	// Redirect is absent where nothing of the node is redirected.
	Redirect *RedirectStatus `json:"redirect,omitempty"`
	// Configuration is absent where nobody asked for it.
	Configuration *Configuration `json:"configuration,omitempty"`
}

// ChainStatus is what became of one chain.
type ChainStatus struct {
	Chain    string   `json:"chain"`
	SPIs     []uint32 `json:"spis"`
	Refused  string   `json:"refused,omitempty"`
	Bypassed []string `json:"bypassed,omitempty"`
}

// ErrEnded is what Take returns when Run has.
var ErrEnded = errors.New("the agent has ended")

// wish is documents that shall be served; done gets the answer.
type wish struct {
	objects *mesh.Objects
	done    chan error
}

// New returns an agent that forwards by dp. Until the first Take nothing changes.
func New(cfg Config, dp Forwarder) *Agent {
	return &Agent{
		cfg: cfg, dp: dp, machine: kernel{},
		wishes: make(chan wish), turns: make(chan struct{}), ended: make(chan struct{}), events: make(chan healthEvent, 64),
		status: Status{Node: cfg.Node},
	}
}

// Take has the documents served, which must not change any more. An error says that
// they cannot be: the last good ones are then. It waits for Run.
func (a *Agent) Take(o *mesh.Objects) error {
	w := wish{o, make(chan error, 1)}
	select {
	case a.wishes <- w:
	case <-a.ended:
		return ErrEnded
	}
	select {
	case err := <-w.done:
		return err
	case <-a.ended:
		return ErrEnded
	}
}

// Status may be called at any time.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Down = maps.Clone(a.status.Down)
	if s.Redirect != nil && s.Redirect.Fault != "" {
		s.Ready = false
		if s.Fault == "" {
			s.Fault = s.Redirect.Fault
		}
	}
	if a.cfg.Configuration != nil {
		c := a.cfg.Configuration()
		s.Configuration = &c
		if c.Refused != "" {
			s.Ready = false
			if s.Fault == "" {
				s.Fault = "configuration refused, the last good one is served: " + c.Refused
			}
		}
	}
	return s
}

// run is the state of one Run, owned by its goroutine.
type run struct {
	*Agent
	ctx     context.Context
	objects *mesh.Objects
	before  *mesh.Objects        // those whose paths may still be in force; nil when none are
	down    map[string]string    // this node's instances that do not answer, with the reason
	cut     map[string]string    // other nodes that cannot be reached, with the reason
	nodes   map[string]*watching // the others that are asked
	reached chan nodeEvent
	plan    *path.Plan
	view    *path.View // in force
	next    []path.View
	due     time.Time // of the next view
	watches map[string]*watching
	echoes  map[netip.Addr]int
	wg      sync.WaitGroup
	// redirecting says that something may be redirected, by this agent or the one before.
	redirecting   bool
	redirectFault string // as it was logged
}

type watching struct {
	cancel context.CancelFunc
	of     string // what is watched and how, to see changes
}

// Run puts in force what Take is given, and watches, until ctx ends. Faults leave
// the last good state in force and show in Status. What forwards goes on after the
// return.
func (a *Agent) Run(ctx context.Context) {
	inner, cancel := context.WithCancel(ctx)
	r := &run{Agent: a, ctx: inner, down: map[string]string{}, watches: map[string]*watching{},
		cut: map[string]string{}, nodes: map[string]*watching{}, reached: make(chan nodeEvent), redirecting: true, echoes: map[netip.Addr]int{}}
	defer close(a.ended)
	defer r.wg.Wait()
	defer cancel()
	r.wg.Go(func() { r.follow(inner) })
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		var step <-chan time.Time
		if len(r.next) > 0 {
			step = time.After(time.Until(r.due))
		}
		select {
		case <-ctx.Done():
			return
		case <-a.turns:
		case w := <-a.wishes:
			w.done <- r.take(w.objects)
		case e := <-a.events:
			r.health(e)
		case e := <-r.reached:
			r.reach(e)
		case <-step:
			r.advance()
		case <-tick.C:
			r.again()
		}
	}
}

func (r *run) take(o *mesh.Objects) error {
	o = o.OfPackets() // the others are the proxy's
	if !slices.ContainsFunc(o.ChainNodes, func(n *mesh.ChainNode) bool { return n.Metadata.Name == r.cfg.Node }) {
		return fmt.Errorf("there is no ChainNode %s: this is the node's name by --node or the host's", r.cfg.Node)
	}
	if r.view != nil && sameChains(o, r.objects) {
		// A change that is under way must not end early because of something else.
		r.objects = o
		r.redirect()
		return nil
	}
	last, before := r.objects, r.before
	r.before, r.objects = last, o
	if err := r.replan(); err != nil {
		r.objects, r.before = last, before
		return err
	}
	nodes, instances := r.watchNodes(), r.watchInstances()
	if nodes || instances {
		r.changed()
	}
	r.redirect()
	return nil
}

// sameChains reports whether documents say the same of chains: a site's snapshot
// has others, too.
func sameChains(a, b *mesh.Objects) bool {
	return reflect.DeepEqual(a.ChainNodes, b.ChainNodes) && reflect.DeepEqual(a.NetworkFunctions, b.NetworkFunctions) &&
		reflect.DeepEqual(a.ServiceChains, b.ServiceChains)
}

func (a *Agent) fault(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Ready, a.status.Fault = false, err.Error()
}

// replan plans for the documents and the instances' health, and begins the change.
func (r *run) replan() error {
	down := map[string]bool{}
	for name := range r.unusable() {
		down[name] = true
	}
	plan, err := makePlan(r.objects, down)
	if err != nil {
		return err
	}
	views := viewsTo(r.plan, plan, down)
	if samePlan(r.plan, plan) {
		views = []path.View{{Name: "flip", Plan: plan}}
	}
	// All steps must compile before the first is taken.
	d, err := domainOf(r.objects, r.before, r.cfg.Node, r.machine)
	if err != nil {
		return err
	}
	for i := range views {
		if _, err := path.Compile(&views[i], d, r.cfg.Node); err != nil {
			return err
		}
	}
	r.plan, r.next, r.due = plan, views, time.Time{}
	r.advance()
	return nil
}

// advance puts the next view in force, and those after it that need no wait.
func (r *run) advance() {
	for len(r.next) > 0 {
		v := r.next[0]
		if err := r.apply(&v); err != nil {
			r.cfg.Log.Error("table is not in force; the last one is", "step", v.Name, "err", err)
			r.fault(err)
			r.due = time.Now().Add(reconcileEvery)
			return
		}
		r.view, r.next = &v, r.next[1:]
		if len(r.next) == 0 {
			r.before = nil
			return
		}
		var wait time.Duration
		switch r.next[0].Name {
		case "flip":
			if len(r.objects.ChainNodes) > 1 {
				wait = r.cfg.Settle
			}
		case "drain":
			wait = r.cfg.Drain
		case "remove":
			wait = r.cfg.Linger
		}
		if wait > 0 {
			r.due = time.Now().Add(wait)
			return
		}
	}
}

func (r *run) apply(v *path.View) error {
	d, err := domainOf(r.objects, r.before, r.cfg.Node, r.machine)
	if err != nil {
		return err
	}
	t, err := path.Compile(v, d, r.cfg.Node)
	if err != nil {
		return err
	}
	if err := r.dp.Apply(t); err != nil {
		return err
	}
	r.table.Store(t)
	r.listenEchoes(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Ready, r.status.Fault, r.status.View = true, "", v.Name
	r.status.Applied++
	r.status.Paths = v.Plan.Paths
	r.status.Instances = 0
	for _, f := range r.objects.NetworkFunctions {
		for i := range f.Spec.Instances {
			if f.Spec.Instances[i].Node == r.cfg.Node {
				r.status.Instances++
			}
		}
	}
	r.status.Chains = nil
	for i := range v.Plan.Chains {
		c := &v.Plan.Chains[i]
		r.status.Chains = append(r.status.Chains, ChainStatus{Chain: c.Chain, SPIs: c.SPIs, Refused: c.Refused, Bypassed: c.Bypassed})
	}
	return nil
}

// again puts the view in force once more: whatever was taken away is put back.
func (r *run) again() {
	if r.view == nil {
		return
	}
	r.redirect()
	if err := r.apply(r.view); err != nil {
		r.fault(err)
		r.cfg.Log.Warn("table in force could not be made sure of", "err", err)
	}
}

func (r *run) health(e healthEvent) {
	if r.watches[e.instance] == nil {
		return // of documents that are gone
	}
	if e.down {
		r.probes.forget(e.instance)
		r.down[e.instance] = fmt.Sprint(e.why)
		r.cfg.Log.Warn("instance is down", "instance", e.instance, "why", e.why)
	} else {
		delete(r.down, e.instance)
		r.cfg.Log.Info("instance is up", "instance", e.instance)
	}
	r.changed()
}

// watchInstances probes this node's instances as the documents say, and reports whether
// one that was down is none any more.
func (r *run) watchInstances() (gone bool) {
	wanted := map[string]bool{}
	for _, f := range r.objects.NetworkFunctions {
		if f.Spec.Health == nil {
			continue
		}
		for _, in := range f.Spec.Instances {
			if in.Node != r.cfg.Node {
				continue
			}
			of := fmt.Sprintf("%+v %+v", *f.Spec.Health, in)
			if f.Spec.Health.Interval != nil {
				of += f.Spec.Health.Interval.D().String()
			}
			wanted[in.Name] = true
			if w := r.watches[in.Name]; w != nil {
				if w.of == of {
					continue
				}
				w.cancel()
			}
			ctx, cancel := context.WithCancel(r.ctx)
			r.watches[in.Name] = &watching{cancel, of}
			h := *f.Spec.Health
			r.wg.Go(func() {
				watch(ctx, &h, in, &r.probes, func(e healthEvent) {
					select {
					case r.events <- e:
					case <-ctx.Done():
					}
				})
			})
		}
	}
	for name, w := range r.watches {
		if !wanted[name] {
			w.cancel()
			delete(r.watches, name)
			r.probes.forget(name)
			if _, was := r.down[name]; was {
				delete(r.down, name)
				gone = true
			}
		}
	}
	return gone
}

// Check says whether documents could be served on the node, as far as that can be
// told without touching it.
func Check(o *mesh.Objects, node string) error {
	o = o.OfPackets()
	plan, err := makePlan(o, nil)
	if err != nil {
		return err
	}
	var faults []error
	if !slices.ContainsFunc(o.ChainNodes, func(n *mesh.ChainNode) bool { return n.Metadata.Name == node }) {
		faults = append(faults, fmt.Errorf("there is no ChainNode %s", node))
	}
	for i := range plan.Chains {
		if plan.Chains[i].Refused != "" {
			faults = append(faults, errors.New(plan.Chains[i].Refused))
		}
	}
	return errors.Join(faults...)
}
