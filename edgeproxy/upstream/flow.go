package upstream

import (
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Indices of callers that are no workload of the mesh.
const (
	// CallerExternal is who is not known, CallerOther a workload past MaxCallers.
	CallerExternal = iota
	CallerOther
)

// MaxCallers bounds the workloads whose requests are told apart by who sent them;
// what further ones ask is counted together.
const MaxCallers = 512

// flowsEach is how many callers' counters are made at a time.
const flowsEach = 16

// Flow counts what one caller asked of one endpoint, on one loop. A message's head
// counts as HTTP/1.1 writes it.
type Flow struct {
	Requests, RequestBytes, ResponseBytes atomic.Uint64
}

// flows are those of an endpoint's callers; nearly all endpoints have few, so the
// counters are made when a caller first comes, once and not for each request.
type flows [MaxCallers / flowsEach]atomic.Pointer[[flowsEach]Flow]

// Flow returns the counters of a caller. It is the loop's own.
func (c *EndpointCell) Flow(caller int) *Flow {
	all := c.flows.Load()
	if all == nil {
		all = new(flows)
		c.flows.Store(all)
	}
	of := &all[caller/flowsEach]
	some := of.Load()
	if some == nil {
		some = new([flowsEach]Flow)
		of.Store(some)
	}
	return &some[caller%flowsEach]
}

// Sum is what flowed from one caller to an endpoint.
type Sum struct {
	Requests, RequestBytes, ResponseBytes uint64
}

// Flows calls each for every caller of which an endpoint has counters, summed over
// loops.
func (e *Endpoint) Flows(each func(caller int, s Sum)) {
	asked := false
	for i := range e.Cells {
		asked = asked || e.Cells[i].flows.Load() != nil
	}
	if !asked {
		return
	}
	for chunk := range MaxCallers / flowsEach {
		var sums [flowsEach]Sum
		there := false
		for i := range e.Cells {
			all := e.Cells[i].flows.Load()
			if all == nil {
				continue
			}
			some := all[chunk].Load()
			if some == nil {
				continue
			}
			there = true
			for k := range some {
				sums[k].Requests += some[k].Requests.Load()
				sums[k].RequestBytes += some[k].RequestBytes.Load()
				sums[k].ResponseBytes += some[k].ResponseBytes.Load()
			}
		}
		for k := range sums {
			if there && sums[k] != (Sum{}) {
				each(chunk*flowsEach+k, sums[k])
			}
		}
	}
}

// Caller is a workload that may send requests. It is found by an address, once for
// each connection; its index is given when it first comes, since most never do.
type Caller struct {
	mesh.Workload
	registry *Registry
	index    atomic.Int32
}

// NewCaller makes a caller of the registry.
func (r *Registry) NewCaller(w mesh.Workload) *Caller { return &Caller{Workload: w, registry: r} }

// Index is the caller's place among the counters; of nil it is that of who is not
// known.
func (c *Caller) Index() int {
	if c == nil {
		return CallerExternal
	}
	if i := c.index.Load(); i > 0 {
		return int(i)
	}
	i := c.registry.Caller(c.Workload)
	c.index.Store(int32(i))
	return i
}

// Caller returns the stable index of a workload, CallerOther when there are too many.
func (r *Registry) Caller(w mesh.Workload) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.callers[w]
	if !ok {
		if len(r.callerNames) == MaxCallers {
			return CallerOther
		}
		i = len(r.callerNames)
		r.callers[w] = i
		r.callerNames = append(r.callerNames, w)
	}
	return i
}

// CallerNames returns the workloads by index. The result is not changed later.
func (r *Registry) CallerNames() []mesh.Workload {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.callerNames[:len(r.callerNames):len(r.callerNames)]
}
