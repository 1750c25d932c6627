package source

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// fakeController hands the test the function that takes snapshots.
type fakeController struct {
	take      func(*mesh.Snapshot, error)
	connected bool
	first     *mesh.Snapshot
}

func (c *fakeController) WatchSnapshots(_ context.Context, _ string, take func(*mesh.Snapshot, error)) error {
	c.take = take
	if c.first != nil {
		take(c.first, nil)
	}
	return nil
}

func (c *fakeController) Connected() bool { return c.connected }

func sealed(t *testing.T, incarnation, counter uint64, service string, key ed25519.PrivateKey) *mesh.Snapshot {
	t.Helper()
	s := &mesh.Snapshot{
		Generation: mesh.Generation{Incarnation: incarnation, Counter: counter},
		Origin:     "north", Site: "north",
	}
	s.Objects.Services = []*mesh.MeshService{{Metadata: mesh.ObjectMeta{Name: service, Namespace: "default"}}}
	if err := s.Seal(key); err != nil {
		t.Fatal(err)
	}
	return s
}

func startBus(t *testing.T, c *fakeController, state string, trust ed25519.PublicKey, a *applied) *Bus {
	t.Helper()
	b := NewBus(BusConfig{Name: "nats://x", Site: "north", Controller: c, Trust: trust, StateDir: state, Apply: a.apply, Log: slog.New(slog.DiscardHandler)})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBus_guards(t *testing.T) {
	var a applied
	c := &fakeController{first: sealed(t, 5, 7, "first", nil)}
	b := startBus(t, c, "", nil, &a)
	elsewhere := sealed(t, 9, 9, "x", nil)
	elsewhere.Site = "south"
	if err := elsewhere.Seal(nil); err != nil {
		t.Fatal(err)
	}
	tampered := sealed(t, 9, 9, "x", nil)
	tampered.Objects.Services[0].Metadata.Name = "y"
	newer := sealed(t, 9, 9, "x", nil)
	newer.MinReader = mesh.Version + 1
	if err := newer.Seal(nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		s    *mesh.Snapshot
		err  error
		want string
	}{
		{"lower counter", sealed(t, 5, 6, "old", nil), nil, "lower"},
		{"lower incarnation", sealed(t, 4, 99, "old", nil), nil, "lower"},
		{"other content", sealed(t, 5, 7, "other", nil), nil, "other content"},
		{"other site", elsewhere, nil, `for site "south"`},
		{"tampered", tampered, nil, "hash"},
		{"newer version", newer, nil, "upgrade"},
		{"unreadable", nil, errors.New("bus: snapshot cannot be read"), "cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.take(tt.s, tt.err)
			s := b.State()
			if s.Refused == nil || !strings.Contains(s.Refused.Why, tt.want) {
				t.Errorf("refusal is %+v, want %q", s.Refused, tt.want)
			}
			if names(s.Snapshot) != "first" || a.len() != 1 {
				t.Errorf("in force: %q", names(s.Snapshot))
			}
		})
	}
	if s := b.State(); s.Refusals != 7 || s.Lower != 2 {
		t.Errorf("%d refusals, %d lower", s.Refusals, s.Lower)
	}
	c.take(sealed(t, 5, 7, "first", nil), nil)
	if s := b.State(); s.Refused != nil || a.len() != 1 {
		t.Errorf("the same again: refused %+v, applied %d", s.Refused, a.len())
	}
	c.take(sealed(t, 6, 1, "second", nil), nil)
	if s := b.State(); names(s.Snapshot) != "second" {
		t.Errorf("a new incarnation is not in force: %q", names(s.Snapshot))
	}
}

func TestBus_refusedByProxy(t *testing.T) {
	a := applied{}
	c := &fakeController{first: sealed(t, 1, 1, "first", nil)}
	b := startBus(t, c, "", nil, &a)
	a.fail = errors.New("bind 127.0.0.1:80: permission denied")
	c.take(sealed(t, 1, 2, "second", nil), nil)
	s := b.State()
	if s.Refused == nil || s.Refused.Generation == nil || s.Refused.Generation.Counter != 2 || names(s.Snapshot) != "first" {
		t.Errorf("refused %+v, in force %q", s.Refused, names(s.Snapshot))
	}
}

func TestBus_trust(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var a applied
	c := &fakeController{first: sealed(t, 1, 1, "signed", key)}
	b := startBus(t, c, "", pub, &a)
	// Signed by the right key, and yet of another origin, whose generations nobody compares.
	elsewhere := sealed(t, 1, 1, "elsewhere", key)
	elsewhere.Origin = "south"
	if err := elsewhere.Seal(key); err != nil {
		t.Fatal(err)
	}
	for _, c2 := range []struct {
		s    *mesh.Snapshot
		want string
	}{
		{sealed(t, 1, 2, "unsigned", nil), "not signed"},
		{sealed(t, 1, 2, "forged", stranger), "signature is not its origin's"},
		{sealed(t, 9, 9, "forged", stranger), "signature is not its origin's"},
		{elsewhere, `is by "south"`},
	} {
		c.take(c2.s, nil)
		if r := b.State().Refused; r == nil || !strings.Contains(r.Why, c2.want) || !strings.Contains(r.Why, c2.s.Generation.String()) || names(b.State().Snapshot) != "signed" {
			t.Errorf("%s: refused %+v, in force %q", names(c2.s), r, names(b.State().Snapshot))
		}
	}
	if n := b.State().Tampered; n != 4 {
		t.Errorf("%d counted", n)
	}
}

