package datagram

import "github.com/meridian-mesh/meridian/edgeproxy/exchange"

// Elsewhere serves sessions of which [Host].Pick says Away.
type Elsewhere interface {
	// Begin has the session's datagrams go elsewhere, to Place.
	Begin(s *Session) exchange.Flag
	// Forward sends a datagram there.
	Forward(s *Session, p []byte)
	// Leave says that the session does not go there any more.
	Leave(s *Session)
}

// forward passes on, one by one, what the kernel may have joined.
func (s *Session) forward(which []int) {
	e := s.k.e
	for _, i := range which {
		p := e.in.Data(i)
		segment, _ := e.in.Told(i)
		for first := true; (first || len(p) > 0) && s.away && !s.over; first = false {
			n := len(p)
			if segment > 0 {
				n = min(n, segment)
			}
			s.Asked++
			e.host.Forward(s, p[:n])
			p = p[n:]
		}
	}
}

// Deliver sends the client a datagram that came from elsewhere.
func (s *Session) Deliver(p []byte) {
	if s.over {
		return
	}
	e := s.k.e
	s.active = e.loop.Now()
	if !s.replied {
		s.replied = true
		s.delist()
	}
	s.Tries = 0
	if err := e.loop.SendPart(s.k.fd, p, &s.sender, s.local); err != 0 {
		e.host.Dropped(s, reason(err), 1)
		return
	}
	e.answered(s, 1, len(p))
}

// Broken says that elsewhere has ended: the client's next datagram begins anew.
func (s *Session) Broken() { s.away = false }
