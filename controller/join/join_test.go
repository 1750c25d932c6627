package join

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/nats-io/nkeys"
	"pgregory.net/rapid"
)

func folder(t *testing.T) *store.Folder {
	t.Helper()
	f, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(f.Path("hub"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func newKey(t *testing.T) string {
	t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestTokenWorksOnce(t *testing.T) {
	f := folder(t)
	open := func() *Registry {
		g, err := OpenRegistry(f)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := open()
	key, expires, err := g.Create("north", t0, time.Hour)
	if err != nil || !expires.Equal(t0.Add(time.Hour)) {
		t.Fatalf("%v, %v", expires, err)
	}
	north, thief := newKey(t), newKey(t)
	for _, c := range []struct {
		site, key, nkey string
		at              time.Time
		want            error
	}{
		{"north", "wrong", north, t0, ErrUnknownToken},
		{"south", key, north, t0, ErrUnknownToken},
		{"north", key, north, t0.Add(time.Hour + 1), ErrExpiredToken},
		{"north", key, north, t0.Add(time.Hour), nil},
		{"north", key, thief, t0.Add(time.Minute), ErrUsedToken},
		{"north", key, north, t0.Add(time.Minute), nil}, // the answer was lost
	} {
		// As after a restart in between: what was answered is on disk.
		g = open()
		if err := g.Check(c.site, c.key, c.nkey, c.at); !errors.Is(err, c.want) {
			t.Errorf("Check(%+v): %v", c, err)
		}
		if err := g.Admit(c.site, c.key, c.nkey, c.at); !errors.Is(err, c.want) {
			t.Errorf("Admit(%+v): %v", c, err)
		}
	}
	if site, ok := open().SiteOf(north); !ok || site != "north" {
		t.Errorf("north's key belongs to %q, %v", site, ok)
	}
	if _, ok := g.SiteOf(thief); ok {
		t.Error("the second one is let in")
	}
	if err := g.Admit("north", key, "SUnot-a-user", t0); err == nil {
		t.Error("a bad key is taken")
	}
	// No key for two sites, no key in clear on disk.
	other, _, err := g.Create("south", t0, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Admit("south", other, north, t0); err == nil || !strings.Contains(err.Error(), "site north") {
		t.Errorf("one key for two sites: %v", err)
	}
	if data, err := os.ReadFile(f.Path("hub", "sites.json")); err != nil || strings.Contains(string(data), key) || strings.Contains(string(data), other) {
		t.Errorf("a token's key is on disk: %v", err)
	}
	// A newer token replaces the one that is out; a second join the key.
	again, _, err := g.Create("south", t0, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	south := newKey(t)
	if err := g.Admit("south", other, south, t0); !errors.Is(err, ErrUnknownToken) {
		t.Errorf("the replaced token: %v", err)
	}
	if err := g.Admit("south", again, south, t0); err != nil {
		t.Error(err)
	}
	if found, err := open().Remove("south"); !found || err != nil {
		t.Errorf("remove: %v, %v", found, err)
	}
	g = open()
	if _, ok := g.SiteOf(south); ok || len(g.Sites()) != 1 {
		t.Errorf("left after the removal: %v", g.Sites())
	}
	if err := g.Admit("south", again, south, t0); !errors.Is(err, ErrUnknownToken) {
		t.Errorf("the removed site's token: %v", err)
	}
	if found, err := g.Remove("south"); found || err != nil {
		t.Errorf("second removal: %v, %v", found, err)
	}
}

func TestRegistryIsNotBelievedWhenDamaged(t *testing.T) {
	f := folder(t)
	g, err := OpenRegistry(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Create("north", t0, time.Hour); err != nil {
		t.Fatal(err)
	}
	path := f.Path("hub", "sites.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistry(f); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "backup") {
		t.Errorf("%v", err)
	}
	// A change that cannot be written is not made.
	broken := &Registry{records: full{}, state: registered{Sites: map[string]Member{"a": {NKey: "U"}}, Tokens: map[string]issued{}}}
	if _, err := broken.Remove("a"); err == nil || len(broken.Sites()) != 1 {
		t.Errorf("disk full: %v, %v", err, broken.Sites())
	}
}

type full struct{}

func (full) SaveRecord(string, any) error         { return errors.New("no space left on device") }
func (full) LoadRecord(string, any) (bool, error) { return false, nil }

func TestTokenText(t *testing.T) {
	ca := strings.Repeat("ab", 32)
	good := Token{Site: "north", Join: []string{"https://[2001:db8::1]:7423"}, Leaf: []string{"tls://hub:7422"}, CA: ca, Key: "k", Expires: t0}
	got, err := ParseToken(" " + good.String() + "\n")
	if err != nil || got.String() != good.String() {
		t.Errorf("%+v, %v", got, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := []byte(good.String())
		i := rapid.IntRange(0, len(s)-1).Draw(t, "at")
		switch rapid.IntRange(0, 2).Draw(t, "damage") {
		case 0:
			s = s[:i]
		case 1:
			s = append(s[:i:i], s[i+1:]...)
		case 2:
			s[i] = rapid.Byte().Draw(t, "byte")
		}
		_, _ = ParseToken(string(s)) // must not panic
	})
	for name, change := range map[string]func(*Token){
		"no CA":   func(t *Token) { t.CA = "ab" },
		"no site": func(t *Token) { t.Site = "" },
		"no key":  func(t *Token) { t.Key = "" },
		"no join": func(t *Token) { t.Join = nil },
		"no leaf": func(t *Token) { t.Leaf = nil },
		"plain":   func(t *Token) { t.Join = []string{"http://hub:7423"} },
		"no port": func(t *Token) { t.Leaf = []string{"tls://hub"} },
	} {
		bad := good
		change(&bad)
		if _, err := ParseToken(bad.String()); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	data, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", "north", "meridian2." + base64.RawURLEncoding.EncodeToString(data), tokenPrefix + "!!", tokenPrefix + base64.RawURLEncoding.EncodeToString(append(data, data...))} {
		if _, err := ParseToken(s); err == nil {
			t.Errorf("taken: %q", s)
		}
	}
}

func TestSiteFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadSiteFile(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	in := SiteFile{Site: "north", HubURLs: []string{"tls://h:1"}, HubCA: "hub-ca.pem", HubKey: filepath.Join(dir, "site.nk"), Config: []string{filepath.Join(dir, "site.yaml"), "/etc/mesh.yaml"}}
	if err := in.Write(dir); err != nil {
		t.Fatal(err)
	}
	// The folder can be moved: names inside it are relative.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	out, err := ReadSiteFile(moved)
	if err != nil || out.HubCA != filepath.Join(moved, "hub-ca.pem") || out.HubKey != filepath.Join(moved, "site.nk") ||
		out.Config[0] != filepath.Join(moved, "site.yaml") || out.Config[1] != "/etc/mesh.yaml" {
		t.Errorf("%+v, %v", out, err)
	}
	for _, bad := range []string{"{", `{"hub":true}`} {
		if err := os.WriteFile(filepath.Join(moved, siteFileName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSiteFile(moved); err == nil || !strings.Contains(err.Error(), "site.json") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// An impostor with a good certificate of another CA gets nothing of the token.
func TestJoinChecksTheHub(t *testing.T) {
	asked := false
	g, err := OpenRegistry(folder(t))
	if err != nil {
		t.Fatal(err)
	}
	h := Hub{Registry: g, Now: time.Now, Joined: func(string) { asked = true }}
	s := httptest.NewUnstartedServer(h.Handler())
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.StartTLS()
	defer s.Close()
	key, _, err := g.Create("north", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tok := Token{Site: "north", Join: []string{s.URL}, Leaf: []string{"tls://h:1"}, CA: strings.Repeat("ab", 32), Key: key}
	f := folder(t)
	_, err = Join(context.Background(), f, tok, "")
	if err == nil || !strings.Contains(err.Error(), "not the hub that made the token") || asked || len(g.Sites()) != 0 {
		t.Errorf("error %v, asked %v, sites %v", err, asked, g.Sites())
	}
	if _, err := ReadSiteFile(f.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a site file after a failed join: %v", err)
	}
}
