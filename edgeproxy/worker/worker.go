// Package worker is one event loop's share of the proxy: its client connections,
// its connections to backends, the requests between them and its counters. It
// carries out what exchanges decide, with codecs and sockets. Everything here runs
// on the loop's goroutine; nothing is shared with another worker but the handles
// of package upstream and the counters of [Shared].
package worker

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tap"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// Times are the waits that no route sets.
type Times struct {
	// Head bounds the time from a request's first byte to its whole head.
	Head time.Duration
	// Body and Stall are the windows in which a client must send enough of a body it
	// began, and take enough of its response, where no policy says otherwise.
	Body, Stall time.Duration
	// KeepAlive is how long a client's connection may rest.
	KeepAlive time.Duration
	// Linger is how long a connection that is being closed still reads, so that
	// the client gets the last response before a reset.
	Linger time.Duration
	// PoolIdle is how long a backend's connection may rest.
	PoolIdle time.Duration
}

// DefaultTimes are in force unless a test says otherwise.
var DefaultTimes = Times{
	Head: 10 * time.Second, Body: mesh.DefaultSlowGrace, Stall: mesh.DefaultSlowGrace, KeepAlive: time.Minute,
	Linger: 2 * time.Second, PoolIdle: 30 * time.Second,
}

// Bounds that no configuration sets.
const (
	// waitLimit bounds the attempts that wait for one connection to come about.
	waitLimit = 100
	// poolLimit bounds the resting connections to one endpoint from one loop.
	poolLimit = 256
	// burst bounds the requests of one connection in one turn.
	burst = 16
	// maxReplay is how much of a request's body is kept for another attempt.
	maxReplay = 64 << 10
)

// Shared is what the workers of a server have in common.
type Shared struct {
	Watermark int
	Times     Times
	// MaxConnections and MaxListenerConnections bound client connections.
	MaxConnections, MaxListenerConnections int
	// ClientMaxAge and ClientMaxRequests bound the life of a client's connection.
	ClientMaxAge      time.Duration
	ClientMaxRequests int
	// Registry gives callers their places.
	Registry *upstream.Registry
	// Unrouted counts requests that reached no service.
	Unrouted *upstream.Service
	// Connections counts client connections now.
	Connections upstream.Gauge

	// Memory says how near the process is to its limit.
	Memory Memory
	// Handshakes are those of TLS.
	Handshakes *tlsio.Handshakes
	// AccessLog may be nil.
	AccessLog *accesslog.Log
	// Tap is told of requests that end.
	Tap *tap.Tap
	// Handed are UDP sessions of the process before this one, by the place of their
	// socket among those of their listener, until the listener serves.
	Handed map[*Listener]map[int][]datagram.Handed
	// ConnectionIDs are those of QUIC connections that pass.
	ConnectionIDs *datagram.IDs

	Workers []*Worker
}

// Listener is one socket's state, the same for all workers.
type Listener struct {
	Key      view.SocketKey
	Listener *loop.Listener
	// Port is the bound one as text, for x-forwarded-port.
	Port        []byte
	Connections upstream.Gauge
	// Full and ProxyFull count connections refused over the listener's limit and
	// over that of all.
	Full, ProxyFull atomic.Uint64
}

// Counters are one worker's, readable from any goroutine.
type Counters struct {
	Accepted, Refused, Received, Sent atomic.Uint64
	Connects, ConnectFailures, Reused atomic.Uint64
	Retries                           atomic.Uint64
	Open, Tunnels                     atomic.Int64
	TunnelsTotal                      atomic.Uint64
	Mirrored, MirrorsDropped          atomic.Uint64
	// SlowBodies and SlowReaders count connections closed for them.
	SlowBodies, SlowReaders atomic.Uint64
	_                       [64]byte
}

// State is what a worker serves from: a view and the routing of each socket in it.
type State struct {
	View      *view.View
	Listeners []*Listener
	Sockets   map[*Listener]*view.Socket
	// Unbound says of each socket of the view that has no listener why.
	Unbound []string
}

