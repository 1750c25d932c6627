package worker

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/proxyproto"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// A connection that another site serves is an exchange: a CONNECT (RFC 9113 8.5) on one
// of the connections to that site's proxy, whose stream carries the client's bytes. The
// proxy there judges it by who the peer is and by the client that the peer tells of, and
// relays to an endpoint of its own: what came in on an east-west listener is served at
// home or not at all. Where a site refuses or cannot be reached the next place is tried,
// home among them, with what the client has sent so far.

var (
	methodConnect = []byte("CONNECT")
	tunnelTCP     = []byte(stream.TunnelTCP)
)

// place says where a whole connection goes: home, or as index of a remote.
func (h *streams) place(svc *view.Service, tried upstream.Tried) int {
	w := (*Worker)(h)
	home := !tried.Has(upstream.Home)
	switch {
	case svc.Gate != nil:
		return svc.Gate.Pick(0, w.Loop.Now(), svc.Busy(), w.random(), tried)
	case home && svc.Full(0, svc.Busy()):
		return upstream.Shed
	case home:
		return upstream.Home
	}
	for i := range svc.Remotes {
		if e := svc.Remotes[i].Endpoint; !tried.Has(i) && !e.Meter.Spent() {
			return i
		}
	}
	return upstream.None
}

// Take implements [l4.Host]: it begins the exchange with another site.
func (h *streams) Take(s *l4.Session, fd int, held *loop.List) {
	w := (*Worker)(h)
	if s.Service == nil {
		w.takeSecure(s, fd, held)
		return
	}
	l := s.Owner.(*Listener)
	d := w.newDown(l, s.From)
	d.plain, d.phase = true, serving
	d.id, d.born = w.streamID(s), s.Born
	d.codec = w.takeCodec(w.speaks.plain)
	svc := w.state.View.Services[s.Service.Key]
	r := w.newRequest(d, onlyStream)
	r.relays, r.counted, r.service, r.idle, r.start = true, true, s.Service, s.Idle, s.Born
	r.preset, r.port = s.Place, s.Port
	r.tries = copy(r.tried[:], s.Tried[:s.Tries])
	r.log.route = s.Route
	r.head = stream.Message{Method: methodConnect, Authority: r.store.copy(w, svc.TunnelTo(s.Port)), Length: stream.LengthUnknown}
	var text [maxAddress + len("[]:65535")]byte
	r.clientText = r.store.copy(w, s.From.AppendTo(text[:0]))
	if err := d.conn.Open(w.Loop, fd, d, true); err != nil {
		held.Free(&w.Loop.Slabs)
		w.countSession(r, exchange.Overload)
		d.requests = nil
		w.freeRequest(r)
		d.forget()
		d.Recycle()
		return
	}
	d.conn.Precede(held)
	w.budget.Request(w.Loop.Now())
	r.x.Begin(exchange.Config{Retries: max(0, s.Retries-s.Tries), MaxReplay: maxReplay, ClientCredit: w.shared.Watermark})
	w.found = svc
	w.step(r, &exchange.Event{Kind: exchange.Request, More: true})
	w.found = nil
}

// refusal is what another site's answer to a CONNECT says that is no agreement.
func refusal(status int) exchange.Flag {
	switch status {
	case 403:
		return exchange.Denied
	case 404:
		return exchange.NoRoute
	case 503:
		return exchange.NoHealthy
	}
	return exchange.UpstreamProtocol
}

// sendConnect asks another site for a whole connection.
func (w *Worker) sendConnect(r *request, a *attempt) {
	w.msg = stream.Message{Method: methodConnect, Authority: r.head.Authority, Length: stream.LengthUnknown}
	w.msg.Fields = append(w.fields[:0],
		stream.Field{Name: fieldSource, Value: w.state.View.Site}, stream.Field{Name: fieldClient, Value: r.clientText})
	if r.udp {
		w.msg.Upgrade, w.msg.Path, w.msg.Authority, w.msg.Scheme = tunnelUDP, r.head.Path, a.endpoint.Authority, valueHTTP
		if a.clients != nil {
			w.msg.Scheme = valueHTTPS
		}
		w.msg.Fields = append(w.msg.Fields, capsulesField)
	}
	w.fields = w.msg.Fields[:0]
	a.up.watch(a.silence)
	w.out = stream.Event{Kind: stream.Head, Stream: a.stream, Head: &w.msg}
	room := roomFor(&w.msg)
	a.countHead(room)
	a.send(&w.out, room)
}

// greets begins a connection to an endpoint at home.
func (w *Worker) greets(r *request, a *attempt) {
	a.how, a.status = upstream.Answered, 200
	r.service.Cells[w.id].Arrivals.Add(1)
	if a.sendProxy != 0 && a.packets == nil {
		w.tellClient(r, a)
	}
}

