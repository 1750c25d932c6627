// Package store keeps a site controller's data folder: keys and secrets, the
// number of its last generation, and its last snapshot.
//
//	<data>/lock             held while a controller runs
//	<data>/generation.json  incarnation and highest counter ever used
//	<data>/snapshot.json    last snapshot, and snapshot.prev.json the one before
//	<data>/site.key         Ed25519 key that seals snapshots (0600); site.pub its public half
//	<data>/node.token       secret of the site's own nodes (0600); admin.token that of the controller
//	<data>/hub/             the hub's CA, server certificate (package natsd) and list of sites (package join)
//	<data>/issuer.json      the site's issuer of identities and its key, and at the hub
//	<data>/hub/roots.json   the mesh's roots and their keys (0600; package ca)
//	<data>/nats/            JetStream (package natsd)
//	<data>/site.json        what a controller has to know of its site (package join)
//	<data>/journal.log      the changes of the configuration (package journal)
//	<data>/run.json         where a running controller listens
//
// Files are replaced whole: written beside the old one, synced, renamed, and the
// folder synced. Those that a restart depends on carry a checksum, so that damage
// is found before it is believed.
package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/durable"
)

// Folder is an open data folder.
type Folder struct {
	dir  string
	lock *os.File
}

// ErrInUse says that another controller runs on the folder.
var ErrInUse = errors.New("data folder is in use by another sitecontroller")

// ErrDamaged marks a file whose checksum does not fit its content.
var ErrDamaged = errors.New("file is damaged: its checksum does not fit")

// Open makes the folder if it is not there (0700) and locks it. The lock ends
// with the process, however that ends.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("store: %s: %w", dir, ErrInUse)
	}
	return &Folder{dir: dir, lock: f}, nil
}

// Close lets another controller have the folder.
func (f *Folder) Close() error { return f.lock.Close() }

// Path returns the path of a file in the folder.
func (f *Folder) Path(name ...string) string {
	return filepath.Join(append([]string{f.dir}, name...)...)
}

// WriteFile is [durable.WriteFile].
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return durable.WriteFile(path, data, mode)
}

// magic is the head of a checksummed file's first line; the SHA-256 of the rest
// in hexadecimal ends the line, and the rest is JSON.
const magic = "meridian-store 1 "

func (f *Folder) save(name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store: encode %s: %w", name, err)
	}
	return f.write(name, body)
}

func (f *Folder) write(name string, body []byte) error {
	sum := sha256.Sum256(body)
	data := append(hex.AppendEncode([]byte(magic), sum[:]), '\n')
	if err := WriteFile(f.Path(name), append(data, body...), 0o600); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// load reports false when the file does not exist.
func (f *Folder) load(name string, v any) (bool, error) {
	data, err := os.ReadFile(f.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	head, body, _ := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(body)
	if !bytes.Equal(head, hex.AppendEncode([]byte(magic), sum[:])) {
		return true, fmt.Errorf("store: %s: %w", f.Path(name), ErrDamaged)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return true, fmt.Errorf("store: %s: %w", f.Path(name), err)
	}
	return true, nil
}

// SaveRecord writes v as JSON with a checksum into a file of the folder.
func (f *Folder) SaveRecord(name string, v any) error { return f.save(name, v) }

// LoadRecord reads what [Folder.SaveRecord] wrote; false when there is no such
// file. A damaged one is [ErrDamaged].
func (f *Folder) LoadRecord(name string, v any) (bool, error) { return f.load(name, v) }

const (
	generationFile   = "generation.json"
	snapshotFile     = "snapshot.json"
	prevSnapshotFile = "snapshot.prev.json"
)

// Generation returns the highest generation ever used, the zero one when there
// was none. [ErrDamaged] means that the history is lost and a new incarnation
// has to begin.
func (f *Folder) Generation() (mesh.Generation, error) {
	var g mesh.Generation
	if _, err := f.load(generationFile, &g); err != nil {
		return mesh.Generation{}, err
	}
	return g, nil
}

// SaveGeneration records that g is used. It comes before the use: a crash in
// between leaves a number out, never one used twice.
func (f *Folder) SaveGeneration(g mesh.Generation) error { return f.save(generationFile, g) }

// SaveSnapshot makes s the last snapshot and keeps the one before it.
func (f *Folder) SaveSnapshot(s *mesh.Snapshot) error {
	body, err := mesh.EncodeSnapshot(s)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// A link and not a rename: until the new file stands, the old name must too.
	_ = os.Remove(f.Path(prevSnapshotFile))
	if err := os.Link(f.Path(snapshotFile), f.Path(prevSnapshotFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return f.write(snapshotFile, body)
}

// Snapshot returns the last snapshot, nil when there is none. When it is damaged
// the one before it is returned together with an error that says so; without one
// to fall back to, the snapshot is nil.
func (f *Folder) Snapshot() (*mesh.Snapshot, error) {
	s := new(mesh.Snapshot)
	ok, err := f.load(snapshotFile, s)
	if err == nil {
		if !ok {
			return nil, nil
		}
		return s, nil
	}
	prev := new(mesh.Snapshot)
	if ok, perr := f.load(prevSnapshotFile, prev); perr == nil && ok {
		return prev, fmt.Errorf("%w; using the one before it, generation %s", err, prev.Generation)
	}
	return nil, err
}

// Key returns the site's Ed25519 key and makes it at the first call, together
// with site.pub for the nodes (PEM, PUBLIC KEY).
func (f *Folder) Key() (ed25519.PrivateKey, error) {
	path := f.Path("site.key")
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		return parseKey(path, data)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("store: %w", err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	pubDER, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// The public half first: a crash between the two then makes a new pair.
	if err := WriteFile(f.Path("site.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pubDER}), 0o644); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return key, nil
}

func parseKey(path string, data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("store: %s: holds no PEM PRIVATE KEY; restore it from a backup, or remove it and site.pub and give the nodes the new site.pub", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("store: %s: holds a %T, want an Ed25519 key", path, k)
	}
	return key, nil
}

// Secret returns the random secret in a file of the folder (0600) and makes it
// at the first call.
func (f *Folder) Secret(name string) (string, error) {
	path := f.Path(name)
	data, err := os.ReadFile(path)
	if err == nil {
		s := strings.TrimSpace(string(data))
		if len(s) < 32 {
			return "", fmt.Errorf("store: %s: too short to be a secret; remove the file to have a new one made", path)
		}
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	s := hex.EncodeToString(raw)
	if err := WriteFile(path, []byte(s+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	return s, nil
}
