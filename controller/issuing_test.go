package controller_test

import (
	"context"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/controller/natsd/natstest"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// leaf asks for a certificate of a node.
func (n *node) leaf(t *testing.T, name string) ([]*x509.Certificate, error) {
	t.Helper()
	_, req, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	chain, err := n.bus.Leaf(ctx, name, req)
	if err != nil {
		return nil, err
	}
	return ca.ParseChain(chain)
}

// bundle is whom a node believes by its snapshot, nil before it has one.
func (n *node) bundle() *spiffe.Bundle {
	s := n.snapshot.Load()
	if s == nil || s.Objects.Trust() == nil {
		return nil
	}
	spec := s.Objects.Trust().Spec
	var roots []*x509.Certificate
	for _, r := range spec.Roots {
		c, err := ca.ParseChain([]byte(r))
		if err != nil {
			return nil
		}
		roots = append(roots, c...)
	}
	return spiffe.NewBundle(spec.TrustDomain, roots, nil)
}

func verified(b *spiffe.Bundle, chain []*x509.Certificate) (spiffe.ID, error) {
	return b.Verify(chain, x509.ExtKeyUsageClientAuth, time.Now())
}

// TestIdentities is a hub and a site through the life of their identities.
func TestIdentities(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true, TrustDomain: "mesh.example"})
	relay := natstest.NewRelay(t, strings.TrimPrefix(hub.run.Leaf, "tls://"))
	a := start(t, leafConfig("a", "tls://"+relay.Addr(), hub))
	na, nh := a.node("n1"), hub.node("h1")
	hub.must(siteDoc("a", 0) + siteDoc("centre", 0.1))
	var chain []*x509.Certificate
	within(t, 20*time.Second, "an identity at a", func() bool {
		var err error
		chain, err = na.leaf(t, "n1")
		return err == nil && na.bundle() != nil && nh.bundle() != nil
	})
	for name, n := range map[string]*node{"a": na, "the hub": nh} {
		if id, err := verified(n.bundle(), chain); err != nil || id.String() != "spiffe://mesh.example/site/a/ns/meridian/sa/n1" {
			t.Fatalf("%s: %s %v", name, id, err)
		}
	}
	for _, s := range []*site{hub, a} {
		st := s.status().Self.Identities
		if st == nil || st.Issuer == nil || st.TrustDomain != "mesh.example" || len(st.Roots) != 1 || st.Problem != "" {
			t.Errorf("%s says %+v", s.cfg.Site, st)
		}
	}
	// Secrets are the owner's alone.
	for _, path := range []string{hub.cfg.Data + "/hub/roots.json", hub.cfg.Data + "/issuer.json", a.cfg.Data + "/issuer.json"} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	// Roots are the hub's to write: what somebody else makes of them does not stay.
	before := nh.snapshot.Load().Objects.Trust().Spec.Roots[0]
	hub.must("apiVersion: mesh.meridian.dev/v1alpha1\nkind: TrustBundle\nmetadata: {name: mesh}\nspec:\n  trustDomain: other.example\n  roots: [\"-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n\"]\n  denied: [{id: spiffe://mesh.example/site/a/ns/meridian/sa/n2, reason: stolen}]\n")
	within(t, 10*time.Second, "the roots again", func() bool {
		b := na.snapshot.Load().Objects.Trust()
		return b.Spec.TrustDomain == "mesh.example" && b.Spec.Roots[0] == before && len(b.Spec.Denied) == 1
	})
	// The deny list is heard: nothing new is signed for who is on it.
	within(t, 10*time.Second, "the denial", func() bool {
		_, err := na.leaf(t, "n2")
		return err != nil && strings.Contains(err.Error(), "deny list")
	})
	if _, err := na.leaf(t, "n3"); err != nil {
		t.Errorf("a neighbour is denied too: %v", err)
	}

	// Without the hub the site goes on issuing, also after a restart.
	relay.Cut()
	within(t, 8*time.Second, "cut", func() bool { return !a.status().Link.Connected })
	if _, err := na.leaf(t, "n1"); err != nil {
		t.Errorf("without the hub: %v", err)
	}
	a.stop()
	a = start(t, a.cfg)
	na = a.node("n1")
	within(t, 10*time.Second, "an identity after a restart without the hub", func() bool {
		c, err := na.leaf(t, "n1")
		return err == nil && c[1].Equal(chain[1])
	})
	relay.Heal()

	// A new root: a's issuer follows by itself, and who knows the old root alone still
	// believes.
	old := nh.bundle()
	if _, err := a.api.Rotate(short(t), siteapi.RotateRequest{What: siteapi.RotateRoot}); err == nil || !strings.Contains(err.Error(), "not the hub") {
		t.Errorf("a site rotates the root: %v", err)
	}
	r, err := hub.api.Rotate(short(t), siteapi.RotateRequest{What: siteapi.RotateRoot})
	if err != nil || r.New.Name != "spiffe://mesh.example" {
		t.Fatalf("%+v %v", r, err)
	}
	within(t, 90*time.Second, "a's issuer by the new root", func() bool {
		c, err := na.leaf(t, "n1")
		if err != nil || na.bundle() == nil {
			return false
		}
		chain = c
		return !c[1].Equal(c[len(c)-1]) && len(c) == 3
	})
	for name, b := range map[string]*spiffe.Bundle{"by the old root": old, "at a": na.bundle(), "at the hub": nh.bundle()} {
		if _, err := verified(b, chain); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An issuer of its own accord.
	x, err := a.api.Rotate(short(t), siteapi.RotateRequest{What: siteapi.RotateIssuer})
	if err != nil || x.New.Serial == chain[1].SerialNumber.Text(16) {
		t.Errorf("%+v %v", x, err)
	}
	if _, err := a.api.Rotate(short(t), siteapi.RotateRequest{What: "leaf"}); err == nil {
		t.Error("something else is rotated")
	}

	// After the hub restarts its root is what it was.
	hub.stop()
	hub = start(t, hub.cfg)
	within(t, 10*time.Second, "the hub's issuer", func() bool {
		st := hub.status().Self.Identities
		return st != nil && len(st.Roots) == 2 && st.Roots[0].Serial == r.New.Serial && st.Issuer != nil
	})
}

