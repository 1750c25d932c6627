package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
)

// Connection is what a client's connection looks like at one moment. Times are
// seconds before it.
type Connection struct {
	ID      uint64  `json:"id"`
	Loop    int     `json:"loop"`
	Client  string  `json:"client"`
	Gateway string  `json:"gateway"`
	State   string  `json:"state"` // handshake, resting, head, serving, tunnel, closing; stream where it is passed on whole, datagrams where it is a UDP session
	Age     float64 `json:"ageSeconds"`
	// Left is how long it may stay as it is before a timeout looks at it.
	Left float64 `json:"timeoutInSeconds"`
	// Unsent bytes wait for the client, Unread ones for this proxy to take them.
	Unsent int  `json:"unsentBytes"`
	Unread int  `json:"unreadBytes"`
	Paused bool `json:"paused"` // it is not read, because its backend is slower
	// Requests are those under way; only asked for one connection by id.
	Requests []Request `json:"requests,omitempty"`
}

// Request is a request under way.
type Request struct {
	Method    string    `json:"method"`
	Authority string    `json:"authority"`
	Path      string    `json:"path"`
	Service   string    `json:"service,omitempty"`
	Route     string    `json:"route,omitempty"`
	Age       float64   `json:"ageSeconds"`
	Received  int64     `json:"receivedBytes"` // of its body
	Whole     bool      `json:"received"`      // its body is complete
	Sent      int64     `json:"sentBytes"`     // of the response's body
	Answered  bool      `json:"answered"`      // the response's head is on its way
	Kept      int       `json:"keptBytes"`     // of both bodies, in this proxy
	Attempts  []Attempt `json:"attempts"`
}

// Attempt is one attempt under way.
type Attempt struct {
	Endpoint string `json:"endpoint"`
	Site     string `json:"site,omitempty"` // empty at home
	State    string `json:"state"`          // connecting, sent or waiting
	Unsent   int    `json:"unsentBytes"`
}

// phaseNames are the states by phase.
var phaseNames = [...]string{resting: "resting", heading: "head", serving: "serving", lingering: "closing", tunnelling: "tunnel", securing: "handshake"}

// longestText bounds what is told of a client's own text.
const longestText = 256

// Inspect appends the newest connections, at most most of them, to dst. It runs
// on the loop.
func (w *Worker) Inspect(dst []Connection, most int) []Connection {
	n := 0
	for d := w.downs; d != nil && n < most; d = d.next {
		dst = append(dst, d.inspect())
		n++
	}
	w.streams.Each(func(s *l4.Session) {
		if n++; n <= most {
			dst = append(dst, w.inspectStream(s))
		}
	})
	w.datagrams.Each(func(s *datagram.Session) {
		if n++; n <= most {
			dst = append(dst, w.inspectSession(s))
		}
	})
	return dst
}

// InspectOne returns the connection with what it carries, false when there is
// none of that id. It runs on the loop.
func (w *Worker) InspectOne(id uint64) (c Connection, found bool) {
	for d := w.downs; d != nil; d = d.next {
		if d.id != id {
			continue
		}
		c = d.inspect()
		for r := d.requests; r != nil; r = r.next {
			c.Requests = append(c.Requests, r.inspect())
		}
		return c, true
	}
	w.streams.Each(func(s *l4.Session) {
		if w.streamID(s) == id {
			c, found = w.inspectStream(s), true
			c.Requests = []Request{w.inspectBytes(s)}
		}
	})
	w.datagrams.Each(func(s *datagram.Session) {
		if w.sessionID(s) == id {
			c, found = w.inspectSession(s), true
			c.Requests = []Request{w.inspectDatagrams(s)}
		}
	})
	return c, found
}

// inspectStream looks at a connection that is passed on whole.
func (w *Worker) inspectStream(s *l4.Session) Connection {
	c := Connection{ID: w.streamID(s), Loop: w.id, Client: s.From.String(), State: "stream", Age: seconds(w.Loop.Now() - s.Born)}
	if socket := w.state.Sockets[s.Owner.(*Listener)]; socket != nil {
		c.Gateway = socket.Gateway
	}
	return c
}

// inspectBytes is what such a connection carries, in the words of a request.
func (w *Worker) inspectBytes(s *l4.Session) Request {
	q := Request{Age: seconds(w.Loop.Now() - s.Born), Received: s.FromClient, Sent: s.FromBackend, Attempts: []Attempt{}}
	if s.Service != nil {
		q.Service = string(s.Service.Key)
	}
	switch {
	case s.Endpoint != nil:
		q.Attempts = append(q.Attempts, Attempt{Endpoint: s.Endpoint.Addr.String(), State: "sent"})
	case s.Direct:
		q.Attempts = append(q.Attempts, Attempt{Endpoint: s.Original.String(), State: "sent"})
	}
	return q
}

func (d *down) inspect() Connection {
	now := d.w.Loop.Now()
	c := Connection{
		ID: d.id, Loop: d.w.id, Client: d.from.String(), Gateway: d.gateway(), State: phaseNames[d.phase],
		Age: seconds(now - d.born), Left: seconds(d.deadline - now),
		Unsent: d.conn.Unsent(), Unread: d.conn.Left(), Paused: d.phase == serving && d.conn.Paused() && !d.conn.Closed(),
	}
	if r := d.requests; r != nil && r.x.RequestDone() {
		c.Paused = false // nothing is to be read before the response is over
	}
	return c
}

func (r *request) inspect() Request {
	q := Request{
		Method: text(r.head.Method), Authority: text(r.log.authority), Path: text(r.log.path), Route: r.log.route,
		Age: seconds(r.w.Loop.Now() - r.start), Received: r.received, Whole: r.x.RequestDone(),
		Sent: r.log.sent, Answered: r.log.firstByte > 0, Kept: r.kept.Len() + r.replyKept.Len(), Attempts: []Attempt{},
	}
	if r.service != nil {
		q.Service = string(r.service.Key)
	}
	for i := range r.attempts {
		a := &r.attempts[i]
		if !r.x.Alive(a.ref) || a.endpoint == nil {
			continue
		}
		at := Attempt{Endpoint: a.endpoint.Addr.String(), Site: a.endpoint.Site, State: "waiting"}
		switch {
		case a.sent:
			at.State = "sent"
		case a.up != nil && a.up.dialing:
			at.State = "connecting"
		}
		if a.up != nil {
			at.Unsent = a.up.conn.Unsent()
		}
		q.Attempts = append(q.Attempts, at)
	}
	return q
}

func seconds(ns int64) float64 { return time.Duration(ns).Round(time.Millisecond).Seconds() }

func text(b []byte) string { return string(b[:min(len(b), longestText)]) }

// nextID numbers this loop's connections; no other loop's have the same.
func (w *Worker) nextID() uint64 {
	w.accepts++
	return w.numbered(w.accepts)
}

// streamID numbers a connection that is passed on whole.
func (w *Worker) streamID(s *l4.Session) uint64 { return w.numbered(s.Seq) + 1 }

// sessionID numbers a UDP session, beyond all connections.
func (w *Worker) sessionID(s *datagram.Session) uint64 { return 1<<62 + w.numbered(s.Seq) }

// numbered is the nth number of this loop, even; the next one is this loop's too.
func (w *Worker) numbered(n uint64) uint64 {
	return 2 * (n*uint64(len(w.shared.Workers)) + uint64(w.id))
}
