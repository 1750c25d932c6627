package exchange

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/stream/muxtest"
)

// The tests of this file put exchanges between codecs that carry many streams on
// one connection, with flow control per stream: what HTTP/2 will need works
// through the same events and actions as HTTP/1.

// pipe is one connection in memory: two codecs and the bytes on the way.
type pipe struct {
	client, server     *muxtest.Codec
	toServer, toClient []byte
	dead               bool
}

func newPipe() *pipe { return &pipe{client: muxtest.NewClient(), server: muxtest.NewServer()} }

func encode(t *testing.T, c *muxtest.Codec, wire *[]byte, ev *stream.Event) {
	out, err := c.Encode(*wire, ev)
	if err != nil {
		t.Fatalf("encode %d on stream %d: %v", ev.Kind, ev.Stream, err)
	}
	*wire = out
}

// deliver decodes up to n bytes of a wire.
func deliver(t *testing.T, c *muxtest.Codec, wire *[]byte, n int, handle func(ev *stream.Event)) {
	in := (*wire)[:min(n, len(*wire))]
	used := 0
	for {
		var ev stream.Event
		k, err := c.Decode(in[used:], &ev)
		if err != nil {
			t.Fatal(err)
		}
		used += k
		if ev.Kind != stream.None {
			handle(&ev)
		} else if k == 0 {
			break
		}
	}
	*wire = append([]byte(nil), (*wire)[used:]...)
}

// muxRequest is an exchange and what its driver holds for it.
type muxRequest struct {
	x                Exchange
	id               stream.ID
	conn             [MaxAttempts]*pipe
	stream           [MaxAttempts]stream.ID
	kept, replyKept  []byte
	keptAt, replyAt  int64
	got, replied     int64
	piece            []byte
	status           int
	finished, failed int
	starting         []Ref
}

type muxWorld struct {
	t        *testing.T
	r        *rand.Rand
	client   *pipe
	backends []*pipe
	requests map[stream.ID]*muxRequest
	served   map[*pipe]map[stream.ID]*muxServed
	users    map[stream.ID]*muxUser
	kept     int // the most bytes any exchange kept
}

// muxUser is a client's side of a stream, muxServed a backend's: it echoes.
type muxUser struct {
	body, got    []byte
	sent, credit int
	unread       int
	status       int
	ended, reset bool
	finishedSend bool
}

type muxServed struct {
	held         []byte
	credit       int
	headed, done bool
	unread       int
}

func (w *muxWorld) step(r *muxRequest, ev *Event, piece []byte) {
	r.piece = piece
	for _, a := range r.x.Step(ev, nil) {
		w.do(r, a)
	}
	r.piece = nil
	w.kept = max(w.kept, len(r.kept), len(r.replyKept))
}

// slice finds n bytes from an offset in what was kept, the piece at hand (whose
// end is at offset end), or both.
func slice(kept []byte, keptAt int64, piece []byte, end, from int64, n int) []byte {
	var out []byte
	pieceAt := end - int64(len(piece))
	for i := from; i < from+int64(n); i++ {
		if i >= pieceAt {
			return append(out, piece[i-pieceAt:from+int64(n)-pieceAt]...)
		}
		out = append(out, kept[i-keptAt])
	}
	return out
}

func (w *muxWorld) do(r *muxRequest, a Action) {
	t := w.t
	up := func(ev stream.Event) {
		if p := r.conn[a.Ref.Slot]; p != nil && !p.dead {
			ev.Stream = r.stream[a.Ref.Slot]
			encode(t, p.client, &p.toServer, &ev)
		}
	}
	down := func(ev stream.Event) {
		ev.Stream = r.id
		encode(t, w.client.server, &w.client.toClient, &ev)
	}
	switch a.Kind {
	case Start:
		r.starting = append(r.starting, a.Ref) // answered later: a suspension
	case SendHead:
		up(stream.Event{Kind: stream.Head, Head: &stream.Message{Method: []byte("PUT"), Path: []byte("/"), Length: -1}})
	case SendData:
		up(stream.Event{Kind: stream.Data, Data: slice(r.kept, r.keptAt, r.piece, r.got, a.From, a.N)})
	case SendEnd:
		up(stream.Event{Kind: stream.End})
	case Keep:
		if len(r.kept) == 0 {
			r.keptAt = a.From
		}
		r.kept = append(r.kept, slice(nil, 0, r.piece, r.got, a.From, a.N)...)
	case Forget:
		n := min(int(a.From-r.keptAt), len(r.kept))
		r.kept, r.keptAt = r.kept[n:], r.keptAt+int64(n)
	case CreditClient:
		down(stream.Event{Kind: stream.Window, N: a.N})
	case CreditBackend:
		up(stream.Event{Kind: stream.Window, N: a.N})
	case Release:
		if !a.OK {
			up(stream.Event{Kind: stream.Reset, Reason: stream.Cancelled})
		}
		r.conn[a.Ref.Slot] = nil
	case ReplyHead:
		r.status = a.Status
		down(stream.Event{Kind: stream.Head, Head: &stream.Message{Status: a.Status, Length: -1}})
	case ReplyData:
		down(stream.Event{Kind: stream.Data, Data: slice(r.replyKept, r.replyAt, r.piece, r.replied, a.From, a.N)})
	case KeepReply:
		if len(r.replyKept) == 0 {
			r.replyAt = a.From
		}
		r.replyKept = append(r.replyKept, slice(nil, 0, r.piece, r.replied, a.From, a.N)...)
	case ForgetReply:
		n := min(int(a.From-r.replyAt), len(r.replyKept))
		r.replyKept, r.replyAt = r.replyKept[n:], r.replyAt+int64(n)
	case ReplyEnd:
		down(stream.Event{Kind: stream.End})
	case Local:
		down(stream.Event{Kind: stream.Head, Head: &stream.Message{Status: a.Status}})
		down(stream.Event{Kind: stream.End})
	case Abort:
		down(stream.Event{Kind: stream.Reset, Reason: stream.Internal})
	case Finish:
		r.finished++
		if a.Flag != OK {
			r.failed++
		}
	}
}

