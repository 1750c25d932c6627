package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meridian-mesh/meridian/controller/ca"
)

// site issues, unless it is away.
type site struct {
	t      *testing.T
	issuer *ca.Issuer
	away   atomic.Bool
	asked  atomic.Int64
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	a, err := ca.New("mesh.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i := ca.NewIssuer(name)
	req, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.SignIssuer(name, req, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Adopt(chain, a.Roots(), time.Now()); err != nil {
		t.Fatal(err)
	}
	return &site{t: t, issuer: i}
}

func (s *site) ask(_ context.Context, request []byte) ([]byte, error) {
	s.asked.Add(1)
	if s.away.Load() {
		return nil, errors.New("nobody answers")
	}
	chain, err := s.issuer.Issue("meridian", "n1", request, time.Now())
	if err != nil {
		return nil, err
	}
	return []byte(ca.FormatChain(chain...)), nil
}

// used notes what an agent puts into use.
type used struct {
	n    int
	last tls.Certificate
}

func (u *used) use(c tls.Certificate) error { u.n++; u.last = c; return nil }

func config(s *site, u *used, dir string) Config {
	return Config{
		Site: "a", StateDir: dir, Ask: s.ask, Use: u.use, Wanted: func() bool { return true }, Log: slog.New(slog.DiscardHandler),
	}
}

// TestThreeDays has an agent live for three days, for one of which its controller is
// away: there is a valid certificate all the time.
func TestThreeDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, u := newSite(t, "a"), &used{}
		a := New(config(s, u, ""))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		for h := range 72 {
			time.Sleep(time.Hour)
			synctest.Wait()
			s.away.Store(h >= 30 && h < 38) // less than half of a life
			if time.Now().After(u.last.Leaf.NotAfter) {
				t.Fatalf("after %d hours the certificate has ended", h)
			}
		}
		if u.n < 5 || u.n > 9 {
			t.Errorf("%d certificates in three days", u.n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A controller that is away is not asked ten times a second, and an agent that is not
// wanted asks nobody until somebody says so.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, u := newSite(t, "a"), &used{}
		s.away.Store(true)
		c := config(s, u, "")
		var wanted atomic.Bool
		c.Wanted = wanted.Load
		a := New(c)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := s.asked.Load(); n != 0 {
			t.Errorf("asked %d times for what nobody wants", n)
		}
		wanted.Store(true)
		a.Look()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := s.asked.Load(); n < 60 || n > 200 {
			t.Errorf("asked %d times in an hour", n)
		}
		s.away.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if u.n != 1 {
			t.Errorf("%d certificates", u.n)
		}
		stop()
		<-done
	})
}

func TestKeptForTheNextStart(t *testing.T) {
	s, u, dir := newSite(t, "a"), &used{}, t.TempDir()
	if err := New(config(s, u, dir)).turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, File)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	again := &used{}
	s.away.Store(true)
	a := New(config(s, again, dir))
	if again.n != 1 || !again.last.Leaf.Equal(u.last.Leaf) || !a.renewAt.After(time.Now()) {
		t.Fatalf("after a restart: %d identities", again.n)
	}
	// Another site's, a damaged one and one that has ended are not used, and a new
	// one is asked for at once.
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		site string
		data []byte
		now  time.Time
	}{
		"another site's":   {"b", whole, time.Now()},
		"cut":              {"a", whole[:len(whole)/8], time.Now()},
		"no certificate":   {"a", whole[:strings.Index(string(whole), "-----BEGIN CERT")], time.Now()},
		"ended":            {"a", whole, time.Now().Add(25 * time.Hour)},
		"something else":   {"a", []byte("hello"), time.Now()},
		"certificate only": {"a", whole[strings.Index(string(whole), "-----BEGIN CERT"):], time.Now()},
	} {
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		u := &used{}
		cfg := config(s, u, dir)
		cfg.Site, cfg.Now = c.site, func() time.Time { return c.now }
		if a := New(cfg); u.n != 0 || !a.renewAt.IsZero() {
			t.Errorf("%s: used", name)
		}
	}
}

// What a controller sends is looked at before it is used.
func TestAnswersAreChecked(t *testing.T) {
	s, other := newSite(t, "a"), newSite(t, "b")
	_, foreign, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(context.Context, []byte) ([]byte, error){
		"another site's": other.ask,
		"another key's":  func(ctx context.Context, _ []byte) ([]byte, error) { return s.ask(ctx, foreign) },
		"nothing":        func(context.Context, []byte) ([]byte, error) { return nil, nil },
		"no certificate": func(context.Context, []byte) ([]byte, error) { return []byte("hello"), nil },
		"the site's own": func(context.Context, []byte) ([]byte, error) {
			return []byte(ca.FormatChain(s.issuer.Certificate())), nil
		},
		"a broken leaf": func(context.Context, []byte) ([]byte, error) {
			return []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), nil
		},
		"an error answer": func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no") },
	} {
		u := &used{}
		c := config(s, u, t.TempDir())
		c.Ask = ask
		if err := New(c).turn(t.Context()); err == nil || u.n != 0 {
			t.Errorf("%s: used, %v", name, err)
		}
	}
}

// A workload's identity is kept beside the node's, and neither is taken for the other.
func TestWorkloadIsNoNode(t *testing.T) {
	s, node, web, dir := newSite(t, "a"), &used{}, &used{}, t.TempDir()
	account := "web"
	ofWorkload := config(s, web, dir)
	ofWorkload.Namespace, ofWorkload.Account, ofWorkload.File = "shop", "web", WorkloadFile
	ofWorkload.Ask = func(_ context.Context, request []byte) ([]byte, error) {
		chain, err := s.issuer.Issue("shop", account, request, time.Now())
		return []byte(ca.FormatChain(chain...)), err
	}
	if err := New(config(s, node, dir)).turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := New(ofWorkload).turn(t.Context()); err != nil || web.last.Leaf.URIs[0].String() != "spiffe://mesh.example/site/a/ns/shop/sa/web" {
		t.Fatalf("%v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, WorkloadFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	New(config(s, node, dir))
	New(ofWorkload)
	if node.n != 2 || web.n != 2 || node.last.Leaf.URIs[0].String() != "spiffe://mesh.example/site/a/ns/meridian/sa/n1" {
		t.Errorf("after a restart: node %d times, workload %d times", node.n, web.n)
	}
	account = "mail"
	if err := New(ofWorkload).turn(t.Context()); err != nil {
		t.Errorf("a fresh one is asked for again: %v", err) // what is kept is good for hours
	}
	ofWorkload.StateDir = ""
	if err := New(ofWorkload).turn(t.Context()); err == nil || !strings.Contains(err.Error(), "not an identity of shop/web") {
		t.Errorf("another's: %v", err)
	}
	ofNode := config(s, &used{}, "")
	ofNode.Ask = func(_ context.Context, request []byte) ([]byte, error) {
		chain, err := s.issuer.Issue("shop", "web", request, time.Now())
		return []byte(ca.FormatChain(chain...)), err
	}
	if err := New(ofNode).turn(t.Context()); err == nil || !strings.Contains(err.Error(), "not an identity of meridian/a node") {
		t.Errorf("a workload's for a node: %v", err)
	}
}
