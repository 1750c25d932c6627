package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Lives of certificates.
const (
	RootLife   = 10 * 365 * 24 * time.Hour
	IssuerLife = 30 * 24 * time.Hour
	LeafLife   = 24 * time.Hour
	// Overlap is how long a root that was replaced is still believed: until what it
	// signed last has ended.
	Overlap = IssuerLife + 24*time.Hour
	// early is how long before now a certificate is valid, for clocks that go behind.
	early = time.Hour
)

// DefaultDomain is the trust domain of a mesh that was given none.
const DefaultDomain = "mesh.meridian.internal"

// Authority is a mesh's root, and those that it replaced. It is not safe for
// concurrent use. A method that fails changes nothing.
type Authority struct {
	domain string
	roots  []root // the newest first
}

// root is one root. Its key is needed while it is the newest.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
	// cross is this root's key signed by the root before; nil of the first.
	cross *x509.Certificate
	// replaced is when a newer one came; zero of the newest.
	replaced time.Time
}

// New makes an authority with a root of its own.
func New(domain string, now time.Time) (*Authority, error) {
	if err := spiffe.CheckDomain(domain); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	a := &Authority{domain: domain}
	return a, a.Rotate(now)
}

// Domain is the trust domain.
func (a *Authority) Domain() string { return a.domain }

// Roots are the certificates to believe, the newest first.
func (a *Authority) Roots() []*x509.Certificate {
	out := make([]*x509.Certificate, len(a.roots))
	for i, r := range a.roots {
		out[i] = r.cert
	}
	return out
}

// Rotate makes a new root, which signs from now on.
func (a *Authority) Rotate(now time.Time) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	template := a.rootTemplate(now)
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return a.take(cert, key, now)
}

