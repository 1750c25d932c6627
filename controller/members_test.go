package controller_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

// TestJoinAndRemove takes a site through its life in a mesh, on loopback.
func TestJoinAndRemove(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true, LeafListen: "0.0.0.0:0", Advertise: []string{"127.0.0.1"}})
	b := start(t, leafConfig("b", "tls://127.0.0.1:"+port(hub.run.Leaf), hub))
	hub.must(siteDoc("b", 1) + shopDoc)

	made, err := hub.api.CreateToken(short(t), siteapi.TokenRequest{Site: "a", TTLSeconds: 60})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := join.ParseToken(made.Token)
	if err != nil || tok.Leaf[0] != "tls://127.0.0.1:"+port(hub.run.Leaf) {
		t.Fatalf("token %+v, %v", tok, err)
	}
	dir := t.TempDir()
	try := func(dir string, tok join.Token, document string) error {
		f, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
		defer done()
		_, err = join.Join(ctx, f, tok, document)
		return err
	}
	// A document that is not the site's own Site does not get in, and costs nothing.
	for _, bad := range []string{siteDoc("b", 9), shopDoc, siteDoc("a", 1) + shopDoc, "kind: [", strings.Replace(siteDoc("a", 1), "coordinates", "coordinate", 1)} {
		if err := try(t.TempDir(), tok, bad); err == nil || !strings.Contains(err.Error(), "the hub refuses") {
			t.Errorf("joined with %q: %v", bad, err)
		}
	}
	wrong := tok
	wrong.Key = strings.Repeat("0", len(tok.Key))
	if err := try(t.TempDir(), wrong, ""); err == nil || !strings.Contains(err.Error(), "does not know this token") {
		t.Errorf("wrong key: %v", err)
	}
	// The first address does not answer; the second is the hub's.
	away := tok
	away.Join = append([]string{"https://127.0.0.1:1"}, tok.Join...)
	if err := try(dir, away, siteDoc("a", 3)); err != nil {
		t.Fatal(err)
	}
	if err := try(dir, tok, siteDoc("a", 3)); err != nil {
		t.Errorf("the same site again, as after a lost answer: %v", err)
	}
	if err := try(t.TempDir(), tok, ""); err == nil || !strings.Contains(err.Error(), "was used already") {
		t.Errorf("second use by another: %v", err)
	}
	for _, name := range []string{"site.nk", "site.json"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	f, err := join.ReadSiteFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, controller.Config{Site: f.Site, Data: dir, HubURLs: f.HubURLs, HubCA: f.HubCA, HubKey: f.HubKey})
	within(t, 30*time.Second, "the new site and the mesh to know each other", func() bool {
		return a.has(mesh.KindMeshService, "shop") && b.has(mesh.KindSite, "a") && known(b, "a") && known(a, "b") && known(hub, "a")
	})
	if _, err := a.api.CreateToken(short(t), siteapi.TokenRequest{Site: "c"}); err == nil || !strings.Contains(err.Error(), "is not the hub") {
		t.Errorf("a site makes a token: %v", err)
	}

	// Taken out: its key, its link, its object and what was known of it.
	r, err := hub.api.RemoveSite(short(t), siteapi.RemoveRequest{Site: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Did) != 3 || len(r.Left) != 1 || r.Left[0].Name != "shop" {
		t.Errorf("removal: %+v", r)
	}
	within(t, 8*time.Second, "the others to forget it", func() bool {
		return !b.has(mesh.KindSite, "a") && !known(b, "a") && !known(hub, "a") && !a.status().Link.Connected
	})
	time.Sleep(1200 * time.Millisecond) // it dials again each second
	if a.status().Link.Connected || known(b, "a") {
		t.Error("the removed site is back")
	}
	// Its own users are served on: it has its configuration and may change it.
	if !a.has(mesh.KindMeshService, "shop") {
		t.Error("the removed site lost its configuration")
	}
	a.must(gatewayDoc)
	for _, c := range []struct{ site, want string }{{"a", "no site a is known"}, {"centre", "the hub itself"}} {
		if _, err := hub.api.RemoveSite(short(t), siteapi.RemoveRequest{Site: c.site}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("remove %s: %v", c.site, err)
		}
	}
	// It may come back, with a new token.
	a.stop()
	again, err := hub.api.CreateToken(short(t), siteapi.TokenRequest{Site: "a"})
	if err != nil {
		t.Fatal(err)
	}
	a = start(t, joined(t, dir, again.Token, "tls://127.0.0.1:"+port(hub.run.Leaf)))
	within(t, 30*time.Second, "the link of the site that came back", func() bool { return a.status().Link.Connected })
}

// known tells whether one site's controller has heard of another.
func known(s *site, name string) bool {
	for _, p := range s.status().Peer {
		if p.Site == name && p.HeardAt != nil {
			return true
		}
	}
	return false
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
