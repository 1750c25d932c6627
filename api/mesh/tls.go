package mesh

import (
	"fmt"
	"slices"
	"strings"
)

// KindCertificate is the kind of [Certificate].
const KindCertificate = "Certificate"

// ProtocolHTTPS is the listener protocol for requests over TLS, which ends here:
// HTTP/1.1 and HTTP/2, as client and proxy agree (ALPN).
const ProtocolHTTPS = "HTTPS"

// TLSTerminate is the TLS mode whose session ends at the proxy.
const TLSTerminate = "Terminate"

// OptionMinVersion is the option, of listeners and of connections to backends, for
// the least version of TLS: 1.3, which is the default, or 1.2.
const OptionMinVersion = MeshGroup + "/min-tls-version"

// Certificate names files on the machine of each proxy that uses it: a certificate
// chain in PEM, the leaf first, and its key; or without a key certificates of issuers
// to trust. The files stay where they are: no snapshot holds a secret.
type Certificate struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     CertificateSpec `json:"spec"`
}

// CertificateSpec is the desired state of a Certificate. Paths are absolute.
type CertificateSpec struct {
	CertificateFile string `json:"certificateFile"`
	KeyFile         string `json:"keyFile,omitempty"`
}

// CertificateRef names a Certificate of the same namespace.
type CertificateRef struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// ListenerTLS says what a listener does with TLS.
type ListenerTLS struct {
	Mode string `json:"mode,omitempty"`
	// CertificateRefs are the listener's own certificates; of several the first that
	// fits a client's name and algorithms is shown.
	CertificateRefs []CertificateRef `json:"certificateRefs,omitempty"`
	// FrontendValidation asks clients for a certificate.
	FrontendValidation *FrontendValidation `json:"frontendValidation,omitempty"`
	Options            map[string]string   `json:"options,omitempty"`
}

// Modes of [FrontendValidation].
const (
	AllowValidOnly = "AllowValidOnly"
	AllowMissing   = "AllowMissing"
)

// FrontendValidation says whose certificates clients have: AllowValidOnly refuses
// those that have none, AllowMissing takes them; one that is not valid is refused in
// either mode.
type FrontendValidation struct {
	CACertificateRefs []CertificateRef `json:"caCertificateRefs"`
	Mode              string           `json:"mode,omitempty"`
}

// SystemCertificates are the issuers that the proxy's machine trusts.
const SystemCertificates = "System"

// BackendTLS has connections to a service's endpoints be TLS, in the words of the
// Gateway API's BackendTLSPolicy.
type BackendTLS struct {
	// Hostname is whom the proxy asks for, and whom the certificate has to name.
	Hostname string `json:"hostname"`
	// CACertificateRefs or WellKnownCACertificates say who may have issued it.
	CACertificateRefs       []CertificateRef `json:"caCertificateRefs,omitempty"`
	WellKnownCACertificates string           `json:"wellKnownCACertificates,omitempty"`
	// ClientCertificateRef is the proxy's own.
	ClientCertificateRef *CertificateRef   `json:"clientCertificateRef,omitempty"`
	Options              map[string]string `json:"options,omitempty"`
}

// Versions of TLS as they are numbered on the wire (RFC 8446 4.2.1).
const (
	tls12 = 0x0303
	tls13 = 0x0304
)

// MinVersion is the least version of TLS that options allow, by its number on the
// wire.
func MinVersion(options map[string]string) uint16 {
	if options[OptionMinVersion] == "1.2" {
		return tls12
	}
	return tls13
}

func checkTLSOptions(options map[string]string, fault faultFunc) {
	for name, value := range options {
		switch {
		case name != OptionMinVersion:
			fault("options["+name+"]", "is not known", "the one option is "+OptionMinVersion)
		case value != "1.2" && value != "1.3":
			fault("options["+name+"]", fmt.Sprintf("%q is not a version that is served", value), `write "1.3" or "1.2"; older ones are broken (RFC 8996)`)
		}
	}
}

func listenerRelations(l *Listener, fault faultFunc) {
	const example = "{certificateRefs: [{group: " + MeshGroup + ", kind: " + KindCertificate + ", name: NAME}]}"
	secure := l.Protocol == ProtocolTLS || l.Protocol == ProtocolHTTPS
	switch {
	case l.Protocol == ProtocolTLS && l.TLS == nil:
		fault("tls", "is missing", "add tls: {mode: "+TLSPassthrough+"}, or tls: "+example)
	case l.Protocol == ProtocolHTTPS && l.TLS == nil:
		fault("tls", "is missing", "add tls: "+example)
	case !secure && l.TLS != nil:
		fault("tls", "is for protocols "+ProtocolHTTPS+" and "+ProtocolTLS+", not "+l.Protocol, "")
	case l.Protocol == ProtocolTCP && l.Hostname != "":
		fault("hostname", "connections of protocol "+ProtocolTCP+" name no host", "leave it out, or use protocol "+ProtocolTLS)
	case l.Protocol == ProtocolUDP && l.Hostname != "":
		fault("hostname", "datagrams name no host", "leave it out")
	case len(l.Hostnames) > 0 && l.Protocol != ProtocolHTTP:
		fault("hostnames", "is for protocol "+ProtocolHTTP+", not "+l.Protocol, "write a listener with hostname for each")
	case len(l.Hostnames) > 0 && l.Hostname != "":
		fault("hostnames", "is there beside hostname", "write all hosts into hostnames")
	}
	if l.TLS == nil || !secure {
		return
	}
	switch t, mode := l.TLS, l.TLS.Mode; {
	case mode == TLSPassthrough && l.Protocol == ProtocolHTTPS:
		fault("tls.mode", "requests cannot be read in a session that is passed through", "use protocol "+ProtocolTLS)
	case mode == TLSPassthrough && (len(t.CertificateRefs) > 0 || t.FrontendValidation != nil || len(t.Options) > 0):
		fault("tls", "the session is the backend's in mode "+TLSPassthrough, "leave certificateRefs, frontendValidation and options out")
	case mode == TLSPassthrough:
	case len(t.CertificateRefs) == 0:
		fault("tls.certificateRefs", "is missing", "write tls: "+example)
	}
}

