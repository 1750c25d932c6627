package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Reason is why a chain is not believed.
type Reason uint8

// Reasons.
const (
	Invalid     Reason = iota // anything else
	Expired                   // not valid at this time
	Unknown                   // no root of the mesh stands behind it
	WrongDomain               // of another trust domain
	WrongSite                 // its site is not its issuer's, or not the one that was asked for
	WrongName                 // its names are not one SPIFFE ID of a workload or node
	Denied                    // on the deny list
)

// Error is a chain that is not believed.
type Error struct {
	Reason Reason
	what   string
	err    error
}

// Error says why, in words.
func (e *Error) Error() string {
	if e.err != nil {
		return e.what + ": " + e.err.Error()
	}
	return e.what
}

// Unwrap is what crypto/x509 said.
func (e *Error) Unwrap() error { return e.err }

func refuse(r Reason, err error, format string, v ...any) error {
	return &Error{r, fmt.Sprintf(format, v...), err}
}

// Denial takes a certificate out of use before it ends: by its ID (a site's or the
// mesh's stands for all below it), or by its serial number.
type Denial struct {
	ID ID
	// Serial is in lower-case hexadecimal without leading zeros; empty for every one.
	Serial string
}

// denies reports whether the denial is of the certificate with an ID.
func (d *Denial) denies(id ID, c *x509.Certificate) bool {
	if d.Serial != "" && d.Serial != c.SerialNumber.Text(16) {
		return false
	}
	return d.ID == ID{} || id.Within(d.ID)
}

// Bundle is whom a mesh believes. It does not change; the zero value believes nobody.
type Bundle struct {
	Domain string
	roots  *x509.CertPool
	denied []Denial
}

// NewBundle makes the bundle of a trust domain.
func NewBundle(domain string, roots []*x509.Certificate, denied []Denial) *Bundle {
	b := &Bundle{Domain: domain, roots: x509.NewCertPool(), denied: denied}
	for _, r := range roots {
		b.roots.AddCert(r)
	}
	return b
}

// Verify judges a chain, the leaf first, at a time, and returns whose it is. The
// certificate that signed the leaf must be that of the leaf's own site: what a site's
// issuer signs in the name of another is nobody's. use is what the leaf must be for.
func (b *Bundle) Verify(chain []*x509.Certificate, use x509.ExtKeyUsage, now time.Time) (ID, error) {
	if len(chain) == 0 || b.roots == nil {
		return ID{}, refuse(Unknown, nil, "there is no certificate to judge, or nobody to believe")
	}
	leaf := chain[0]
	id, err := Of(leaf)
	switch {
	case err != nil:
		return ID{}, refuse(WrongName, err, "its name is not one that the mesh gives")
	case id.Domain != b.Domain:
		return ID{}, refuse(WrongDomain, nil, "%s is not of trust domain %s", id, b.Domain)
	case !id.Leaf():
		return ID{}, refuse(WrongName, nil, "%s names a site or a mesh, want a workload or node", id)
	case leaf.IsCA:
		return ID{}, refuse(Invalid, nil, "%s shows an issuer's certificate as its own", id)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{Roots: b.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return ID{}, refuse(reasonOf(err), err, "%s", id)
	}
	for _, path := range paths {
		if err = b.judge(id, path); err == nil {
			return id, nil
		}
	}
	return ID{}, err
}

// judge looks at one path from the leaf to a root, whose signatures are good.
func (b *Bundle) judge(id ID, path []*x509.Certificate) error {
	if len(path) < 3 {
		return refuse(WrongSite, nil, "%s is signed by a root, not by its site", id)
	}
	issuer, err := Of(path[1])
	if want := (ID{Domain: id.Domain, Site: id.Site}); err != nil || issuer != want {
		return refuse(WrongSite, err, "%s is signed by %s, not by %s", id, describe(issuer, path[1]), want)
	}
	for i := range b.denied {
		if d := &b.denied[i]; d.denies(id, path[0]) || d.Serial != "" && d.denies(issuer, path[1]) {
			return refuse(Denied, nil, "%s is on the deny list", id)
		}
	}
	return nil
}

func describe(id ID, c *x509.Certificate) string {
	if id == (ID{}) {
		return fmt.Sprintf("%q", c.Subject.CommonName)
	}
	return id.String()
}

func reasonOf(err error) Reason {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Expired
	case errors.As(err, &unknown):
		return Unknown
	}
	return Invalid
}
