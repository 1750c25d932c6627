package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// answerEchoes works on echo requests (RFC 9516) that come to the node in
// VXLAN-GPE, which the kernel's side leaves to it: they go on along their path, or
// are answered. It returns when ctx ends.
func (a *Agent) answerEchoes(ctx context.Context, address netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, nsh.GPEPort)))
	if err != nil {
		return fmt.Errorf("echo requests: %w", err)
	}
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

// echoAddress is where the node's tunnels end; invalid where it has none.
func echoAddress(t *path.Table) netip.Addr {
	for i := range t.Ports {
		if p := &t.Ports[i]; p.Role == path.RoleUnderlay {
			if p.Address.IsValid() {
				return p.Address
			}
			return p.Address6
		}
	}
	return netip.Addr{}
}
