//go:build root

package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// reader is a function that knows NSH, as a process: it notes the metadata of what it
// serves and gives it back.
type reader struct {
	mu   sync.Mutex
	seen map[string]int
}

func (r *reader) serve(conn *net.UDPConn) error {
	b := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		_, rest, err := nsh.ParseGPE(b[:n])
		if err != nil {
			return err
		}
		h, _, err := nsh.Parse(rest)
		if err != nil {
			return err
		}
		text, _, err := h.Find(nsh.ClassMeridian, nsh.TypeMetadata)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.seen[string(text)]++
		r.mu.Unlock()
		if err := h.Serve(); err != nil {
			return err
		}
		if _, err := conn.WriteToUDPAddrPort(b[:n], netip.AddrPortFrom(from.Addr(), nsh.GPEPort)); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

// Functions that know NSH are told a path's metadata by the kernel, before and behind one
// that knows none and on another node, both ways; large packets pass as without it.
func TestRootMetadata(t *testing.T) {
	w := newWorld(t, 2, 1600)
	first, unaware, second, third := w.awareFunction(0), w.function(0), w.awareFunction(0), w.awareFunction(1)
	w.chain(10, first, unaware, second, third)
	for _, n := range w.nodes {
		for at, h := range n.tab.Hops {
			if h.Kind == path.KindGPE || h.Kind == path.KindNode {
				h.Metadata = map[uint32]string{10: "gold", 11: "twelve bytes"}[at.SPI]
				n.tab.Hops[at] = h
			}
		}
	}
	w.apply(Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, to := range []string{serverAddr + ":0", "[" + serverAddr6 + "]:0"} {
		if _, err := bulk(w.client, w.server, to, 64<<20, 30*time.Second); err != nil {
			w.report()
			t.Fatalf("TCP to %s: %v", to, err)
		}
	}
	if d := w.drops(); len(d) > 0 {
		t.Errorf("dropped: %v", d)
	}

	// Now processes in their place, which say what they read.
	var readers []*reader
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range []*testFunction{first, second, third} {
		setOffload(t, w.nodes[f.at].Namespace, w.nodes[f.at].tab.Ports[f.ports[0]].Interface, false)
		r := &reader{seen: map[string]int{}}
		readers = append(readers, r)
		var conn *net.UDPConn
		if err := f.Do(func() (err error) {
			conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: f.remote.AsSlice(), Port: nsh.GPEPort})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		wg.Go(func() {
			if err := r.serve(conn); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
		for _, l := range f.links {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.apply(Config{}) // the ports' offload has changed
	for _, to := range []string{serverAddr, serverAddr6} {
		if out, err := w.client.Run(ctx, "ping", "-q", "-i0.01", "-c20", "-W5", to); err != nil || lost(t, out) != 0 {
			w.report()
			t.Fatalf("ping %s: %v\n%s", to, err, out)
		}
	}
	for i, r := range readers {
		r.mu.Lock()
		// More than the pings' are the last of TCP.
		if r.seen["gold"] < 40 || r.seen["twelve bytes"] < 40 || len(r.seen) != 2 {
			t.Errorf("function %d read %v, want at least 40 of gold, of twelve bytes, and nothing else", i+1, r.seen)
		}
		r.mu.Unlock()
	}
}