func listenerTLSRelations(t *ListenerTLS, fault faultFunc) { checkTLSOptions(t.Options, fault) }

func backendTLSRelations(b *BackendTLS, fault faultFunc) {
	switch {
	case len(b.CACertificateRefs) == 0 && b.WellKnownCACertificates == "":
		fault("caCertificateRefs", "is missing", "name the Certificate of the endpoints' issuer, or write wellKnownCACertificates: "+SystemCertificates)
	case len(b.CACertificateRefs) > 0 && b.WellKnownCACertificates != "":
		fault("wellKnownCACertificates", "is there beside caCertificateRefs", "write one of the two")
	}
	if strings.HasPrefix(b.Hostname, "*.") {
		fault("hostname", "a wildcard names no one to ask for", "write the name that is in the endpoints' certificate")
	}
	checkTLSOptions(b.Options, fault)
}

func checkAbsolute(s string) (message, hint string) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return fmt.Sprintf("%q is not an absolute path", s), "begin it with /: it is read on the machine of each proxy"
	case len(s) > 4096 || strings.ContainsRune(s, 0):
		return "is no path", ""
	}
	return "", ""
}

// usesTLS reports whether a listener's sessions end at the proxy.
// Terminates reports whether TLS sessions end at the listener.
func (l *Listener) Terminates() bool { return l.usesTLS() }

func (l *Listener) usesTLS() bool { return l.TLS != nil && l.TLS.Mode != TLSPassthrough }

// FindCertificate is the Certificate that a reference of an object of the namespace
// names, nil where there is none.
func (o *Objects) FindCertificate(namespace string, ref CertificateRef) *Certificate {
	i := slices.IndexFunc(o.Certificates, func(c *Certificate) bool {
		return c.Metadata.Name == ref.Name && c.Metadata.Namespace == namespace
	})
	if i < 0 {
		return nil
	}
	return o.Certificates[i]
}

// certificate checks a reference to a Certificate that has a key, or one of issuers.
func (c *checker) certificate(kind string, m ObjectMeta, path string, ref CertificateRef, key bool) {
	known := map[string]*Certificate{}
	for _, x := range c.o.Certificates {
		known[x.Metadata.Namespace+"/"+x.Metadata.Name] = x
	}
	switch found := c.o.FindCertificate(m.Namespace, ref); {
	case found == nil:
		c.add(kind, m, path, ReasonInvalidCertificateRef, "there is no Certificate %s/%s%s", m.Namespace, ref.Name, c.perhaps(ref.Name, known))
	case key && found.Spec.KeyFile == "":
		c.add(kind, m, path, ReasonInvalidCertificateRef, "Certificate %s/%s has no keyFile, nobody can show it", m.Namespace, ref.Name)
	}
}

// certificates checks what refers to Certificates.
func (c *checker) certificates() {
	for _, g := range c.o.Gateways {
		for i := range g.Spec.Listeners {
			l := &g.Spec.Listeners[i]
			if !l.usesTLS() {
				continue
			}
			for j, ref := range l.TLS.CertificateRefs {
				c.certificate(KindGateway, g.Metadata, fmt.Sprintf("spec.listeners[%d].tls.certificateRefs[%d]", i, j), ref, true)
			}
			if v := l.TLS.FrontendValidation; v != nil {
				for j, ref := range v.CACertificateRefs {
					c.certificate(KindGateway, g.Metadata, fmt.Sprintf("spec.listeners[%d].tls.frontendValidation.caCertificateRefs[%d]", i, j), ref, false)
				}
			}
		}
	}
	for _, p := range c.o.TrafficPolicies {
		b := p.Spec.BackendTLS
		if b == nil {
			continue
		}
		for j, ref := range b.CACertificateRefs {
			c.certificate(KindTrafficPolicy, p.Metadata, fmt.Sprintf("spec.backendTLS.caCertificateRefs[%d]", j), ref, false)
		}
		if b.ClientCertificateRef != nil {
			c.certificate(KindTrafficPolicy, p.Metadata, "spec.backendTLS.clientCertificateRef", *b.ClientCertificateRef, true)
		}
	}
}
