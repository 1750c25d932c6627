package worker

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/capsule"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// A UDP session that another site serves is an exchange as a connection is (relay.go): an
// extended CONNECT to connect-udp (RFC 9298), whose stream carries capsules. A stream waits
// where UDP would lose: what would wait too long is dropped instead and counted.

var (
	tunnelUDP      = []byte("connect-udp")
	capsulesField  = stream.Field{Name: []byte("capsule-protocol"), Value: []byte("?1")} // RFC 9297 3.4
	capsulesFields = []stream.Field{capsulesField}
)

const (
	// mostQueued bounds the bytes of a session that wait for a window, each way.
	mostQueued = 64 << 10
	// unbounded is the credit of who takes all at once.
	unbounded = math.MaxInt64 / 4
)

// packets is an attempt's end at an endpoint of UDP.
type packets struct {
	a      *attempt
	fd     int
	handle uint32
	next   *packets // free
}

// connectPackets gets an attempt a socket to its endpoint.
func (w *Worker) connectPackets(a *attempt) {
	r := a.r
	fd, err := w.Loop.ConnectPackets(a.endpoint.Addr)
	p := w.freePackets
	if p == nil {
		p = &packets{}
	} else {
		w.freePackets = p.next
	}
	*p = packets{a: a, fd: fd}
	if err == nil {
		if p.handle, err = w.Loop.Add(fd, unix.EPOLLIN, p); err != nil {
			w.Loop.ClosePackets(fd)
		}
	}
	if err != nil {
		w.connectFailed(a)
		return
	}
	a.packets = p
	w.Counters.Connects.Add(1)
	a.endpoint.Cells[w.id].Connects.Add(1)
	r.capsules.Reset()
	ref := a.ref
	w.step(r, &exchange.Event{Kind: exchange.Ready, Ref: ref, N: unbounded})
	if a.ref == ref {
		w.joins(r, a)
	}
}

// closePackets is the end of an attempt's socket.
func (w *Worker) closePackets(a *attempt) {
	p := a.packets
	a.packets = nil
	w.Loop.Del(p.fd, p.handle)
	w.Loop.ClosePackets(p.fd)
	*p = packets{next: w.freePackets}
	w.freePackets = p
}

// Ready passes the endpoint's datagrams on; what does not fit this turn is there in the next.
func (p *packets) Ready(uint32) {
	a := p.a
	if a == nil {
		return
	}
	r := a.r
	w := r.w
	if w.received == nil {
		b, err := loop.NewBatch()
		if err != nil {
			w.stop(r, exchange.Overload, 0)
			return
		}
		w.received = b
	}
	n, err := w.Loop.Receive(p.fd, w.received, 0, loop.BatchSize/2, false)
	switch {
	case err == syscall.EAGAIN:
		return
	case err != 0: // ICMP says that nobody is there
		w.failed(a, exchange.UpstreamReset)
		return
	}
	r.carries()
	for i := range n {
		segment, _ := w.received.Told(i)
		in := w.received.Data(i)
		for first := true; (first || len(in) > 0) && p.a == a && a.packets == p; first = false {
			k := len(in)
			if segment > 0 {
				k = min(k, segment)
			}
			p.answer(in[:k])
			in = in[k:]
		}
	}
}

// answer sends a datagram to the client's site, unless too much waits for its window.
func (p *packets) answer(in []byte) {
	a := p.a
	r := a.r
	w := r.w
	c := &r.service.Cells[w.id]
	if r.replyKept.Len()+r.out.backlog.Len()+len(in) > mostQueued && r.replyKept.Len()+r.out.backlog.Len() > 0 {
		c.DatagramsDropped[datagram.DropBusy].Add(1)
		return
	}
	if r.d != nil { // else the session counts
		c.DatagramsOut.Add(1)
		c.FromBackend.Add(uint64(len(in)))
	}
	w.capsule = capsule.Append(w.capsule[:0], in)
	n := len(w.capsule)
	r.reply += int64(n)
	r.replyPiece = w.capsule
	w.step(r, &exchange.Event{Kind: exchange.ResponseData, Ref: a.ref, N: n})
	r.replyPiece = nil
}

