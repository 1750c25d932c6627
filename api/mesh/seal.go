package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// received is what a decoded snapshot looked like on the wire, so that fields of
// a newer version, which this one cannot hold, still count in the hash and are
// passed on.
type received struct {
	wire []byte            // canonical
	own  [sha256.Size]byte // of the struct's own encoding, to see whether it changed

	// kept says that a [Sealer] or [Decoder] made this: wire is looked at instead of
	// the struct, and sum is its digest.
	kept bool
	sum  [sha256.Size]byte
}

// ErrTampered is wrapped by what [Snapshot.Verify] returns when hash or signature
// do not fit the content.
var ErrTampered = errors.New("snapshot is damaged or not from its origin")

// wire returns the snapshot's canonical encoding: what was received where the
// struct came from there and is unchanged.
func (s *Snapshot) wire() ([]byte, error) {
	if s.received != nil && s.received.kept {
		return s.received.wire, nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if s.received != nil && sha256.Sum256(data) == s.received.own {
		return s.received.wire, nil
	}
	return canonical(data)
}

// digest is the SHA-256 of the canonical encoding without hash and signature.
func (s *Snapshot) digest() (sum [sha256.Size]byte, err error) {
	if s.received != nil && s.received.kept {
		return s.received.sum, nil
	}
	data, err := s.wire()
	if err != nil {
		return sum, err
	}
	if data, err = canonical(data, "hash", "signature"); err != nil {
		return sum, err
	}
	return sha256.Sum256(data), nil
}

// Seal sets what the objects require of a reader, Hash, and Signature when the origin has a key (nil otherwise). From
// here on the snapshot and all it points to must not change: it is read from
// many goroutines.
func (s *Snapshot) Seal(key ed25519.PrivateKey) error {
	s.received, s.Signature = nil, ""
	s.Requires = s.Objects.Requires()
	sum, err := s.digest()
	if err != nil {
		return fmt.Errorf("seal snapshot %s: %w", s.Generation, err)
	}
	s.Hash = hex.EncodeToString(sum[:])
	if key != nil {
		s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, sum[:]))
	}
	return nil
}

// Verify checks the hash, and with a key (nil otherwise) that its owner signed.
// The error wraps [ErrTampered].
func (s *Snapshot) Verify(pub ed25519.PublicKey) error {
	sum, err := s.digest()
	if err != nil {
		return fmt.Errorf("verify snapshot %s: %w", s.Generation, err)
	}
	if hex.EncodeToString(sum[:]) != s.Hash {
		return fmt.Errorf("snapshot %s of %q: content does not fit its hash: %w", s.Generation, s.Origin, ErrTampered)
	}
	if pub == nil {
		return nil
	}
	if s.Signature == "" {
		return fmt.Errorf("snapshot %s of %q: not signed, a signature is required: %w", s.Generation, s.Origin, ErrTampered)
	}
	sig, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil || !ed25519.Verify(pub, sum[:], sig) {
		return fmt.Errorf("snapshot %s of %q: signature is not its origin's: %w", s.Generation, s.Origin, ErrTampered)
	}
	return nil
}

// EncodeSnapshot returns a sealed snapshot as canonical JSON. One that was decoded
// is returned as it came, with the fields this version does not know.
func EncodeSnapshot(s *Snapshot) ([]byte, error) {
	if s.Hash == "" {
		return nil, fmt.Errorf("encode snapshot %s: not sealed", s.Generation)
	}
	data, err := s.wire()
	if err != nil {
		return nil, fmt.Errorf("encode snapshot %s: %w", s.Generation, err)
	}
	return bytes.Clone(data), nil
}

// DecodeSnapshot reads a snapshot that this or a neighbouring version wrote.
// Unknown fields are ignored unless [Compat] forbids it. It does not judge hash
// or objects: see [Snapshot.Verify] and [Validate].
func DecodeSnapshot(data []byte) (*Snapshot, error) {
	if len(data) > MaxSnapshotBytes {
		return nil, fmt.Errorf("decode snapshot: %d bytes, at most %d are read", len(data), MaxSnapshotBytes)
	}
	// The struct is read from the canonical form, whose keys are unique: a
	// repeated key could otherwise be hashed as one thing and served as another.
	wire, err := canonical(data)
	if err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	var s Snapshot
	if err := json.Unmarshal(wire, &s); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	if err := s.Compat.Check(); err != nil {
		return nil, fmt.Errorf("decode snapshot %s of %q: %w", s.Generation, s.Origin, err)
	}
	if p := s.Objects.null(); p != nil {
		return nil, fmt.Errorf("decode snapshot %s of %q: objects.%s is null", s.Generation, s.Origin, p)
	}
	own, err := json.Marshal(&s)
	if err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	s.received = &received{wire: wire, own: sha256.Sum256(own)}
	return &s, nil
}
