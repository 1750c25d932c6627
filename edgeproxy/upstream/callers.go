package upstream

import (
	"slices"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Places of callers that are no workload of the mesh.
const (
	// CallerExternal is who is not known, CallerOther a workload past MaxCallers.
	CallerExternal = iota
	CallerOther
	firstCaller
)

// MaxCallers bounds the workloads whose requests are told apart by who sent them;
// what further ones ask is counted together.
const MaxCallers = 512

// callers gives workloads places among the counters. Places are few, so those of
// workloads that are silent for long are given again: see [Registry.ReclaimCallers].
type callers struct {
	places map[mesh.Workload]int
	names  []CallerName
	// resting places have no workload any more and free ones no counters either.
	resting, free []int
	// epoch counts how often places were taken away: what was found before may be
	// another's now.
	epoch atomic.Uint32
}

// CallerName is whose place it is; nobody's has the zero Workload.
type CallerName struct {
	mesh.Workload
	// Era counts how often the place was given, so that counts before and after are
	// not taken for one.
	Era uint32
}

func newCallers() callers {
	return callers{
		places: map[mesh.Workload]int{},
		names:  []CallerName{CallerExternal: {Workload: mesh.External}, CallerOther: {Workload: mesh.Others}},
	}
}

// Caller is a workload that may send requests. It is found by an address, once for
// each connection; its place is given when it first comes, since most never do.
type Caller struct {
	mesh.Workload
	registry *Registry
	// found is the place, and before it the epoch in which it was found.
	found atomic.Uint64
}

// NewCaller makes a caller of the registry.
func (r *Registry) NewCaller(w mesh.Workload) *Caller { return &Caller{Workload: w, registry: r} }

// Index is the caller's place among the counters, until [Registry.CallerEpoch] changes; of
// nil it is that of who is not known.
func (c *Caller) Index() int {
	if c == nil {
		return CallerExternal
	}
	epoch := c.registry.callers.epoch.Load()
	if v := c.found.Load(); uint32(v) != 0 && uint32(v>>32) == epoch {
		return int(uint32(v))
	}
	// Were places taken away meanwhile, this one is asked for again.
	i := c.registry.Caller(c.Workload)
	c.found.Store(uint64(epoch)<<32 | uint64(i))
	return i
}

// CallerEpoch says how long a caller's place may be kept: until it changes. It may be
// called from any goroutine.
func (r *Registry) CallerEpoch() uint32 { return r.callers.epoch.Load() }

// Caller returns the place of a workload, CallerOther when there are too many.
func (r *Registry) Caller(w mesh.Workload) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.callers
	if i, ok := c.places[w]; ok {
		return i
	}
	var i int
	switch n := len(c.free); {
	case n > 0:
		i = c.free[n-1]
		c.free = c.free[:n-1]
		c.names = slices.Clone(c.names)
		c.names[i] = CallerName{w, c.names[i].Era + 1}
	case len(c.names) < MaxCallers:
		i = len(c.names)
		c.names = append(c.names, CallerName{Workload: w})
	default:
		return CallerOther
	}
	c.places[w] = i
	return i
}

// CallerNames returns the workloads by place. The result is not changed later.
func (r *Registry) CallerNames() []CallerName {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.callers.names)
}

// ReclaimCallers takes their places from the workloads of which silent says so, when more
// than half of the places are given. A place rests, counted as before, until the next call,
// by when no loop knows it any more; then its counters go and it is free. What a stream
// carries that was silent for so long and goes on is not counted. It must be called from
// one goroutine, after what is counted was read, and not more often than once a second.
func (r *Registry) ReclaimCallers(silent func(place int, of CallerName) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.callers
	if len(c.resting) > 0 {
		c.names = slices.Clone(c.names)
		for _, i := range c.resting {
			for _, e := range r.endpoints {
				for k := range e.Cells {
					e.Cells[k].forget(i)
				}
			}
			c.names[i].Workload = mesh.Workload{}
		}
		c.free = append(c.free, c.resting...)
		c.resting = nil
	}
	if len(c.places) <= MaxCallers/2 {
		return
	}
	for i := firstCaller; i < len(c.names); i++ {
		if at, given := c.places[c.names[i].Workload]; given && at == i && silent(i, c.names[i]) {
			delete(c.places, c.names[i].Workload)
			c.resting = append(c.resting, i)
		}
	}
	if len(c.resting) > 0 {
		c.epoch.Add(1)
	}
}
