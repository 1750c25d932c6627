package mesh

import (
	"cmp"
	"fmt"
)

// Generation orders the snapshots of one origin. Incarnation is minted when an
// origin starts a new history (first start, restore from backup); Counter grows
// by one a change. A node never goes to a lower generation.
type Generation struct {
	Incarnation uint64 `json:"incarnation"`
	Counter     uint64 `json:"counter"`
}

// Compare is lexicographic: incarnation first.
func (g Generation) Compare(o Generation) int {
	if c := cmp.Compare(g.Incarnation, o.Incarnation); c != 0 {
		return c
	}
	return cmp.Compare(g.Counter, o.Counter)
}

// String prints incarnation.counter.
func (g Generation) String() string { return fmt.Sprintf("%d.%d", g.Incarnation, g.Counter) }

// Snapshot is the durable intent for one site's nodes: what to listen on, where
// to send, within which bounds. It is immutable once sealed; see [Snapshot.Seal]
// and [Snapshot.Verify]. Soft state (Weights) travels apart from it.
type Snapshot struct {
	Compat
	Generation Generation `json:"generation"`
	// Origin is who compiled it: a site's name, or "file" for a node without a controller.
	Origin string `json:"origin"`
	// Site is the site whose nodes it is for; empty for a lone node.
	Site    string  `json:"site,omitempty"`
	Objects Objects `json:"objects"`
	// Hash is the SHA-256 of the canonical encoding without Hash and Signature, hex.
	Hash string `json:"hash"`
	// Signature is the origin's Ed25519 signature over the hash's bytes, base64;
	// empty where the origin has no key.
	Signature string `json:"signature,omitempty"`

	received *received
}