// request starts a client's stream.
func (w *muxWorld) request(size int) {
	id, _ := w.client.client.Open()
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(w.r.Uint32())
	}
	w.users[id] = &muxUser{body: body, credit: muxtest.Window}
	encode(w.t, w.client.client, &w.client.toServer, &stream.Event{Kind: stream.Head, Stream: id,
		Head: &stream.Message{Method: []byte("PUT"), Path: []byte("/"), Length: -1}})
}

func (w *muxWorld) user(id stream.ID, u *muxUser) {
	if n := min(w.r.IntN(40<<10), u.credit, len(u.body)-u.sent); n > 0 && !u.reset {
		encode(w.t, w.client.client, &w.client.toServer, &stream.Event{Kind: stream.Data, Stream: id, Data: u.body[u.sent : u.sent+n]})
		u.sent += n
		u.credit -= n
	}
	if u.sent == len(u.body) && !u.finishedSend && !u.reset {
		u.finishedSend = true
		encode(w.t, w.client.client, &w.client.toServer, &stream.Event{Kind: stream.End, Stream: id})
	}
	if n := w.r.IntN(u.unread + 1); n > 0 && !u.ended {
		u.unread -= n
		encode(w.t, w.client.client, &w.client.toServer, &stream.Event{Kind: stream.Window, Stream: id, N: n})
	}
}

// atClient takes what the proxy sent to the client.
func (w *muxWorld) atClient(ev *stream.Event) {
	u := w.users[ev.Stream]
	switch ev.Kind {
	case stream.Head:
		u.status = ev.Head.Status
	case stream.Data:
		u.got = append(u.got, ev.Data...)
		u.unread += len(ev.Data)
	case stream.End:
		u.ended = true
	case stream.Reset:
		u.reset = true
	case stream.Window:
		u.credit += ev.N
	}
}

// atProxy takes what the client sent.
func (w *muxWorld) atProxy(ev *stream.Event) {
	r := w.requests[ev.Stream]
	switch ev.Kind {
	case stream.Head:
		r = &muxRequest{id: ev.Stream}
		w.requests[ev.Stream] = r
		r.x.Begin(Config{Retries: 2, Idempotent: true, MaxReplay: 32 << 10, ClientCredit: muxtest.Window})
		w.step(r, &Event{Kind: Request, More: true}, nil)
	case stream.Data:
		r.got += int64(len(ev.Data))
		w.step(r, &Event{Kind: RequestData, N: len(ev.Data)}, ev.Data)
	case stream.End:
		w.step(r, &Event{Kind: RequestEnd}, nil)
	case stream.Window:
		w.step(r, &Event{Kind: ClientCredit, N: ev.N}, nil)
	}
}

// fromBackend takes what a backend sent.
func (w *muxWorld) fromBackend(p *pipe, ev *stream.Event) {
	for _, r := range w.requests {
		for slot := range r.conn {
			if r.conn[slot] != p || r.stream[slot] != ev.Stream {
				continue
			}
			ref := r.x.attempts[slot].ref
			switch ev.Kind {
			case stream.Head:
				w.step(r, &Event{Kind: Response, Ref: ref, Status: ev.Head.Status}, nil)
			case stream.Data:
				r.replied += int64(len(ev.Data))
				w.step(r, &Event{Kind: ResponseData, Ref: ref, N: len(ev.Data)}, ev.Data)
			case stream.End:
				w.step(r, &Event{Kind: ResponseEnd, Ref: ref}, nil)
			case stream.Window:
				w.step(r, &Event{Kind: BackendCredit, Ref: ref, N: ev.N}, nil)
			}
			return
		}
	}
}

// atBackend takes what the proxy sent to a backend, and backend lets it echo.
func (w *muxWorld) atBackend(p *pipe, ev *stream.Event) {
	s := w.served[p][ev.Stream]
	switch ev.Kind {
	case stream.Head:
		w.served[p][ev.Stream] = &muxServed{credit: muxtest.Window}
	case stream.Data:
		s.held = append(s.held, ev.Data...)
		s.unread += len(ev.Data)
	case stream.End:
		s.done = true
	case stream.Window:
		s.credit += ev.N
	case stream.Reset:
		delete(w.served[p], ev.Stream)
	}
}

