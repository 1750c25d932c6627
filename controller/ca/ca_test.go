package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/spiffe"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func authority(t *testing.T, domain string) *Authority {
	t.Helper()
	a, err := New(domain, start)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// renew gets a site's issuer a new certificate.
func renew(t *testing.T, a *Authority, i *Issuer, now time.Time) {
	t.Helper()
	req, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.SignIssuer(i.site, req, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Adopt(chain, a.Roots(), now); err != nil {
		t.Fatal(err)
	}
}

func issuer(t *testing.T, a *Authority, site string, now time.Time) *Issuer {
	t.Helper()
	i := NewIssuer(site)
	renew(t, a, i, now)
	return i
}

func leaf(t *testing.T, i *Issuer, now time.Time) []*x509.Certificate {
	t.Helper()
	_, req, err := Key()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := i.Issue("meridian", "node-1", req, now)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func bundle(a *Authority, denied ...spiffe.Denial) *spiffe.Bundle {
	return spiffe.NewBundle(a.Domain(), a.Roots(), denied)
}

func judge(b *spiffe.Bundle, chain []*x509.Certificate, now time.Time) (spiffe.ID, error) {
	return b.Verify(chain, x509.ExtKeyUsageClientAuth, now)
}

func wantReason(t *testing.T, err error, want spiffe.Reason) {
	t.Helper()
	var e *spiffe.Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Fatalf("got %v, want reason %d", err, want)
	}
}

func TestLeafIsBelieved(t *testing.T) {
	a := authority(t, "mesh.example")
	chain := leaf(t, issuer(t, a, "north", start), start)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		id, err := bundle(a).Verify(chain, use, start)
		if err != nil || id.String() != "spiffe://mesh.example/site/north/ns/meridian/sa/node-1" {
			t.Fatalf("%v: %s %v", use, id, err)
		}
	}
	if got := chain[0].NotAfter.Sub(start); got != LeafLife {
		t.Fatalf("a leaf lives for %s, want %s", got, LeafLife)
	}
}

func TestRefusedChains(t *testing.T) {
	a, other := authority(t, "mesh.example"), authority(t, "mesh.example")
	foreign := authority(t, "other.example")
	north := issuer(t, a, "north", start)
	good := leaf(t, north, start)
	forged := func(change func(*x509.Certificate)) []*x509.Certificate {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: serial(), NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, URIs: []*url.URL{uri(spiffe.ID{Domain: "mesh.example", Site: "north", Namespace: "meridian", Account: "node-1"})},
		}
		change(c)
		out, err := sign(c, north.chain[0], key.Public(), north.key)
		if err != nil {
			t.Fatal(err)
		}
		return append([]*x509.Certificate{out}, north.chain...)
	}
	named := func(s string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
		}
	}
	// signed has a root sign a leaf itself, without a site between.
	signed := func(r root) []*x509.Certificate {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		c := *good[0]
		out, err := sign(&c, r.cert, key.Public(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{out}
	}
	self := func() []*x509.Certificate {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		c := *good[0]
		c.PublicKey = key.Public()
		out, err := sign(&c, &c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{out}
	}
	// A site's key as an issuer of issuers: the path is one too long.
	deeper := func() []*x509.Certificate {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		south := caTemplate("south", start)
		south.NotAfter, south.URIs = start.Add(time.Hour), []*url.URL{uri(spiffe.ID{Domain: "mesh.example", Site: "south"})}
		sub, err := sign(south, north.chain[0], key.Public(), north.key)
		if err != nil {
			t.Fatal(err)
		}
		stolen := &Issuer{site: "south", key: key, chain: append([]*x509.Certificate{sub}, north.chain...)}
		return leaf(t, stolen, start)
	}
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		now   time.Time
		want  spiffe.Reason
	}{
		{"expired", good, start.Add(LeafLife + time.Second), spiffe.Expired},
		{"not yet valid", good, start.Add(-2 * time.Hour), spiffe.Expired},
		{"of another mesh of the same name", leaf(t, issuer(t, other, "north", start), start), start, spiffe.Unknown},
		{"of another trust domain", leaf(t, issuer(t, foreign, "north", start), start), start, spiffe.WrongDomain},
		{"another site's, by a stolen site key", forged(named("spiffe://mesh.example/site/south/ns/meridian/sa/node-1")), start, spiffe.WrongSite},
		{"another trust domain's, by a stolen site key", forged(named("spiffe://other.example/site/north/ns/meridian/sa/node-1")), start, spiffe.WrongDomain},
		{"another site's, by an issuer below a stolen one", deeper(), start, spiffe.Invalid},
		{"of no site's issuer", signed(a.roots[0]), start, spiffe.WrongSite},
		{"self-signed", self(), start, spiffe.Unknown},
		{"a site's own", forged(named("spiffe://mesh.example/site/north")), start, spiffe.WrongName},
		{"no SPIFFE ID", forged(func(c *x509.Certificate) { c.URIs = nil }), start, spiffe.WrongName},
		{"two IDs", forged(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), start, spiffe.WrongName},
		{"a DNS name beside the ID", forged(func(c *x509.Certificate) { c.DNSNames = []string{"shop.example"} }), start, spiffe.WrongName},
		{"https in place of spiffe", forged(named("https://mesh.example/site/north/ns/meridian/sa/node-1")), start, spiffe.WrongName},
		{"a path with dots", forged(named("spiffe://mesh.example/site/north/ns/../sa/node-1")), start, spiffe.WrongName},
		{"an encoded path", forged(named("spiffe://mesh.example/site/n%6Frth/ns/meridian/sa/node-1")), start, spiffe.WrongName},
		{"a port", forged(named("spiffe://mesh.example:443/site/north/ns/meridian/sa/node-1")), start, spiffe.WrongName},
		{"a query", forged(named("spiffe://mesh.example/site/north/ns/meridian/sa/node-1?x")), start, spiffe.WrongName},
		{"an issuer's", forged(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), start, spiffe.Invalid},
		{"for another use", forged(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), start, spiffe.Invalid},
		{"nothing", nil, start, spiffe.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := judge(bundle(a), c.chain, c.now)
			if id != (spiffe.ID{}) {
				t.Fatalf("it is believed to be %s", id)
			}
			wantReason(t, err, c.want)
		})
	}
}

