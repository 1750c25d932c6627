package tlsio

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
)

// Application protocols (RFC 7301).
const (
	HTTP1 = "http/1.1"
	HTTP2 = "h2"
)

// KeyPair names the files of a certificate chain and its key, or of certificates
// to trust. Name is for people: it says which object names the files.
type KeyPair struct {
	Name                     string
	CertificateFile, KeyFile string
}

// ListenerSpec is what a listener asks for.
type ListenerSpec struct {
	Name string
	// Hostname is whom clients ask for: a name, *.name for all below it, or empty
	// for any and for clients that ask for none.
	Hostname     string
	Certificates []KeyPair
	// ClientCAs issue the certificates that clients must have, or may where
	// ClientsOptional; without any no certificate is asked for.
	ClientCAs       []KeyPair
	ClientsOptional bool
	// Min is the least version, as crypto/tls numbers them.
	Min uint16
	// Protocols are the application protocols, the best first; none leaves that open.
	Protocols []string
}

// Server is what the listeners of one socket need. It does not change; files that
// do make a new one.
type Server struct {
	config    *tls.Config
	listeners []serverListener
	mesh      bool          // clients are proxies of the own mesh
	by        func() string // who this proxy is towards them; nil where it is nobody
}

type serverListener struct {
	hostname string // in lower case
	config   *tls.Config
	policy   string
}

// aead are the cipher suites of TLS 1.2 (those of 1.3 need no choice): forward
// secret, with authenticated encryption.
var aead = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// NoServer refuses every client.
var NoServer = newServer()

func newServer() *Server {
	s := &Server{}
	s.config = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: s.forClient}
	return s
}

func (s *Server) add(spec *ListenerSpec, pairs []*tls.Certificate, clients *x509.CertPool, policy string, keys [][32]byte) {
	c := &tls.Config{
		MinVersion: spec.Min, CipherSuites: aead, NextProtos: spec.Protocols, ClientCAs: clients,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return best(pairs, hello), nil },
	}
	switch {
	case clients == nil:
	case spec.ClientsOptional:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.SetSessionTicketKeys(keys)
	s.listeners = append(s.listeners, serverListener{strings.ToLower(spec.Hostname), c, policy})
}

// best is the certificate for a hello: the first that fits its name and algorithms,
// else the first that fits the algorithms, else the first; nil where there is none,
// which crypto/tls answers by unrecognized_name. It is asked without a name, too.
func best(pairs []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	for _, p := range pairs {
		if hello.SupportsCertificate(p) == nil {
			return p
		}
	}
	for _, p := range pairs {
		unnamed := *hello
		unnamed.ServerName = ""
		if unnamed.SupportsCertificate(p) == nil {
			return p
		}
	}
	if len(pairs) > 0 {
		return pairs[0]
	}
	return nil
}

// nobody is the configuration for names that no listener has.
var nobody = &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}

func (s *Server) forClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if i := s.Pick(hello.ServerName); i >= 0 {
		return s.listeners[i].config, nil
	}
	return nobody, nil
}

// Pick is the listener for a name that a client asks for, empty for none: the one of
// that name, else of the longest wildcard, else the one of any; negative where
// nothing fits.
func (s *Server) Pick(name string) int {
	return PickHost(len(s.listeners), func(i int) string { return s.listeners[i].hostname }, name)
}

// PickHost is [Server.Pick] among n listeners whose hostnames at tells.
func PickHost(n int, at func(i int) string, name string) int {
	found, length := -1, -1
	for i := range n {
		h := at(i)
		fits := h == "" || len(h) == len(name) && strings.EqualFold(h, name)
		if suffix, wild := strings.CutPrefix(h, "*"); wild {
			cut := len(name) - len(suffix)
			fits = cut > 0 && strings.EqualFold(name[cut:], suffix)
		} else if fits && h != "" {
			return i
		}
		if fits && len(h) > length {
			found, length = i, len(h)
		}
	}
	return found
}

// Several reports whether clients of different names meet different listeners.
func (s *Server) Several() bool { return len(s.listeners) > 1 }

// Policy is what is asked of the clients of a listener, for comparison: of two that
// are equal a client of the one may as well be the other's.
func (s *Server) Policy(listener int) string {
	if listener < 0 || listener >= len(s.listeners) {
		return ""
	}
	return s.listeners[listener].policy
}

// ClientSpec is what connections to a service's endpoints ask for.
type ClientSpec struct {
	// Hostname is whom they ask for and whose certificate is accepted.
	Hostname string
	// CAs issue that certificate; without any those of the system do.
	CAs []KeyPair
	// Certificate is this proxy's own, where the endpoints ask for one.
	Certificate *KeyPair
	Min         uint16
}

// Client is what connections to a service's endpoints need, in the protocols that
// the service's ports speak. It does not change.
type Client struct {
	// ID is the same for the same names and the same content of the files, else
	// another, so that it tells pooled connections apart; never 0.
	ID     uint32
	config *tls.Config // nil where a file is at fault
	ready  func() bool // nil where it always is
	byName map[string]*Client
}

// NoClient is that of a service whose certificates are not there.
var NoClient = &Client{byName: map[string]*Client{HTTP1: {}, HTTP2: {}}}

// For is the client for an application protocol.
func (c *Client) For(protocol string) *Client { return c.byName[protocol] }

// Falls reports whether sessions for HTTP/2 may turn out to be for HTTP/1.1, which is
// offered beside it.
func (c *Client) Falls() bool { return c.config != nil && len(c.config.NextProtos) > 1 }

// Usable reports whether sessions can be had.
func (c *Client) Usable() bool { return c.config != nil && (c.ready == nil || c.ready()) }

func newClient(spec *ClientSpec, id uint32, cas *x509.CertPool, own *tls.Certificate) *Client {
	all := &Client{byName: map[string]*Client{}}
	for _, p := range []string{HTTP1, HTTP2} {
		c := &tls.Config{
			ServerName: spec.Hostname, RootCAs: cas, MinVersion: spec.Min, CipherSuites: aead, NextProtos: []string{p},
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
		}
		if own != nil {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
		}
		all.byName[p] = &Client{ID: id, config: c}
	}
	return all
}
