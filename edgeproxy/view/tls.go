package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// serverTLS makes what the listeners of one port need whose sessions end here.
func (b *builder) serverTLS(g *mesh.Gateway, group []mesh.Listener) *tlsio.Server {
	name := g.Metadata.Namespace + "/" + g.Metadata.Name
	var specs []tlsio.ListenerSpec
	for i := range group {
		l := &group[i]
		spec := tlsio.ListenerSpec{Name: l.Name, Hostname: l.Hostname, Min: mesh.MinVersion(nil)}
		if l.Protocol == mesh.ProtocolHTTPS {
			spec.Protocols = []string{tlsio.HTTP2, tlsio.HTTP1}
		}
		if t := l.TLS; t != nil {
			at := fmt.Sprintf("Gateway/%s: listener %q: tls", name, l.Name)
			spec.Min = mesh.MinVersion(t.Options)
			spec.Certificates = b.keyPairs(g.Metadata.Namespace, at+".certificateRefs", t.CertificateRefs)
			if v := t.FrontendValidation; v != nil {
				spec.ClientCAs = b.keyPairs(g.Metadata.Namespace, at+".frontendValidation.caCertificateRefs", v.CACertificateRefs)
				spec.ClientsOptional = v.Mode == mesh.AllowMissing
				if len(spec.ClientCAs) == 0 {
					// Nobody may come in because an issuer is not there.
					spec.Certificates = nil
				}
			}
		}
		specs = append(specs, spec)
	}
	if b.certificates == nil {
		b.problem("Gateway/%s: port %d is not served: there is nothing here that reads certificates", name, group[0].Port)
		return tlsio.NoServer
	}
	s, problems := b.certificates.Server(fmt.Sprintf("%s:%d", name, group[0].Port), specs)
	b.view.Problems = append(b.view.Problems, problems...)
	return s
}

// tlsMode says whether a listener's sessions end here.
type tlsMode struct {
	hostname   string
	terminates bool
}

// terminated makes what the TLS listeners of one port need whose sessions end here; beside
// them may be some that pass sessions through.
func (b *builder) terminated(g *mesh.Gateway, group []mesh.Listener, s *Socket) {
	var ending []mesh.Listener
	for i := range group {
		l := &group[i]
		if s.modes = append(s.modes, tlsMode{l.Hostname, l.Terminates()}); l.Terminates() {
			ending = append(ending, *l)
		}
	}
	if len(ending) > 0 {
		s.TLS = b.serverTLS(g, ending)
	}
}

// Terminates reports whether the session of a client that asks for the name ends here.
func (s *Socket) Terminates(name []byte) bool {
	if len(s.modes) == 0 || s.TLS == nil {
		return false
	}
	i := tlsio.PickHost(len(s.modes), func(i int) string { return s.modes[i].hostname }, string(name))
	return i >= 0 && s.modes[i].terminates
}

// keyPairs finds the Certificates that references name.
func (b *builder) keyPairs(namespace, path string, refs []mesh.CertificateRef) []tlsio.KeyPair {
	var out []tlsio.KeyPair
	for i, ref := range refs {
		c := b.snap.Objects.FindCertificate(namespace, ref)
		if c == nil {
			b.problem("%s[%d]: Certificate %q does not exist", path, i, namespace+"/"+ref.Name)
			continue
		}
		out = append(out, KeyPairOf(c))
	}
	return out
}

// KeyPairOf names the files of a Certificate.
func KeyPairOf(c *mesh.Certificate) tlsio.KeyPair {
	return tlsio.KeyPair{
		Name:            "Certificate/" + c.Metadata.Namespace + "/" + c.Metadata.Name,
		CertificateFile: c.Spec.CertificateFile, KeyFile: c.Spec.KeyFile,
	}
}

// clientTLS makes what connections to a service's endpoints need, where a policy asks
// for TLS.
func (b *builder) clientTLS(s *Service) {
	t := mesh.EffectivePolicy(&b.snap.Objects, s.Key).BackendTLS
	if t == nil {
		return
	}
	namespace, _, _ := strings.Cut(string(s.Key), "/")
	at := fmt.Sprintf("MeshService/%s: backendTLS", s.Key)
	spec := tlsio.ClientSpec{Hostname: t.Hostname, Min: mesh.MinVersion(t.Options), CAs: b.keyPairs(namespace, at+".caCertificateRefs", t.CACertificateRefs)}
	missing := len(spec.CAs) < len(t.CACertificateRefs)
	if t.ClientCertificateRef != nil {
		own := b.keyPairs(namespace, at+".clientCertificateRef", []mesh.CertificateRef{*t.ClientCertificateRef})
		if len(own) > 0 {
			spec.Certificate = &own[0]
		}
		missing = missing || len(own) == 0
	}
	if missing || b.certificates == nil {
		// Never the issuers of the system in place of one that is not there.
		s.TLS = tlsio.NoClient
		return
	}
	c, problems := b.certificates.Client(spec)
	b.view.Problems = append(b.view.Problems, problems...)
	if slices.ContainsFunc(b.snap.Objects.Services, func(m *mesh.MeshService) bool {
		return m.Key() == s.Key && slices.ContainsFunc(m.Spec.Ports, func(p mesh.ServicePort) bool { return p.Protocol == mesh.PortTCP })
	}) {
		b.problem("%s: ports of protocol tcp are passed on as they come, without TLS", at)
	}
	s.TLS = c
}

// mesh finds out whom the proxies of the mesh believe.
func (b *builder) mesh() {
	t := b.snap.Objects.Trust()
	if t == nil {
		return
	}
	b.view.TrustDomain = t.Spec.TrustDomain
	if b.certificates == nil {
		b.proxies = tlsio.NoMesh
		b.problem("TrustBundle/%s: there is nothing here that reads certificates, nothing goes between sites", t.Metadata.Name)
		return
	}
	spec := tlsio.MeshSpec{Domain: t.Spec.TrustDomain, Roots: t.Spec.Roots}
	for i, d := range t.Spec.Denied {
		denial := spiffe.Denial{Serial: d.Serial}
		if d.ID != "" {
			id, err := spiffe.Parse(d.ID)
			if err != nil {
				b.problem("TrustBundle/%s: spec.denied[%d]: %v: nobody is denied by it", t.Metadata.Name, i, err)
				continue
			}
			denial.ID = id
		}
		if denial != (spiffe.Denial{}) {
			spec.Denied = append(spec.Denied, denial)
		}
	}
	var err error
	if b.proxies, err = b.certificates.Mesh(spec); err != nil {
		b.problem("TrustBundle/%s: %v: nothing goes between sites", t.Metadata.Name, err)
	}
}

// eastWestTLS makes what this site's east-west listeners need.
func (b *builder) eastWestTLS() (s *tlsio.Server, permissive bool) {
	if b.proxies == nil {
		return nil, false
	}
	mode := b.snap.Objects.SitePeerMode(b.site).MTLS
	disabled := mode == mesh.MTLSDisabled
	permissive = mode != mesh.MTLSStrict
	for _, s := range b.view.Services {
		for _, m := range s.Peers {
			disabled = disabled && m.MTLS == mesh.MTLSDisabled
			permissive = permissive || m.MTLS != mesh.MTLSStrict
		}
	}
	if disabled {
		return nil, false
	}
	return b.proxies.Server(), permissive
}

// peerTLS makes what connections to another site's proxies need.
func (b *builder) peerTLS(site string) *tlsio.Client {
	if b.proxies == nil || b.snap.Objects.SitePeerMode(site).MTLS == mesh.MTLSDisabled {
		return nil
	}
	return b.proxies.Client(site)
}