func TestDenied(t *testing.T) {
	a := authority(t, "mesh.example")
	north, south := issuer(t, a, "north", start), issuer(t, a, "south", start)
	chain, neighbour := leaf(t, north, start), leaf(t, south, start)
	id, err := spiffe.Parse("spiffe://mesh.example/site/north/ns/meridian/sa/node-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]spiffe.Denial{
		"by ID":                  {ID: id},
		"by site":                {ID: spiffe.ID{Domain: "mesh.example", Site: "north"}},
		"by serial":              {Serial: chain[0].SerialNumber.Text(16)},
		"by the issuer's serial": {Serial: north.chain[0].SerialNumber.Text(16)},
		"by ID and serial":       {ID: id, Serial: chain[0].SerialNumber.Text(16)},
	} {
		_, err := judge(bundle(a, d), chain, start)
		if err == nil {
			t.Fatalf("%s: it is believed", name)
		}
		wantReason(t, err, spiffe.Denied)
		if _, err := judge(bundle(a, d), neighbour, start); err != nil {
			t.Fatalf("%s: the neighbour is refused: %v", name, err)
		}
	}
	if _, err := judge(bundle(a, spiffe.Denial{ID: id, Serial: "1"}), chain, start); err != nil {
		t.Fatalf("another serial of the ID is denied, this one is refused: %v", err)
	}
}

// A hub that is away for three days and for fifteen: leaves renew, hour by hour.
func TestLeavesRenewWithoutTheHub(t *testing.T) {
	a := authority(t, "mesh.example")
	north := issuer(t, a, "north", start)
	held := leaf(t, north, start)
	renewed := 0
	for h := range 15 * 24 {
		now := start.Add(time.Duration(h) * time.Hour)
		if !now.Before(RenewAt(held[0], float64(h%10)/10)) {
			held = leaf(t, north, now)
			renewed++
		}
		if _, err := judge(bundle(a), held, now); err != nil {
			t.Fatalf("after %d hours: %v", h, err)
		}
	}
	if renewed < 15 || renewed > 60 {
		t.Fatalf("renewed %d times in 15 days", renewed)
	}
	// Once the issuer has ended the site says so, and signs nothing.
	late := start.Add(IssuerLife + time.Minute)
	if _, req, err := Key(); err != nil {
		t.Fatal(err)
	} else if _, err := north.Issue("meridian", "node-1", req, late); err == nil || !strings.Contains(err.Error(), "hub") {
		t.Fatalf("an issuer that has ended signs: %v", err)
	}
}

