package source

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/durable"
)

// The configurations that were in force lie in the state folder as documents that
// --config reads, so that a person can go back to one without any tool:
//
//	history/<when, UTC>_<generation>_<hash>.yaml
//
// The newest historyLength are kept.
const (
	historyDir    = "history"
	historyLength = 10
	historyStamp  = "20060102T150405.000"
	historySuffix = ".yaml"
)

// Kept is a configuration that is, or was, in force.
type Kept struct {
	Path       string          `json:"path"` // for --config
	At         time.Time       `json:"at"`   // when it came into force
	Generation mesh.Generation `json:"generation"`
	Hash       string          `json:"hash"` // the beginning of it
}

// record adds a configuration to the history and drops the oldest.
func (s *Store) record(snap *mesh.Snapshot) error {
	dir := filepath.Join(s.dir, historyDir)
	kept, err := s.History()
	if err != nil {
		return err
	}
	if len(kept) > 0 && kept[0].Hash == short(snap.Hash) {
		return nil // a restart with what was in force
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := mesh.ToYAML(&snap.Objects)
	if err != nil {
		return err
	}
	at := s.now().UTC()
	if len(kept) > 0 && !at.After(kept[0].At) {
		at = kept[0].At.Add(time.Millisecond) // a clock that went back must not change the order
	}
	g := snap.Generation
	name := fmt.Sprintf("%s_%d.%d_%s%s", at.Format(historyStamp), g.Incarnation, g.Counter, short(snap.Hash), historySuffix)
	if err := durable.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		return err
	}
	for _, old := range kept[min(len(kept), historyLength-1):] {
		err = errors.Join(err, ignoreMissing(os.Remove(old.Path)))
	}
	return err
}

// History lists the configurations that were in force, the newest first.
func (s *Store) History() ([]Kept, error) {
	dir := filepath.Join(s.dir, historyDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kept []Kept
	for _, e := range entries {
		if k, ok := keptOf(e.Name()); ok {
			k.Path = filepath.Join(dir, e.Name())
			kept = append(kept, k)
		}
	}
	slices.SortFunc(kept, func(a, b Kept) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Path, a.Path)) })
	return kept, nil
}

// keptOf reads a file's name; false for one that is none of ours.
func keptOf(name string) (Kept, bool) {
	stem, ok := strings.CutSuffix(name, historySuffix)
	parts := strings.Split(stem, "_")
	if !ok || len(parts) != 3 {
		return Kept{}, false
	}
	at, err := time.Parse(historyStamp, parts[0])
	incarnation, counter, _ := strings.Cut(parts[1], ".")
	k := Kept{At: at, Hash: parts[2]}
	if err == nil {
		k.Generation.Incarnation, err = strconv.ParseUint(incarnation, 10, 64)
	}
	if err == nil {
		k.Generation.Counter, err = strconv.ParseUint(counter, 10, 64)
	}
	return k, err == nil
}

// History lists the configurations that were in force and are kept, the newest
// first; none without a state folder.
func (k *Keeper) History() ([]Kept, error) {
	if k.store == nil {
		return nil, nil
	}
	return k.store.History()
}

// History implements Source.
func (f *Files) History() ([]Kept, error) { return f.keeper.History() }

// History implements Source.
func (b *Bus) History() ([]Kept, error) { return b.keeper.History() }
