package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

const scheme = "spiffe://"

// Bounds of the SPIFFE-ID standard (2.3) and of one segment here.
const (
	maxID      = 2048
	maxDomain  = 255
	maxSegment = 253
)

// ID is the name of a workload or node: spiffe://DOMAIN/site/SITE/ns/NAMESPACE/sa/ACCOUNT.
// Without Namespace and Account it is that of a whole site, which only its issuer
// has; with Domain alone that of the mesh's root.
type ID struct {
	Domain    string
	Site      string
	Namespace string
	Account   string
}

// String is the ID as it stands in a certificate.
func (id ID) String() string {
	var b strings.Builder
	b.WriteString(scheme)
	b.WriteString(id.Domain)
	for _, part := range [...][2]string{{"/site/", id.Site}, {"/ns/", id.Namespace}, {"/sa/", id.Account}} {
		if part[1] == "" {
			break
		}
		b.WriteString(part[0])
		b.WriteString(part[1])
	}
	return b.String()
}

// Path is the ID without scheme and trust domain.
func (id ID) Path() string { return strings.TrimPrefix(id.String(), scheme+id.Domain) }

// NodeNamespace is the namespace of nodes: their proxies speak for their site.
const NodeNamespace = "meridian"

// Node reports whether it names a node, and no workload.
func (id ID) Node() bool { return id.Namespace == NodeNamespace && id.Account != "" }

// Leaf reports whether it names a workload or node.
func (id ID) Leaf() bool { return id.Account != "" }

// Within reports whether it is other, or is of the site or mesh that other names.
func (id ID) Within(other ID) bool {
	return id.Domain == other.Domain &&
		(other.Site == "" || id.Site == other.Site) &&
		(other.Namespace == "" || id.Namespace == other.Namespace && id.Account == other.Account)
}

// Check says what is wrong with an ID that was put together, nil where it can be
// written and read again.
func (id ID) Check() error {
	parsed, err := Parse(id.String())
	if err == nil && parsed != id {
		err = fmt.Errorf("%q is not complete: want a site, a namespace and an account", id.String())
	}
	return err
}

// Parse reads an ID, strictly: what could be written in two ways is refused, so that
// equal IDs are equal bytes (SPIFFE-ID 2.1 and 2.2).
func Parse(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	switch {
	case len(s) > maxID:
		return ID{}, fmt.Errorf("a SPIFFE ID has at most %d bytes, this one has %d", maxID, len(s))
	case !ok:
		return ID{}, fmt.Errorf("%q is not a SPIFFE ID: it does not begin with %s", s, scheme)
	}
	domain, path, _ := strings.Cut(rest, "/")
	if err := CheckDomain(domain); err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
	}
	id := ID{Domain: domain}
	if len(rest) == len(domain) {
		return id, nil
	}
	parts := strings.Split(path, "/")
	names := [...]string{"site", "ns", "sa"}
	into := [...]*string{&id.Site, &id.Namespace, &id.Account}
	if len(parts) != 2 && len(parts) != 2*len(names) {
		return ID{}, fmt.Errorf("SPIFFE ID %q: want /site/SITE or /site/SITE/ns/NAMESPACE/sa/ACCOUNT after the trust domain", s)
	}
	for i := 0; i < len(parts); i += 2 {
		if parts[i] != names[i/2] {
			return ID{}, fmt.Errorf("SPIFFE ID %q: want /%s/ where it has /%s/", s, names[i/2], parts[i])
		}
		if err := CheckSegment(parts[i+1]); err != nil {
			return ID{}, fmt.Errorf("SPIFFE ID %q: %s: %w", s, names[i/2], err)
		}
		*into[i/2] = parts[i+1]
	}
	return id, nil
}

// CheckDomain says what is wrong with a trust domain's name.
func CheckDomain(s string) error {
	if s == "" || len(s) > maxDomain {
		return fmt.Errorf("a trust domain has 1 to %d bytes", maxDomain)
	}
	for i := range len(s) {
		if c := s[i]; !lower(c) && !digit(c) && c != '-' && c != '.' && c != '_' {
			return fmt.Errorf("trust domain %q: only lower-case letters, digits, -, . and _", s)
		}
	}
	return nil
}

// CheckSegment says what is wrong with the name of a site, a namespace or an account
// inside an ID.
func CheckSegment(s string) error {
	switch {
	case s == "" || len(s) > maxSegment:
		return fmt.Errorf("a name has 1 to %d bytes", maxSegment)
	case s == "." || s == "..":
		return fmt.Errorf("%q is no name", s)
	}
	for i := range len(s) {
		if c := s[i]; !lower(c|0x20) && !digit(c) && c != '-' && c != '.' && c != '_' {
			return fmt.Errorf("%q: only letters, digits, -, . and _", s)
		}
	}
	return nil
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }

// Of is the ID in a certificate, which has exactly one URI and no other name
// (X509-SVID 2): another name would be one that nobody has judged.
func Of(c *x509.Certificate) (ID, error) {
	switch {
	case len(c.URIs) == 0:
		return ID{}, errors.New("the certificate names no SPIFFE ID")
	case len(c.URIs) > 1:
		return ID{}, fmt.Errorf("the certificate has %d URIs, want one SPIFFE ID", len(c.URIs))
	case len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) > 0:
		return ID{}, errors.New("the certificate has other names beside its SPIFFE ID")
	}
	return Parse(c.URIs[0].String())
}
