package source

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Timing of the file source. A change is read after quiet has passed without
// another, and in any case after patience. Where the kernel cannot tell of
// changes (no inotify instance left) the files are read every pollBlind; every
// pollSure anyhow, because changes made by another host of a network file system
// raise no event here.
const (
	quiet     = 100 * time.Millisecond
	patience  = time.Second
	pollBlind = time.Second
	pollSure  = 30 * time.Second
)

// OriginFile is the origin of snapshots made from files.
const OriginFile = "file"

// Files serves from the documents of a file or folder and follows their changes.
type Files struct {
	path   string
	site   string
	keeper *Keeper
	log    *slog.Logger
	reload chan struct{}

	// tried is the digest of what was read last, served or not.
	tried [sha256.Size]byte
}

// NewFiles returns the source for path, a file or a folder. stateDir may be
// empty: then no last good copy is kept.
func NewFiles(path, site, stateDir string, apply Apply, log *slog.Logger) (*Files, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	var store *Store
	if stateDir != "" {
		store = NewStore(stateDir, "file:"+abs)
	}
	return &Files{
		path: path, site: site, log: log,
		keeper: NewKeeper(path, apply, store, log),
		reload: make(chan struct{}, 1),
	}, nil
}

// State may be called at any time.
func (f *Files) State() State { return f.keeper.State() }

// Reload asks for the files to be read again, changed or not.
func (f *Files) Reload() {
	select {
	case f.reload <- struct{}{}:
	default:
	}
}

// Start reads the files. When they cannot be served, the last good copy of the
// same path is; without one the error names every fault.
func (f *Files) Start(context.Context) error {
	err := f.serve(f.load())
	if err == nil {
		return nil
	}
	rerr := f.keeper.remember(func(s *mesh.Snapshot) error { return s.Verify(nil) })
	if rerr == nil {
		var restored bool
		if restored, rerr = f.keeper.Restore(); restored {
			return nil
		}
	}
	return errors.Join(err, rerr)
}

// Run follows changes until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	w, err := newWatcher()
	if err != nil {
		f.log.Warn("changes are found by reading every second", "err", err)
		return f.poll(ctx)
	}
	defer w.Close()
	for {
		wait := pollSure
		if err := f.follow(ctx, w); err != nil {
			f.log.Warn("changes are found by reading every second", "err", err)
			wait = pollBlind
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-f.reload:
			f.readAndSay(ctx, true)
		case <-w.changed:
			settle(ctx, w.changed)
			f.readAndSay(ctx, false)
		case <-timer.C:
			f.readAndSay(ctx, false)
		}
		timer.Stop()
	}
}

// follow watches what the path holds now; what changed before a watch was set
// is read after it.
func (f *Files) follow(ctx context.Context, w *watcher) error {
	for range maxLinks {
		set, err := watchSet(f.path)
		if err != nil {
			return err
		}
		grew, err := w.watch(set)
		if err != nil || !grew {
			return err
		}
		f.readAndSay(ctx, false)
	}
	return fmt.Errorf("%s: its folders change faster than they can be followed", f.path)
}

func (f *Files) poll(ctx context.Context) error {
	t := time.NewTicker(pollBlind)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.reload:
			f.readAndSay(ctx, true)
		case <-t.C:
			f.readAndSay(ctx, false)
		}
	}
}

// settle returns when nothing changed for a while: a file that is being written
// is not read half.
func settle(ctx context.Context, changed <-chan struct{}) {
	deadline := time.After(patience)
	for {
		select {
		case <-changed:
		case <-time.After(quiet):
			return
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

// readAndSay reads what has settled; the keeper has already told people of a fault.
func (f *Files) readAndSay(ctx context.Context, force bool) {
	d := f.load()
	if d.digest == f.tried && !force {
		return
	}
	d = f.settled(ctx, d)
	if d.digest == f.tried && !force {
		return
	}
	if err := f.serve(d); err == nil && force {
		f.log.Info("configuration read again", "path", f.path)
	}
}

// documents are what one reading found.
type documents struct {
	sources []mesh.Source
	err     error
	digest  [sha256.Size]byte
}

func (f *Files) load() documents {
	sources, err := readAll(f.path)
	return documents{sources, err, digestOf(sources, err)}
}

// settled reads again until the files stay as they are for a while: one that is
// cut to nothing and then written looks empty for an instant, of which no event
// tells.
func (f *Files) settled(ctx context.Context, d documents) documents {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-time.After(quiet):
		case <-ctx.Done():
			return d
		}
		again := f.load()
		if again.digest == d.digest {
			return again
		}
		d = again
	}
	return d
}

// serve brings what was read into force. The error is already recorded.
func (f *Files) serve(d documents) error {
	f.tried = d.digest
	docs, err := d.sources, d.err
	var objects *mesh.Objects
	if err == nil {
		objects, err = parse(f.path, docs)
	}
	if err != nil {
		f.keeper.Refuse(nil, err)
		return err
	}
	snap := &mesh.Snapshot{Origin: OriginFile, Site: f.site, Objects: *objects}
	current := f.keeper.State().Snapshot
	if current == nil {
		snap.Generation = mesh.Generation{Incarnation: uint64(time.Now().UnixMilli()), Counter: 1}
	} else {
		// The same content keeps its generation, so that touching a file or
		// undoing a broken edit is no change; the clock is asked once only,
		// because it may go back.
		snap.Generation = current.Generation
		if err := snap.Seal(nil); err != nil {
			return err
		}
		if snap.Hash == current.Hash {
			return f.keeper.Take(current)
		}
		snap.Generation.Counter++
	}
	if err := snap.Seal(nil); err != nil {
		return err
	}
	return f.keeper.Take(snap)
}

func digestOf(docs []mesh.Source, err error) [sha256.Size]byte {
	h := sha256.New()
	write := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, d := range docs {
		write([]byte(d.Name))
		write(d.Data)
	}
	if err != nil {
		write([]byte(err.Error()))
	}
	return [sha256.Size]byte(h.Sum(nil))
}
