// Package tap shows requests as they end to who asks: those that a tap selects, and
// those that failed or took long, of which the latest are kept. Loops decide by a
// comparison and one atomic load that a request is for nobody, which is all that it
// costs while no tap is on; what somebody wants is copied into a ring of fixed size,
// and a goroutine takes it from there.
package tap

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

const (
	// Slow is from how long on a request is kept though it did not fail.
	Slow = time.Second
	// ringBytes holds some hundred records of one loop, which the reader takes out
	// every 10 ms.
	ringBytes = 128 << 10
	// maxKept is how many requests are kept that failed, keepRate how many more a
	// loop keeps in a second: a flood of failures costs no more than that.
	maxKept  = 256
	keepRate = 100
	// maxWaiting is how many requests wait for who asks for a tap.
	maxWaiting = 1000
	// maxAnswer bounds an answer in bytes, under the megabyte of a message on the bus.
	maxAnswer = 512 << 10
	// restSlot is how long a slot stays empty between two taps, so that no record
	// that was marked for one reaches the next.
	restSlot = time.Second
	// markKept marks a record that is kept; the other bits are the taps'.
	markKept = 1
)

// Config is what a Tap needs.
type Config struct {
	Loops int
	Now   func() int64 // the loops' clock
	// Explain says where such a request would go now; an error why that cannot be
	// said. It is called by the goroutine of Run.
	Explain func(*mesh.EndedRequest) (*mesh.Explanation, error)
}

// Tap is that of one process. Ask and Failed may be called from any goroutine.
type Tap struct {
	reader *accesslog.Reader
	loops  []*Loop
	kept   *kept
	lease  time.Duration // [mesh.TapLease], but in tests
	// on are the taps, nil while there is none.
	on atomic.Pointer[[mesh.MaxTaps]*session]

	mu    sync.Mutex
	slots [mesh.MaxTaps]slot
}

type slot struct {
	is    *session
	freed time.Time
}

// New makes a Tap.
func New(c Config) *Tap {
	t := &Tap{lease: mesh.TapLease, reader: accesslog.NewReader(c.Loops, ringBytes, c.Now), kept: newKept(c)}
	for i := range c.Loops {
		t.loops = append(t.loops, &Loop{of: t, ring: t.reader.Ring(i)})
	}
	return t
}

// Loop is loop i's way in.
func (t *Tap) Loop(i int) *Loop { return t.loops[i] }

// Run takes in what the loops say until ctx ends.
func (t *Tap) Run(ctx context.Context) {
	t.reader.Run(ctx, func(e mesh.EndedRequest, mark uint8, end int64) {
		if mark&markKept != 0 {
			t.kept.add(e, end)
		}
		on := t.on.Load()
		for i := 0; on != nil && i < len(on); i++ {
			if on[i] != nil && mark&(2<<i) != 0 {
				on[i].add(e)
			}
		}
	})
}

// Ask answers a query of a tap, and turns it on with the first.
func (t *Tap) Ask(q *mesh.TapQuery) (*mesh.TapAnswer, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	s, err := t.session(q)
	if err != nil {
		return nil, err
	}
	if q.End {
		t.end(s)
	}
	return s.answer(q.After), nil
}

func (t *Tap) session(q *mesh.TapQuery) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	free := -1
	for i, s := range t.slots {
		switch {
		case s.is != nil && s.is.name == q.Session:
			s.is.lease.Reset(t.lease)
			return s.is, nil
		case s.is == nil && free < 0 && time.Since(s.freed) > restSlot:
			free = i
		}
	}
	if free < 0 {
		return nil, fmt.Errorf("%d taps are on at this proxy, or went off just now, and there are no more: end one or wait a moment", mesh.MaxTaps)
	}
	s := newSession(q)
	if !q.End {
		s.lease = time.AfterFunc(t.lease, func() { t.end(s) })
		t.slots[free].is = s
		t.publish()
	}
	return s, nil
}

func (t *Tap) end(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.slots {
		if t.slots[i].is == s {
			s.lease.Stop()
			t.slots[i] = slot{freed: time.Now()}
		}
	}
	t.publish()
}

// publish tells the loops which taps are on. It needs mu.
func (t *Tap) publish() {
	var on [mesh.MaxTaps]*session
	any := false
	for i := range t.slots {
		on[i] = t.slots[i].is
		any = any || on[i] != nil
	}
	if !any {
		t.on.Store(nil)
		return
	}
	t.on.Store(&on)
}

// Failed answers a query for requests that failed or took long.
func (t *Tap) Failed(q *mesh.FailedQuery) (*mesh.FailedAnswer, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	out, err := t.kept.find(q)
	if err != nil {
		return nil, err
	}
	out.NotKept += t.reader.Lost()
	for _, l := range t.loops {
		out.NotKept += l.over.Load()
	}
	return out, nil
}

