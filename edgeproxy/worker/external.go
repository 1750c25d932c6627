package worker

import (
	"bytes"
	"math"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// What an external function is asked is, as a mirrored request is, an exchange of its own
// without a client, of whose response a bounded part is kept. The request itself has
// begun meanwhile, with an attempt that is held back: so its body is taken as far as
// there is room, and its end and its limits are those of every request.

// asking is a request's wait for an external function.
type asking struct {
	next  *asking // free
	waits bool    // the answer is still to be judged

	chains    []route.Chain
	chain, at int // of chains, and of its hops
	route     string
	// rule and backend are what is known of the way on, nil where the chain is its class's.
	rule    *route.Rule
	backend *route.Backend
	held    exchange.Ref // the attempt that waits too
	began   int64

	// What was answered: done says that it is whole, why what it lacks.
	status int
	fields []stream.Field
	body   []byte
	done   bool
	why    string
}

const (
	mostAnswer     = 64 << 10 // bytes of an answer for the client
	bodyTooLarge   = "function_request_too_large"
	answerTooLarge = "function_answer_too_large"
	answeredError  = "function_answered_with_an_error"
	notServed      = "function_has_no_service"
)

var (
	nameHop     = []byte(mesh.HopField)
	continueNow = stream.Message{Status: 100}
)

// statusTooLarge is 413 (RFC 9110 15.5.14).
const statusTooLarge = 413

func (p *asking) of() *function.External { return p.chains[p.chain].Hops[p.at].External }

// waitFor notes that a request waits for the external function at a hop.
func (w *Worker) waitFor(r *request, chains []route.Chain, chain, at int, rule string) {
	p := r.asking
	if p == nil {
		if p = w.freeAsking; p == nil {
			p = &asking{}
		} else {
			w.freeAsking = p.next
		}
		r.asking = p
	}
	*p = asking{
		waits: true, chains: chains, chain: chain, at: at, route: rule, rule: p.rule, backend: p.backend, held: p.held,
		fields: p.fields[:0], body: p.body[:0], began: w.Loop.Now(),
	}
}

// forgetAsking keeps the room for the next wait.
func (w *Worker) forgetAsking(p *asking) {
	clear(p.fields)
	body := p.body[:0]
	if cap(body) > mostAnswer/4 {
		body = nil
	}
	*p = asking{fields: p.fields[:0], body: body, next: w.freeAsking}
	w.freeAsking = p
}

// ask asks the external function that a request waits for.
func (w *Worker) ask(r *request) {
	p := r.asking
	e := p.of()
	s := w.state.View.Services[e.Service]
	if s == nil || !s.HasPort(e.Port) {
		p.why = notServed
		w.settle(r)
		return
	}
	body := e.MaxBody > 0 && r.head.Length != 0
	if body && r.head.Length > e.MaxBody {
		p.why = bodyTooLarge
		w.settle(r)
		return
	}
	c := w.newRequest(nil, 0)
	c.asks, c.of, c.service, c.http2 = true, r, s.Service, s.HTTP2(e.Port)
	c.sibling, r.copies = r.copies, c
	c.fields = append(c.store.fields(w, c.fields, r.head.Fields), c.store.field(w, &stream.Field{Name: nameHop, Value: e.Hop}))
	path := c.store.grab(w, len(e.Prefix)+len(r.head.Path))
	copy(path[copy(path, e.Prefix):], r.head.Path)
	c.head = stream.Message{Method: c.store.copy(w, r.head.Method), Authority: c.store.copy(w, r.head.Authority), Path: path, Fields: c.fields}
	if body {
		c.head.Length = r.head.Length
	}
	w.Loop.Wheel.Set(&c.timer, p.began+int64(e.Timeout))
	c.x.Begin(exchange.Config{Retries: s.Retries, Idempotent: idempotent(c.head.Method), MaxReplay: maxReplay, ClientCredit: math.MaxInt})
	life := c.life
	w.step(c, &exchange.Event{Kind: exchange.Request, More: body})
	if !body || c.life != life {
		return
	}
	if r.head.Expect100 && !r.continued && r.received == 0 {
		// The client waits to be told that somebody wants its body: the function does.
		r.head.Expect100, r.continued = false, true
		w.msg = continueNow
		w.out = stream.Event{Kind: stream.Head, Stream: r.stream, Head: &w.msg}
		r.d.send(&w.out, roomFor(&w.msg))
	}
	w.catchUp(r, c)
}

// catchUp gives a copy that begins late what has come of the request's body.
func (w *Worker) catchUp(r, c *request) {
	life := c.life
	for at := 0; at < r.kept.Len() && c.life == life; {
		piece := r.kept.At(at)
		at += len(piece)
		c.received += int64(len(piece))
		c.piece = piece
		w.step(c, &exchange.Event{Kind: exchange.RequestData, N: len(piece)})
		if c.life == life {
			c.piece = nil
		}
	}
	if c.life == life && r.x.RequestDone() && !c.x.RequestDone() {
		c.trailers = c.store.fields(w, c.trailers[:0], r.trailers)
		w.step(c, &exchange.Event{Kind: exchange.RequestEnd})
	}
}

// told keeps what an external function answers.
func (w *Worker) told(c *request, act *exchange.Action) {
	r := c.of
	p := r.asking
	switch act.Kind {
	case exchange.ReplyHead:
		p.status = c.replyHead.Status
		p.fields = r.store.fields(w, p.fields[:0], c.replyHead.Fields)
	case exchange.ReplyData:
		if len(p.body)+act.N > mostAnswer {
			p.why = answerTooLarge
			w.stop(c, exchange.Overload, 0)
			return
		}
		from := act.From - (c.reply - int64(len(c.replyPiece)))
		p.body = append(p.body, c.replyPiece[from:][:act.N]...)
	case exchange.ReplyEnd:
		p.done = true
	case exchange.Local:
		if p.why == "" {
			p.why = act.Flag.Details()
		}
	case exchange.Abort:
		if p.why == "" {
			p.why = exchange.UpstreamReset.Details()
		}
	}
}

// settle goes on with a request whose external function has answered, or has not.
func (w *Worker) settle(r *request) {
	if w.handing { // what else takes this piece of the body must not be made meanwhile
		life := r.life
		w.Loop.Post(loop.Func(func() {
			if r.life == life && r.asking != nil {
				w.settle(r)
			}
		}))
		return
	}
	p := r.asking
	chain, e := p.chains[p.chain].Chain, p.of()
	p.waits = false
	v := function.Failed
	if p.done {
		if v = e.Judge(p.status, p.fields); v == function.Failed {
			p.why = answeredError
		}
	}
	on := chain.Settle(p.at, w.id, v, w.Loop.Now()-p.began)
	switch {
	case on && v == function.Passed:
		r.fields = e.Apply(r.fields, p.fields)
		r.head.Fields = r.fields
	case on:
		r.fields = e.Apply(r.fields, nil)
		r.head.Fields = r.fields
	case v == function.Answered:
		w.answeredBy(r, p)
	default:
		r.none, r.log.details = exchange.FunctionFailed, p.why
		if p.why == bodyTooLarge {
			r.local.status = statusTooLarge
		}
	}
	var s *view.Service
	var rule *route.Rule
	if on {
		r.runs-- // of the chain that was left at this hop
		if w.chainsFrom(r, p.chains, p.chain, p.at+1, p.route) {
			s, rule = w.behindChains(r, p)
		}
	}
	if p.waits {
		w.ask(r)
		return
	}
	w.goesOn(r, s, rule)
}

// answeredBy notes that the function's answer is the one to the client.
func (w *Worker) answeredBy(r *request, p *asking) {
	kept := p.fields[:0]
	for i := range p.fields {
		if function.ForClient(&p.fields[i]) {
			kept = append(kept, p.fields[i])
		}
	}
	w.passing.Answer = function.Answer{Status: p.status, Fields: kept, Body: p.body}
	r.local = local{kind: chained, status: p.status}
	if r.none = exchange.OK; p.status == exchange.RateLimited.Status() {
		r.none = exchange.RateLimited
	} else {
		r.log.details = localDetails[chained]
	}
}

// behindChains finds the service of a request that has passed its chains, those of its
// class or those of its rule; the latter may have it wait again.
func (w *Worker) behindChains(r *request, p *asking) (*view.Service, *route.Rule) {
	n := bytes.IndexByte(r.head.Path, '?')
	if n < 0 {
		n = len(r.head.Path)
	}
	q := w.queried(r, n)
	if p.rule == nil {
		return w.routed(r, q)
	}
	if !w.filterOn(r, r.filters, q) {
		return nil, nil
	}
	return w.backend(r, p.rule, p.backend)
}

// goesOn sends the attempt that was held back on its way, to a service or, where that
// is nil, to the answer that was noted.
func (w *Worker) goesOn(r *request, s *view.Service, rule *route.Rule) {
	p := r.asking
	r.asking = nil
	defer w.forgetAsking(p)
	if s != nil {
		cfg := exchange.Config{Idempotent: idempotent(r.head.Method)}
		limit := w.goesTo(r, s, rule, &cfg)
		r.x.Allow(cfg)
		if r.filters != nil && len(r.head.Upgrade) == 0 {
			w.mirror(r, limit)
			for c := r.copies; c != nil; {
				next := c.sibling
				w.catchUp(r, c)
				c = next
			}
		}
	}
	a := &r.attempts[p.held.Slot]
	if a.ref != p.held {
		return
	}
	w.found = s
	w.aim(r, a, false)
	w.found = nil
}
