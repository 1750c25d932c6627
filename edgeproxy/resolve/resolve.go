package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of how often a name is asked for.
const (
	minTTL   = time.Second
	maxTTL   = time.Hour
	maxRetry = 30 * time.Second
)

// maxTargets bounds the addresses of one name.
const maxTargets = 256

// Target is one process behind a name.
type Target struct {
	Addr netip.AddrPort
	// Weight is that of its SRV record, 1 where there is none.
	Weight int
}

// Resolver follows names. Its methods may be called from any goroutine.
type Resolver struct {
	server  netip.AddrPort
	files   files
	changed chan struct{}
	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu    sync.Mutex
	names map[string]*name
}

// name is a followed address; what may change is guarded by the Resolver's mu.
type name struct {
	stop    context.CancelFunc
	asked   chan struct{} // closed after the first lookup
	targets []Target
	err     error // of the last lookup
	good    time.Time
}

// New returns a Resolver that follows nothing yet. It asks server or, where that is
// not valid, those of the system. [Resolver.Close] ends it.
func New(server netip.AddrPort) *Resolver {
	r := &Resolver{server: server, files: systemFiles, changed: make(chan struct{}, 1), names: map[string]*name{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// Close stops following.
func (r *Resolver) Close() {
	r.stop()
	r.done.Wait()
}

// Changed yields after targets of followed names changed.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

// IsName reports whether an endpoint's address has to be resolved: host:port with
// a host that is no IP address, or _service._proto.name.
func IsName(address string) bool {
	_, err := netip.ParseAddrPort(address)
	return err != nil
}

// Follow begins to follow addresses, as [IsName] has them, and waits until each
// was looked up once, in vain or not, or ctx is done.
func (r *Resolver) Follow(ctx context.Context, addresses []string) {
	r.mu.Lock()
	var wait []*name
	for _, a := range addresses {
		n := r.names[a]
		if n == nil && r.ctx.Err() == nil {
			n = &name{asked: make(chan struct{})}
			r.names[a] = n
			var follow context.Context
			follow, n.stop = context.WithCancel(r.ctx)
			r.done.Go(func() { r.follow(follow, a, n) })
		}
		if n != nil {
			wait = append(wait, n)
		}
	}
	r.mu.Unlock()
	for _, n := range wait {
		select {
		case <-n.asked:
		case <-ctx.Done():
			return
		}
	}
}

// Retain stops following all addresses but these.
func (r *Resolver) Retain(addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, n := range r.names {
		if !slices.Contains(addresses, a) {
			n.stop()
			delete(r.names, a)
		}
	}
}

// Targets returns what is behind a followed address: the last good answer. The
// error says why there is none. The slice must not be changed.
func (r *Resolver) Targets(address string) ([]Target, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[address]
	switch {
	case n == nil:
		return nil, errors.New("the name is not followed")
	case len(n.targets) == 0 && n.err == nil:
		return nil, errors.New("DNS has not answered yet")
	case len(n.targets) == 0:
		return nil, n.err
	}
	return n.targets, nil
}

// Stale lists, by name, the followed addresses whose last lookup failed while an
// older answer serves.
func (r *Resolver) Stale() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for a, n := range r.names {
		if n.err != nil && len(n.targets) > 0 {
			out = append(out, fmt.Sprintf("%s: the answer of %s serves on: %v", a, n.good.UTC().Format(time.RFC3339), n.err))
		}
	}
	slices.Sort(out)
	return out
}

func (r *Resolver) follow(ctx context.Context, address string, n *name) {
	failures := 0
	for first := true; ; first = false {
		targets, ttl, err := r.lookup(ctx, address)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		n.err = err
		changed := false
		if err == nil {
			n.good = time.Now()
			changed = !slices.Equal(targets, n.targets)
			n.targets = targets
		}
		r.mu.Unlock()
		wait := min(max(ttl, minTTL), maxTTL)
		if failures++; err == nil {
			failures = 0
		} else {
			wait = min(time.Second<<min(failures-1, 5), maxRetry)
		}
		if first {
			close(n.asked)
		}
		if changed {
			select {
			case r.changed <- struct{}{}:
			default:
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// lookup asks once for the targets behind an address, in a stable order.
func (r *Resolver) lookup(ctx context.Context, address string) ([]Target, time.Duration, error) {
	cfg, err := r.files.read(r.server)
	if err != nil {
		return nil, 0, err
	}
	c := &client{cfg}
	var targets []Target
	var ttl time.Duration
	if host, port, ok := strings.Cut(address, ":"); ok {
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, 0, fmt.Errorf("%q has no valid port", address)
		}
		var addrs []netip.Addr
		if addrs, ttl, err = c.addresses(ctx, host); err != nil {
			return nil, 0, err
		}
		for _, a := range addrs {
			targets = append(targets, Target{netip.AddrPortFrom(a, uint16(p)), 1})
		}
	} else if targets, ttl, err = c.serviceTargets(ctx, address); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Or(a.Addr.Compare(b.Addr), b.Weight-a.Weight) })
	targets = slices.CompactFunc(targets, func(a, b Target) bool { return a.Addr == b.Addr })
	return targets[:min(len(targets), maxTargets)], ttl, nil
}

// serviceTargets resolves the SRV records of the best priority; the others are for
// when those are withdrawn.
func (c *client) serviceTargets(ctx context.Context, address string) ([]Target, time.Duration, error) {
	services, ttl, err := c.services(ctx, address)
	if err != nil {
		return nil, 0, err
	}
	best := services[0].Priority
	for _, s := range services {
		best = min(best, s.Priority)
	}
	var targets []Target
	var failed error
	for _, s := range services {
		if s.Priority != best || s.Target.String() == "." { // decidedly not available, RFC 2782
			continue
		}
		addrs, life, err := c.addresses(ctx, s.Target.String())
		if err != nil {
			failed = err
			ttl = minTTL // one of several is missing: ask again soon
			continue
		}
		ttl = min(ttl, life)
		for _, a := range addrs {
			// Weight 0 is a small chance, RFC 2782; here it would be none.
			targets = append(targets, Target{netip.AddrPortFrom(a, s.Port), max(int(s.Weight), 1)})
		}
	}
	if len(targets) == 0 {
		return nil, 0, cmp.Or(failed, errNoData)
	}
	return targets, ttl, nil
}
