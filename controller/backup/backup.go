// Package backup writes what a site cannot get back from others into one file, and
// makes a data folder of such a file again: the site's keys (for a hub also its CA
// and the list of sites that joined), its settings, and the configuration that it
// owns. Snapshots, mirrors and load are not in it: they come back by themselves.
//
// A restored site is a new incarnation of the old one. Its generations are above
// all that its nodes ever saw, signed with the key that they trust, and its
// configuration has revisions above all that the mirrors of other sites have, so
// that everybody follows it, and nobody a ghost of what came after the backup.
package backup

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
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// magic begins the first line; the SHA-256 of the rest in hexadecimal ends it, and
// the rest is JSON.
const magic = "meridian-backup 1 "

// PendingFile is the record of a restored folder that tells the next controller
// what to put into its bucket.
const PendingFile = "restore.json"

// kept are the files of a data folder that a backup has, where they exist.
var kept = []string{
	"site.json", "site.key", "site.pub", "site.nk", "node.token", "admin.token", "generation.json", "hub-ca.pem",
	"hub/ca.pem", "hub/ca.key", "hub/server.pem", "hub/server.key", "hub/sites.json", "hub/roots.json", "issuer.json",
}

// Object is one object of the configuration that the site owns.
type Object struct {
	Key   mesh.Key        `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Backup is a site as it was.
type Backup struct {
	Site    string    `json:"site"`
	Taken   time.Time `json:"taken"`
	Version string    `json:"version"`
	// Revision is how far the site's bucket was.
	Revision uint64   `json:"revision"`
	Objects  []Object `json:"objects"`
	// Files are contents by name, relative to the data folder; the folder's own
	// configuration documents are among them.
	Files map[string][]byte `json:"files"`
}

// Pending is what [PendingFile] holds.
type Pending struct {
	// First is the least revision that the bucket may have.
	First   uint64   `json:"first"`
	Objects []Object `json:"objects"`
}

// Take reads the files of a data folder; a controller may be running on it. The
// caller fills in the rest.
func Take(dir string) (*Backup, error) {
	b := &Backup{Files: map[string][]byte{}}
	names := slices.Clone(kept)
	if site, err := join.ReadSiteFile(dir); err == nil {
		for _, path := range site.Config {
			if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
				names = append(names, rel)
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		b.Files[name] = data
	}
	if b.Files["site.key"] == nil {
		return nil, fmt.Errorf("backup: %s is not the data folder of a site: it has no site.key", dir)
	}
	return b, nil
}

// Encode writes the file's content.
func (b *Backup) Encode() ([]byte, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	sum := sha256.Sum256(body)
	return append(append(hex.AppendEncode([]byte(magic), sum[:]), '\n'), body...), nil
}

// Decode reads it and refuses one that is damaged.
func Decode(data []byte) (*Backup, error) {
	head, body, _ := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(body)
	if !bytes.HasPrefix(head, []byte(magic)) {
		return nil, errors.New("backup: this is no backup of a site")
	}
	if !bytes.Equal(head, hex.AppendEncode([]byte(magic), sum[:])) {
		return nil, errors.New("backup: the file is damaged, its checksum does not fit: use another copy")
	}
	b := new(Backup)
	if err := json.Unmarshal(body, b); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	for name := range b.Files {
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("backup: file name %q leads out of the folder", name)
		}
	}
	return b, nil
}

// Restore makes a data folder of it, which must not be that of a site already. The
// controller that starts on it next completes the work. now only has to be later
// than the start of every controller that the site ever had.
func (b *Backup) Restore(dir string, now time.Time) (err error) {
	f, err := store.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, name := range []string{"site.key", "nats", PendingFile} {
		if _, err := os.Stat(f.Path(name)); err == nil {
			return fmt.Errorf("backup: %s is the folder of a site already: restore into an empty one, so that nothing is lost", dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("backup: %w", err)
		}
	}
	for name, data := range b.Files {
		if err := os.MkdirAll(filepath.Dir(f.Path(name)), 0o700); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if err := store.WriteFile(f.Path(name), data, 0o600); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	used, err := f.Generation()
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	next := mesh.Generation{Incarnation: max(used.Incarnation+1, uint64(now.UnixNano()))}
	if err := f.SaveGeneration(next); err != nil {
		return err
	}
	return f.SaveRecord(PendingFile, Pending{First: bus.NextRevisions(b.Revision), Objects: b.Objects})
}
