package upstream

import "sync/atomic"

// flowsEach is how many callers' places are made at a time.
const flowsEach = 16

// Flow counts what one caller asked of one endpoint, on one loop. A message's head
// counts as HTTP/1.1 writes it.
type Flow struct {
	Requests, RequestBytes, ResponseBytes atomic.Uint64
}

// flows are those of an endpoint's callers; nearly all endpoints have few, so the
// counters are made when a caller first comes, once and not for each request. The loop
// adds, and who reclaims a caller's place takes that one away.
type flows [MaxCallers / flowsEach]atomic.Pointer[[flowsEach]atomic.Pointer[Flow]]

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
		some = new([flowsEach]atomic.Pointer[Flow])
		of.Store(some)
	}
	f := some[caller%flowsEach].Load()
	if f == nil {
		f = new(Flow)
		some[caller%flowsEach].Store(f)
	}
	return f
}

// forget takes a caller's counters away.
func (c *EndpointCell) forget(caller int) {
	if all := c.flows.Load(); all != nil {
		if some := all[caller/flowsEach].Load(); some != nil {
			some[caller%flowsEach].Store(nil)
		}
	}
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
				if f := some[k].Load(); f != nil {
					sums[k].Requests += f.Requests.Load()
					sums[k].RequestBytes += f.RequestBytes.Load()
					sums[k].ResponseBytes += f.ResponseBytes.Load()
				}
			}
		}
		for k := range sums {
			if there && sums[k] != (Sum{}) {
				each(chunk*flowsEach+k, sums[k])
			}
		}
	}
}
