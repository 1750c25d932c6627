package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// timedShare is the share of requests whose time at each hop is taken: asking for the
// clock twice costs about as much as a function.
const timedShare = 64

// ran is a chain that a request passed up to a hop.
type ran struct {
	chain *function.Chain
	hops  int
	// contexts are what its functions keep for the response.
	contexts [function.MaxHops]uint32
}

// Grab gives functions memory that lives as long as the request.
func (r *request) Grab(n int) []byte { return r.store.grab(r.w, n) }

var _ function.Memory = (*request)(nil)

// chains passes a request through chains. Where one ends it, it notes the answer and
// reports false, as where it waits for an external function, which it notes too.
func (w *Worker) chains(r *request, chains []route.Chain, rule string) bool {
	return w.chainsFrom(r, chains, 0, 0, rule)
}

// chainsFrom is chains from a hop of the chain numbered i on.
func (w *Worker) chainsFrom(r *request, chains []route.Chain, i, hop int, rule string) bool {
	q := w.known(r)
	q.Route = rule
	timed := w.random()%timedShare == 0
	for ; i < len(chains); i, hop = i+1, 0 {
		c := chains[i].Chain
		if c.Broken != "" {
			if c.Open {
				continue
			}
			r.none, r.log.details = exchange.FunctionFailed, "chain_broken"
			return false
		}
		q.Fields = r.fields
		q.Contexts = &r.ran[r.runs].contexts
		v, hops := c.Request(q, hop, timed)
		r.fields = q.Fields
		r.head.Fields = r.fields
		r.ran[r.runs].chain, r.ran[r.runs].hops = c, hops
		r.runs++
		switch v {
		case function.Answered:
			r.none = exchange.OK
			if q.Answer.Status == exchange.RateLimited.Status() {
				r.none = exchange.RateLimited
			} else {
				r.log.details = localDetails[chained]
			}
			r.local = local{kind: chained, status: q.Answer.Status}
			return false
		case function.Failed:
			r.none = exchange.FunctionFailed
			return false
		case function.Asks:
			w.waitFor(r, chains, i, hops, rule)
			return false
		}
	}
	return true
}

// chainsBack passes a response through the chains of its request, the last first. Its
// fields come back in memory of the loop.
func (w *Worker) chainsBack(r *request, status int, fields []stream.Field) []stream.Field {
	var q *function.Request
	for i := r.runs - 1; i >= 0; i-- {
		if !r.ran[i].chain.Responds() {
			continue
		}
		if q == nil {
			q = w.known(r)
			q.Asked, q.Status, q.Route = r.head.Fields, status, r.log.route
			q.Fields = append(w.fields[:0], fields...)
		}
		q.Contexts = &r.ran[i].contexts
		r.ran[i].chain.Response(q, r.ran[i].hops)
		fields = q.Fields
		w.fields = fields[:0]
	}
	return fields
}

// known is what functions are told of a request.
func (w *Worker) known(r *request) *function.Request {
	q := &w.passing
	q.Method, q.Host, q.Path = r.head.Method, r.head.Authority, r.head.Path
	q.Asked, q.Status = nil, 0
	q.Site, q.Gateway = w.state.View.Site, r.d.gateway()
	q.Address = r.clientText
	if len(q.Address) == 0 {
		q.Address = r.d.from.Addr().AppendTo(w.address[:0])
	}
	q.Identity = nil
	if t := r.d.tls(); t != nil {
		q.Identity = t.Identity()
	}
	q.Memory, q.Loop, q.Now, q.Clock = r, w.id, w.Loop.Now(), loop.Now
	return q
}
