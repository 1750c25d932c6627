package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Records of the data folder, both secret (0600).
const (
	rootsFile  = "hub/roots.json"
	issuerFile = "issuer.json"
)

const (
	// issuingEvery is how often is looked whether something is to be renewed.
	issuingEvery = time.Second
	// issuingSettle is how long news of roots may be under way.
	issuingSettle = time.Minute
	// issuingRetry is how long after a failure.
	issuingRetry = 5 * time.Second
)

// issuing is what a controller does for identities: the hub keeps the mesh's roots, and
// each site signs for its nodes.
type issuing struct {
	s *Server

	turning sync.Mutex // one turn at a time

	mu     sync.Mutex
	roots  *ca.Authority // nil but at the hub
	issuer *ca.Issuer    // nil where the mesh has no identities: alone, or on an external NATS
	// domain and trusted are the mesh's as the last bundle had them, denied its list.
	domain  string
	trusted []*x509.Certificate
	denied  []spiffe.Denial
	renewAt time.Time
	// settled is until when a root that is not the newest known is no reason to renew: the
	// hub may have signed with one that the bundle here does not have yet.
	settled time.Time
	problem string // why the issuer has no certificate, or none that is new
}

// openIssuing reads what an earlier run kept, and makes what the hub has to have.
func (s *Server) openIssuing(now time.Time) error {
	i := &issuing{s: s}
	s.issuing = i
	if role := s.cfg.role(); role != "hub" && role != "leaf" {
		return nil
	}
	var rec ca.IssuerRecord
	found, err := s.folder.LoadRecord(issuerFile, &rec)
	if err == nil && found && rec.Site == s.cfg.Site {
		i.issuer, err = ca.OpenIssuer(rec)
	}
	if err != nil {
		s.log.Error("the site's issuer is lost: the hub makes another", "err", err)
	}
	if i.issuer == nil {
		i.issuer = ca.NewIssuer(s.cfg.Site)
	} else {
		i.plan()
	}
	if !s.cfg.Hub {
		return nil
	}
	var roots ca.Record
	switch found, err := s.folder.LoadRecord(rootsFile, &roots); {
	case err != nil:
		// New roots would make strangers of all sites, so that is the operator's decision.
		return fmt.Errorf("controller: the mesh's roots: %w; restore %s from a backup, or remove it to begin with new ones", err, s.folder.Path(rootsFile))
	case found:
		if i.roots, err = ca.Open(roots); err != nil {
			return fmt.Errorf("controller: the mesh's roots: %w", err)
		}
		if s.cfg.TrustDomain != "" && s.cfg.TrustDomain != i.roots.Domain() {
			return fmt.Errorf("controller: the mesh's trust domain is %s, which all of its identities have, and stays so", i.roots.Domain())
		}
	default:
		domain := s.cfg.TrustDomain
		if domain == "" {
			domain = ca.DefaultDomain
		}
		if i.roots, err = ca.New(domain, now); err != nil {
			return err
		}
	}
	if s.cfg.RootCert != "" {
		if err := i.importRoot(now); err != nil {
			return err
		}
	}
	i.roots.Retire(now)
	return i.saveRoots()
}

// importRoot makes the operator's root the newest.
func (i *issuing) importRoot(now time.Time) error {
	cert, err := os.ReadFile(i.s.cfg.RootCert)
	if err != nil {
		return fmt.Errorf("controller: --root-cert: %w", err)
	}
	key, err := os.ReadFile(i.s.cfg.RootKey)
	if err != nil {
		return fmt.Errorf("controller: --root-key: %w", err)
	}
	if err := i.roots.Import(cert, key, now); err != nil {
		return fmt.Errorf("controller: --root-cert %s: %w", i.s.cfg.RootCert, err)
	}
	return nil
}

// saveRoots needs mu, or to be alone.
func (i *issuing) saveRoots() error {
	rec, err := i.roots.Record()
	if err != nil {
		return err
	}
	return i.s.folder.SaveRecord(rootsFile, rec)
}

// plan notes when the issuer is renewed. It needs mu, or to be alone.
func (i *issuing) plan() { i.renewAt = ca.RenewAt(i.issuer.Certificate(), rand.Float64()) }

// serveIssuing answers nodes, and at the hub sites, and renews until ctx ends.
func (s *Server) serveIssuing(ctx context.Context, run func(func())) error {
	i := s.issuing
	if i.issuer == nil {
		return nil
	}
	if err := s.conn.ServeCertificates(ctx, bus.LeafSubjects(s.cfg.Site), i.leaf); err != nil {
		return err
	}
	if err := s.conn.ServeWorkloads(ctx, s.cfg.Site, i.workload); err != nil {
		return err
	}
	if i.roots != nil {
		if err := s.conn.ServeCertificates(ctx, bus.IssuerSubjects, i.site); err != nil {
			return err
		}
	}
	run(func() { i.run(ctx) })
	return nil
}

