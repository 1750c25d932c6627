package datagram

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// Handed is a session that passes to the process that takes over: with its socket
// the endpoint goes on seeing the same client.
type Handed struct {
	// Client and Local are its addresses in the form of package loop.
	Client []byte `json:"client"`
	Local  []byte `json:"local,omitempty"`
	// Service and Endpoint are where it goes.
	Service  string         `json:"service"`
	Endpoint netip.AddrPort `json:"endpoint"`
	Replied  bool           `json:"replied,omitempty"`
	// FD is the socket towards the endpoint.
	FD int `json:"fd"`
}

// Hand appends the socket's sessions, at most most of them, with descriptors of the
// taker's own, who closes them. A session that cannot be handed over is left out: its
// client's next datagram makes another one.
func (k *Socket) Hand(dst []Handed, most int) []Handed {
	for _, s := range k.sessions {
		if len(dst) >= most {
			break
		}
		if s.fd < 0 {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			break // out of descriptors
		}
		dst = append(dst, Handed{
			Client: s.sender.Bytes(), Local: s.local.Bytes(), Service: string(s.Service.Key), Endpoint: s.Endpoint.Addr, Replied: s.replied, FD: fd,
		})
	}
	return dst
}

// Adopt goes on with a session of the process before this one, whose descriptor it
// owns from then on. find fills in the session's Plan and Endpoint, and counts it there.
func (k *Socket) Adopt(h *Handed, find func(*Session, *Handed) bool) {
	e := k.e
	from, ok := loop.SenderOf(h.Client)
	local, fine := loop.LocalOf(h.Local)
	if !ok || !fine || k.sessions[from] != nil {
		e.loop.ClosePackets(h.FD)
		return
	}
	s := e.take(k, from, local)
	if !e.host.Admit(s) {
		e.loop.ClosePackets(h.FD)
		s.next, e.free = e.free, s
		return
	}
	e.admitted(s)
	s.fd = h.FD
	var err error
	if s.handle, err = e.loop.Add(h.FD, unix.EPOLLIN, s); err != nil || !find(s, h) {
		if err == nil {
			e.loop.Del(h.FD, s.handle)
		}
		e.loop.ClosePackets(h.FD)
		s.fd = -1
		s.end(exchange.OK)
		return
	}
	if h.Replied {
		s.replied = true
		s.delist()
	}
	s.watch()
}

// take makes a session, or uses the memory of one that is over.
func (e *Engine) take(k *Socket, from loop.Sender, local loop.Local) *Session {
	s := e.free
	if s == nil {
		s = &Session{}
		s.timer.Owner = s
		e.loop.Spend(sessionBytes)
	} else {
		e.free = s.next
	}
	now := e.loop.Now()
	*s = Session{Owner: k.owner, From: from.Addr(), k: k, sender: from, local: local, fd: -1, epoch: e.epoch, Born: now, active: now, timer: s.timer}
	return s
}

// admitted books a session that the host has let in.
func (e *Engine) admitted(s *Session) {
	e.started++
	e.count++
	s.Seq = e.started
	s.k.sessions[s.sender] = s
	s.enlist()
}
