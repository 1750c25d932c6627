package controller

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// Times of the lease. A holder that cannot renew stops before another begins, by
// clocks that need agree on nothing but the length of a second.
const (
	renewEvery = time.Second
	tenure     = 4 * time.Second
	takeAfter  = 6 * time.Second
)

// runs is a controller's right to run its site.
type runs struct {
	until time.Time // monotonic
	who   string    // holds it, when this one does not
}

// active reports whether this controller may speak for its site at now. With the
// embedded server it is the only one, for it has the data folder's lock.
func (s *Server) active(now time.Time) bool {
	if s.lease == nil {
		return true
	}
	r := s.runs.Load()
	return r != nil && now.Before(r.until)
}

// errStandby refuses what only the active controller may do.
func (s *Server) errStandby() error {
	if s.active(time.Now()) {
		return nil
	}
	who := "nobody yet"
	if r := s.runs.Load(); r != nil && r.who != "" {
		who = r.who
	}
	return fmt.Errorf("this controller of site %s stands by, the site is run by %s: ask that one", s.cfg.Site, who)
}

// holdLease takes the lease when it is free, renews it while it is held, and lets
// go of the site when it is lost.
// settled is closed when it was asked for the first time.
func (s *Server) holdLease(ctx context.Context, settled chan<- struct{}) {
	var first sync.Once
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	h := holder{s: s, name: fmt.Sprintf("%s pid %d of %s", host, os.Getpid(), s.started.UTC().Format("2006-01-02T15:04:05.000000000"))}
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		h.turn(ctx)
		first.Do(func() { close(settled) })
		select {
		case <-ctx.Done():
			h.release()
			return
		case <-t.C:
		}
	}
}

// holder is one controller's side of the lease.
type holder struct {
	s    *Server
	name string
	// mine is the tenure held, at revision rev; zero when it is not.
	mine bus.Tenure
	rev  uint64
	// seen is the newest revision of somebody else's, and since when it stands.
	seen  uint64
	since time.Time
	end   context.CancelFunc // of what only the active one does
}

func (h *holder) turn(ctx context.Context) {
	call, done := context.WithTimeout(ctx, renewEvery)
	defer done()
	// Before the call: from then on others may count.
	now := time.Now()
	var err error
	if h.mine.Holder != "" {
		err = h.renew(call, now)
	} else {
		err = h.try(ctx, call, now)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrFenced) {
		h.s.log.Debug("lease", "err", err)
	}
}

func (h *holder) renew(ctx context.Context, now time.Time) error {
	next := h.mine
	next.Beat++
	rev, err := h.s.lease.Write(ctx, next, h.rev)
	if err == nil {
		h.mine, h.rev = next, rev
		h.s.runs.Store(&runs{until: now.Add(tenure)})
		return nil
	}
	if errors.Is(err, bus.ErrFenced) || !h.s.active(time.Now()) {
		h.s.log.Warn("this controller no longer runs the site", "err", err)
		h.mine, h.rev, h.seen = bus.Tenure{}, 0, 0
		h.s.runs.Store(&runs{})
		h.end()
	}
	return err
}

// try takes the lease when nobody has it, or nobody renewed it for long enough.
func (h *holder) try(ctx, call context.Context, now time.Time) error {
	s := h.s
	held, rev, err := s.lease.Read(call)
	if err != nil {
		return err
	}
	if rev != h.seen || h.since.IsZero() {
		h.seen, h.since = rev, now
		s.runs.Store(&runs{who: held.Holder})
	}
	if held.Holder != "" && now.Sub(h.since) < takeAfter {
		return nil
	}
	known, err := s.snaps.Get(call)
	if err != nil {
		return err
	}
	next := bus.Tenure{Holder: h.name, Incarnation: held.Incarnation + 1}
	if known != nil {
		if err := known.Verify(s.key.Public().(ed25519.PublicKey)); err != nil {
			s.log.Error("the site's snapshot is signed with another key: copy site.key and site.pub from the other controller's data folder", "err", err)
			return err
		}
		next.Incarnation = max(next.Incarnation, known.Generation.Incarnation+1)
	}
	if err := s.do(call, func() { next.Incarnation = max(next.Incarnation, s.newest.Incarnation) }); err != nil {
		return err
	}
	if rev, err = s.lease.Write(call, next, rev); err != nil {
		return err
	}
	h.mine, h.rev = next, rev
	active, end := context.WithCancel(ctx)
	h.end = end
	s.runs.Store(&runs{until: now.Add(tenure)})
	if err := s.do(call, func() { s.takeOver(next.Incarnation, known, now) }); err != nil {
		return err
	}
	s.log.Info("this controller runs the site", "incarnation", next.Incarnation)
	if err := s.serveBusAPI(active); err != nil {
		return err
	}
	if len(s.cfg.Preload) > 0 {
		return s.preload(active)
	}
	return nil
}

// release lets another controller begin at once.
func (h *holder) release() {
	if h.mine.Holder == "" {
		return
	}
	h.end()
	ctx, done := context.WithTimeout(context.Background(), renewEvery)
	defer done()
	if _, err := h.s.lease.Write(ctx, bus.Tenure{Incarnation: h.mine.Incarnation}, h.rev); err != nil {
		h.s.log.Info("the lease ends by itself", "err", err)
	}
}

// takeOver begins an incarnation: what the controller before this one published
// stands, and what follows is above it. Loop only.
func (s *Server) takeOver(incarnation uint64, known *mesh.Snapshot, now time.Time) {
	s.newest = mesh.Generation{Incarnation: incarnation}
	s.snapshot, s.published = known, mesh.Generation{}
	if known != nil {
		s.published = known.Generation
	}
	// Soft state of an earlier one is older, whenever this process started.
	s.epoch, s.planSeq, s.reportSeq, s.sent = uint64(now.UnixNano()), 0, 0, nil
	s.compile()
}