// joins makes such a connection the tunnel: there nobody is asked.
func (w *Worker) joins(r *request, a *attempt) {
	w.agreement = stream.Message{Status: 200, Upgrade: tunnelTCP, Length: stream.LengthUnknown}
	if r.udp {
		w.agreement.Upgrade, w.agreement.Fields = tunnelUDP, capsulesFields
	}
	r.replyHead = &w.agreement
	w.step(r, &exchange.Event{Kind: exchange.Response, Ref: a.ref, Status: 200, Switch: true})
	r.replyHead = nil
}

// tellClient writes the PROXY header that the endpoint is to get first.
func (w *Worker) tellClient(r *request, a *attempt) {
	from, to := r.d.from, w.Loop.LocalAddr(r.d.conn.FD())
	if r.inbound {
		// Where the client connected to is not known here: the listener of its site.
		if from = r.behind; !from.IsValid() {
			to = netip.AddrPort{}
		}
	}
	out := &a.up.conn.Out
	b := out.Room(&w.Loop.Slabs, proxyproto.MaxWritten)
	out.Commit(len(proxyproto.Append(b, a.sendProxy, from, to)))
	a.up.conn.Dirty()
}

// connectFrom finds the service of a CONNECT that came on an east-west listener, nil where
// there is none or it may not be asked for in this way.
func (w *Worker) connectFrom(r *request, head *stream.Message) *view.Service {
	v := w.state.View
	r.inbound, r.relays = true, true
	r.head = stream.Message{Method: r.store.copy(w, head.Method), Authority: r.store.copy(w, head.Authority), Length: head.Length}
	r.log.authority = r.head.Authority
	_, source := w.inbound(r, head)
	r.source, r.from = v.Sites[string(source)], r.store.copy(w, source)
	r.clientText, r.behind = splitClient(r.clientText)
	name := head.Authority
	if r.udp = len(head.Upgrade) > 0; r.udp {
		name, r.head.Path = head.Path, r.store.copy(w, head.Path)
		r.log.path = r.head.Path
	}
	t, ok := v.Tunnel(name)
	if w.inTheClear(r, t.Service, t.Port) {
		return nil
	}
	w.admission.judged, w.admission.port = true, t.Port
	if !ok {
		r.none = exchange.NoRoute
	}
	return t.Service
}

// splitClient takes a client's address and port apart, as another site's proxy tells
// them: the text of the address, and both where they are valid.
func splitClient(text []byte) ([]byte, netip.AddrPort) {
	i := bytes.LastIndexByte(text, ':')
	if i < 0 {
		return text, netip.AddrPort{}
	}
	host, digits := text[:i], text[i+1:]
	if n := len(host); n >= 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	addr, ok := view.ParseAddress(host)
	port, err := strconv.ParseUint(string(digits), 10, 16)
	if !ok || err != nil {
		return text, netip.AddrPort{}
	}
	return host, netip.AddrPortFrom(addr.Unmap(), uint16(port))
}

// takes counts a connection of another site's client among those of the listener and of
// the proxy, and reports whether there is room for it.
func (w *Worker) takes(r *request, s *view.Service) bool {
	l := r.d.listener
	if int(l.Connections.Add(1)) > w.shared.MaxListenerConnections {
		l.Connections.Add(-1)
		l.Full.Add(1)
		return false
	}
	if int(w.shared.Connections.Add(1)) > w.shared.MaxConnections {
		l.Connections.Add(-1)
		w.shared.Connections.Add(-1)
		l.ProxyFull.Add(1)
		return false
	}
	w.Loop.Spend(SocketBytes)
	r.service, r.counted, r.holds = s.Service, true, l
	if r.udp {
		s.Cells[w.id].SessionsOpen.Add(1)
	} else {
		s.Cells[w.id].StreamsOpen.Add(1)
	}
	return true
}

// countSession closes the books of a whole connection that was an exchange.
func (w *Worker) countSession(r *request, f exchange.Flag) {
	s := r.service
	if s == nil {
		s = w.shared.Unrouted
	}
	c := &s.Cells[w.id]
	ended, open := &c.Streams[f], &c.StreamsOpen
	if r.udp {
		if f == exchange.IdleTimeout { // as every session ends
			f = exchange.OK
		}
		ended, open = &c.Sessions[f], &c.SessionsOpen
	}
	ended.Add(1)
	if r.counted {
		open.Add(-1)
		r.counted = false
	}
	if r.holds != nil {
		r.holds.Connections.Add(-1)
		w.shared.Connections.Add(-1)
		r.holds = nil
	}
}

// carried counts bytes of a whole connection that was an exchange.
func (w *Worker) carried(r *request, fromClient, fromBackend int) {
	if r.relays && !r.udp && r.service != nil {
		c := &r.service.Cells[w.id]
		c.FromClients.Add(uint64(fromClient))
		c.FromBackend.Add(uint64(fromBackend))
	}
}
