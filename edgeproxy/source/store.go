package source

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/durable"
)

// lastGood is the file's name in the state folder; its first line is
//
//	meridian-last-good 1 <SHA-256 of the rest, hex>
//
// and the rest is JSON. The line is apart so that any damage, to the JSON's
// structure too, is found before it is read.
const (
	lastGood      = "last-good.json"
	lastGoodMagic = "meridian-last-good 1 "
)

// ErrDamaged marks a last good copy whose checksum does not fit.
var ErrDamaged = errors.New("last good snapshot is damaged")

// Store keeps the last good snapshot of one source on disk.
type Store struct {
	dir    string
	source string
	now    func() time.Time
}

type saved struct {
	Source   string          `json:"source"`
	Snapshot json.RawMessage `json:"snapshot"` // as mesh.EncodeSnapshot writes it
}

// NewStore keeps the copy in dir, which must exist. source names where the
// snapshots come from; a copy from elsewhere is not offered by Load.
func NewStore(dir, source string) *Store { return &Store{dir: dir, source: source, now: time.Now} }

// Save replaces the copy. After a crash at any moment the old or the new one is
// there, whole.
func (s *Store) Save(snap *mesh.Snapshot) error {
	wire, err := mesh.EncodeSnapshot(snap)
	if err != nil {
		return err
	}
	name, err := json.Marshal(s.source)
	if err != nil {
		return fmt.Errorf("encode last good snapshot: %w", err)
	}
	// As json.Marshal of a saved, which would read and copy the snapshot once more.
	body := slices.Concat([]byte(`{"source":`), name, []byte(`,"snapshot":`), wire, []byte("}"))
	sum := sha256.Sum256(body)
	data := make([]byte, 0, len(body)+128)
	data = append(data, lastGoodMagic...)
	data = hex.AppendEncode(data, sum[:])
	data = append(data, '\n')
	data = append(data, body...)
	if err := durable.WriteFile(filepath.Join(s.dir, lastGood), data, 0o600); err != nil {
		return err
	}
	return s.record(snap)
}

// Load returns the copy, nil when there is none or it is another source's.
// ErrDamaged says that it cannot be trusted.
func (s *Store) Load() (*mesh.Snapshot, error) {
	path := filepath.Join(s.dir, lastGood)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(body)
	if !ok || !bytes.Equal(head, hex.AppendEncode([]byte(lastGoodMagic), sum[:])) {
		return nil, fmt.Errorf("%s: %w: its checksum does not fit; remove the file to start without it", path, ErrDamaged)
	}
	var v saved
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if v.Source != s.source {
		return nil, nil
	}
	snap, err := mesh.DecodeSnapshot(v.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return snap, nil
}