// Worker is one loop's share.
type Worker struct {
	Loop     *loop.Loop
	Counters Counters

	id        int
	shared    *Shared
	state     *State
	log       *accesslog.Ring // nil without an access log
	tap       *tap.Loop
	entry     accesslog.Entry
	judge     authz.Judge
	question  authz.Request // that the judge has
	admission admission
	acceptors map[*Listener]*loop.Acceptor
	draining  bool
	// leaving is how long resting connections are kept while another process has
	// taken the sockets over; 0 before.
	leaving time.Duration
	// relieving says that makeRoom is to run.
	relieving bool
	// madeWay is the turn in which connections were last given up for a new one.
	madeWay int64
	accepts uint64
	webText []byte // a piece of gRPC-Web, decoded or encoded
	rnd     rand.PCG

	downs   *down // all client connections with a codec
	leavers departures
	streams *l4.Engine
	secure  tlsio.Room
	// datagrams are the UDP sessions, packets the sockets that this loop reads.
	datagrams *datagram.Engine
	packets   map[*Listener][]*datagram.Socket
	pool      *upstream.Pool[*up]
	sweep     loop.Timer
	budget    limit.RetryBudget
	speaks    protocols
	// restCodecs are those of connections at rest, for the next that needs one.
	restCodecs [protocolCount][]serverCodec
	freeDown   *down
	wider      int // see mostWider
	freeUp     [protocolCount]*up
	freeReq    *request

	actions []exchange.Action
	fields  []stream.Field // of the message being sent
	scratch []byte         // of encodings larger than a slab
	tried   []int
	found   *view.Service // by the request that begins
	choice  view.Choice
	cookie  []byte
	path    []byte // for normalised paths
	query   route.Request
	url     []byte // of redirects and rewrites
	passing function.Request
	address [maxAddress]byte
	copies  *request // all mirrors under way, and what external functions are asked
	copying int      // the number of mirrors
	// handing says that copies are given a piece of a body.
	handing    bool
	freeAsking *asking
	load       []byte // for in-band reports
	// loadEnds are where each of several reports in load ends.
	loadEnds    []int
	downEv      stream.Event
	upEv        stream.Event
	out         stream.Event
	msg         stream.Message
	capsule     []byte      // of a datagram that goes to another site, or came from one
	received    *loop.Batch // of sockets whose sessions other sites' clients have
	freePackets *packets
	agreement   stream.Message // of an endpoint that nobody asks
}

// New makes the worker with the index id. It serves once its loop runs and
// [Worker.Serve] was called on it.
func New(id int, shared *Shared) (*Worker, error) {
	l, err := loop.New()
	if err != nil {
		return nil, err
	}
	w := &Worker{
		Loop: l, id: id, shared: shared,
		acceptors: map[*Listener]*loop.Acceptor{},
		packets:   map[*Listener][]*datagram.Socket{},
		pool:      upstream.NewPool[*up](id),
		actions:   make([]exchange.Action, 0, 64),
		fields:    make([]stream.Field, 0, 128),
		tried:     make([]int, 0, 8),
		choice:    view.Choice{Loop: id},
		budget:    limit.RetryBudget{Ratio: 0.2, MinPerSecond: 10},
		speaks:    newProtocols(),
	}
	if shared.AccessLog != nil {
		w.log = shared.AccessLog.Ring(id)
	}
	w.tap = shared.Tap.Loop(id)
	w.rnd.Seed(rand.Uint64(), rand.Uint64())
	w.sweep.Owner = (*sweeper)(w)
	w.secure.Loop = l
	w.streams = l4.NewEngine(l, (*streams)(w), shared.Times.Head)
	w.datagrams = datagram.NewEngine(l, (*datagrams)(w))
	l.OnShort(w.makeRoom)
	return w, nil
}

// Serve swaps to a new state: connections of listeners that are gone, or that
// serve others now, are drained. It runs on the loop.
func (w *Worker) Serve(s *State) {
	w.state = s
	for d := w.downs; d != nil; d = d.next {
		switch socket := s.socketOf(d.listener, d.socket); {
		case socket == nil && d.socket != nil && s.Sockets[d.listener] != nil:
			d.drained = true // its address is no service's any more
			d.depart()
		case socket == nil || d.socket == nil: // serves out what it has
		case socket.Protocol != d.socket.Protocol || d.asksElse(socket):
			d.drained = true // a client of one kind is not trusted as the other
			d.depart()
		default:
			d.socket = socket
		}
		d.caller = 0 // another workload may have the address now
	}
	kept := map[*Listener]bool{}
	for _, l := range s.Listeners {
		kept[l] = true
	}
	for l, a := range w.acceptors {
		if !kept[l] {
			a.Stop()
			delete(w.acceptors, l)
			w.drain(l)
		}
	}
	for l := range w.packets {
		if !kept[l] {
			w.stopPackets(l)
		}
	}
	w.datagrams.Refresh()
}

// Accept accepts from the listeners of the state. It runs on the loop, once every
// worker serves the state: each hands connections to any other.
func (w *Worker) Accept() error {
	for _, l := range w.state.Listeners {
		if w.acceptors[l] != nil || w.packets[l] != nil || w.draining || w.leaving > 0 {
			continue
		}
		if l.Listener.Packets() {
			if err := w.listenPackets(l); err != nil {
				return err
			}
			continue
		}
		a, err := w.Loop.Accept(l.Listener, func(fd int, from netip.AddrPort) { w.accepted(l, fd, from) })
		if err != nil {
			return err
		}
		w.acceptors[l] = a
	}
	return nil
}

// Drain stops accepting, closes resting connections and lets the others end with
// their next response. It runs on the loop.
func (w *Worker) Drain() {
	w.draining = true
	for l, a := range w.acceptors {
		a.Stop()
		delete(w.acceptors, l)
	}
	w.drain(nil)
	w.datagrams.Drain(w.shared.Times.Linger)
}

