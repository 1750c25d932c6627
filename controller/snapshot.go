package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// publication is a snapshot on its way out, and how the buckets stood that it was
// made from; nil where it is handed out again.
type publication struct {
	*mesh.Snapshot
	books map[string]book
}

// outcome is what became of a snapshot that was given to the publisher.
type outcome struct {
	generation mesh.Generation
	err        error
}

// compile makes a new generation when what the site's nodes need has changed.
func (s *Server) compile() {
	if now := time.Now(); !s.synced || !s.active(now) || now.Before(s.collecting) {
		return
	}
	if s.hold != "" {
		if s.snapshot != nil && s.published != s.snapshot.Generation {
			s.hand(publication{s.snapshot, nil})
		}
		return
	}
	objects := s.world.Compile(s.cfg.Site)
	if s.snapshot == nil && objects.Len() == len(objects.TrustBundles) {
		return // a site that was never configured has nothing to say
	}
	if s.snapshot != nil && s.snapshot.Objects.Same(&objects) {
		if s.published != s.snapshot.Generation {
			s.hand(publication{s.snapshot, s.books()})
		}
		return
	}
	snap := &mesh.Snapshot{
		Generation: mesh.Generation{Incarnation: s.newest.Incarnation, Counter: s.newest.Counter + 1},
		Origin:     s.cfg.Site, Site: s.cfg.Site, Objects: objects,
	}
	if err := s.sealer.Seal(snap, s.key); err != nil {
		s.problem = err.Error()
		s.log.Error("snapshot", "err", err)
		return
	}
	s.newest, s.snapshot, s.snapshotAt = snap.Generation, snap, time.Now()
	s.log.Info("new snapshot", "generation", snap.Generation.String(), "objects", objects.Len())
	s.hand(publication{snap, s.books()})
}

// hand gives a snapshot to the publisher; one that still waits there is older
// and goes.
func (s *Server) hand(snap publication) {
	select {
	case <-s.toBus:
	default:
	}
	s.toBus <- snap
}

// publish records snapshots on disk and puts them on the bus, and goes on trying
// until a newer one comes.
func (s *Server) publish(ctx context.Context) {
	const retry = 500 * time.Millisecond
	var pending publication
	for {
		var again <-chan time.Time
		if pending.Snapshot != nil {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return
		case pending = <-s.toBus:
		case <-again:
		}
		if !s.active(time.Now()) {
			pending.Snapshot = nil // another controller runs the site, and publishes its own
			continue
		}
		err := s.put(ctx, pending)
		o := outcome{pending.Generation, err}
		if err == nil {
			pending.Snapshot = nil
		}
		select {
		case s.fromBus <- o:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) put(ctx context.Context, p publication) error {
	snap := p.Snapshot
	// The number first: whatever happens after, it is never used again.
	if err := s.folder.SaveGeneration(snap.Generation); err != nil {
		return fmt.Errorf("record generation %s: %w", snap.Generation, err)
	}
	if err := s.folder.SaveSnapshot(snap); err != nil {
		return fmt.Errorf("keep snapshot %s: %w", snap.Generation, err)
	}
	if p.books != nil {
		if err := s.folder.SaveRecord(booksFile, p.books); err != nil {
			return fmt.Errorf("record the buckets of snapshot %s: %w", snap.Generation, err)
		}
	}
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	return s.snaps.Put(ctx, snap)
}

// landed takes in what the publisher achieved.
func (s *Server) landed(o outcome) {
	if o.err == nil {
		s.published, s.problem = o.generation, s.hold
		s.count.snapshots.Add(1)
		return
	}
	if s.problem == "" {
		s.log.Error("snapshot is not published yet", "generation", o.generation.String(), "err", o.err)
	}
	s.problem = o.err.Error()
}
