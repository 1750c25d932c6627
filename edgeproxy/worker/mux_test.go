package worker

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/stream/muxtest"
	"github.com/meridian-mesh/meridian/edgeproxy/tap"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// muxCodecs is the protocol of muxtest: many streams on a connection.
var muxCodecs = &protocol{
	server: func() serverCodec { return muxtest.NewServer() },
	client: func() codec { return muxtest.NewClient() },
	name:   "test", id: 1, many: true,
}

// muxPeer is an independent end of a connection: it decodes in one goroutine and
// writes in another, so that neither side ever waits for the other to read.
type muxPeer struct {
	t     *testing.T
	c     net.Conn
	codec *muxtest.Codec
	mu    sync.Mutex
	more  *sync.Cond
	out   []byte
	ended bool
}

func newMuxPeer(t *testing.T, c net.Conn, codec *muxtest.Codec) *muxPeer {
	p := &muxPeer{t: t, c: c, codec: codec}
	p.more = sync.NewCond(&p.mu)
	return p
}

// run handles events until the connection ends.
func (p *muxPeer) run(handle func(ev *stream.Event)) {
	go func() {
		for {
			p.mu.Lock()
			for len(p.out) == 0 && !p.ended {
				p.more.Wait()
			}
			out, ended := p.out, p.ended
			p.out = nil
			p.mu.Unlock()
			if ended {
				return
			}
			if _, err := p.c.Write(out); err != nil {
				return
			}
		}
	}()
	var in []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := p.c.Read(buf)
		in = append(in, buf[:n]...)
		used := 0
		for {
			var ev stream.Event
			p.mu.Lock()
			k, err := p.codec.Decode(in[used:], &ev)
			p.mu.Unlock()
			if err != nil {
				p.t.Error(err)
				return
			}
			if used += k; ev.Kind != stream.None {
				handle(&ev)
			} else if k == 0 {
				break
			}
		}
		in = append([]byte(nil), in[used:]...)
		if err != nil {
			p.mu.Lock()
			p.ended = true
			p.more.Signal()
			p.mu.Unlock()
			return
		}
	}
}

func (p *muxPeer) send(ev stream.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.out, err = p.codec.Encode(p.out, &ev); err != nil {
		p.t.Error(err)
	}
	p.more.Signal()
}

// muxEcho serves the streams of one connection.
func muxEcho(t *testing.T, c net.Conn) {
	type held struct {
		data   []byte
		credit int
		done   bool
	}
	p := newMuxPeer(t, c, muxtest.NewServer())
	streams := map[stream.ID]*held{}
	p.run(func(ev *stream.Event) {
		s := streams[ev.Stream]
		switch ev.Kind {
		case stream.Head:
			s = &held{credit: muxtest.Window}
			streams[ev.Stream] = s
			p.send(stream.Event{Kind: stream.Head, Stream: ev.Stream, Head: &stream.Message{Status: 200, Length: -1}})
		case stream.Data:
			s.data = append(s.data, ev.Data...)
			p.send(stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)})
		case stream.Window:
			s.credit += ev.N
		case stream.End:
			s.done = true
		case stream.Reset:
			delete(streams, ev.Stream)
			return
		}
		if n := min(s.credit, len(s.data)); n > 0 {
			p.send(stream.Event{Kind: stream.Data, Stream: ev.Stream, Data: s.data[:n]})
			s.data, s.credit = s.data[n:], s.credit-n
		}
		if s.done && len(s.data) == 0 {
			p.send(stream.Event{Kind: stream.End, Stream: ev.Stream})
			delete(streams, ev.Stream)
		}
	})
}