func (i *issuing) run(ctx context.Context) {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = issuingEvery
		if err := i.turn(ctx, time.Now()); err != nil && ctx.Err() == nil {
			wait = issuingRetry
			if !i.everReady() {
				wait = issuingEvery // the site has nothing to lose by asking often
			}
			i.mu.Lock()
			if err.Error() != i.problem {
				i.problem = err.Error()
				i.s.log.Warn("identities", "err", err)
			}
			i.mu.Unlock()
		}
	}
}

func (i *issuing) everReady() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issuer.Certificate() != nil
}

// turn brings everything up to date: at the hub the bundle, everywhere the issuer.
func (i *issuing) turn(ctx context.Context, now time.Time) error {
	i.turning.Lock()
	defer i.turning.Unlock()
	return i.turnOnce(ctx, now)
}

// turnOnce is turn for who holds turning.
func (i *issuing) turnOnce(ctx context.Context, now time.Time) error {
	if i.roots != nil {
		if err := i.publish(ctx, now); err != nil {
			return err
		}
	}
	if err := i.hear(ctx); err != nil {
		return err
	}
	return i.renew(ctx, now)
}

// publish has the hub's bucket hold a bundle with the roots as they are. The deny
// list is the operator's.
func (i *issuing) publish(ctx context.Context, now time.Time) error {
	i.mu.Lock()
	if i.roots.Retire(now) {
		if err := i.saveRoots(); err != nil {
			i.mu.Unlock()
			return err
		}
	}
	want := mesh.TrustBundleSpec{TrustDomain: i.roots.Domain()}
	for _, r := range i.roots.Roots() {
		want.Roots = append(want.Roots, ca.FormatChain(r))
	}
	i.mu.Unlock()
	have, err := i.bundle(ctx)
	if err != nil {
		return err
	}
	b := &mesh.TrustBundle{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindTrustBundle},
		Metadata: mesh.ObjectMeta{Name: mesh.TrustBundleName, Namespace: mesh.DefaultNamespace},
	}
	if have != nil {
		b.Metadata = have.Metadata
		want.Denied = have.Spec.Denied
		if have.Spec.TrustDomain == want.TrustDomain && slices.Equal(have.Spec.Roots, want.Roots) {
			return nil
		}
	}
	b.Spec = want
	i.s.writing.Lock()
	defer i.s.writing.Unlock()
	out := &siteapi.Result{Site: i.s.cfg.Site, Changes: []siteapi.Change{}}
	out, err = i.s.set(by(ctx, "this controller"), out, &mesh.Objects{TrustBundles: []*mesh.TrustBundle{b}})
	if err != nil {
		return fmt.Errorf("the mesh's roots are not handed out: %w", err)
	}
	var faults []error
	for _, f := range out.Faults {
		faults = append(faults, errors.New(f.String()))
	}
	return errors.Join(faults...)
}

// bundle is the mesh's, nil where it is not known yet.
func (i *issuing) bundle(ctx context.Context) (b *mesh.TrustBundle, err error) {
	err = i.s.do(ctx, func() { b = i.s.world.Objects().Trust() })
	return b, err
}