// Import makes a root of the operator's the newest: a CA certificate and its key, both
// PEM. One that is there already changes nothing.
func (a *Authority) Import(certPEM, keyPEM []byte, now time.Time) error {
	certs, err := ParseChain(certPEM)
	if err != nil {
		return err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return err
	}
	cert := certs[0]
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("ca: the root's certificate is not a CA's: it needs CA:TRUE and the key usage keyCertSign")
	case cert.MaxPathLenZero:
		return errors.New("ca: the root's certificate allows no issuer below it: its path length has to be 1 or more")
	case !ok || !public.Equal(cert.PublicKey):
		return errors.New("ca: the root's key is not that of its certificate")
	case now.After(cert.NotAfter) || now.Before(cert.NotBefore):
		return fmt.Errorf("ca: the root's certificate is valid from %s to %s only", cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	for _, r := range a.roots {
		if r.cert.Equal(cert) {
			return nil
		}
	}
	return a.take(cert, key, now)
}

// take makes a root the newest.
func (a *Authority) take(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	next := root{cert: cert, key: key}
	roots := []root{next}
	for i, r := range a.roots {
		if i == 0 {
			cross := a.rootTemplate(now)
			cross.Subject, cross.RawSubject, cross.SubjectKeyId = cert.Subject, cert.RawSubject, cert.SubjectKeyId
			cross.NotAfter = earliest(now.Add(Overlap), r.cert.NotAfter)
			var err error
			if roots[0].cross, err = sign(cross, r.cert, cert.PublicKey, r.key); err != nil {
				return err
			}
			r.replaced = now
		}
		roots = append(roots, r)
	}
	a.roots = roots
	return nil
}

// Retire leaves roots out whose overlap is over, and reports whether there were any.
func (a *Authority) Retire(now time.Time) bool {
	keep := a.roots[:0:0]
	for _, r := range a.roots {
		if r.replaced.IsZero() || now.Before(r.replaced.Add(Overlap)) {
			keep = append(keep, r)
		}
	}
	left := len(keep) < len(a.roots)
	a.roots = keep
	return left
}

// SignIssuer makes the certificate of a site's issuer of a request (DER), and returns
// it with what leads from it to every root that may be all that somebody knows.
func (a *Authority) SignIssuer(site string, request []byte, now time.Time) ([]*x509.Certificate, error) {
	csr, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	id := spiffe.ID{Domain: a.domain, Site: site}
	if err := spiffe.CheckSegment(site); err != nil {
		return nil, fmt.Errorf("ca: site: %w", err)
	}
	r := a.roots[0]
	t := caTemplate("Meridian site "+site, now)
	t.NotAfter = earliest(now.Add(IssuerLife), r.cert.NotAfter)
	t.MaxPathLenZero = true
	t.URIs = []*url.URL{uri(id)}
	// In the name of another site it could still sign: that is what verification
	// refuses, since constraints on URIs bind the trust domain and not the path.
	t.PermittedDNSDomainsCritical = true
	t.PermittedURIDomains = []string{a.domain}
	t.ExcludedDNSDomains, t.ExcludedEmailAddresses = []string{""}, []string{""}
	cert, err := sign(t, r.cert, csr.PublicKey, r.key)
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{cert}
	for _, r := range a.roots {
		if r.cross != nil && now.Before(r.cross.NotAfter) {
			chain = append(chain, r.cross)
		}
	}
	return chain, nil
}

// Record is an authority as it is kept; it is a secret.
type Record struct {
	Domain string       `json:"domain"`
	Roots  []RootRecord `json:"roots"`
}

// RootRecord is a root in PEM.
type RootRecord struct {
	Certificate string    `json:"certificate"`
	Key         string    `json:"key"`
	Cross       string    `json:"cross,omitempty"`
	Replaced    time.Time `json:"replaced,omitzero"`
}

// Record is what [Open] makes the authority of again.
func (a *Authority) Record() (Record, error) {
	out := Record{Domain: a.domain}
	for _, r := range a.roots {
		key, err := formatKey(r.key)
		if err != nil {
			return Record{}, err
		}
		rec := RootRecord{Certificate: FormatChain(r.cert), Key: key, Replaced: r.replaced}
		if r.cross != nil {
			rec.Cross = FormatChain(r.cross)
		}
		out.Roots = append(out.Roots, rec)
	}
	return out, nil
}

// Open makes an authority of its record.
func Open(rec Record) (*Authority, error) {
	a := &Authority{domain: rec.Domain}
	for i, r := range rec.Roots {
		certs, err := ParseChain([]byte(r.Certificate))
		if err != nil {
			return nil, fmt.Errorf("root %d: %w", i+1, err)
		}
		key, err := parseKey([]byte(r.Key))
		if err != nil {
			return nil, fmt.Errorf("root %d: %w", i+1, err)
		}
		next := root{cert: certs[0], key: key, replaced: r.Replaced}
		if r.Cross != "" {
			cross, err := ParseChain([]byte(r.Cross))
			if err != nil {
				return nil, fmt.Errorf("root %d: %w", i+1, err)
			}
			next.cross = cross[0]
		}
		a.roots = append(a.roots, next)
	}
	if len(a.roots) == 0 {
		return nil, errors.New("ca: the record holds no root")
	}
	return a, nil
}

func (a *Authority) rootTemplate(now time.Time) *x509.Certificate {
	t := caTemplate("Meridian mesh "+a.domain, now)
	t.NotAfter = now.Add(RootLife)
	t.URIs = []*url.URL{uri(spiffe.ID{Domain: a.domain})}
	return t
}

func caTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		// The serial in the name tells two roots of one mesh apart, for path building.
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name, SerialNumber: now.UTC().Format("20060102T150405.000000000")},
		NotBefore: now.Add(-early),
		IsCA:      true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// RenewAt is when a certificate is to be replaced: at half of its life, moved by up to
// a tenth of it either way, so that those which began together do not come together.
// jitter is a random number in [0, 1).
func RenewAt(c *x509.Certificate, jitter float64) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life/2 + time.Duration((jitter-0.5)*0.2*float64(life)))
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return key, nil
}

func sign(template, parent *x509.Certificate, public any, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return c, nil
}

func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("ca: the request cannot be read: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("ca: who asks does not hold the key: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("ca: the request has a %T, want an ECDSA key on P-256", csr.PublicKey)
	}
	return csr, nil
}

// FormatChain writes certificates as PEM.
func FormatChain(chain ...*x509.Certificate) string {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(out)
}

// ParseChain reads one or more certificates in PEM.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("ca: there is a %s where a CERTIFICATE is wanted", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca: certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("ca: there is no certificate in PEM")
	}
	return out, nil
}

func formatKey(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("ca: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	b, _ := pem.Decode(data)
	if b == nil {
		return nil, errors.New("ca: there is no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		if ec, ecErr := x509.ParseECPrivateKey(b.Bytes); ecErr == nil {
			return ec, nil
		}
		// The library's words may quote what they could not read.
		return nil, errors.New("ca: the key cannot be read: want an unencrypted ECDSA, RSA or Ed25519 key in PEM (PKCS #8)")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("ca: a %T cannot sign", key)
	}
	return signer, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func uri(id spiffe.ID) *url.URL { return &url.URL{Scheme: "spiffe", Host: id.Domain, Path: id.Path()} }
