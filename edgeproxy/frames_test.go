package edgeproxy

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"
)

// framePeer is an end of an HTTP/2 connection made of another implementation's frames, so
// that a test decides what is sent and when. It keeps what came on each stream.
type framePeer struct {
	t       *testing.T
	c       net.Conn
	fr      *xhttp2.Framer
	server  bool
	onHead  func(p *framePeer, id uint32, h map[string]string) // in the reader's goroutine
	onData  func(p *framePeer, id uint32, data []byte, end bool)
	greedy  bool // gives no credit back
	mu      sync.Mutex
	wake    *sync.Cond
	enc     *xhpack.Encoder
	block   bytes.Buffer
	streams map[uint32]*frameStream
	window  int64 // of the connection, towards the other end
	initial int64
	offers  bool // the other end takes extended CONNECT
	settled bool
	goAway  bool
	next    uint32
	over    error
}

// frameStream is one stream as the framePeer has seen it.
type frameStream struct {
	head   map[string]string
	got    []byte
	ended  bool
	reset  bool
	code   xhttp2.ErrCode
	window int64
	out    []byte
	end    bool // once out is gone
	shut   bool
}

// newFramePeer greets on a connection with the settings and reads it in the background.
func newFramePeer(t *testing.T, c net.Conn, server bool, settings ...xhttp2.Setting) *framePeer {
	p := &framePeer{t: t, c: c, fr: xhttp2.NewFramer(c, c), server: server, streams: map[uint32]*frameStream{}, window: 65535, initial: 65535, next: 1}
	p.wake = sync.NewCond(&p.mu)
	p.enc = xhpack.NewEncoder(&p.block)
	p.fr.ReadMetaHeaders = xhpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	if !server {
		io.WriteString(c, xhttp2.ClientPreface)
		p.fr.WriteSettings(settings...)
	}
	return p
}

func (p *framePeer) start() *framePeer {
	p.t.Cleanup(func() { p.c.Close() })
	go p.read()
	return p
}

// serveFrames is a backend of framePeers.
func serveFrames(t *testing.T, set func(p *framePeer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(xhttp2.ClientPreface))); err != nil {
					return
				}
				p := newFramePeer(t, c, true)
				set(p)
				p.read()
			}()
		}
	}()
	return l.Addr().String()
}

func (p *framePeer) stream(id uint32) *frameStream {
	s := p.streams[id]
	if s == nil {
		s = &frameStream{window: p.initial}
		p.streams[id] = s
	}
	return s
}

func (p *framePeer) read() {
	for {
		f, err := p.fr.ReadFrame()
		p.mu.Lock()
		if err != nil {
			if se, ok := err.(xhttp2.StreamError); ok {
				p.fr.WriteRSTStream(se.StreamID, se.Code)
				p.mu.Unlock()
				continue
			}
			p.over = err
			p.wake.Broadcast()
			p.mu.Unlock()
			return
		}
		var then func()
		switch f := f.(type) {
		case *xhttp2.SettingsFrame:
			if !f.IsAck() {
				f.ForeachSetting(func(s xhttp2.Setting) error {
					switch s.ID {
					case xhttp2.SettingInitialWindowSize:
						p.initial = int64(s.Val)
					case xhttp2.SettingEnableConnectProtocol:
						p.offers = s.Val == 1
					}
					return nil
				})
				p.settled = true
				p.fr.WriteSettingsAck()
			}
		case *xhttp2.MetaHeadersFrame:
			s := p.stream(f.StreamID)
			s.head = map[string]string{}
			for _, h := range f.Fields {
				s.head[h.Name] += h.Value
			}
			s.ended = s.ended || f.StreamEnded()
			if p.onHead != nil {
				id, head := f.StreamID, s.head
				then = func() { p.onHead(p, id, head) }
			}
		case *xhttp2.DataFrame:
			s := p.stream(f.StreamID)
			data := slices.Clone(f.Data())
			s.got = append(s.got, data...)
			s.ended = s.ended || f.StreamEnded()
			if n := f.Length; n > 0 && !p.greedy {
				p.fr.WriteWindowUpdate(0, n)
				if !f.StreamEnded() {
					p.fr.WriteWindowUpdate(f.StreamID, n)
				}
			}
			if p.onData != nil {
				id, end := f.StreamID, f.StreamEnded()
				then = func() { p.onData(p, id, data, end) }
			}
		case *xhttp2.RSTStreamFrame:
			s := p.stream(f.StreamID)
			s.reset, s.code, s.out = true, f.ErrCode, nil
		case *xhttp2.WindowUpdateFrame:
			if f.StreamID == 0 {
				p.window += int64(f.Increment)
			} else {
				p.stream(f.StreamID).window += int64(f.Increment)
			}
			p.flush()
		case *xhttp2.PingFrame:
			if !f.IsAck() {
				p.fr.WritePing(true, f.Data)
			}
		case *xhttp2.GoAwayFrame:
			p.goAway = true
		}
		p.wake.Broadcast()
		p.mu.Unlock()
		if then != nil {
			then()
		}
	}
}

// flush sends what the windows allow; p.mu is held.
func (p *framePeer) flush() {
	for id, s := range p.streams {
		for len(s.out) > 0 && p.window > 0 && s.window > 0 {
			n := min(int64(len(s.out)), p.window, s.window, 16<<10)
			p.fr.WriteData(id, false, s.out[:n])
			s.out, p.window, s.window = s.out[n:], p.window-n, s.window-n
		}
		if s.end && len(s.out) == 0 && !s.shut && !s.reset {
			s.shut = true
			p.fr.WriteData(id, true, nil)
		}
	}
}

// send queues data on a stream, and its end.
func (p *framePeer) send(id uint32, data string, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stream(id)
	s.out, s.end = append(s.out, data...), s.end || end
	p.flush()
}

// head sends a head of "name: value" lines.
func (p *framePeer) head(id uint32, end bool, lines ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.block.Reset()
	for _, l := range lines {
		n, v, _ := strings.Cut(strings.TrimPrefix(l, ":"), ": ")
		if l[0] == ':' {
			n = ":" + n
		}
		p.enc.WriteField(xhpack.HeaderField{Name: n, Value: v})
	}
	p.stream(id)
	p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block.Bytes(), EndStream: end, EndHeaders: true})
}

// open begins a client's stream.
func (p *framePeer) open(end bool, lines ...string) uint32 {
	id := p.next
	p.next += 2
	p.head(id, end, lines...)
	return id
}

// await waits until a stream is as the test wants it and returns a copy of it.
func (p *framePeer) await(id uint32, what string, is func(s *frameStream) bool) frameStream {
	p.t.Helper()
	late := time.AfterFunc(30*time.Second, func() {
		p.mu.Lock()
		p.over = io.ErrNoProgress
		p.wake.Broadcast()
		p.mu.Unlock()
	})
	defer late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !is(p.stream(id)) {
		if p.over != nil {
			s := p.stream(id)
			p.t.Fatalf("%s: %v; head %v, %d bytes, ended %v, reset %v %v", what, p.over, s.head, len(s.got), s.ended, s.reset, s.code)
		}
		p.wake.Wait()
	}
	return *p.stream(id)
}

func (p *framePeer) awaitHead(id uint32) map[string]string {
	p.t.Helper()
	return p.await(id, "a head", func(s *frameStream) bool { return s.head != nil || s.reset }).head
}

func (p *framePeer) awaitData(id uint32, n int) []byte {
	p.t.Helper()
	return p.await(id, "data", func(s *frameStream) bool { return len(s.got) >= n }).got
}
