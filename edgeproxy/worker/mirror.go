package worker

import (
	"math"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// A mirrored request is an exchange of its own without a client: it shares
// nothing with the request that it copies, so whatever its backend does cannot
// hold up or fail that one, and it may outlive it. Its response is read and
// dropped. Both get the same pieces of the body; a copy that falls more than
// maxReplay behind is given up.

const (
	// maxCopies bounds the mirrored requests under way in one loop: a mirror that
	// hangs must not collect connections and memory.
	maxCopies = 256
	// copyTimeout bounds a mirrored request where nothing bounds its original.
	copyTimeout = 15 * time.Second
)

// mirror starts the copies of a request that its filters ask for.
func (w *Worker) mirror(r *request, limit time.Duration) {
	for i := range r.filters.Mirrors {
		m := &r.filters.Mirrors[i]
		s := w.state.View.Services[m.Service]
		switch {
		case s == nil || !s.HasPort(m.Port) || !m.Takes(w.random()):
			continue
		case !w.admitsCopy(r, s, m.Port):
			w.Counters.MirrorsDropped.Add(1)
			continue
		case w.copying == maxCopies:
			w.Counters.MirrorsDropped.Add(1)
			continue
		}
		if limit <= 0 {
			limit = copyTimeout
		}
		c := w.newRequest(nil, 0)
		w.copying++
		c.service, c.of, c.http2 = s.Service, r, s.HTTP2(m.Port)
		c.sibling, r.copies = r.copies, c
		c.fields = c.store.fields(w, c.fields, r.head.Fields)
		c.head = stream.Message{
			Method: c.store.copy(w, r.head.Method), Authority: c.store.copy(w, r.head.Authority), Path: c.store.copy(w, r.head.Path),
			Fields: c.fields, Length: r.head.Length,
		}
		w.Counters.Mirrored.Add(1)
		w.Loop.Wheel.Set(&c.timer, c.start+int64(limit))
		c.x.Begin(exchange.Config{Idempotent: idempotent(c.head.Method), MaxReplay: maxReplay, ClientCredit: math.MaxInt})
		w.step(c, &exchange.Event{Kind: exchange.Request, More: c.head.Length != 0})
	}
}

// copyData gives the piece at hand of a request's body to its copies.
func (w *Worker) copyData(r *request) {
	w.handing = true
	defer func() { w.handing = false }()
	for c := r.copies; c != nil; {
		next, life := c.sibling, c.life
		if c.x.RequestDone() { // asked of the head only
			c = next
			continue
		}
		c.received += int64(len(r.piece))
		c.piece = r.piece
		w.step(c, &exchange.Event{Kind: exchange.RequestData, N: len(r.piece)})
		c.piece = nil
		if c.life == life && c.asks && c.of != nil && c.received > r.asking.of().MaxBody {
			r.asking.why = bodyTooLarge
			w.stop(c, exchange.Overload, 0)
		} else if c.life == life && c.kept.Len() > maxReplay {
			w.Counters.MirrorsDropped.Add(1)
			w.stop(c, exchange.Overload, 0)
		}
		c = next
	}
}

// copyEnd ends the copies' bodies.
func (w *Worker) copyEnd(r *request) {
	w.handing = true
	defer func() { w.handing = false }()
	for c := r.copies; c != nil; {
		next := c.sibling
		c.trailers = c.store.fields(w, c.trailers[:0], r.trailers)
		if !c.x.RequestDone() {
			w.step(c, &exchange.Event{Kind: exchange.RequestEnd})
		}
		c = next
	}
}

// endCopies lets go of a request's copies; those that lack a part of the body,
// which will not come any more, end.
func (w *Worker) endCopies(r *request) {
	for r.copies != nil {
		c := r.copies
		r.copies, c.of, c.sibling = c.sibling, nil, nil
		if !c.x.RequestDone() || c.asks {
			w.stop(c, exchange.ClientDisconnected, 0)
		}
	}
}

// forgetCopy takes a copy that is over out of the books.
func (w *Worker) forgetCopy(c *request) {
	if !c.asks && !c.relays {
		w.copying--
	}
	for p := &w.copies; *p != nil; p = &(*p).next {
		if *p == c {
			*p = c.next
			break
		}
	}
	if c.of == nil {
		return
	}
	for p := &c.of.copies; *p != nil; p = &(*p).sibling {
		if *p == c {
			*p = c.sibling
			break
		}
	}
	c.of, c.sibling = nil, nil
}