// TestManyStreams runs a worker with a protocol of many streams on both sides,
// over sockets: the same code that serves HTTP/1 serves it.
func TestManyStreams(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	var accepted atomic.Int64
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go muxEcho(t, c)
		}
	}()

	reg := upstream.NewRegistry(1)
	shared := &Shared{
		Watermark: 64 << 10, Times: DefaultTimes, MaxConnections: 10, MaxListenerConnections: 10,
		Registry: reg, Unrouted: reg.Service(""), Tap: tap.New(tap.Config{Loops: 1, Now: loop.Now}),
	}
	w, err := New(0, shared)
	if err != nil {
		t.Fatal(err)
	}
	w.speaks = protocols{muxCodecs, muxCodecs, nil}
	shared.Workers = []*Worker{w}
	v, err := view.Build(&mesh.Snapshot{Objects: muxObjects(backend.Addr().String())}, view.Deps{Registry: reg, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := loop.Listen(netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Claim(1)()
	ended := make(chan error, 1)
	go func() { ended <- w.Loop.Run() }()
	t.Cleanup(func() {
		w.Loop.Post(loop.Func(w.Close))
		w.Loop.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ln.Close()
	})
	listener := &Listener{Key: v.Sockets[0].Key, Listener: ln}
	served := make(chan error, 1)
	w.Loop.Post(loop.Func(func() {
		w.Serve(&State{View: v, Listeners: []*Listener{listener}, Sockets: map[*Listener]*view.Socket{listener: v.Sockets[0]}})
		served <- w.Accept()
	}))
	if err := <-served; err != nil {
		t.Fatal(err)
	}

	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	type user struct {
		body, got    []byte
		sent, credit int
		status       int
		finished     bool
	}
	const streams = 30
	p := newMuxPeer(t, c, muxtest.NewClient())
	users := map[stream.ID]*user{}
	left := streams
	pump := func(id stream.ID, u *user) {
		if n := min(u.credit, len(u.body)-u.sent); n > 0 {
			p.send(stream.Event{Kind: stream.Data, Stream: id, Data: u.body[u.sent : u.sent+n]})
			u.sent, u.credit = u.sent+n, u.credit-n
		}
		if u.sent == len(u.body) && !u.finished {
			u.finished = true
			p.send(stream.Event{Kind: stream.End, Stream: id})
		}
	}
	for i := range streams {
		id, _ := p.codec.Open()
		u := &user{body: bytes.Repeat([]byte{byte(i)}, i*20_000), credit: muxtest.Window}
		users[id] = u
		path := "/"
		if i == 7 {
			path = "/%00" // refused by the proxy, on its stream alone
		}
		p.send(stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{
			Method: []byte("PUT"), Authority: []byte("x"), Path: []byte(path), Length: -1}})
		pump(id, u)
	}
	p.run(func(ev *stream.Event) {
		u := users[ev.Stream]
		switch ev.Kind {
		case stream.Head:
			u.status = ev.Head.Status
		case stream.Data:
			u.got = append(u.got, ev.Data...)
			p.send(stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)})
		case stream.Window:
			u.credit += ev.N
			pump(ev.Stream, u)
		case stream.End:
			left--
		case stream.Reset:
			t.Errorf("stream %d was reset: %d", ev.Stream, ev.Reason)
			left--
		}
		if left == 0 {
			c.Close()
		}
	})
	for id, u := range users {
		want := fmt.Sprint(200, len(u.body))
		if id == 8 {
			want = fmt.Sprint(400, len("the request is not valid\n"))
		}
		if got := fmt.Sprint(u.status, len(u.got)); got != want || id != 8 && !bytes.Equal(u.got, u.body) {
			t.Errorf("stream %d: %s, want %s", id, got, want)
		}
	}
	// Requests that find no connection dial each; those after share what there is.
	if accepted := accepted.Load(); accepted >= streams/2 {
		t.Errorf("%d connections to the backend for %d streams", accepted, streams)
	}
}

func muxObjects(backend string) mesh.Objects {
	meta := mesh.ObjectMeta{Name: "x", Namespace: "default"}
	return mesh.Objects{
		Gateways: []*mesh.Gateway{{Metadata: meta, Spec: mesh.GatewaySpec{
			GatewayClassName: mesh.GatewayClass,
			Listeners:        []mesh.Listener{{Name: "l", Protocol: mesh.ProtocolHTTP}},
		}}},
		HTTPRoutes: []*mesh.HTTPRoute{{Metadata: meta, Spec: mesh.HTTPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Name: "x"}},
			Rules:      []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "x", Port: 80}}}},
		}}},
		Services: []*mesh.MeshService{{Metadata: meta, Spec: mesh.MeshServiceSpec{
			Ports:     []mesh.ServicePort{{Port: 80}},
			Endpoints: []mesh.Endpoint{{Address: backend}},
		}}},
	}
}

// TestSizes holds what a connection at rest costs to its class of the allocator.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(down{}); n > 448 {
		t.Errorf("a client's connection takes %d bytes", n)
	}
}
