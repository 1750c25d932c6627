package join

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nkeys"
)

// registryFile is the record of a hub's members in its data folder.
const registryFile = "hub/sites.json"

// Refusals of a request to join. They tell no more than the holder of a token knows.
var (
	ErrUnknownToken = errors.New("the hub does not know this token: it was made by another hub, replaced by a newer one, or its site was removed; make a new one (meridian token create)")
	ErrUsedToken    = errors.New("this token was used already, and it works once: make a new one (meridian token create)")
	ErrExpiredToken = errors.New("this token has expired: make a new one (meridian token create)")
)

// Records is where a registry is kept: whole, synced and checksummed, or not at all.
type Records interface {
	SaveRecord(name string, v any) error
	LoadRecord(name string, v any) (bool, error)
}

// Registry is a hub's list of sites that may connect, and of the tokens that are
// out. What it answers is on disk first. Its methods may be called from any
// goroutine.
type Registry struct {
	records Records

	mu    sync.Mutex
	state registered
}

type registered struct {
	// Sites has the public NKey of each site that joined.
	Sites map[string]Member `json:"sites"`
	// Tokens has the newest token of each site that has not expired.
	Tokens map[string]issued `json:"tokens"`
}

// Member is a site that joined.
type Member struct {
	NKey   string    `json:"nkey"`
	Joined time.Time `json:"joined"`
}

// issued is a token as the hub keeps it: not the key but its hash.
type issued struct {
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
	// UsedBy is the key that joined with it, which alone may ask again: an answer
	// can be lost on the way.
	UsedBy string `json:"usedBy,omitempty"`
}

// OpenRegistry reads the record, if there is one.
func OpenRegistry(r Records) (*Registry, error) {
	g := &Registry{records: r}
	if _, err := r.LoadRecord(registryFile, &g.state); err != nil {
		return nil, fmt.Errorf("join: the list of sites cannot be read, and without it no site may connect: %w; restore it from a backup, or remove it and let every site join again", err)
	}
	if g.state.Sites == nil {
		g.state.Sites = map[string]Member{}
	}
	if g.state.Tokens == nil {
		g.state.Tokens = map[string]issued{}
	}
	return g, nil
}

// Create returns a new one-time key for a site. It replaces a token of that site
// that is still out.
func (g *Registry) Create(site string, now time.Time, life time.Duration) (key string, expires time.Time, err error) {
	raw := make([]byte, 24)
	if _, err := rand.Read(raw); err != nil {
		return "", time.Time{}, fmt.Errorf("join: %w", err)
	}
	key, expires = hex.EncodeToString(raw), now.Add(life)
	err = g.change(func(s *registered) error {
		maps.DeleteFunc(s.Tokens, func(_ string, t issued) bool { return now.After(t.Expires) })
		s.Tokens[site] = issued{Hash: hash(key), Expires: expires}
		return nil
	})
	return key, expires, err
}

// Admit makes the holder of a one-time key a member under its NKey. A site that
// joins again gets the new key in place of the old one.
func (g *Registry) Admit(site, key, nkey string, now time.Time) error {
	if !nkeys.IsValidPublicUserKey(nkey) {
		return errors.New("the public key is no NKey of a user")
	}
	return g.change(func(s *registered) error {
		if err := s.check(site, key, nkey, now); err != nil {
			return err
		}
		t := s.Tokens[site]
		for other, m := range s.Sites {
			if m.NKey == nkey && other != site {
				return fmt.Errorf("this key is that of site %s", other)
			}
		}
		t.UsedBy = nkey
		s.Tokens[site], s.Sites[site] = t, Member{nkey, now}
		return nil
	})
}

// Check says whether [Registry.Admit] would let a key in, and changes nothing.
func (g *Registry) Check(site, key, nkey string, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state.check(site, key, nkey, now)
}

func (s *registered) check(site, key, nkey string, now time.Time) error {
	t, ok := s.Tokens[site]
	switch {
	case !ok || subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hash(key))) != 1:
		return ErrUnknownToken
	case t.UsedBy != "" && t.UsedBy != nkey:
		return ErrUsedToken
	case now.After(t.Expires):
		return ErrExpiredToken
	}
	return nil
}

// Remove takes a site's key and tokens away. It reports whether there were any.
func (g *Registry) Remove(site string) (found bool, err error) {
	err = g.change(func(s *registered) error {
		_, member := s.Sites[site]
		_, token := s.Tokens[site]
		found = member || token
		delete(s.Sites, site)
		delete(s.Tokens, site)
		return nil
	})
	return found, err
}

// SiteOf returns the site that a public key belongs to.
func (g *Registry) SiteOf(nkey string) (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for site, m := range g.state.Sites {
		if m.NKey == nkey {
			return site, true
		}
	}
	return "", false
}

// Sites returns the members by name.
func (g *Registry) Sites() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.state.Sites))
}

// change applies f to a copy, which is in force when it is on disk.
func (g *Registry) change(f func(*registered) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := registered{Sites: maps.Clone(g.state.Sites), Tokens: maps.Clone(g.state.Tokens)}
	if err := f(&next); err != nil {
		return err
	}
	if err := g.records.SaveRecord(registryFile, next); err != nil {
		return fmt.Errorf("join: record the change: %w", err)
	}
	g.state = next
	return nil
}

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