// What was signed once and is offered again, after a newer one and after a restart, is
// refused by its generation; so is a last good copy that somebody else made.
func TestBus_replay(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	old, last := sealed(t, 2, 7, "old", key), sealed(t, 2, 8, "last", key)
	var a applied
	c := &fakeController{first: old}
	b := startBus(t, c, state, pub, &a)
	c.take(last, nil)
	c.take(old, nil)
	refused := func(b *Bus, when string) {
		t.Helper()
		s := b.State()
		if names(s.Snapshot) != "last" || s.Lower != 1 || s.Refused == nil || s.Refused.Why != "generation is lower than the one in force: got 2.7, had 2.8" {
			t.Errorf("%s: in force %q, %+v", when, names(s.Snapshot), s.Refused)
		}
	}
	refused(b, "replayed")
	var again applied
	refused(startBus(t, &fakeController{first: old}, state, pub, &again), "replayed to a node that restarted")
	// The copy on disk is held to the same: it must be the site's.
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := NewStore(state, "site:north").Save(sealed(t, 9, 9, "planted", stranger)); err != nil {
		t.Fatal(err)
	}
	var planted applied
	if s := startBus(t, &fakeController{}, state, pub, &planted).State(); s.Snapshot != nil {
		t.Errorf("serves %q", names(s.Snapshot))
	}
}

// Where nothing else is said, the key beside the token is the one that counts.
func TestOpenTrustKey(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "node.token")
	log := slog.New(slog.DiscardHandler)
	if key, err := OpenTrustKey("", token, log); key != nil || err != nil {
		t.Errorf("without a key: %v %v", key, err)
	}
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "site.pub"), []byte(base64.StdEncoding.EncodeToString(pub)), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := OpenTrustKey("", token, log); err != nil || !key.Equal(pub) {
		t.Errorf("beside the token: %v %v", key, err)
	}
	if key, err := OpenTrustKey("", "", log); key != nil || err != nil {
		t.Errorf("without a token: %v %v", key, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "site.pub"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTrustKey("", token, log); err == nil || !strings.Contains(err.Error(), "site.pub") {
		t.Errorf("one that cannot be read: %v", err)
	}
}

func TestBus_alone(t *testing.T) {
	state := t.TempDir()
	var a applied
	startBus(t, &fakeController{first: sealed(t, 3, 4, "kept", nil), connected: true}, state, nil, &a)

	// The controller is gone: the last good one serves.
	var again applied
	c := &fakeController{}
	b := startBus(t, c, state, nil, &again)
	s := b.State()
	if names(s.Snapshot) != "kept" || !s.Restored || s.Link.Connected {
		t.Fatalf("alone: in force %q, restored %v, connected %v", names(s.Snapshot), s.Restored, s.Link.Connected)
	}
	// It comes back with an older history: refused. With the same: confirmed.
	c.take(sealed(t, 3, 3, "older", nil), nil)
	if s := b.State(); names(s.Snapshot) != "kept" || s.Lower != 1 {
		t.Errorf("in force %q, lower %d", names(s.Snapshot), s.Lower)
	}
	c.take(sealed(t, 3, 4, "kept", nil), nil)
	if s := b.State(); s.Restored || s.Refused != nil || again.len() != 1 {
		t.Errorf("confirmed: restored %v, refused %v, applied %d", s.Restored, s.Refused, again.len())
	}

	// What is on disk bars a lower generation even when the controller answers first.
	var third applied
	b = startBus(t, &fakeController{first: sealed(t, 3, 3, "older", nil)}, state, nil, &third)
	if s := b.State(); names(s.Snapshot) != "kept" || s.Lower != 1 {
		t.Errorf("started with %q, lower %d", names(s.Snapshot), s.Lower)
	}
}

func TestStore_damage(t *testing.T) {
	dir := t.TempDir()
	st := NewStore(dir, "site:north")
	want := sealed(t, 1, 2, "echo", nil)
	if err := st.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := st.Load()
	if err != nil || got.Hash != want.Hash || got.Verify(nil) != nil {
		t.Fatalf("Load = %v, %v", got, err)
	}
	if other, err := NewStore(dir, "site:south").Load(); other != nil || err != nil {
		t.Errorf("another site's copy: %v, %v", other, err)
	}
	path := filepath.Join(dir, lastGood)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := append([]byte(nil), whole...)
		bad[i] ^= 0x20
		put(t, path, string(bad))
		if _, err := st.Load(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		put(t, path, string(whole[:i]))
		if _, err := st.Load(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != historyDir {
		t.Errorf("state folder holds %v (%v)", entries, err)
	}
}

func TestReadTrustKey(t *testing.T) {
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	put(t, path, base64.StdEncoding.EncodeToString(pub)+"\n")
	if got, err := ReadTrustKey(path); err != nil || !got.Equal(pub) {
		t.Errorf("base64: %v, %v", got, err)
	}
	put(t, path, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n")
	if _, err := ReadTrustKey(path); err != nil {
		t.Errorf("PEM: %v", err)
	}
	put(t, path, "secret")
	if _, err := ReadTrustKey(path); err == nil {
		t.Error("took a key that is none")
	}
}