// hear takes in whom the mesh believes.
func (i *issuing) hear(ctx context.Context) error {
	b, err := i.bundle(ctx)
	if err != nil {
		return err
	}
	if b == nil {
		return errors.New("the mesh's roots are not known yet: the hub hands them out")
	}
	var trusted []*x509.Certificate
	for n, text := range b.Spec.Roots {
		c, err := ca.ParseChain([]byte(text))
		if err != nil {
			return fmt.Errorf("TrustBundle: spec.roots[%d]: %w", n, err)
		}
		trusted = append(trusted, c[0])
	}
	var denied []spiffe.Denial
	for n, d := range b.Spec.Denied {
		x := spiffe.Denial{Serial: d.Serial}
		if d.ID != "" {
			if x.ID, err = spiffe.Parse(d.ID); err != nil {
				return fmt.Errorf("TrustBundle: spec.denied[%d]: %w", n, err)
			}
		}
		denied = append(denied, x)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.domain, i.trusted, i.denied = b.Spec.TrustDomain, trusted, denied
	return nil
}

// renew gets the issuer a new certificate where it is time to, or where the one it has
// is of a root that was replaced.
func (i *issuing) renew(ctx context.Context, now time.Time) error {
	i.mu.Lock()
	have := i.issuer.Certificate()
	due := have == nil || !now.Before(i.renewAt) || !now.Before(i.settled) && have.CheckSignatureFrom(i.trusted[0]) != nil
	if !due {
		i.problem = ""
		i.mu.Unlock()
		return nil
	}
	request, err := i.issuer.Request()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	var chain []byte
	if i.roots != nil {
		chain, err = i.site(ctx, i.s.cfg.Site, request)
	} else {
		call, done := context.WithTimeout(ctx, callTimeout)
		chain, err = i.s.conn.Issuer(call, i.s.cfg.Site, request)
		done()
	}
	if err != nil {
		return err
	}
	certs, err := ca.ParseChain(chain)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.issuer.Adopt(certs, i.trusted, now); err != nil {
		return err
	}
	i.plan()
	i.settled = now.Add(issuingSettle)
	i.problem = ""
	i.s.log.Info("this site issues identities", "trust_domain", i.domain, "serial", certs[0].SerialNumber.Text(16), "not_after", certs[0].NotAfter)
	rec, err := i.issuer.Record()
	if err != nil {
		return err
	}
	return i.s.folder.SaveRecord(issuerFile, rec)
}

// site answers a site that asks for its issuer's certificate. That it is that site is
// what the server's permissions say.
func (i *issuing) site(_ context.Context, site string, request []byte) ([]byte, error) {
	if i.s.members != nil && site != i.s.cfg.Site && !slices.Contains(i.s.members.Sites(), site) {
		return nil, fmt.Errorf("site %s has not joined", site)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.isDenied(spiffe.ID{Domain: i.roots.Domain(), Site: site}) {
		return nil, fmt.Errorf("site %s is on the deny list", site)
	}
	chain, err := i.roots.SignIssuer(site, request, time.Now())
	if err != nil {
		return nil, err
	}
	i.s.log.Info("issuer of a site signed", "site", site, "serial", chain[0].SerialNumber.Text(16), "not_after", chain[0].NotAfter)
	return []byte(ca.FormatChain(chain...)), nil
}

// leaf answers a node that asks for its certificate.
func (i *issuing) leaf(_ context.Context, node string, request []byte) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := spiffe.CheckSegment(node); err != nil {
		return nil, fmt.Errorf("node: %w: give it another --node", err)
	}
	if i.isDenied(spiffe.ID{Domain: i.domain, Site: i.s.cfg.Site, Namespace: spiffe.NodeNamespace, Account: node}) {
		return nil, fmt.Errorf("node %s is on the deny list", node)
	}
	chain, err := i.issuer.Issue(spiffe.NodeNamespace, node, request, time.Now())
	if err != nil {
		if i.problem != "" {
			err = fmt.Errorf("%w (%s)", err, i.problem)
		}
		return nil, err
	}
	i.s.log.Debug("identity issued", "node", node, "serial", chain[0].SerialNumber.Text(16))
	return []byte(ca.FormatChain(chain...)), nil
}

// isDenied reports whether nothing is signed for an identity any more. It needs mu.
func (i *issuing) isDenied(id spiffe.ID) bool {
	return slices.ContainsFunc(i.denied, func(d spiffe.Denial) bool { return d.Serial == "" && id.Within(d.ID) })
}

// rotate replaces the mesh's root or this site's issuer, now.
func (s *Server) rotate(ctx context.Context, r siteapi.RotateRequest) (*siteapi.Rotated, error) {
	i := s.issuing
	out := &siteapi.Rotated{Site: s.cfg.Site, What: r.What}
	switch {
	case i.issuer == nil:
		return nil, fmt.Errorf("site %s is in no mesh with identities: it is alone, or on an external NATS", s.cfg.Site)
	case r.What == siteapi.RotateRoot && i.roots == nil:
		return nil, s.errNotHub("rotate the root")
	case r.What == siteapi.RotateRoot:
		i.mu.Lock()
		err := i.roots.Rotate(time.Now())
		if err == nil {
			err = i.saveRoots()
		}
		i.settled = time.Time{}
		i.mu.Unlock()
		if err != nil {
			return nil, err
		}
	case r.What == siteapi.RotateIssuer:
		i.mu.Lock()
		i.renewAt = time.Time{}
		i.mu.Unlock()
	default:
		return nil, fmt.Errorf("%q cannot be rotated: want %s or %s", r.What, siteapi.RotateRoot, siteapi.RotateIssuer)
	}
	i.turning.Lock()
	defer i.turning.Unlock()
	if err := i.turnOnce(ctx, time.Now()); err != nil {
		return nil, err
	}
	st := i.status()
	out.New = *st.Issuer
	if r.What == siteapi.RotateRoot {
		out.New = st.Roots[0]
	}
	return out, nil
}

// status is what the site issues, for people; nil where the mesh has no identities.
func (i *issuing) status() *siteapi.Identities {
	if i == nil || i.issuer == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	out := &siteapi.Identities{TrustDomain: i.domain, Denied: len(i.denied), Problem: i.problem, Roots: []siteapi.IssuedCertificate{}}
	for _, r := range i.trusted {
		out.Roots = append(out.Roots, issued(r))
	}
	if c := i.issuer.Certificate(); c != nil {
		x := issued(c)
		x.RenewAt = i.renewAt
		out.Issuer = &x
	}
	return out
}

func issued(c *x509.Certificate) siteapi.IssuedCertificate {
	name := c.Subject.String()
	if id, err := spiffe.Of(c); err == nil {
		name = id.String()
	}
	return siteapi.IssuedCertificate{Name: name, Serial: c.SerialNumber.Text(16), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}
