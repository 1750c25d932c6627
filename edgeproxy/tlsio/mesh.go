package tlsio

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// errNoIdentity is the end of handshakes before this proxy has an identity.
var errNoIdentity = errors.New("tls: this proxy has no identity yet: its site's controller issues one")

// identity is who this proxy is among those of its mesh.
type identity struct {
	id          spiffe.ID
	certificate *tls.Certificate
}

// SetIdentity says who this proxy is from now on: a leaf with its key and what leads
// from it to the roots. Sessions that began before go on.
func (s *Store) SetIdentity(c tls.Certificate) error {
	own, err := identityBy(c)
	if err == nil {
		s.own.Store(own)
	}
	return err
}

// ActAsWorkload has this proxy show other sites' proxies the identity of the workload that
// it is beside, and nothing to them before [Store.SetWorkload]. Who connects to this one
// sees its own.
func (s *Store) ActAsWorkload() { s.acts.Store(true) }

// SetWorkload says who the workload is from now on.
func (s *Store) SetWorkload(c tls.Certificate) error {
	w, err := identityBy(c)
	switch {
	case err != nil:
		return err
	case !w.id.Leaf() || w.id.Node():
		return fmt.Errorf("identity: %s is not a workload's", w.id)
	}
	s.workload.Store(w)
	return nil
}

// Workload is who this proxy shows as its workload, by the certificate; nil where it is
// nobody's or not known yet.
func (s *Store) Workload() *x509.Certificate {
	if w := s.workload.Load(); w != nil {
		return w.certificate.Leaf
	}
	return nil
}

// shown is who other sites' proxies see when this one connects to them, nil for nobody yet.
func (s *Store) shown() *identity {
	if s.acts.Load() {
		return s.workload.Load()
	}
	return s.own.Load()
}

func identityBy(c tls.Certificate) (*identity, error) {
	if c.Leaf == nil {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.Leaf = leaf
	}
	id, err := spiffe.Of(c.Leaf)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &identity{id, &c}, nil
}

// Identity is who this proxy is, by its certificate; nil before it is anybody.
func (s *Store) Identity() *x509.Certificate {
	if own := s.own.Load(); own != nil {
		return own.certificate.Leaf
	}
	return nil
}

// MeshSpec says whom the proxies of a mesh believe.
type MeshSpec struct {
	Domain string
	Roots  []string // PEM, one each
	Denied []spiffe.Denial
}

// Mesh is what proxies of one mesh need to meet: TLS 1.3, both sides by their
// identities. It does not change; the proxy's own identity, which does, is looked up
// at each handshake. Sessions are not resumed, so that each connection is judged by
// the deny list of its day.
type Mesh struct {
	store  *Store
	bundle *spiffe.Bundle
	digest [sha256.Size]byte
}

// NoMesh believes nobody.
var NoMesh = &Mesh{}

// Mesh makes what the proxies of a mesh need.
func (s *Store) Mesh(spec MeshSpec) (*Mesh, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q", spec.Domain)
	var roots []*x509.Certificate
	for i, text := range spec.Roots {
		b, _ := pem.Decode([]byte(text))
		if b == nil {
			return NoMesh, fmt.Errorf("root %d is not a certificate in PEM", i+1)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return NoMesh, fmt.Errorf("root %d: %w", i+1, err)
		}
		roots = append(roots, c)
		h.Write(b.Bytes)
	}
	for _, d := range spec.Denied {
		fmt.Fprintf(h, "%q %q", d.ID, d.Serial)
	}
	return &Mesh{s, spiffe.NewBundle(spec.Domain, roots, spec.Denied), [sha256.Size]byte(h.Sum(nil))}, nil
}

// Server is for listeners that other proxies of the mesh connect to.
func (m *Mesh) Server() *Server {
	if m.bundle == nil {
		return NoServer
	}
	out := newServer()
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{HTTP2, HTTP1}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificateOf(m.store.own.Load()) },
		// Which certificates are good is a question of their identities, which
		// crypto/tls does not ask: see judge.
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error { return m.judge(&s, x509.ExtKeyUsageClientAuth, "") },
	}
	out.listeners = append(out.listeners, serverListener{config: c, policy: "mesh " + hex.EncodeToString(m.digest[:])})
	out.mesh = true
	out.by = func() string { return m.store.own.Load().id.String() } // who has shown it
	return out
}

