package edgeproxy

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// family is a mesh with an authority and one issuer for each site.
type family struct {
	t       testing.TB
	ca      *ca.Authority
	issuers map[string]*ca.Issuer
}

func newFamily(t testing.TB, domain string) *family {
	t.Helper()
	a, err := ca.New(domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &family{t, a, map[string]*ca.Issuer{}}
}

func (f *family) issuer(site string) *ca.Issuer {
	f.t.Helper()
	if f.issuers[site] == nil {
		i := ca.NewIssuer(site)
		req, err := i.Request()
		if err != nil {
			f.t.Fatal(err)
		}
		chain, err := f.ca.SignIssuer(site, req, time.Now())
		if err != nil {
			f.t.Fatal(err)
		}
		if err := i.Adopt(chain, f.ca.Roots(), time.Now()); err != nil {
			f.t.Fatal(err)
		}
		f.issuers[site] = i
	}
	return f.issuers[site]
}

// leaf is a new identity of a node, made at a time.
func (f *family) leaf(site, node string, at time.Time) tls.Certificate {
	f.t.Helper()
	return f.leafOf(site, spiffe.NodeNamespace, node, at)
}

// leafOf is leaf of any account.
func (f *family) leafOf(site, namespace, account string, at time.Time) tls.Certificate {
	f.t.Helper()
	key, req, err := ca.Key()
	if err != nil {
		f.t.Fatal(err)
	}
	chain, err := f.issuer(site).Issue(namespace, account, req, at)
	if err != nil {
		f.t.Fatal(err)
	}
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, x := range chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// trust is the bundle that a mesh's hub would write.
func (f *family) trust(denied ...mesh.DeniedIdentity) *mesh.TrustBundle {
	b := &mesh.TrustBundle{Metadata: mesh.ObjectMeta{Name: mesh.TrustBundleName, Namespace: mesh.DefaultNamespace}}
	b.Spec.TrustDomain, b.Spec.Denied = f.ca.Domain(), denied
	for _, r := range f.ca.Roots() {
		b.Spec.Roots = append(b.Spec.Roots, ca.FormatChain(r))
	}
	return b
}

// trusting is objects with a bundle.
func trusting(o mesh.Objects, b *mesh.TrustBundle) mesh.Objects {
	o.TrustBundles = []*mesh.TrustBundle{b}
	return o
}
