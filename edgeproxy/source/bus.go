package source

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
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

// Bus serves from the snapshots of the site's controller.
type Bus struct {
	site   string
	trust  ed25519.PublicKey
	ctl    Controller
	keeper *Keeper
	log    *slog.Logger

	// first is closed when the controller's first snapshot is in force.
	first     chan struct{}
	firstOnce sync.Once
}

// NewBus returns the source for the snapshots of site. name is what --config
// said; trust, when not nil, is the key that must have signed each snapshot;
// stateDir may be empty: then no last good copy is kept.
func NewBus(name, site, stateDir string, ctl Controller, trust ed25519.PublicKey, apply Apply, log *slog.Logger) *Bus {
	var store *Store
	if stateDir != "" {
		store = NewStore(stateDir, "site:"+site)
	}
	return &Bus{
		site: site, trust: trust, ctl: ctl, log: log,
		keeper: NewKeeper(name, apply, store, log),
		first:  make(chan struct{}),
	}
}

// State may be called at any time.
func (b *Bus) State() State {
	b.keeper.link(b.ctl.Connected())
	return b.keeper.State()
}

// Reload does nothing: the controller sends what changed when it changes.
func (b *Bus) Reload() {}

// Start asks the controller and, when it does not answer within a moment,
// serves the last good snapshot. With neither the node goes on asking, not ready.
func (b *Bus) Start(ctx context.Context) error {
	if err := b.keeper.remember(b.admit); err != nil {
		b.log.Error("last good snapshot is not used", "err", err)
	}
	if err := b.ctl.WatchSnapshots(ctx, b.site, b.take); err != nil {
		return fmt.Errorf("watch snapshots of site %s: %w", b.site, err)
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
		b.log.Error("last good snapshot is not served", "err", err)
	}
	if !restored && b.keeper.State().Snapshot == nil {
		b.log.Warn("waiting for the first snapshot of the controller", "site", b.site)
	}
	return nil
}

// Run keeps the state of the connection until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		was := b.keeper.State().Link
		b.keeper.link(b.ctl.Connected())
		if is := b.keeper.State().Link; was == nil || was.Connected != is.Connected {
			b.log.Info("link to the controller", "connected", is.Connected)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
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
	if s.Site != b.site {
		return fmt.Errorf("snapshot is for site %q, this node is of site %q", s.Site, b.site)
	}
	return verify(s, b.trust)
}

var errUnsigned = errors.New("snapshot is not signed, and --trust-key demands it")