// Loop is one loop's part. Only that loop calls its methods, which neither allocate
// nor wait.
type Loop struct {
	of   *Tap
	ring *accesslog.Ring
	// second is the one in which this many were kept.
	second int64
	count  int
	over   atomic.Uint64
}

// Wants reports whether a request that ended is to be given to [Loop.Add]: it
// failed, it took long, or a tap is on.
func (l *Loop) Wants(status int, flagged bool, took time.Duration) bool {
	return flagged || status >= 500 || took >= Slow || l.of.on.Load() != nil
}

// Add hands on what somebody wants of a request; failed says that it failed or took
// long.
func (l *Loop) Add(e *accesslog.Entry, failed bool) {
	now := e.Start + e.Duration
	e.Mark = 0
	if failed {
		if second := now / int64(time.Second); second != l.second {
			l.second, l.count = second, 0
		}
		if l.count++; l.count <= keepRate {
			e.Mark = markKept
		} else {
			l.over.Add(1)
		}
	}
	if on := l.of.on.Load(); on != nil {
		for i, s := range on {
			if s != nil && s.matches(e) && s.takes(now) {
				e.Mark |= 2 << i
			}
		}
	}
	if e.Mark != 0 {
		l.ring.Add(e)
	}
}

// session is one tap.
type session struct {
	name   string
	filter mesh.TapFilter
	// Of the filter, as bytes: a loop compares those.
	host, path, method, id []byte
	from, to               int
	least                  int64
	lease                  *time.Timer // nil for one that ends at once

	rate    int64
	second  atomic.Int64
	count   atomic.Int64
	dropped atomic.Uint64

	mu      sync.Mutex
	seq     uint64
	waiting []mesh.EndedRequest // the last has seq
}

func newSession(q *mesh.TapQuery) *session {
	f := q.Filter
	from, to, _ := f.Statuses() // they have been checked
	return &session{
		name: q.Session, filter: f, rate: int64(q.PerSecond),
		host: bytes.ToLower([]byte(f.Host)), path: []byte(f.PathPrefix), method: []byte(f.Method), id: []byte(f.ID),
		from: from, to: to, least: int64(f.MinMS * 1e6),
	}
}

func (s *session) matches(e *accesslog.Entry) bool {
	return e.Status >= s.from && e.Status <= s.to && e.Duration >= s.least &&
		s.filter.HasFlag(e.Flag) &&
		(len(s.method) == 0 || bytes.Equal(s.method, e.Method)) &&
		(s.filter.Service == "" || string(s.filter.Service) == e.Service) &&
		bytes.HasPrefix(e.Path, s.path) &&
		(len(s.host) == 0 || bytes.EqualFold(s.host, hostOf(e.Authority))) &&
		(len(s.id) == 0 || bytes.Equal(s.id, field(e.Request, "x-request-id")))
}

// hostOf is an authority without its port.
func hostOf(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		return authority[:i]
	}
	return authority
}

func field(fields []stream.Field, name string) []byte {
	for i := range fields {
		if f := &fields[i]; len(f.Name) == len(name) && f.Is(name) {
			return f.Value
		}
	}
	return nil
}

// takes holds the tap's rate, over all loops together; where two loops begin a second
// at once it is a little over.
func (s *session) takes(now int64) bool {
	if second := now / int64(time.Second); s.second.Load() != second {
		s.second.Store(second)
		s.count.Store(0)
	}
	if s.count.Add(1) <= s.rate {
		return true
	}
	s.dropped.Add(1)
	return false
}

func (s *session) add(e mesh.EndedRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	if len(s.waiting) == maxWaiting {
		s.waiting = slices.Delete(s.waiting, 0, 1)
		s.dropped.Add(1)
	}
	s.waiting = append(s.waiting, e)
}

// answer forgets what has arrived and gives what is later.
func (s *session) answer(after uint64) *mesh.TapAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.seq - uint64(len(s.waiting)) // of what comes before
	if after > first {
		s.waiting = slices.Delete(s.waiting, 0, int(min(after, s.seq)-first))
		first = s.seq - uint64(len(s.waiting))
	}
	out := &mesh.TapAnswer{Requests: []mesh.EndedRequest{}, Dropped: s.dropped.Load()}
	size := 0
	for i := range s.waiting {
		if size += sizeOf(&s.waiting[i]); size > maxAnswer {
			out.More = true
			break
		}
		out.Requests = append(out.Requests, s.waiting[i])
	}
	out.Seq = first + uint64(len(out.Requests))
	return out
}

// sizeOf is the most bytes of a request in JSON, where six stand for one.
func sizeOf(e *mesh.EndedRequest) int {
	return 700 + len(e.Client) + len(e.Peer) + len(e.Endpoint) +
		6*(len(e.ID)+len(e.Protocol)+len(e.Method)+len(e.Authority)+len(e.Path)+len(e.UserAgent)+len(e.Identity)+len(e.Gateway)+len(e.Rule)+len(e.Service)+len(e.ToSite)+len(e.Details))
}
