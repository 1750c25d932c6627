package edgeproxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// wire is a relay that notes what went over it, in each direction.
type wire struct {
	mu   sync.Mutex
	seen [2][]byte
	l    net.Listener
	open []net.Conn
	// quiet has nothing noted.
	quiet atomic.Bool
}

// cut ends all connections by a reset, and takes no more.
func (w *wire) cut() {
	w.l.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func newWire(t testing.TB, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			w.mu.Lock()
			w.open = append(w.open, in, out)
			w.mu.Unlock()
			pass := func(i int, dst, src net.Conn) { // an end of one direction is no end of the other
				if _, err := io.Copy(dst, io.TeeReader(src, overhear{w, i})); err != nil {
					dst.Close()
					src.Close()
				}
				dst.(*net.TCPConn).CloseWrite()
			}
			wg.Go(func() {
				var both sync.WaitGroup
				both.Go(func() { pass(0, out, in) })
				pass(1, in, out)
				both.Wait()
				in.Close()
				out.Close()
			})
		}
	})
	return w
}

type overhear struct {
	w *wire
	i int
}

func (t overhear) Write(p []byte) (int, error) {
	if t.w.quiet.Load() {
		return len(p), nil
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	t.w.seen[t.i] = append(t.w.seen[t.i], p...)
	return len(p), nil
}

// records reads a capture of one connection as TLS records and returns how many are
// of application data; anything else than records is an error.
func records(b []byte) (application int, err error) {
	for len(b) > 0 {
		if len(b) < 5 || b[0] < 20 || b[0] > 23 || b[1] != 3 {
			return 0, fmt.Errorf("no TLS record: %q", b[:min(len(b), 40)])
		}
		n := 5 + int(binary.BigEndian.Uint16(b[3:]))
		if b[0] == 23 {
			application++
		}
		if n > len(b) {
			return application, nil // the rest is under way
		}
		b = b[n:]
	}
	return application, nil
}
