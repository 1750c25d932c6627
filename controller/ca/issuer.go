package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Issuer signs the leaves of one site. It is not safe for concurrent use. A method
// that fails changes nothing.
type Issuer struct {
	site  string
	key   crypto.Signer
	chain []*x509.Certificate // nil before the first [Issuer.Adopt]
	// next is the key of a request that is not answered yet.
	next crypto.Signer
}

// NewIssuer makes the issuer of a site, without a certificate.
func NewIssuer(site string) *Issuer { return &Issuer{site: site} }

// Ready reports whether leaves can be had at a time.
func (i *Issuer) Ready(now time.Time) bool {
	return len(i.chain) > 0 && now.Before(i.chain[0].NotAfter)
}

// Certificate is the issuer's own; nil before the first.
func (i *Issuer) Certificate() *x509.Certificate {
	if len(i.chain) == 0 {
		return nil
	}
	return i.chain[0]
}

// Domain is the trust domain, empty before the first certificate.
func (i *Issuer) Domain() string {
	if len(i.chain) == 0 {
		return ""
	}
	id, err := spiffe.Of(i.chain[0])
	if err != nil {
		return "" // Adopt has seen to it
	}
	return id.Domain
}

// Request is what the mesh's authority makes a certificate of (DER), with a new key.
func (i *Issuer) Request() ([]byte, error) {
	if i.next == nil {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		i.next = key
	}
	return request(i.next)
}

// Adopt puts the answer to the newest request into use, once it is what was asked
// for and leads to one of the roots.
func (i *Issuer) Adopt(chain, roots []*x509.Certificate, now time.Time) error {
	if i.next == nil || len(chain) == 0 {
		return errors.New("ca: there is no request that this answers")
	}
	id, err := spiffe.Of(chain[0])
	if err != nil {
		return fmt.Errorf("ca: the site's certificate: %w", err)
	}
	public, ok := i.next.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case id != spiffe.ID{Domain: id.Domain, Site: i.site}:
		return fmt.Errorf("ca: the site's certificate is that of %s, this is site %s", id, i.site)
	case !ok || !public.Equal(chain[0].PublicKey):
		return errors.New("ca: the site's certificate is for another key than was asked for")
	case !chain[0].IsCA:
		return errors.New("ca: the site's certificate may sign nothing")
	}
	known, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		known.AddCert(r)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: known, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("ca: the site's certificate: %w", err)
	}
	i.key, i.chain, i.next = i.next, chain, nil
	return nil
}

// Issue signs a leaf of a request (DER) and returns it with what leads to the roots.
// The name is the caller's to give: what the request says of itself is not looked at.
func (i *Issuer) Issue(namespace, account string, req []byte, now time.Time) ([]*x509.Certificate, error) {
	if !i.Ready(now) {
		return nil, fmt.Errorf("ca: site %s has no issuer's certificate that is valid: its hub has to be reached", i.site)
	}
	csr, err := parseRequest(req)
	if err != nil {
		return nil, err
	}
	id := spiffe.ID{Domain: i.Domain(), Site: i.site, Namespace: namespace, Account: account}
	if err := id.Check(); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-early), NotAfter: earliest(now.Add(LeafLife), i.chain[0].NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{uri(id)},
	}
	leaf, err := sign(t, i.chain[0], csr.PublicKey, i.key)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{leaf}, i.chain...), nil
}

// IssuerRecord is an issuer as it is kept; it is a secret. An open request is not
// kept: it is made again.
type IssuerRecord struct {
	Site  string `json:"site"`
	Key   string `json:"key"`
	Chain string `json:"chain"`
}

// Record is what [OpenIssuer] makes the issuer of again.
func (i *Issuer) Record() (IssuerRecord, error) {
	if i.key == nil {
		return IssuerRecord{}, errors.New("ca: the issuer has no certificate yet")
	}
	key, err := formatKey(i.key)
	return IssuerRecord{Site: i.site, Key: key, Chain: FormatChain(i.chain...)}, err
}

// OpenIssuer makes an issuer of its record.
func OpenIssuer(rec IssuerRecord) (*Issuer, error) {
	key, err := parseKey([]byte(rec.Key))
	if err != nil {
		return nil, err
	}
	chain, err := ParseChain([]byte(rec.Chain))
	if err != nil {
		return nil, err
	}
	return &Issuer{site: rec.Site, key: key, chain: chain}, nil
}

// Key is a key with the request that [Issuer.Issue] makes its certificate of (DER).
// It is for who wants a leaf.
func Key() (crypto.Signer, []byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	req, err := request(key)
	return key, req, err
}

func request(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return der, nil
}
