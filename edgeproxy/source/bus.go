package source

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/beat"
)

// answerWait is how long a starting node waits for its controller before it
// serves the last good snapshot: long enough for one that lives, short enough
// that a node that restarts alone is hardly missed.
const answerWait = 500 * time.Millisecond

// Controller is the way to the site's controller, as the bus offers it.
type Controller interface {
	// WatchSnapshots calls take with the newest snapshot of site, if there is
	// one, and with each that follows, one at a time and across reconnects, until
	// ctx ends. A message that cannot be read comes as an error. It returns once
	// the watch is set, or will be as soon as there is a connection.
	WatchSnapshots(ctx context.Context, site string, take func(*mesh.Snapshot, error)) error
	// Connected reports whether there is a connection now.
	Connected() bool
}

// BusConfig is what a Bus source needs.
type BusConfig struct {
	// Name is what --config said.
	Name string
	// Site is whose snapshots are served.
	Site       string
	Controller Controller
	// Trust, when not nil, is the key that must have signed each snapshot.
	Trust ed25519.PublicKey
	// StateDir may be empty: then no last good copy is kept.
	StateDir string
	Apply    Apply
	Log      *slog.Logger
}

// Bus serves from the snapshots of the site's controller.
type Bus struct {
	BusConfig
	keeper *Keeper
	// first is closed when the controller's first snapshot is in force.
	first     chan struct{}
	firstOnce sync.Once
}

// NewBus returns the source.
func NewBus(c BusConfig) *Bus {
	var store *Store
	if c.StateDir != "" {
		store = NewStore(c.StateDir, "site:"+c.Site)
	}
	return &Bus{BusConfig: c, keeper: NewKeeper(c.Name, c.Apply, store, c.Log), first: make(chan struct{})}
}

// State may be called at any time.
func (b *Bus) State() State {
	b.keeper.link(b.Controller.Connected())
	return b.keeper.State()
}

// Reload changes nothing: the controller sends what changed when it changes.
func (b *Bus) Reload() { b.Log.Info("nothing to read again: configuration comes from the controller") }

// Start asks the controller and, when it does not answer within a moment,
// serves the last good snapshot. With neither the node goes on asking, not ready.
func (b *Bus) Start(ctx context.Context) error {
	if err := b.keeper.remember(b.admit); err != nil {
		b.Log.Error("last good snapshot is not used", "err", err)
	}
	if err := b.Controller.WatchSnapshots(ctx, b.Site, b.take); err != nil {
		return fmt.Errorf("watch snapshots of site %s: %w", b.Site, err)
	}
	t := time.NewTimer(answerWait)
	defer t.Stop()
	select {
	case <-b.first:
		return nil
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	restored, err := b.keeper.Restore()
	if err != nil {
		b.Log.Error("last good snapshot is not served", "err", err)
	}
	if !restored && b.keeper.State().Snapshot == nil {
		b.Log.Warn("waiting for the first snapshot of the controller", "site", b.Site)
	}
	return nil
}

// Run keeps the state of the connection until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	t := beat.Every(time.Second)
	defer t.Stop()
	for {
		was := b.keeper.State().Link
		b.keeper.link(b.Controller.Connected())
		if is := b.keeper.State().Link; was == nil || was.Connected != is.Connected {
			b.Log.Info("link to the controller", "connected", is.Connected)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			t.Again()
		}
	}
}

func (b *Bus) take(s *mesh.Snapshot, err error) {
	if err != nil {
		b.keeper.Refuse(nil, err)
		return
	}
	if err := b.admit(s); err != nil {
		b.keeper.Refuse(&s.Generation, err)
		return
	}
	// The keeper has recorded the error, and the node's report carries it back.
	if b.keeper.Take(s) == nil {
		b.firstOnce.Do(func() { close(b.first) })
	}
}

// admit says whether a snapshot that came from outside this process may be
// served here.
func (b *Bus) admit(s *mesh.Snapshot) error {
	if err := s.Check(); err != nil {
		return err
	}
	if s.Site != b.Site {
		return fmt.Errorf("snapshot is for site %q, this node is of site %q", s.Site, b.Site)
	}
	if s.Origin != b.Site {
		// Generations are compared within one origin: another one's would go around them.
		return fmt.Errorf("snapshot %s is by %q, this node takes those of site %q: %w", s.Generation, s.Origin, b.Site, mesh.ErrTampered)
	}
	return s.Verify(b.Trust)
}
