package check

import (
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	// rootSoon is how long before its end the newest root is spoken of: longer than
	// anybody stays away.
	rootSoon = 180 * 24 * time.Hour
	// leafSoon is how long before its end a proxy's certificate is; it was to be
	// renewed hours before.
	leafSoon = 6 * time.Hour
)

// Codes of findings about certificates.
const (
	CodeCertificate = "certificate"
	CodeIdentity    = "identity"
	CodePlaintext   = "plaintext"
	CodeUnverified  = "unverified"
)

// identities judges what a site issues.
func (c *checker) identities(s *siteapi.SiteStatus) {
	i := s.Identities
	if i == nil {
		return
	}
	const away = "see the controller's log, and whether the hub answers (meridian status); the site's proxies have certificates for a day"
	switch x := i.Issuer; {
	case x == nil:
		c.add(siteapi.SeverityError, CodeIdentity, s.Site, "see the controller's log, and whether the hub answers (meridian status): until then nothing goes between this site and others", "it cannot issue identities: %s", i.Problem)
	case !s.Now.Before(x.NotAfter):
		c.add(siteapi.SeverityError, CodeIdentity, s.Site, away, "its issuer has ended on %s, its proxies' certificates are not renewed: %s", x.NotAfter.Format(time.DateTime), i.Problem)
	case s.Now.After(x.RenewAt.Add(x.NotAfter.Sub(x.NotBefore) / 10)):
		c.add(siteapi.SeverityWarning, CodeIdentity, s.Site, away, "its issuer ends on %s and was to be renewed on %s: %s", x.NotAfter.Format(time.DateTime), x.RenewAt.Format(time.DateTime), i.Problem)
	}
	if len(i.Roots) > 0 && i.Roots[0].NotAfter.Sub(s.Now) < rootSoon {
		c.add(siteapi.SeverityWarning, CodeIdentity, s.Site, "at the hub: meridian cert rotate root", "the mesh's newest root ends on %s", i.Roots[0].NotAfter.Format(time.DateOnly))
	}
}

// peers finds what may come from other sites without TLS.
func (c *checker) peers(s *siteapi.SiteStatus) {
	for _, p := range s.Peers {
		if p.MTLS == mesh.MTLSPermissive {
			c.add(siteapi.SeverityWarning, CodePlaintext, s.Site, "when meridian_eastwest_plaintext_requests_total of its proxies stands still, make it strict", "requests of other sites need no TLS for %s: mtls is permissive by %s", p, p.From)
		}
	}
}

// unverified finds nodes that take configuration from whoever can write it.
func (c *checker) unverified(s *siteapi.SiteStatus, n *siteapi.NodeStatus) {
	if n.Unverified {
		c.add(siteapi.SeverityWarning, CodeUnverified, s.Site, "copy site.pub of the controller's data folder beside the node's token file, or name it by --trust-key, and restart it", "proxy %s verifies no signature of its configuration", n.Node)
	}
}

// identity judges a proxy's certificate.
func (c *checker) identity(s *siteapi.SiteStatus, n *siteapi.NodeStatus) {
	const remedy = "see its log: its site's controller issues one within seconds; a proxy of a version before this one has none (upgrade it, or mtls: disabled in its Site)"
	if s.Identities == nil || s.Identities.Issuer == nil || n.Behind {
		return
	}
	if w := n.Workload; w != nil {
		const remedy = "see its log: the controller issues it where a MeshService has an endpoint of the workload on that node, or the service account's token says so"
		switch x := w.Identity; {
		case x == nil:
			c.add(siteapi.SeverityError, CodeIdentity, s.Site, remedy, "workload %s at proxy %s has no certificate: nothing is sent to other sites", w.Name, n.Node)
		case !s.Now.Before(x.NotAfter):
			c.add(siteapi.SeverityError, CodeIdentity, s.Site, remedy, "the certificate of workload %s at proxy %s has ended at %s: other sites refuse it", w.Name, n.Node, x.NotAfter.Format(time.DateTime))
		case x.NotAfter.Sub(s.Now) < leafSoon:
			c.add(siteapi.SeverityWarning, CodeIdentity, s.Site, remedy, "the certificate of workload %s at proxy %s ends at %s and was to be renewed hours ago", w.Name, n.Node, x.NotAfter.Format(time.DateTime))
		}
	}
	switch x := n.Identity; {
	case x == nil:
		c.add(siteapi.SeverityError, CodeIdentity, s.Site, remedy, "proxy %s has no certificate: it sends nothing to other sites and takes nothing from them", n.Node)
	case !s.Now.Before(x.NotAfter):
		c.add(siteapi.SeverityError, CodeIdentity, s.Site, remedy, "the certificate of proxy %s has ended at %s: other sites refuse it", n.Node, x.NotAfter.Format(time.DateTime))
	case x.NotAfter.Sub(s.Now) < leafSoon:
		c.add(siteapi.SeverityWarning, CodeIdentity, s.Site, remedy, "the certificate of proxy %s ends at %s and was to be renewed hours ago", n.Node, x.NotAfter.Format(time.DateTime))
	}
}