// Leave stops accepting, as another process goes on with the sockets. No client
// sees its connection end without a word: the next response says that it is the
// last, and only a connection that rests for longer than rest is closed. It runs
// on the loop.
func (w *Worker) Leave(rest time.Duration) {
	w.leaving = rest
	for l, a := range w.acceptors {
		a.Finish()
		delete(w.acceptors, l)
	}
	for d := w.downs; d != nil; d = d.next {
		d.leave()
	}
	for _, sockets := range w.packets {
		for _, k := range sockets {
			k.Stop()
		}
	}
	w.datagrams.Drain(rest)
}

// drain drains the connections of a listener, nil for all.
func (w *Worker) drain(l *Listener) {
	for d := w.downs; d != nil; d = d.next {
		if l == nil || d.listener == l {
			d.drained = true
			d.depart()
		}
	}
}

// Close ends every connection at once. It runs on the loop.
func (w *Worker) Close() {
	w.Drain()
	for w.downs != nil {
		w.downs.lost()
	}
	w.streams.Close()
	w.datagrams.Close()
	clear(w.packets)
	if w.received != nil {
		w.received.Free()
		w.received = nil
	}
	for w.copies != nil {
		w.stop(w.copies, exchange.ClientDisconnected, 0)
	}
	for {
		u, ok := w.pool.Expired(1 << 62)
		if !ok {
			return
		}
		u.close()
	}
}

// accepted hands a new connection to the least busy worker.
func (w *Worker) accepted(l *Listener, fd int, from netip.AddrPort) {
	if w.full() && !w.makeWay() {
		w.shared.Memory.Connections.Add(1)
		w.refuse(fd)
		return
	}
	if int(l.Connections.Add(1)) > w.shared.MaxListenerConnections {
		l.Connections.Add(-1)
		l.Full.Add(1)
		w.refuse(fd)
		return
	}
	if int(w.shared.Connections.Add(1)) > w.shared.MaxConnections {
		l.Connections.Add(-1)
		w.shared.Connections.Add(-1)
		l.ProxyFull.Add(1)
		w.refuse(fd)
		return
	}
	least := w
	for _, o := range w.shared.Workers {
		if o.Counters.Open.Load() < least.Counters.Open.Load() {
			least = o
		}
	}
	least.Counters.Open.Add(1)
	least.Loop.Spend(SocketBytes)
	if least == w {
		w.adopt(l, fd, from)
		return
	}
	least.Loop.Post(loop.Func(func() { least.adopt(l, fd, from) }))
}

// refuse resets a connection over a limit: an ordinary end would look like an
// answer of no bytes.
func (w *Worker) refuse(fd int) {
	w.Counters.Refused.Add(1)
	w.Loop.CloseSocket(fd, true)
}

// random returns 64 fresh bits.
func (w *Worker) random() uint64 { return w.rnd.Uint64() }

// sweeper closes connections to backends that rested too long.
type sweeper Worker

func (s *sweeper) Expire(t *loop.Timer, now int64) {
	w := (*Worker)(s)
	for {
		u, ok := w.pool.Expired(now - int64(w.shared.Times.PoolIdle))
		if !ok {
			break
		}
		u.retire()
	}
	if w.pool.Len() > 0 {
		w.Loop.Wheel.Set(t, now+int64(time.Second))
	}
}

// encode appends an event's bytes to a connection's queue. room is at least what
// they take, else they are copied once more.
func (w *Worker) encode(c *loop.Conn, codec stream.Codec, ev *stream.Event, room int) error {
	dst := c.Out.Room(&w.Loop.Slabs, room)
	slab := dst != nil
	if !slab {
		dst = w.scratch[:0]
	}
	out, err := codec.Encode(dst, ev)
	if err != nil {
		return err
	}
	if slab && cap(out) == cap(dst) {
		c.Out.Commit(len(out))
	} else {
		c.Out.Append(&w.Loop.Slabs, out)
		w.scratch = out[:0]
	}
	c.Dirty()
	return nil
}

// encodeData encodes a piece of a body in parts that fit slabs.
func (w *Worker) encodeData(c *loop.Conn, codec stream.Codec, id stream.ID, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), dataPart)
		if spare := c.Out.Spare() - framing; spare >= leastPart {
			n = min(n, spare) // else every other slab would be all but empty
		}
		w.out = stream.Event{Kind: stream.Data, Stream: id, Data: p[:n]}
		if err := w.encode(c, codec, &w.out, n+framing); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

const (
	// framing is more than any codec puts around a piece of data or an end.
	framing  = 64
	dataPart = 16<<10 - framing
	// leastPart is the least that is put into the rest of a slab by itself.
	leastPart = 1 << 10
	// headRoom is more than any codec adds to a head's fields.
	headRoom = 320
)

func roomFor(m *stream.Message) int {
	n := headRoom + len(m.Method) + len(m.Path) + len(m.Authority)
	return n + roomForFields(m.Fields)
}

func roomForFields(fields []stream.Field) int {
	n := framing
	for i := range fields {
		n += len(fields[i].Name) + len(fields[i].Value) + 4
	}
	return n
}
