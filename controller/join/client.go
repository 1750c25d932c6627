package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/nats-io/nkeys"
)

// HubName is the DNS name in the hub's certificate. Who connects checks it instead
// of the address that was dialled: addresses change with relays, NAT and moves, and
// the CA signs nothing but hubs.
const HubName = "hub.mesh.meridian.internal"

const (
	askTimeout = 10 * time.Second
	// Files that a member keeps in its data folder.
	caFile   = "hub-ca.pem"
	seedFile = "site.nk"
)

// Join makes the site of a data folder a member with a token: it asks the hub,
// and writes what it got into the folder. f must be open, so that no controller
// runs on it. document is the site's Site object as YAML; it may be empty. It is
// safe to repeat after an error, with the same token.
func Join(ctx context.Context, f *store.Folder, t Token, document string) (SiteFile, error) {
	site, err := ReadSiteFile(f.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return SiteFile{}, err
	}
	if site.Hub {
		return SiteFile{}, fmt.Errorf("%s is the folder of a hub: a hub cannot join another", f.Path())
	}
	if site.Site != "" && site.Site != t.Site {
		return SiteFile{}, fmt.Errorf("%s is the folder of site %s, the token is for site %s: give another --data", f.Path(), site.Site, t.Site)
	}
	key, err := siteKey(f.Path(seedFile))
	if err != nil {
		return SiteFile{}, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return SiteFile{}, fmt.Errorf("join: %s: %w", f.Path(seedFile), err)
	}
	ca, err := t.ask(ctx, request{Site: t.Site, Key: t.Key, NKey: public, Document: document})
	if err != nil {
		return SiteFile{}, err
	}
	if err := store.WriteFile(f.Path(caFile), ca, 0o644); err != nil {
		return SiteFile{}, fmt.Errorf("join: %w", err)
	}
	site.Site, site.HubURLs, site.HubCA, site.HubKey = t.Site, t.Leaf, caFile, seedFile
	return site, site.Write(f.Path())
}

// siteKey returns the site's NKey and makes it when there is none yet.
func siteKey(path string) (nkeys.KeyPair, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		key, err := nkeys.FromSeed(bytes.TrimSpace(data))
		if err != nil {
			return nil, fmt.Errorf("join: %s holds no NKey seed: %w; remove it to have a new one made", path, err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("join: %w", err)
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if err := store.WriteFile(path, append(seed, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return key, nil
}

// ask tries the token's addresses in turn. A refusal is final: it is the hub that
// speaks.
func (t Token) ask(ctx context.Context, in request) (ca []byte, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var errs []error
	for _, url := range t.Join {
		ca, final, err := t.askOne(ctx, url, body)
		if err == nil || final {
			return ca, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", url, err))
	}
	return nil, fmt.Errorf("no hub answers: %w", errors.Join(errs...))
}

func (t Token) askOne(ctx context.Context, url string, body []byte) (ca []byte, final bool, err error) {
	ctx, done := context.WithTimeout(ctx, askTimeout)
	defer done()
	var pin pinned
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, ServerName: HubName,
			// The chain is checked against the CA whose hash the token has, which is
			// not known before the hub sends it.
			InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
			VerifyConnection:   func(c tls.ConnectionState) error { return pin.check(c, t.CA) },
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&a); err != nil {
		return nil, false, fmt.Errorf("the answer (%s) cannot be read: %w", resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode != http.StatusServiceUnavailable, errors.New("the hub refuses: " + strings.TrimSpace(a.Error))
	}
	block, _ := pem.Decode([]byte(a.CA))
	if block == nil || !bytes.Equal(block.Bytes, pin.ca) {
		return nil, true, errors.New("the hub sends another CA than the one it was checked by")
	}
	return pem.EncodeToMemory(block), true, nil
}

// pinned is the CA that a connection was found to be of.
type pinned struct{ ca []byte }

// check takes a connection whose chain ends in the CA with the given SHA-256.
func (p *pinned) check(c tls.ConnectionState, want string) error {
	for _, cert := range c.PeerCertificates[1:] {
		sum := sha256.Sum256(cert.Raw)
		if hex.EncodeToString(sum[:]) != want {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		if _, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: HubName}); err != nil {
			return fmt.Errorf("the hub's certificate is not good: %w", err)
		}
		p.ca = cert.Raw
		return nil
	}
	return errors.New("this is not the hub that made the token: its CA has another hash (somebody is in between, or the hub has a new CA: make a new token)")
}
