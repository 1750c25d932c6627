package mesh

import (
	"cmp"
	"fmt"
	"slices"
)

// KindPeerAuthentication is the kind of [PeerAuthentication].
const KindPeerAuthentication = "PeerAuthentication"

// PeerAuthentication says for the MeshServices of its namespace, or some of their
// ports, whether proxies of other sites have to show who they are. It goes before the
// site's own [SiteSpec.MTLS], a port before its namespace. Where several objects say
// something of the same, strict holds.
type PeerAuthentication struct {
	TypeMeta
	Metadata ObjectMeta             `json:"metadata"`
	Spec     PeerAuthenticationSpec `json:"spec"`
}

// PeerAuthenticationSpec is the content of a PeerAuthentication.
type PeerAuthenticationSpec struct {
	// MTLS is strict or permissive for all of the namespace; empty says nothing.
	MTLS string `json:"mtls,omitempty"`
	// Ports are those of services for which something else holds.
	Ports []PortAuthentication `json:"ports,omitempty"`
}

// PortAuthentication is what holds for a port of the namespace's services.
type PortAuthentication struct {
	Port int    `json:"port"`
	MTLS string `json:"mtls"`
}

// PeerMode is what holds for requests that other sites hand in for a service.
type PeerMode struct {
	// MTLS is [MTLSStrict], [MTLSPermissive] or, by the site alone, [MTLSDisabled].
	MTLS string `json:"mtls"`
	// From names the object and field that says so: Site/north, PeerAuthentication/shop/all
	// port 80; [PeerModeDefault] where nothing does.
	From string `json:"from"`
}

// PeerModeDefault is [PeerMode.From] where nothing is said.
const PeerModeDefault = "default"

// SitePeerMode is what a site says of its east-west listeners.
func (o *Objects) SitePeerMode(site string) PeerMode {
	for _, s := range o.Sites {
		if s.Metadata.Name == site && s.Spec.MTLS != "" {
			return PeerMode{s.Spec.MTLS, KindSite + "/" + site}
		}
	}
	return PeerMode{MTLSStrict, PeerModeDefault}
}

// PeerModeOf is what holds at a site for a port of a namespace's services: what is said of
// the port, else of the namespace, else of the site.
func (o *Objects) PeerModeOf(site, namespace string, port int) PeerMode {
	var ofPort, ofNamespace PeerMode
	for _, p := range o.PeerAuthentications {
		if p.Metadata.Namespace != namespace {
			continue
		}
		name := KindPeerAuthentication + "/" + namespace + "/" + p.Metadata.Name
		ofNamespace = stricter(ofNamespace, PeerMode{p.Spec.MTLS, name})
		for _, x := range p.Spec.Ports {
			if x.Port == port {
				ofPort = stricter(ofPort, PeerMode{x.MTLS, fmt.Sprintf("%s port %d", name, port)})
			}
		}
	}
	switch {
	case ofPort.MTLS != "":
		return ofPort
	case ofNamespace.MTLS != "":
		return ofNamespace
	}
	return o.SitePeerMode(site)
}

// stricter is the stricter of two, the first where they are alike.
func stricter(a, b PeerMode) PeerMode {
	if a.MTLS == "" || b.MTLS == MTLSStrict && a.MTLS != MTLSStrict {
		return b
	}
	return a
}

// PeerScope is a site, a namespace (Namespace) or a port of it (Port, else 0) for which
// something is said.
type PeerScope struct {
	Namespace string `json:"namespace,omitempty"`
	Port      int    `json:"port,omitempty"`
	PeerMode
}

// String names the scope: the site, namespace shop, port 80 of namespace shop.
func (s PeerScope) String() string {
	switch {
	case s.Namespace == "":
		return "the site"
	case s.Port == 0:
		return "namespace " + s.Namespace
	}
	return fmt.Sprintf("port %d of namespace %s", s.Port, s.Namespace)
}

// PeerScopes are what is said at a site, itself first, then by namespace and port.
func (o *Objects) PeerScopes(site string) []PeerScope {
	out := []PeerScope{{PeerMode: o.SitePeerMode(site)}}
	seen := map[PeerScope]bool{}
	say := func(namespace string, port int) {
		if key := (PeerScope{Namespace: namespace, Port: port}); !seen[key] {
			seen[key] = true
			out = append(out, PeerScope{namespace, port, o.PeerModeOf(site, namespace, port)})
		}
	}
	for _, p := range o.PeerAuthentications {
		if p.Spec.MTLS != "" {
			say(p.Metadata.Namespace, 0)
		}
		for _, x := range p.Spec.Ports {
			say(p.Metadata.Namespace, x.Port)
		}
	}
	slices.SortFunc(out, func(a, b PeerScope) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Port, b.Port))
	})
	return out
}

func peerAuthenticationRelations(s *PeerAuthenticationSpec, fault faultFunc) {
	if s.MTLS == "" && len(s.Ports) == 0 {
		fault("mtls", "is missing, and so are ports", "say strict or permissive for the namespace, or for some of its ports")
	}
}

// peers finds PeerAuthentications that change nothing, or what nobody can meet.
func (c *checker) peers() {
	for _, p := range c.o.PeerAuthentications {
		used := func(port int) bool {
			return slices.ContainsFunc(c.o.Services, func(s *MeshService) bool {
				return s.Metadata.Namespace == p.Metadata.Namespace && slices.ContainsFunc(s.Spec.Ports, func(x ServicePort) bool { return x.Port == port })
			})
		}
		for i, x := range p.Spec.Ports {
			if !used(x.Port) {
				c.add(KindPeerAuthentication, p.Metadata, fmt.Sprintf("spec.ports[%d].port", i), ReasonTargetNotFound, "no MeshService of namespace %s has port %d", p.Metadata.Namespace, x.Port)
			}
		}
		strict := p.Spec.MTLS == MTLSStrict || slices.ContainsFunc(p.Spec.Ports, func(x PortAuthentication) bool { return x.MTLS == MTLSStrict })
		for _, s := range c.o.Sites {
			if strict && s.Spec.MTLS == MTLSDisabled {
				c.add(KindPeerAuthentication, p.Metadata, "spec", ReasonConflicted, "Site %s says mtls: disabled, so other sites come without TLS, which is refused here: give the site permissive", s.Metadata.Name)
			}
		}
	}
}
