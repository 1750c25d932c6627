package datagram

import (
	"syscall"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// usable makes sure that the session has an endpoint that may serve it, for the
// datagram at hand.
func (s *Session) usable(p []byte) bool {
	e := s.k.e
	if s.away {
		if s.epoch == e.epoch || e.host.Stays(s) {
			s.epoch = e.epoch
			return true
		}
		s.end(exchange.OK)
		return false
	}
	if s.fd >= 0 {
		why, _ := s.Endpoint.Health.Load()
		if s.epoch == e.epoch && why == 0 || e.host.Stays(s) {
			s.epoch = e.epoch
			return true
		}
		if s.epoch != e.epoch { // it may be another service's now
			s.end(exchange.OK)
			return false
		}
		s.leave()
		s.Tries = 0
	}
	if f := s.connect(p); f != exchange.OK {
		s.end(f)
		return false
	}
	return true
}

// leave gives the endpoint up; the next datagram goes to another one.
func (s *Session) leave() {
	s.shut()
	s.k.e.host.Left(s)
	s.Endpoint = nil
}

// send passes a client's datagrams on.
func (s *Session) send(which []int) {
	e := s.k.e
	s.active = e.loop.Now()
	if s.away {
		s.forward(which)
		return
	}
	for len(which) > 0 {
		n := 1
		segment, _ := e.in.Told(which[0])
		if segment == 0 && !s.plain {
			for n = 1; n < len(which); n++ {
				if other, _ := e.in.Told(which[n]); other != 0 {
					break
				}
			}
			n = e.in.Joinable(which[:n])
		}
		s.sendSome(which[:n], segment)
		if s.over || s.fd < 0 {
			return
		}
		which = which[n:]
	}
}

// sendSome sends one datagram, one message of several, or several as one message.
func (s *Session) sendSome(which []int, segment int) {
	e := s.k.e
	first := e.in.Data(which[0])
	count, bytes := datagrams(len(first), segment), len(first)
	if len(which) > 1 {
		count, bytes = len(which), 0
		for _, i := range which {
			bytes += len(e.in.Data(i))
		}
	}
	for {
		var err syscall.Errno
		switch {
		case len(which) > 1:
			err = e.loop.Join(s.fd, e.in, which)
		case segment > 0 && s.plain:
			s.sendParts(first, segment)
			return
		default:
			err = e.loop.SendOne(s.fd, first, segment)
		}
		switch {
		case err == 0:
			s.Asked += int64(count)
			e.host.Moved(s, true, count, bytes)
			return
		case cannotCut(err) && (len(which) > 1 || segment > 0):
			s.plain = true
			if len(which) > 1 {
				for _, i := range which {
					if !s.over && s.fd >= 0 {
						s.sendSome([]int{i}, 0)
					}
				}
				return
			}
		case s.lost(err, first):
			// Sent again, to another endpoint.
		default:
			if !s.over {
				e.host.Dropped(s, reason(err), count)
			} else {
				e.host.Dropped(nil, reason(err), count)
			}
			return
		}
	}
}

// sendParts cuts a message that the kernel joined.
func (s *Session) sendParts(p []byte, segment int) {
	e := s.k.e
	for len(p) > 0 && s.fd >= 0 {
		n := min(segment, len(p))
		switch err := e.loop.SendOne(s.fd, p[:n], 0); {
		case err == 0:
			s.Asked++
			e.host.Moved(s, true, 1, n)
		case s.lost(err, p):
			continue
		case s.over:
			e.host.Dropped(nil, reason(err), datagrams(len(p), segment))
			return
		default:
			e.host.Dropped(s, reason(err), 1)
		}
		p = p[n:]
	}
}

// cannotCut reports whether a message of several datagrams was refused as such: a
// part does not fit the way, or the device does not take part.
func cannotCut(err syscall.Errno) bool {
	return err == syscall.EINVAL || err == syscall.EMSGSIZE || err == syscall.EIO || err == syscall.EOPNOTSUPP
}

func reason(err syscall.Errno) Drop {
	switch err {
	case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
		return DropBusy
	case syscall.EMSGSIZE, syscall.EINVAL:
		return DropTooBig
	}
	return DropUnreachable
}

// lost looks at an error of the endpoint's socket and reports whether the session
// has another endpoint now.
func (s *Session) lost(err syscall.Errno, p []byte) bool {
	switch reason(err) {
	case DropBusy, DropTooBig:
		return false
	}
	e := s.k.e
	s.shut()
	e.host.Reached(s, false)
	s.Endpoint = nil
	if f := s.connect(p); f != exchange.OK {
		s.end(f)
		return false
	}
	return true
}

// Ready receives from the endpoint.
func (s *Session) Ready(uint32) {
	e := s.k.e
	if s.over || s.fd < 0 || !e.may() {
		return
	}
	if e.to != s.k || e.used == loop.BatchSize {
		e.flush()
		e.to = s.k
	}
	n, err := e.loop.Receive(s.fd, e.out, e.used, atOnce, false)
	switch {
	case err == syscall.EAGAIN:
		return
	case err != 0:
		// The client's next datagram finds another endpoint.
		s.shut()
		e.host.Reached(s, false)
		s.Endpoint = nil
		return
	}
	e.busy()
	s.active = e.loop.Now()
	if !s.replied {
		s.replied = true
		s.delist()
		e.host.Reached(s, true)
	}
	s.Tries = 0
	s.queue(n)
}

// queue has n datagrams of the endpoint sent at the end of the turn, or when the
// batch is full.
func (s *Session) queue(n int) {
	e := s.k.e
	for i := e.used; i < e.used+n; i++ {
		segment, _ := e.out.Told(i)
		p := e.out.Data(i)
		e.budget -= len(p)
		e.host.Answer(s, p)
		if last := len(e.replies) - 1; i > e.used && segment == 0 && !s.plain && e.replies[last].Segment == 0 {
			r := &e.replies[last]
			size := len(e.out.Data(r.First))
			end := len(e.out.Data(r.First + r.Count - 1))
			if end == size && 0 < len(p) && len(p) <= size && (r.Count+1)*size < 60<<10 {
				r.Count++
				continue
			}
		}
		e.replies = append(e.replies, loop.Reply{First: i, Count: 1, Segment: segment, To: &s.sender, From: s.local})
		e.whose = append(e.whose, s)
	}
	e.used += n
	e.later()
}

// flush sends the replies that wait.
func (e *Engine) flush() {
	for done := 0; done < len(e.replies); {
		n, err := e.loop.SendReplies(e.to.fd, e.out, e.replies[done:])
		if err != 0 {
			n = 0
		}
		for k := done; k < done+n; k++ {
			r := &e.replies[k]
			count, bytes := r.Count, 0
			for i := r.First; i < r.First+r.Count; i++ {
				bytes += len(e.out.Data(i))
			}
			if r.Segment > 0 {
				count = datagrams(bytes, r.Segment)
			}
			e.answered(e.whose[k], count, bytes)
		}
		if done += n; err != 0 {
			e.fallBack(done, err)
			done++
		}
	}
	clear(e.whose)
	e.replies, e.whose, e.used = e.replies[:0], e.whose[:0], 0
}

// fallBack sends a reply that was refused one datagram at a time, where that may help.
func (e *Engine) fallBack(k int, err syscall.Errno) {
	r, s := &e.replies[k], e.whose[k]
	if r.Count == 1 && r.Segment == 0 || !cannotCut(err) {
		e.lose(s, reason(err), 1)
		return
	}
	s.plain = true
	for i := r.First; i < r.First+r.Count; i++ {
		for p := e.out.Data(i); len(p) > 0; {
			n := len(p)
			if r.Segment > 0 {
				n = min(n, r.Segment)
			}
			if err := e.loop.SendPart(e.to.fd, p[:n], r.To, r.From); err == 0 {
				e.answered(s, 1, n)
			} else {
				e.lose(s, reason(err), 1)
			}
			p = p[n:]
		}
	}
}

func (e *Engine) answered(s *Session, count, bytes int) {
	s.Answered += int64(count)
	if !s.over {
		e.host.Moved(s, false, count, bytes)
	}
}

func (e *Engine) lose(s *Session, why Drop, n int) {
	if s.over {
		s = nil
	}
	e.host.Dropped(s, why, n)
}

// watch sets the timer by which the session ends.
func (s *Session) watch() { s.k.e.loop.Wheel.Set(&s.timer, s.active+s.patience()) }

// patience is how long the session may be silent.
func (s *Session) patience() (idle int64) {
	idle = int64(s.Idle)
	if !s.replied {
		idle = min(idle, int64(unansweredIdle))
	}
	if d := int64(s.k.e.draining); d > 0 {
		idle = min(idle, d)
	}
	return idle
}

// Expire ends a session that was silent for too long.
func (s *Session) Expire(_ *loop.Timer, now int64) {
	switch {
	case s.over:
	case now < s.active+s.patience():
		s.watch()
	default:
		s.end(exchange.OK)
	}
}

// Cut ends the session at once.
func (s *Session) Cut(f exchange.Flag) { s.end(f) }

func (s *Session) shut() {
	if s.away {
		s.away = false
		s.k.e.host.Leave(s)
	}
	if s.fd >= 0 {
		s.k.e.flushOf(s)
		s.k.e.loop.Del(s.fd, s.handle)
		s.k.e.loop.ClosePackets(s.fd)
		s.fd = -1
	}
}

// flushOf sends what waits if some of it is the session's.
func (e *Engine) flushOf(s *Session) {
	for _, o := range e.whose {
		if o == s {
			e.flush()
			return
		}
	}
}

func (s *Session) end(f exchange.Flag) {
	if s.over {
		return
	}
	e := s.k.e
	s.shut()
	s.over = true
	e.loop.Wheel.Clear(&s.timer)
	s.delist()
	delete(s.k.sessions, s.sender)
	e.count--
	e.host.Ended(s, f)
	s.Endpoint, s.Service, s.Owner, s.Via = nil, nil, nil, nil
	e.ended = append(e.ended, s)
	e.later()
}

// enlist puts the session behind those that were never answered.
func (s *Session) enlist() {
	e := s.k.e
	s.prev = e.lastUnanswered
	if s.prev != nil {
		s.prev.next = s
	} else {
		e.unanswered = s
	}
	e.lastUnanswered = s
}

func (s *Session) delist() {
	e := s.k.e
	if s.prev == nil && e.unanswered != s {
		return
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		e.unanswered = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		e.lastUnanswered = s.prev
	}
	s.next, s.prev = nil, nil
}

var (
	_ loop.Source  = (*Session)(nil)
	_ loop.Source  = (*Socket)(nil)
	_ loop.Expirer = (*Session)(nil)
)
