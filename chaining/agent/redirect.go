package agent

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/datapath"
)

// Redirector has connections of a node's processes go to its proxy. What it was told goes
// on when the agent ends.
type Redirector interface {
	// Redirect makes the redirection the one in force; nil is none. An error may leave a
	// part in force, such as where a control group is not there yet.
	Redirect(w *datapath.Redirection) error
	Counts() (datapath.RedirectCounts, error)
}

// RedirectStatus is what became of a node's redirection.
type RedirectStatus struct {
	// Destinations are networks and addresses whose connections go to the proxy.
	Destinations int `json:"destinations"`
	// Fault is why it is not all in force.
	Fault string `json:"fault,omitempty"`
	// Connections to them by redirected processes, since the kernel was first told: those
	// that went to the proxy; that were excluded; that went straight because the proxy did
	// not listen, or because the kernel had no room.
	Redirected   uint64 `json:"redirected"`
	Excluded     uint64 `json:"excluded"`
	NotListening uint64 `json:"proxyNotListening"`
	Failed       uint64 `json:"failed"`
}

// line is the redirection in one line of /readyz?verbose.
func (s *RedirectStatus) line() string {
	return fmt.Sprintf("redirection: %d destinations; %d connections redirected, %d excluded, %d went straight because the proxy did not listen, %d for want of room",
		s.Destinations, s.Redirected, s.Excluded, s.NotListening, s.Failed)
}

// never are networks whose connections mean the process's own machine or network.
var never = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
}

// redirection is what the documents ask of the node, nil where that is nothing.
func redirectionOf(o *mesh.Objects, node string) *datapath.Redirection {
	var spec *mesh.Redirect
	for _, n := range o.ChainNodes {
		if n.Metadata.Name == node {
			spec = n.Spec.Redirect
		}
	}
	if spec == nil {
		return nil
	}
	w := &datapath.Redirection{Groups: spec.ControlGroups, Proxy: spec.Proxy.ControlGroup, Closed: spec.Failure == mesh.FailClosed}
	if u := spec.Proxy.User; u != nil {
		w.Shared, w.Users = true, append(w.Users, uint32(*u))
	}
	for _, p := range never {
		w.Spared = append(w.Spared, datapath.Destination{Network: p})
	}
	for _, text := range spec.Proxy.Addresses {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			continue // refused where it was read
		}
		if at.Addr().Is4() {
			w.Proxy4 = at
		} else {
			w.Proxy6 = at
		}
		w.Spared = append(w.Spared, datapath.Destination{Network: netip.PrefixFrom(at.Addr(), at.Addr().BitLen()), Port: at.Port()})
	}
	for _, s := range o.Services {
		for _, text := range s.Spec.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			for _, p := range s.Spec.Ports {
				if p.Protocol != mesh.PortUDP {
					w.Wanted = append(w.Wanted, datapath.Destination{Network: netip.PrefixFrom(a, a.BitLen()), Port: uint16(p.Port)})
				}
			}
		}
	}
	w.Wanted = append(w.Wanted, destinations(spec.Destinations)...)
	if x := spec.Exclude; x != nil {
		w.Spared = append(w.Spared, destinations(x.Destinations)...)
		for _, port := range x.Ports {
			w.Spared = append(w.Spared, datapath.Destination{Network: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Port: uint16(port)})
		}
		for _, u := range x.Users {
			w.Users = append(w.Users, uint32(u))
		}
		w.SparedGroups = x.ControlGroups
	}
	return w
}

func destinations(list []mesh.RedirectDestination) (out []datapath.Destination) {
	for _, d := range list {
		p, err := netip.ParsePrefix(d.Network)
		if err != nil {
			continue
		}
		if len(d.Ports) == 0 {
			out = append(out, datapath.Destination{Network: p})
		}
		for _, port := range d.Ports {
			out = append(out, datapath.Destination{Network: p, Port: uint16(port)})
		}
	}
	return out
}

var errNoRedirector = errors.New("spec.redirect of the ChainNode is not in force: this agent cannot redirect")

// redirect puts in force what the documents ask, again and again: a control group may
// be made later, and the proxy may have come or gone. A fault costs the chains nothing.
func (r *run) redirect() {
	w := redirectionOf(r.objects, r.cfg.Node)
	if w == nil && (!r.redirecting || r.cfg.Redirector == nil) {
		return
	}
	err := errNoRedirector
	if r.cfg.Redirector != nil {
		err = r.cfg.Redirector.Redirect(w)
	}
	r.redirecting = w != nil || err != nil
	var s *RedirectStatus
	if w != nil {
		s = &RedirectStatus{Destinations: len(w.Wanted)}
	}
	if w != nil && r.cfg.Redirector != nil {
		c, countErr := r.cfg.Redirector.Counts()
		s.Redirected, s.Excluded, s.NotListening, s.Failed = c.Redirected, c.Spared, c.Opened, c.Failed
		if err == nil {
			err = countErr
		}
	}
	said := ""
	if err != nil {
		said = err.Error()
		if s == nil {
			s = &RedirectStatus{}
		}
		s.Fault = said
	}
	if said != r.redirectFault {
		r.redirectFault = said
		if err != nil {
			r.cfg.Log.Warn("redirection is not all in force", "err", err)
		} else {
			r.cfg.Log.Info("redirection is in force")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Redirect = s
}
