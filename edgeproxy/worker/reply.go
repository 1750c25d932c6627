package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// toClient carries out what concerns the client's stream.
func (w *Worker) toClient(r *request, act *exchange.Action) {
	d := r.d
	ok := true
	switch act.Kind {
	case exchange.ReplyInformational:
		r.continued = r.continued || r.replyHead.Status == 100
		w.takeInBand(r, &r.attempts[act.Ref.Slot])
		w.out = stream.Event{Kind: stream.Head, Stream: r.stream, Head: &w.msg}
		ok = d.send(&w.out, roomFor(&w.msg))
	case exchange.ReplyHead:
		if !r.x.RequestDone() && !d.many && !r.x.Tunnel() {
			_ = d.codec.Close(nil) // the rest of the request is not worth waiting for
		}
		w.replyHead(r, &r.attempts[act.Ref.Slot])
		w.answered(r, w.msg.Fields)
		w.out = stream.Event{Kind: stream.Head, Stream: r.stream, Head: &w.msg}
		ok = d.send(&w.out, roomFor(&w.msg))
		if ok && r.x.Tunnel() {
			w.tunnel(r, &r.attempts[act.Ref.Slot])
		}
	case exchange.ReplyData:
		ok = w.replyBody(r, act)
	case exchange.ReplyEnd:
		if r.out.backlog.Len() > 0 {
			r.out.ended = true
			return
		}
		ok = d.end(r)
		if r.x.Tunnel() && !d.many && !d.conn.Closed() {
			d.conn.CloseWrite()
		}
	case exchange.Local:
		if !r.x.RequestDone() && !d.many {
			_ = d.codec.Close(nil)
		}
		if d.plain {
			d.abort(r.stream)
		} else if r.probe {
			w.replyLoads(r)
		} else {
			w.replyLocal(r, act)
		}
	case exchange.Abort:
		d.abort(r.stream)
	}
	if !ok {
		d.abort(r.stream)
		if r.x.Active() {
			w.stop(r, exchange.UpstreamProtocol, 0)
		}
	}
}

// takeInBand makes w.msg the head for the client without what another site says in
// band: that goes to the gate and no further.
func (w *Worker) takeInBand(r *request, a *attempt) {
	w.msg = *r.replyHead
	fields := w.msg.Fields
	for i := range fields {
		if inBand(&fields[i]) {
			w.msg.Fields = w.withoutInBand(a, fields)
			return
		}
	}
}

// replyHead makes w.msg the final head for the client, with what this site says
// for another site.
func (w *Worker) replyHead(r *request, a *attempt) {
	w.takeInBand(r, a)
	if r.x.Tunnel() && r.asksTunnel() {
		w.agree(r, a)
	}
	if r.web.on {
		w.toWeb(r)
	}
	if r.filters != nil || r.runs > 0 {
		w.msg.Fields = w.edited(r, w.msg.Status, w.msg.Fields)
	}
	w.setCookie(r, a)
	if !r.inbound {
		return
	}
	s := w.state.View.Services[r.service.Key]
	if s == nil || s.Report == nil {
		return
	}
	if w.load = s.Report.AppendLoad(w.load[:0], r.from, s.Busy()); len(w.load) == 0 {
		return
	}
	w.fields = append(append(w.fields[:0], w.msg.Fields...), stream.Field{Name: fieldLoad, Value: w.load})
	w.msg.Fields = w.fields
}

func (w *Worker) withoutInBand(a *attempt, fields []stream.Field) []stream.Field {
	kept := w.fields[:0]
	for i := range fields {
		f := &fields[i]
		if !inBand(f) {
			kept = append(kept, *f)
		} else if f.Is(inband.HeaderLoad) && a.remote != upstream.Home && a.gate != nil {
			a.gate.Load(a.remote, f.Value, w.Loop.Now())
		}
	}
	w.fields = kept[:0]
	return kept
}

func (w *Worker) replyBody(r *request, act *exchange.Action) bool {
	if r.d.conn.Closed() {
		return true
	}
	from, n := act.From, act.N
	r.log.sent += int64(n)
	w.carried(r, 0, n)
	pieceFrom := r.reply - int64(len(r.replyPiece))
	for n > 0 {
		var p []byte
		if from >= pieceFrom {
			p = r.replyPiece[from-pieceFrom:]
		} else {
			p = r.replyKept.At(int(from - r.replyKeptFrom))
		}
		p = p[:min(n, len(p))]
		if err := w.push(&r.d.conn, r.d.codec, r.d.mux(), r.stream, &r.out, p); err != nil {
			return false
		}
		from += int64(len(p))
		n -= len(p)
	}
	return true
}

// abort resets the client's stream; where the protocol has no word for that the
// connection is reset.
func (d *down) abort(id stream.ID) {
	if r := d.find(id); r != nil {
		r.out.drop(&d.w.Loop.Slabs)
	}
	d.w.out = stream.Event{Kind: stream.Reset, Stream: id, Reason: stream.Internal}
	if !d.send(&d.w.out, framing) || !d.codec.Reusable() && d.codec.Active() == 0 {
		d.reset = true
		d.close(false)
	}
}

// Field names between Meridian's proxies.
var (
	fieldService = []byte(inband.HeaderService)
	fieldSource  = []byte(inband.HeaderSource)
	fieldLoad    = []byte(inband.HeaderLoad)
	fieldClient  = []byte(inband.HeaderClient)
)

// Every flag has its counter.
var _ [upstream.Outcomes - int(exchange.Flags)]struct{}