// A site gets an issuer for itself only, and a node asks its own controller only.
func TestIdentitiesAreAskedForByTheirOwners(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true})
	a := start(t, leafConfig("a", hub.run.Leaf, hub))
	_, req, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	// What the site's own server lets its controller say, the hub's must not let in.
	admin, err := bus.Connect(bus.Options{URL: a.run.NATS, TokenFile: a.cfg.Data + "/admin.token", Site: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ask := func(c *bus.Conn, site string) error {
		ctx, done := context.WithTimeout(t.Context(), time.Second)
		defer done()
		_, err := c.Issuer(ctx, site, req)
		return err
	}
	within(t, 20*time.Second, "a's own issuer", func() bool { return ask(admin, "a") == nil })
	if err := ask(admin, "centre"); err == nil {
		t.Error("site a has an issuer of the hub's site signed")
	}
	if err := ask(admin, "b"); err == nil {
		t.Error("site a has an issuer of site b signed")
	}
	n := a.node("n1")
	if err := ask(n.bus.Conn, "a"); err == nil {
		t.Error("a node has its site's issuer signed")
	}
	ctx, done := context.WithTimeout(t.Context(), time.Second)
	defer done()
	other, err := bus.DialNode(bus.Options{URL: a.run.NATS, TokenFile: a.run.TokenFile}, "centre")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Leaf(ctx, "h1", req); err == nil {
		t.Error("a node of a has a leaf of the hub's site signed")
	}
}

// A mesh that is none has no identities, and says so.
func TestAloneHasNoIdentities(t *testing.T) {
	s := start(t, controller.Config{Site: "solo"})
	if st := s.status().Self.Identities; st != nil {
		t.Errorf("%+v", st)
	}
	if _, err := s.api.Rotate(short(t), siteapi.RotateRequest{What: siteapi.RotateIssuer}); err == nil {
		t.Error("there is something to rotate")
	}
}
