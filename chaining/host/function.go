package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/chaining/function"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Aware runs a function that knows NSH: VXLAN-GPE datagrams come in, and go back to
// where they came from with SI one lower. Echo requests (O bit) go back untouched
// but for SI, which is the function's health (nsh-echo) and lets traces pass.
type Aware struct {
	Function function.Function
	Conn     *net.UDPConn
	// Mirror is where copies go, invalid for nowhere.
	Mirror netip.AddrPort
	// ReplyPort is the port that packets go back to: VXLAN-GPE's own where 0. Sockets
	// of a sender use source ports for entropy, so it is not the source's.
	ReplyPort uint16

	draining  atomic.Bool
	passed    atomic.Uint64
	dropped   atomic.Uint64
	malformed atomic.Uint64
}

// Stats are an Aware's counters.
type Stats struct {
	Passed, Dropped, Malformed uint64
	Draining                   bool
}

// Stats may be called by any goroutine.
func (a *Aware) Stats() Stats {
	return Stats{a.passed.Load(), a.dropped.Load(), a.malformed.Load(), a.draining.Load()}
}

// Drain has probes unanswered, so that no new flows come, while packets are served.
func (a *Aware) Drain() { a.draining.Store(true) }

// Run serves until ctx ends. Its error is nil then.
func (a *Aware) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in, out := make([]byte, 1<<16), make([]byte, 1<<16)
	start := time.Now()
	for {
		n, from, err := a.Conn.ReadFromUDPAddrPort(in)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("receive: %w", err)
		}
		b := a.one(in[:n:len(in)], out, time.Since(start))
		if b == nil {
			continue
		}
		port := a.ReplyPort
		if port == 0 {
			port = nsh.GPEPort
		}
		if _, err := a.Conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(from.Addr(), port)); err != nil && ctx.Err() == nil {
			a.dropped.Add(1) // The way back is gone; the sender finds out by its probes.
		}
	}
}

// one serves a datagram and returns what goes back, nil for nothing.
func (a *Aware) one(in, out []byte, now time.Duration) []byte {
	_, rest, err := nsh.ParseGPE(in)
	if err != nil {
		a.malformed.Add(1)
		return nil
	}
	h, payload, err := nsh.Parse(rest)
	if err != nil {
		a.malformed.Add(1)
		return nil
	}
	if h.OAM() {
		if a.draining.Load() || h.Serve() != nil {
			return nil
		}
		return in
	}
	d := function.Forward
	if h.SPI()&path.ReversedBit != 0 {
		d = function.Back
	}
	r := a.Function.Process(payload, d, now)
	if r.Drop != "" || h.Serve() != nil {
		a.dropped.Add(1)
		return nil
	}
	if r.Copy && a.Mirror.IsValid() {
		_, _ = a.Conn.WriteToUDPAddrPort(in, a.Mirror) // A lost copy is a lost copy.
	}
	a.passed.Add(1)
	copy(out, in[:nsh.GPESize])
	head := tagged(out[nsh.GPESize:nsh.GPESize+nsh.MaxSize], h, r.Tag)
	at := nsh.GPESize + len(head)
	return out[:at+copy(out[at:], r.Packet)]
}

// tagged writes the header into b, with a context header for the tag. A header of
// MD type 1 becomes one of type 2 when its context words say nothing; otherwise, and
// where there is no room, the tag is left out: the packet matters more.
func tagged(b []byte, h nsh.Header, tag string) nsh.Header {
	out := nsh.Header(b[:copy(b, h)])
	if tag == "" {
		return out
	}
	if h.MDType() == nsh.MD1 {
		for _, c := range h.Context() {
			if c != 0 {
				return out
			}
		}
		out = nsh.Put(b, nsh.MD2, h.Next(), h.SPI(), h.SI())
		out.SetTTL(h.TTL())
	}
	with, err := nsh.AppendContext(b, out, nsh.ContextHeader{Class: nsh.ClassMeridian, Type: nsh.TypeTag, Value: []byte(tag)})
	if err != nil {
		return out
	}
	return with
}
