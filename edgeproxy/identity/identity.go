// Package identity gets a proxy its identity from its site's controller and keeps it
// fresh: a key that never leaves the node, and a certificate that is renewed at half
// of its life without anybody noticing. Where there is a state folder the two are kept
// there (0600), so that a node which starts while its controller is away is somebody.
package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/meridian-mesh/meridian/internal/durable"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// File and WorkloadFile are where key and chain are kept in the state folder, the key
// first: of the node, and of the workload that it is beside.
const (
	File         = "identity.pem"
	WorkloadFile = "workload.pem"
)

// Times of the agent. A controller that starts has no issuer for a moment.
const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	askFor   = 5 * time.Second
	// longest is how long a wait may be before the clock is looked at again: one that
	// jumps, and a machine that sleeps, must not cost the certificate.
	longest = time.Minute
)

// Config says for whom.
type Config struct {
	Site string
	// Namespace and Account are whose identity it has to be: empty are the node's, whose
	// name its controller knows.
	Namespace, Account string
	// StateDir may be empty: then nothing is kept. File is the name in it, [File] where
	// it is empty.
	StateDir, File string
	// Ask has a certificate made of a request (DER) and returns the chain, the leaf
	// first (PEM).
	Ask func(ctx context.Context, request []byte) ([]byte, error)
	// Use puts an identity into use.
	Use func(tls.Certificate) error
	// Wanted reports whether the mesh has identities at all.
	Wanted func() bool
	Log    *slog.Logger
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// Agent keeps one identity.
type Agent struct {
	Config
	wake    chan struct{}
	renewAt time.Time // zero: now
	said    string    // the last failure that was logged
}

// New makes an agent and puts what an earlier run kept into use, where it is still
// good for something.
func New(c Config) *Agent {
	a := &Agent{Config: c, wake: make(chan struct{}, 1)}
	if a.Now == nil {
		a.Now = time.Now
	}
	if a.Namespace == "" {
		a.Namespace = spiffe.NodeNamespace
	}
	if a.File == "" {
		a.File = File
	}
	if err := a.recall(); err != nil {
		a.Log.Warn("the identity of an earlier run is not used", "err", err)
	}
	return a
}

// Look has Run find out anew whether an identity is wanted.
func (a *Agent) Look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run renews until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	wait := time.Duration(0)
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		case <-a.wake:
		}
		switch err := a.turn(ctx); {
		case err == nil:
			failures = 0
			wait = longest
			if a.Wanted() {
				wait = min(max(a.renewAt.Sub(a.Now()), retryMin), longest)
			}
		default:
			if text := err.Error(); text != a.said && ctx.Err() == nil {
				a.said = text
				a.Log.Warn("no identity from the site's controller yet", "err", err)
			}
			wait = min(retryMin<<min(failures, 10), retryMax)
			wait += time.Duration(mathrand.Int64N(int64(wait)/4 + 1))
			failures++
		}
	}
}

// turn renews where it is time to.
func (a *Agent) turn(ctx context.Context) error {
	if !a.Wanted() || a.Now().Before(a.renewAt) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	call, done := context.WithTimeout(ctx, askFor)
	defer done()
	chain, err := a.Ask(call, request)
	if err != nil {
		return err
	}
	c, err := pair(key, chain)
	if err != nil {
		return fmt.Errorf("what the controller sent: %w", err)
	}
	if err := a.use(c); err != nil {
		return fmt.Errorf("what the controller sent: %w", err)
	}
	a.said = ""
	a.Log.Info("identity", "id", c.Leaf.URIs[0].String(), "serial", c.Leaf.SerialNumber.Text(16), "not_after", c.Leaf.NotAfter)
	if err := a.keep(key, chain); err != nil {
		a.Log.Warn("the identity is not kept for the next start", "err", err)
	}
	return nil
}

// use puts an identity into use and plans when it is renewed.
func (a *Agent) use(c tls.Certificate) error {
	id, err := spiffe.Of(c.Leaf)
	switch {
	case err != nil:
		return err
	case id.Site != a.Site || !id.Leaf():
		return fmt.Errorf("%s is not an identity of site %s", id, a.Site)
	case id.Namespace != a.Namespace || a.Account != "" && id.Account != a.Account:
		return fmt.Errorf("%s is not an identity of %s/%s", id, a.Namespace, cmp.Or(a.Account, "a node"))
	case a.Now().After(c.Leaf.NotAfter):
		return fmt.Errorf("it ended at %s: is a clock wrong?", c.Leaf.NotAfter.Format(time.RFC3339))
	}
	if err := a.Use(c); err != nil {
		return err
	}
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	a.renewAt = c.Leaf.NotBefore.Add(life/2 + time.Duration((mathrand.Float64()-0.5)*0.2*float64(life)))
	return nil
}

// pair makes an identity of a key and a chain in PEM.
func pair(key crypto.Signer, chain []byte) (tls.Certificate, error) {
	c := tls.Certificate{PrivateKey: key}
	for {
		var b *pem.Block
		if b, chain = pem.Decode(chain); b == nil {
			break
		}
		c.Certificate = append(c.Certificate, b.Bytes)
	}
	if len(c.Certificate) == 0 {
		return c, errors.New("it holds no certificate")
	}
	var err error
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		return c, err
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(c.Leaf.PublicKey) {
		return c, errors.New("the certificate is for another key")
	}
	return c, nil
}

func (a *Agent) keep(key crypto.Signer, chain []byte) error {
	if a.StateDir == "" {
		return nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(a.StateDir, a.File), append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), chain...), 0o600)
}

// recall puts into use what an earlier run kept.
func (a *Agent) recall() error {
	if a.StateDir == "" {
		return nil
	}
	path := filepath.Join(a.StateDir, a.File)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b, chain := pem.Decode(data)
	if b == nil || b.Type != "PRIVATE KEY" {
		return fmt.Errorf("%s holds no key: remove it", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	key, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return fmt.Errorf("%s holds no key that can be used: remove it", path)
	}
	c, err := pair(key, bytes.TrimSpace(chain))
	if err == nil {
		err = a.use(c)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