func (w *muxWorld) backend(p *pipe, id stream.ID, s *muxServed) {
	send := func(ev stream.Event) {
		ev.Stream = id
		encode(w.t, p.server, &p.toClient, &ev)
	}
	if !s.headed && (s.done || w.r.IntN(4) == 0) {
		s.headed = true
		send(stream.Event{Kind: stream.Head, Head: &stream.Message{Status: 200, Length: -1}})
	}
	if n := w.r.IntN(s.unread + 1); n > 0 && !s.done {
		s.unread -= n
		send(stream.Event{Kind: stream.Window, N: n})
	}
	if n := min(w.r.IntN(40<<10), s.credit, len(s.held)); n > 0 && s.headed {
		send(stream.Event{Kind: stream.Data, Data: s.held[:n]})
		s.held, s.credit = s.held[n:], s.credit-n
	}
	if s.headed && s.done && len(s.held) == 0 {
		send(stream.Event{Kind: stream.End})
		delete(w.served[p], id)
	}
}

// answer resumes a suspended attempt: with a stream, without a target, or failed.
func (w *muxWorld) answer(r *muxRequest) {
	ref := r.starting[0]
	r.starting = r.starting[1:]
	if w.r.IntN(10) == 0 {
		w.step(r, &Event{Kind: Failed, Ref: ref, Flag: ConnectFailure, Unsent: true}, nil)
		return
	}
	p := w.backends[w.r.IntN(len(w.backends))]
	if !r.x.Alive(ref) {
		return
	}
	r.conn[ref.Slot] = p
	r.stream[ref.Slot], _ = p.client.Open()
	w.step(r, &Event{Kind: Ready, Ref: ref, N: muxtest.Window, Reused: true}, nil)
}

// kill ends a backend's connection with all its streams.
func (w *muxWorld) kill(i int) {
	p := w.backends[i]
	p.dead = true
	w.backends[i] = newPipe()
	w.served[w.backends[i]] = map[stream.ID]*muxServed{}
	for _, r := range w.requests {
		for slot := range r.conn {
			if r.conn[slot] == p {
				w.step(r, &Event{Kind: Failed, Ref: r.x.attempts[slot].ref, Flag: UpstreamReset}, nil)
			}
		}
	}
}

func TestManyStreamsOnOneConnection(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &muxWorld{
				t: t, r: rand.New(rand.NewPCG(seed, 3)), client: newPipe(),
				requests: map[stream.ID]*muxRequest{}, users: map[stream.ID]*muxUser{},
				served: map[*pipe]map[stream.ID]*muxServed{},
			}
			for range 2 {
				p := newPipe()
				w.backends = append(w.backends, p)
				w.served[p] = map[stream.ID]*muxServed{}
			}
			kills := 0
			if seed%2 == 1 {
				kills = 5
			}
			for range 20 {
				w.request(w.r.IntN(1 << (2 + w.r.IntN(17))))
			}
			for step := 0; ; step++ {
				if step == 100_000 {
					t.Fatal("streams do not end: a credit was lost")
				}
				deliver(t, w.client.server, &w.client.toServer, w.r.IntN(1<<17), w.atProxy)
				deliver(t, w.client.client, &w.client.toClient, w.r.IntN(1<<17), w.atClient)
				for _, p := range w.backends {
					deliver(t, p.server, &p.toServer, w.r.IntN(1<<17), func(ev *stream.Event) { w.atBackend(p, ev) })
					deliver(t, p.client, &p.toClient, w.r.IntN(1<<17), func(ev *stream.Event) { w.fromBackend(p, ev) })
					for id, s := range w.served[p] {
						w.backend(p, id, s)
					}
				}
				open := 0
				for id, u := range w.users {
					w.user(id, u)
					if !u.ended && !u.reset {
						open++
					}
				}
				for _, r := range w.requests {
					if len(r.starting) > 0 && w.r.IntN(3) == 0 {
						w.answer(r)
					}
				}
				if kills > 0 && w.r.IntN(200) == 0 {
					kills--
					w.kill(w.r.IntN(len(w.backends)))
				}
				if open == 0 {
					break
				}
			}
			for id, u := range w.users {
				r := w.requests[id]
				if r.finished != 1 {
					t.Errorf("stream %d finished %d times", id, r.finished)
				}
				whole := u.ended && u.status == 200
				if whole != (r.failed == 0) || whole && !bytes.Equal(u.got, u.body) {
					t.Errorf("stream %d: status %d, %d of %d bytes, failed %d", id, u.status, len(u.got), len(u.body), r.failed)
				}
				if seed%2 == 0 && !whole && u.status != 503 {
					t.Errorf("stream %d: status %d though no connection was lost", id, u.status)
				}
			}
			if w.kept > 2*muxtest.Window {
				t.Errorf("%d bytes were kept for one exchange", w.kept)
			}
		})
	}
}