// Client is for connections to the proxies of a site of the mesh.
func (m *Mesh) Client(site string) *Client {
	if m.bundle == nil {
		return NoClient
	}
	s := m.store
	h := sha256.New()
	fmt.Fprintf(h, "mesh %q", site)
	h.Write(m.digest[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remember([sha256.Size]byte(h.Sum(nil)), func(id uint32) *Client {
		c := &Client{ID: id, ready: func() bool { return s.shown() != nil }, config: &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{HTTP1},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificateOf(s.shown()) },
			// The certificate names an identity and no host: see judge.
			InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
			VerifyConnection:   func(s tls.ConnectionState) error { return m.judge(&s, x509.ExtKeyUsageServerAuth, site) },
		}}
		many := *c
		many.config = c.config.Clone()
		many.config.NextProtos = []string{HTTP2, HTTP1}
		c.byName = map[string]*Client{HTTP1: c, HTTP2: &many}
		return c
	})
}

func certificateOf(i *identity) (*tls.Certificate, error) {
	if i != nil {
		return i.certificate, nil
	}
	return nil, errNoIdentity
}

// judge believes a peer of the mesh, and where a site is asked for, a node of that site:
// a workload does not answer for it. It runs for every session, a resumed one too.
func (m *Mesh) judge(s *tls.ConnectionState, use x509.ExtKeyUsage, site string) error {
	id, err := m.bundle.Verify(s.PeerCertificates, use, m.store.now())
	if err == nil && site != "" && (id.Site != site || !id.Node()) {
		err = &wrongPeer{id, site}
	}
	return err
}

// wrongPeer is a proxy of the mesh where one of another site was expected.
type wrongPeer struct {
	id   spiffe.ID
	want string
}

func (w *wrongPeer) Error() string {
	return fmt.Sprintf("tls: %s answers, want a node of site %q", w.id, w.want)
}

// Session makes a session of a connection outside of the loops.
func (c *Client) Session() (*tls.Config, error) {
	if !c.Usable() {
		return nil, errNoIdentity
	}
	return c.config, nil
}

// Peer is who is at the other end of a session, by the certificate that was shown and
// believed.
type Peer struct {
	// Mesh is the peer's identity in this proxy's own mesh; zero of others.
	Mesh spiffe.ID
	// Site is Mesh's, as it is compared.
	Site []byte
	// Account is the namespace and account of the certificate's SPIFFE ID, of
	// whichever trust domain; zero where it has none of the mesh's form.
	Account spiffe.ID
	// URI is the certificate's first URI, for people; empty without one.
	URI string
	// Identity is URI, as it is compared.
	Identity []byte
	// Forwarded is what X-Forwarded-Client-Cert says of it.
	Forwarded []byte
}

// peer is the one that showed a certificate.
func (s *Server) peer(c *x509.Certificate) *Peer {
	by := ""
	if s.by != nil {
		by = s.by()
	}
	return peerOf(c, s.mesh, by)
}

// peerOf reads a peer's certificate. by is who this proxy is, empty where it is nobody.
func peerOf(c *x509.Certificate, mesh bool, by string) *Peer {
	p := &Peer{}
	if mesh {
		p.Mesh, _ = spiffe.Of(c) // as judged
		p.Site = []byte(p.Mesh.Site)
	}
	var b []byte
	add := func(name, value string) {
		if value == "" {
			return
		}
		if len(b) > 0 {
			b = append(b, ';')
		}
		b = append(append(b, name...), '=')
		if strings.ContainsAny(value, `,;="\ `) {
			b = append(b, '"')
			b = append(b, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)...)
			b = append(b, '"')
		} else {
			b = append(b, value...)
		}
	}
	add("By", by)
	sum := sha256.Sum256(c.Raw)
	add("Hash", hex.EncodeToString(sum[:]))
	add("Subject", printable(c.Subject.String()))
	for i, u := range c.URIs {
		text := printable(u.String())
		if i == 0 {
			p.URI, p.Identity = text, []byte(text)
			p.Account, _ = spiffe.Parse(text)
		}
		add("URI", text)
	}
	for _, d := range c.DNSNames {
		add("DNS", printable(d))
	}
	p.Forwarded = b[:min(len(b), maxForwarded)]
	return p
}

// maxForwarded bounds what is said of a certificate whose names are many or long.
const maxForwarded = 4 << 10

// printable keeps what a header field may hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}