// toEndpoint sends the datagrams in a piece of the client's stream.
func (w *Worker) toEndpoint(a *attempt, in []byte) {
	r := a.r
	p := a.packets
	c := &r.service.Cells[w.id]
	for len(in) > 0 && a.packets == p {
		n, out, whole, err := r.capsules.Next(in)
		if err != nil {
			r.log.details = "capsule_invalid"
			w.stop(r, exchange.ClientProtocol, 0)
			return
		}
		if in = in[n:]; !whole {
			continue
		}
		switch err := w.Loop.SendOne(p.fd, out, 0); err {
		case 0:
			if r.d != nil {
				c.DatagramsIn.Add(1)
				c.FromClients.Add(uint64(len(out)))
			}
		case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
			c.DatagramsDropped[datagram.DropBusy].Add(1)
		case syscall.EMSGSIZE, syscall.EINVAL:
			c.DatagramsDropped[datagram.DropTooBig].Add(1)
		default:
			c.DatagramsDropped[datagram.DropUnreachable].Add(1)
			w.failed(a, exchange.UpstreamReset)
		}
	}
}

// Begin implements [datagram.Elsewhere].
func (h *datagrams) Begin(s *datagram.Session) exchange.Flag {
	w := (*Worker)(h)
	svc := w.state.View.Services[s.Service.Key]
	r := w.newRequest(nil, onlyStream)
	r.relays, r.udp, r.session, r.service, r.idle = true, true, s, s.Service, s.Idle
	r.preset, r.port, r.client = s.Place, s.Port, s.From.Addr().Unmap()
	r.capsules.Reset()
	r.head = stream.Message{Method: methodConnect, Path: r.store.copy(w, svc.PacketTunnelTo(s.Port)), Length: stream.LengthUnknown}
	var text [maxAddress + len("[]:65535")]byte
	r.clientText = r.store.copy(w, s.From.AppendTo(text[:0]))
	s.Link, s.Via = r, nil
	w.budget.Request(w.Loop.Now())
	r.x.Begin(exchange.Config{Retries: max(0, s.Retries-s.Tries), MaxReplay: maxReplay, ClientCredit: unbounded})
	w.found = svc
	w.step(r, &exchange.Event{Kind: exchange.Request, More: true})
	w.found = nil
	if s.Link == nil {
		return exchange.ConnectFailure
	}
	return exchange.OK
}

// Forward implements [datagram.Elsewhere].
func (h *datagrams) Forward(s *datagram.Session, p []byte) {
	w := (*Worker)(h)
	r, _ := s.Link.(*request)
	waits := 0
	if r != nil {
		waits = r.kept.Len()
		for i := range r.attempts {
			waits += r.attempts[i].out.backlog.Len()
		}
	}
	if r == nil || waits > 0 && waits+len(p) > mostQueued {
		h.Dropped(s, datagram.DropBusy, 1)
		return
	}
	h.Moved(s, true, 1, len(p))
	r.carries()
	w.capsule = capsule.Append(w.capsule[:0], p)
	n := len(w.capsule)
	r.received += int64(n)
	r.piece = w.capsule
	life := r.life
	w.step(r, &exchange.Event{Kind: exchange.RequestData, N: n})
	if r.life == life {
		r.piece = nil
	}
}

// Leave implements [datagram.Elsewhere].
func (h *datagrams) Leave(s *datagram.Session) {
	r, _ := s.Link.(*request)
	s.Link = nil
	if r == nil {
		return
	}
	w := (*Worker)(h)
	r.session = nil
	if r.x.Tunnel() {
		w.step(r, &exchange.Event{Kind: exchange.RequestEnd})
	} else {
		w.step(r, &exchange.Event{Kind: exchange.ClientGone})
	}
}

// toSession carries out what concerns the client of a session.
func (w *Worker) toSession(r *request, act *exchange.Action) {
	switch act.Kind {
	case exchange.ReplyHead:
		a := &r.attempts[act.Ref.Slot]
		w.takeInBand(r, a)
		if r.session != nil {
			r.session.Via = a.endpoint
		}
		w.tunnel(r, a)
	case exchange.ReplyData:
		pieceFrom := r.reply - int64(len(r.replyPiece))
		in := r.replyPiece[act.From-pieceFrom:][:act.N] // all is taken at once: nothing is ever kept
		for len(in) > 0 && r.session != nil {
			n, out, whole, err := r.capsules.Next(in)
			if err != nil {
				w.stop(r, exchange.UpstreamProtocol, 0)
				return
			}
			if in = in[n:]; whole {
				r.session.Deliver(out)
			}
		}
	case exchange.ReplyEnd: // either side's end is that of both
		if !r.x.RequestDone() {
			w.step(r, &exchange.Event{Kind: exchange.RequestEnd})
		}
	}
}

// left tells a session that its exchange is over.
func (w *Worker) left(r *request) {
	if s := r.session; s != nil {
		r.session, s.Link = nil, nil
		s.Broken()
	}
}

var (
	_ loop.Source        = (*packets)(nil)
	_ datagram.Elsewhere = (*datagrams)(nil)
)
