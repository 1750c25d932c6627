package source

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// ErrLower marks a snapshot of a lower generation than the one in force.
var ErrLower = errors.New("generation is lower than the one in force")

// ErrLeaving is what an Apply returns that takes nothing any more, because the
// process is about to end: that is no fault of the snapshot.
var ErrLeaving = errors.New("the process takes no configuration any more")

// maxLogged bounds the faults of one configuration that are logged line by line.
const maxLogged = 20

// Apply takes a snapshot into force. An error means that the old one still
// serves, untouched.
type Apply func(*mesh.Snapshot) error

// Keeper is the one way into force for every source: it guards the generation,
// applies, saves, and remembers what was refused. Its methods may be called from
// any goroutine; applying is serial.
type Keeper struct {
	apply Apply
	store *Store
	log   *slog.Logger
	now   func() time.Time

	applying sync.Mutex // held over apply and save; taken before mu
	// floor is the last good snapshot from disk: it bars lower generations even
	// before it serves. Guarded by applying.
	floor *mesh.Snapshot

	mu    sync.Mutex
	state State
}

// NewKeeper returns a keeper for the source named name. store may be nil.
func NewKeeper(name string, apply Apply, store *Store, log *slog.Logger) *Keeper {
	return &Keeper{apply: apply, store: store, log: log, now: time.Now, state: State{Source: name}}
}

// State returns a copy of what is known.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state
	if s.Link != nil {
		l := *s.Link
		s.Link = &l
	}
	return s
}

// Take brings s into force and saves it. The same generation with the same
// content is taken as confirmation and applies nothing.
func (k *Keeper) Take(s *mesh.Snapshot) error {
	k.applying.Lock()
	defer k.applying.Unlock()
	current := k.State().Snapshot
	if err := k.guard(s, cmp.Or(current, k.floor)); err != nil {
		k.Refuse(&s.Generation, err)
		return err
	}
	if current != nil && current.Origin == s.Origin && current.Generation == s.Generation {
		k.confirm()
		return nil
	}
	if err := k.apply(s); errors.Is(err, ErrLeaving) {
		return err
	} else if err != nil {
		k.Refuse(&s.Generation, err)
		return err
	}
	unsaved := ""
	if k.store != nil {
		if err := k.store.Save(s); err != nil {
			unsaved = err.Error()
			k.log.Error("snapshot in force is not saved", "generation", s.Generation, "err", err)
		}
	}
	k.inForce(s, false, unsaved)
	k.log.Info("snapshot in force", "origin", s.Origin, "generation", s.Generation, "hash", short(s.Hash))
	return nil
}

// guard keeps a node from going back: reference is the newest snapshot known, or nil.
func (k *Keeper) guard(s, reference *mesh.Snapshot) error {
	if reference == nil || reference.Origin != s.Origin {
		return nil
	}
	switch c := s.Generation.Compare(reference.Generation); {
	case c < 0:
		return fmt.Errorf("%w: got %s, had %s", ErrLower, s.Generation, reference.Generation)
	case c == 0 && s.Hash != reference.Hash:
		return fmt.Errorf("generation %s came with other content than before", s.Generation)
	}
	return nil
}

// remember loads the last good snapshot as the floor for what may be taken;
// admit says whether it may be served at all.
func (k *Keeper) remember(admit func(*mesh.Snapshot) error) error {
	if k.store == nil {
		return nil
	}
	s, err := k.store.Load()
	if s == nil || err != nil {
		return err
	}
	if err := admit(s); err != nil {
		return fmt.Errorf("last good snapshot %s: %w", s.Generation, err)
	}
	k.applying.Lock()
	defer k.applying.Unlock()
	k.floor = s
	return nil
}

// Restore brings the remembered last good snapshot into force, unless something
// already is. It reports false without an error when there is none.
func (k *Keeper) Restore() (bool, error) {
	k.applying.Lock()
	defer k.applying.Unlock()
	s := k.floor
	if s == nil || k.State().Snapshot != nil {
		return false, nil
	}
	if err := k.apply(s); err != nil {
		return false, fmt.Errorf("last good snapshot %s: %w", s.Generation, err)
	}
	k.inForce(s, true, "")
	k.log.Warn("last good snapshot in force", "origin", s.Origin, "generation", s.Generation, "hash", short(s.Hash))
	return true, nil
}

// Refuse records that something newer is not served and why; gen is nil where it
// has none.
func (k *Keeper) Refuse(gen *mesh.Generation, err error) {
	r := &Refusal{At: k.now(), Why: err.Error()}
	if gen != nil {
		g := *gen
		r.Generation = &g
	}
	if lines := strings.Split(r.Why, "\n"); len(lines) > 1 {
		r.Why, r.Faults = fmt.Sprintf("%d faults, the first: %s", len(lines), lines[0]), lines
	} else {
		r.Faults = lines
	}
	k.mu.Lock()
	repeat := k.state.Refused != nil && k.state.Refused.Why == r.Why
	k.state.Refused = r
	k.state.CheckedAt = r.At
	k.state.Refusals++
	switch {
	case errors.Is(err, ErrLower):
		k.state.Lower++
	case errors.Is(err, mesh.ErrTampered):
		k.state.Tampered++
	}
	serving := k.state.Snapshot
	k.mu.Unlock()
	if repeat {
		return // a controller that repeats itself must not fill the log
	}
	for i, f := range r.Faults {
		if i == maxLogged {
			k.log.Error("configuration refused", "more_faults", len(r.Faults)-i, "see", "/config of the admin server")
			break
		}
		attrs := []any{"fault", f}
		if gen != nil {
			attrs = append(attrs, "refused", gen.String())
		}
		if serving != nil {
			attrs = append(attrs, "serving", serving.Generation.String())
		}
		k.log.Error("configuration refused", attrs...)
	}
}

// confirm records that the source still says what is in force.
func (k *Keeper) confirm() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.CheckedAt = k.now()
	k.state.Refused = nil
	k.state.Restored = false
}

func (k *Keeper) inForce(s *mesh.Snapshot, restored bool, unsaved string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Snapshot = s
	k.state.AppliedAt = k.now()
	k.state.Restored = restored
	k.state.Unsaved = unsaved
	if !restored {
		// A restored snapshot keeps the refusal that made it necessary.
		k.state.Refused = nil
		k.state.Reloads++
		k.state.CheckedAt = k.state.AppliedAt
	}
}

// link records the state of the connection to the controller.
func (k *Keeper) link(connected bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Link == nil || k.state.Link.Connected != connected {
		k.state.Link = &Link{Connected: connected, Since: k.now()}
	}
}

// short is enough of a hash for a person to compare.
func short(hash string) string { return hash[:min(12, len(hash))] }
