// Package natstest has what tests of sites need: a TCP relay that can be cut.
package natstest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Relay forwards TCP connections to one address until it is cut.
type Relay struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// NewRelay listens on a free loopback port and forwards to target.
func NewRelay(t *testing.T, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{l: l, target: target, conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.Cut()
		r.wg.Wait()
	})
	return r
}

// Addr is where to connect.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Cut ends all connections and refuses new ones.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close()
	}
	clear(r.conns)
}

// Heal lets connections through again.
func (r *Relay) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Target changes where new connections go.
func (r *Relay) Target(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = addr
}

func (r *Relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target, cut := r.target, r.cut
		r.mu.Unlock()
		if cut {
			_ = c.Close()
			continue
		}
		d, err := net.Dial("tcp", target)
		if err != nil {
			_ = c.Close()
			continue
		}
		r.mu.Lock()
		if r.cut {
			r.mu.Unlock()
			_ = c.Close()
			_ = d.Close()
			continue
		}
		r.conns[c], r.conns[d] = true, true
		r.mu.Unlock()
		r.wg.Go(func() { pipe(c, d) })
		r.wg.Go(func() { pipe(d, c) })
	}
}

func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	_ = dst.Close()
	_ = src.Close()
}
