package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// takeSecure goes on with a connection whose TLS session ends here, from the client's
// hello, which was read to see for whom it is. What is in the session is passed on whole,
// as an exchange.
func (w *Worker) takeSecure(s *l4.Session, fd int, held *loop.List) {
	l := s.Owner.(*Listener)
	d := w.newDown(l, s.From)
	d.plain, d.socket = true, w.state.Sockets[l]
	d.id, d.born = w.streamID(s), s.Born
	hello := append(w.scratch[:0], make([]byte, held.Len())...)
	held.CopyTo(hello)
	held.Free(&w.Loop.Slabs)
	if err := d.conn.Open(w.Loop, fd, d, true); err != nil {
		d.forget()
		d.Recycle()
		return
	}
	d.secure(d.socket.TLS)
	d.hello(hello)
}

// relay finds the service for what comes out of a session, by the name that its client
// asked for, and passes it on.
func (d *down) relay() {
	w := d.w
	if d.socket == nil || d.socket.Streams == nil {
		d.lost() // the listener went away meanwhile
		return
	}
	d.phase = serving
	d.codec = w.takeCodec(w.speaks.plain)
	r := w.newRequest(d, onlyStream)
	r.relays, r.start = true, d.born
	r.head = stream.Message{Method: methodConnect, Length: stream.LengthUnknown}
	cfg := exchange.Config{MaxReplay: maxReplay, ClientCredit: w.shared.Watermark}
	svc, port, f, why := w.streamTo(d.socket, []byte(d.tls().ServerName()), d.clientOfSession(), &r.log.route)
	if svc == nil {
		r.none, r.log.details = f, why
	} else {
		r.counted, r.service, r.idle, r.port = true, svc.Service, svc.Idle, port
		r.head.Authority = r.store.copy(w, svc.TunnelTo(port))
		var text [maxAddress + len("[]:65535")]byte
		r.clientText = r.store.copy(w, d.from.AppendTo(text[:0]))
		cfg.Retries = svc.Retries
	}
	w.budget.Request(w.Loop.Now())
	r.x.Begin(cfg)
	w.found = svc
	w.step(r, &exchange.Event{Kind: exchange.Request, More: true})
	w.found = nil
}

// clientOfSession is who a client is by its address and its certificate, which a listener
// with frontendValidation has asked for.
func (d *down) clientOfSession() authz.Caller {
	c := authz.Caller{Address: d.from.Addr().Unmap()}
	if p := d.peer(); p != nil {
		c.Client = p.Identity
	}
	if domain := d.w.state.View.TrustDomain; domain != "" && inDomain(c.Client, domain) {
		c.Client, c.Unclear = nil, true // as of requests: such an identity is a proxy's to tell
	}
	return c
}