func TestLeafEndsWithItsIssuer(t *testing.T) {
	a := authority(t, "mesh.example")
	north := issuer(t, a, "north", start)
	now := north.chain[0].NotAfter.Add(-time.Hour)
	if got := leaf(t, north, now)[0].NotAfter; !got.Equal(north.chain[0].NotAfter) {
		t.Fatalf("the leaf ends at %s, its issuer at %s", got, north.chain[0].NotAfter)
	}
}

// A root is replaced while half of the mesh does not hear of it: everybody believes
// everybody all the time, until the old root has left.
func TestRootRotation(t *testing.T) {
	a := authority(t, "mesh.example")
	north, south := issuer(t, a, "north", start), issuer(t, a, "south", start)
	old := bundle(a)
	oldRoot := a.Roots()[0]

	now := start.Add(10 * 24 * time.Hour)
	if err := a.Rotate(now); err != nil {
		t.Fatal(err)
	}
	if n := len(a.Roots()); n != 2 {
		t.Fatalf("%d roots are believed, want 2", n)
	}
	renew(t, a, north, now) // south is cut off and keeps all it had
	fromNorth, fromSouth := leaf(t, north, now), leaf(t, south, now)
	if north.chain[0].CheckSignatureFrom(oldRoot) == nil {
		t.Fatal("the old root still signs")
	}
	for name, b := range map[string]*spiffe.Bundle{"south, which knows the old root only": old, "north": bundle(a), "a newcomer": bundle(a)} {
		for from, chain := range map[string][]*x509.Certificate{"north": fromNorth, "south": fromSouth} {
			if _, err := judge(b, chain, now); err != nil {
				t.Errorf("%s does not believe %s: %v", name, from, err)
			}
		}
	}
	// The new root alone is enough for what it signed.
	if _, err := judge(spiffe.NewBundle("mesh.example", a.Roots()[:1], nil), fromNorth, now); err != nil {
		t.Errorf("the new root alone: %v", err)
	}
	// Twice in a row, before anybody has heard.
	if err := a.Rotate(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	renew(t, a, north, now.Add(time.Hour))
	if _, err := judge(old, leaf(t, north, now.Add(time.Hour)), now.Add(time.Hour)); err != nil {
		t.Errorf("two rotations later: %v", err)
	}

	if a.Retire(now.Add(Overlap - time.Second)) {
		t.Error("a root left before its time")
	}
	if !a.Retire(now.Add(Overlap)) || len(a.Roots()) != 2 {
		t.Errorf("%d roots are left", len(a.Roots()))
	}
	after := now.Add(Overlap)
	renew(t, a, south, after)
	chain := leaf(t, south, after)
	if _, err := judge(bundle(a), chain, after); err != nil {
		t.Error(err)
	}
}

func TestRecords(t *testing.T) {
	a := authority(t, "mesh.example")
	if err := a.Rotate(start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	north := issuer(t, a, "north", start.Add(time.Hour))
	rec, err := a.Record()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	b, err := Open(back)
	if err != nil {
		t.Fatal(err)
	}
	irec, err := north.Record()
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenIssuer(irec)
	if err != nil {
		t.Fatal(err)
	}
	now := start.Add(2 * time.Hour)
	for _, chain := range [][]*x509.Certificate{leaf(t, again, now), leaf(t, issuer(t, b, "south", now), now)} {
		if _, err := judge(bundle(a), chain, now); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(Record{Domain: "mesh.example"}); err == nil {
		t.Error("an authority without a root is opened")
	}
}

func TestImport(t *testing.T) {
	a, donor := authority(t, "mesh.example"), authority(t, "mesh.example")
	rec, err := donor.Record()
	if err != nil {
		t.Fatal(err)
	}
	cert, key := []byte(rec.Roots[0].Certificate), []byte(rec.Roots[0].Key)
	for range 2 { // the second changes nothing
		if err := a.Import(cert, key, start); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.Roots(); len(got) != 2 || !got[0].Equal(donor.Roots()[0]) {
		t.Fatalf("%d roots, the newest is not the operator's", len(got))
	}
	if _, err := judge(bundle(donor), leaf(t, issuer(t, a, "north", start), start), start); err != nil {
		t.Error(err)
	}
	own, err := a.Record()
	if err != nil {
		t.Fatal(err)
	}
	north := issuer(t, donor, "north", start)
	chain := leaf(t, north, start)
	keyOf := func(k crypto.Signer) []byte {
		text, err := formatKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(text)
	}
	for name, c := range map[string]struct{ cert, key []byte }{
		"another's key":                 {cert, []byte(own.Roots[1].Key)},
		"a leaf":                        {[]byte(FormatChain(chain[0])), keyOf(north.key)},
		"an issuer that may have none":  {[]byte(FormatChain(north.chain[0])), keyOf(north.key)},
		"no certificate":                {[]byte("x"), key},
		"no key":                        {cert, []byte("x")},
		"a certificate as key":          {cert, cert},
		"a key in place of certificate": {key, key},
	} {
		if err := a.Import(c.cert, c.key, start); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if len(a.Roots()) != 2 {
		t.Error("a refused root was taken")
	}
	if err := a.Import(cert, key, start.Add(11*365*24*time.Hour)); err == nil {
		t.Error("a root that has ended is taken")
	}
}

func TestAdoptRefuses(t *testing.T) {
	a, other := authority(t, "mesh.example"), authority(t, "mesh.example")
	north := NewIssuer("north")
	if err := north.Adopt(nil, a.Roots(), start); err == nil {
		t.Error("an answer to no request is taken")
	}
	req, err := north.Request()
	if err != nil {
		t.Fatal(err)
	}
	south := issuer(t, a, "south", start)
	wrongSite, err := a.SignIssuer("south", req, start)
	if err != nil {
		t.Fatal(err)
	}
	otherMesh, err := other.SignIssuer("north", req, start)
	if err != nil {
		t.Fatal(err)
	}
	wrongKey := issuer(t, a, "north", start).chain
	for name, chain := range map[string][]*x509.Certificate{
		"another site's": wrongSite, "another mesh's": otherMesh, "another key's": wrongKey, "a leaf": leaf(t, south, start),
	} {
		if err := north.Adopt(chain, a.Roots(), start); err == nil {
			t.Errorf("%s certificate is taken", name)
		}
	}
	if north.Ready(start) {
		t.Error("ready without a certificate")
	}
}

func TestRequestsAreChecked(t *testing.T) {
	a := authority(t, "mesh.example")
	north := issuer(t, a, "north", start)
	key, req, err := Key()
	if err != nil {
		t.Fatal(err)
	}
	tampered := append([]byte(nil), req...)
	tampered[len(tampered)-3] ^= 1
	for name, c := range map[string]struct {
		namespace, account string
		req                []byte
	}{
		"a broken signature":     {"meridian", "node-1", tampered},
		"no request":             {"meridian", "node-1", []byte("x")},
		"a slash in the name":    {"meridian", "x/sa/node-2", req},
		"no name":                {"meridian", "", req},
		"a dot for a name":       {"meridian", "..", req},
		"a space in a namespace": {"me ridian", "node-1", req},
	} {
		if _, err := north.Issue(c.namespace, c.account, c.req, start); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	if _, err := a.SignIssuer("a/b", req, start); err == nil {
		t.Error("a site with a slash is signed")
	}
	// What a request asks for is not what it gets.
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"shop.example"}, URIs: []*url.URL{uri(spiffe.ID{Domain: "mesh.example", Site: "south"})}}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := north.Issue("meridian", "node-1", greedy, start)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := judge(bundle(a), chain, start); err != nil || id.Site != "north" {
		t.Errorf("%s %v", id, err)
	}
}

func TestRenewAt(t *testing.T) {
	c := &x509.Certificate{NotBefore: start, NotAfter: start.Add(20 * time.Hour)}
	for jitter, want := range map[float64]time.Duration{0: 8 * time.Hour, 0.5: 10 * time.Hour, 1: 12 * time.Hour} {
		if got := RenewAt(c, jitter).Sub(start); got != want {
			t.Errorf("jitter %v: after %s, want %s", jitter, got, want)
		}
	}
}
