package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// answerEchoes works on echo requests (RFC 9516) that come to the node in
// VXLAN-GPE, which the kernel's side leaves to it: they go on along their path, or
// are answered. It returns when ctx ends, and closes the socket.
func (a *Agent) answerEchoes(ctx context.Context, c *net.UDPConn) error {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // Read returns then
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue // an answer to a datagram of before could not be delivered
		}
		table := a.table.Load()
		if table == nil {
			continue
		}
		// Few and off the data path: a forwarder that remembers nothing will do.
		e, ok := soft.New(table, soft.Limits{Flows: 1, Returns: 1}, nil).Echo(buf[:n], time.Now())
		if !ok {
			continue
		}
		to := e.To
		if to.Port() == 0 {
			to = netip.AddrPortFrom(to.Addr(), nsh.GPEPort)
		}
		if _, err := c.WriteToUDPAddrPort(e.Payload, to); err != nil {
			a.cfg.Log.Debug("echo", "to", to, "err", err)
		}
	}
}

// listenEchoes opens the sockets of addresses that have none yet: where the node's
// tunnels end, to other nodes and to functions.
func (r *run) listenEchoes(t *path.Table) {
	if _, ok := r.dp.(echoer); ok {
		return
	}
	for i := range t.Ports {
		p := &t.Ports[i]
		if p.Role != path.RoleUnderlay && p.Role != path.RoleAware {
			continue
		}
		for _, at := range []netip.Addr{p.Address, p.Address6} {
			if !at.IsValid() || r.echoes[at] == echoListens {
				continue
			}
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, nsh.GPEPort)))
			if err != nil {
				if r.echoes[at] != echoFails { // tried again with the next table
					r.cfg.Log.Error("chains cannot be traced through this node", "address", at, "err", err)
				}
				r.echoes[at] = echoFails
				continue
			}
			r.echoes[at] = echoListens
			r.wg.Go(func() {
				if err := r.answerEchoes(r.ctx, c); err != nil {
					r.cfg.Log.Error("chains cannot be traced through this node", "address", at, "err", err)
				}
			})
		}
	}
}

// States of an address to which echo requests come.
const (
	echoListens = 1 + iota
	echoFails
)

// probeSPI is of no path: what has it is answered with "no such hop" where it comes
// back from a function.
const probeSPI = path.ReversedBit - 1

// nshEcho asks a function that knows NSH: the request goes through it, with SI one
// lower, to the node, and the node answers.
func nshEcho(address string, seq uint32, limit time.Duration) error {
	to, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	// The address from which the function is reached is where it sends back to.
	d, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, nsh.GPEPort)))
	if err != nil {
		return err
	}
	local := d.LocalAddr().(*net.UDPAddr)
	d.Close()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	m := oam.Message{Type: oam.Request, Handle: rand.Uint32(), Sequence: seq, Sent: time.Now(), ReplyTo: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	if _, err := c.WriteToUDPAddrPort(m.Datagram(0, probeSPI, nsh.FirstSI, nsh.MaxTTL), netip.AddrPortFrom(to, nsh.GPEPort)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("no echo through the function at %s: %w", address, err)
		}
		h, reply, err := oam.ParseDatagram(buf[:n])
		if err != nil || reply.Type != oam.Reply || reply.Handle != m.Handle {
			continue // an old one, or somebody else's
		}
		if h.SI() != nsh.FirstSI-1 {
			return fmt.Errorf("the function at %s gave the echo back with SI %d, want %d", address, h.SI(), nsh.FirstSI-1)
		}
		return nil
	}
}
