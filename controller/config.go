package controller

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/logring"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Config says which site a controller runs and how.
type Config struct {
	// Site is the site's name, an RFC 1123 label.
	Site string
	// Data is the data folder; it is made if it is not there.
	Data string
	// Hub gives this controller the hub's role as well.
	Hub bool
	// HubURLs (tls://host:port) make the site a leaf of that hub, with the hub's CA
	// and the site's NKey seed in files. Without Hub, HubURLs and NATSURL the site is
	// alone.
	HubURLs       []string
	HubCA, HubKey string
	// NATSURL uses a NATS that others run, with JetStream, instead of an embedded
	// server. Its credentials are in one of the files.
	NATSURL                             string
	NATSTokenFile, NATSNKeyFile, NATSCA string
	// NATSReplicas is how many servers of that NATS keep each bucket; 0 means 1.
	NATSReplicas int
	// Listen is where the site's nodes connect, LeafListen where sites connect to
	// the hub, JoinListen where new ones ask to (by default LeafListen's host and the
	// port after its), API where the HTTP API listens (host:port on loopback, or
	// unix:/path). Port 0 is a free one.
	Listen, LeafListen, JoinListen, API string
	// Advertise are the hosts under which other sites reach this hub, as its tokens
	// name them. Empty means the addresses of this machine that it listens on.
	Advertise []string
	// TrustDomain is that of the mesh's identities, the hub's to say at its first start;
	// empty is [ca.DefaultDomain]. RootCert and RootKey are files with a root of the
	// operator's, which becomes the newest.
	TrustDomain       string
	RootCert, RootKey string
	// Page serves the page and the API to users with a login, where Page.Listen says so.
	Page Page
	// SFC has application functions set AfSfcRequirements, where SFC.Listen says so.
	SFC SFC
	// Export has proxies that are not ours follow the site's weights.
	Export Export
	// Preload are documents that are applied at each start.
	Preload []mesh.Source
	Version string
}

// Page is where and to whom the page is served beyond this machine: Listen is host:port,
// Users the file with who may log in (package login), Cert and Key are PEM files. The
// users and the certificate are read again when their files change.
type Page struct{ Listen, Users, Cert, Key string }

// SFC is where and how AfSfcRequirements are taken from application functions. Listen is
// host:port; TokenFile has the tokens that they bear, one a line; Cert and Key are PEM
// files for TLS, which only loopback can do without.
type SFC struct{ Listen, TokenFile, Cert, Key string }

// Deps is what a controller needs from its process.
type Deps struct {
	Log *slog.Logger
	// Said is the end of what Log writes; nil where nobody keeps it.
	Said *logring.Ring
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// complete fills in defaults and refuses what cannot work, all at once.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(format string, v ...any) { errs = append(errs, fmt.Errorf(format, v...)) }
	if !label.MatchString(c.Site) {
		bad("site %q is not a name: lower-case letters, digits and -, a letter or digit at both ends, at most 63", c.Site)
	}
	if c.Data == "" {
		bad("a data folder is needed")
	}
	leaf := len(c.HubURLs) > 0
	switch {
	case c.Hub && leaf:
		bad("this is the hub and has a hub: give one of the two")
	case leaf && (c.HubCA == "" || c.HubKey == ""):
		bad("a site of a hub needs the hub's CA and a key that the hub knows: join with a token (meridian join)")
	case c.NATSURL != "" && leaf:
		bad("with an external NATS there is no hub to connect to: the sites meet there")
	}
	if !leaf && (c.HubCA != "" || c.HubKey != "") {
		bad("the hub's CA or the key for it is given, but not the hub's address")
	}
	if c.NATSURL == "" && (c.NATSTokenFile != "" || c.NATSNKeyFile != "" || c.NATSCA != "") {
		bad("credentials for an external NATS are given, but not its address")
	}
	if c.NATSReplicas < 0 || c.NATSReplicas > 5 || c.NATSReplicas > 0 && c.NATSURL == "" {
		bad("%d replicas: 1 to 5 servers of an external NATS may keep each bucket", c.NATSReplicas)
	}
	if !c.Hub && (c.TrustDomain != "" || c.RootCert != "" || c.RootKey != "") || c.NATSURL != "" && c.TrustDomain+c.RootCert+c.RootKey != "" {
		bad("a trust domain or a root is given: the mesh's are kept by the hub, with its own NATS server")
	}
	if (c.RootCert == "") != (c.RootKey == "") {
		bad("a root needs its certificate and its key: one of the two is given")
	}
	if err := spiffe.CheckDomain(c.TrustDomain); c.TrustDomain != "" && err != nil {
		bad("%w", err)
	}
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:0")
	c.LeafListen = cmp.Or(c.LeafListen, "127.0.0.1:0")
	if c.JoinListen == "" {
		c.JoinListen = nextPort(c.LeafListen)
	}
	c.API = cmp.Or(c.API, "127.0.0.1:0")
	if !strings.HasPrefix(c.API, "unix:") && !loopback(c.API) {
		// Whoever reaches the API may change the mesh.
		bad("API address %q: only loopback (127.0.0.1:port, [::1]:port) or unix:/path, because it has no login", c.API)
	}
	switch p := c.Page; {
	case p.Listen == "" && p != Page{}:
		bad("users or a certificate for the page are given, but no address to serve it at")
	case p.Listen != "" && p.Users == "":
		bad("the page at %s needs a file of users (meridian dashboard user NAME --file FILE)", p.Listen)
	case p.Listen != "" && (p.Cert == "" || p.Key == ""):
		bad("the page at %s needs a certificate and its key: passwords go over it", p.Listen)
	}
	switch f := c.SFC; {
	case f.Listen == "" && f != SFC{}:
		bad("a token file or a certificate for AfSfcRequirements is given, but no address to take them at")
	case f.Listen != "" && f.TokenFile == "":
		bad("AfSfcRequirements at %s need a file of tokens: whoever sets them steers traffic", f.Listen)
	case (f.Cert == "") != (f.Key == ""):
		bad("the listener for AfSfcRequirements needs its certificate and its key: one of the two is given")
	case f.Listen != "" && f.Cert == "" && !loopback(f.Listen):
		bad("AfSfcRequirements at %s: beyond loopback they need TLS, a certificate and its key", f.Listen)
	}
	return c, errors.Join(errs...)
}

// nextPort is addr with the port after its own; port 0 stays a free one.
func nextPort(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if n, perr := strconv.Atoi(port); err == nil && perr == nil && n > 0 && n < 65535 {
		return net.JoinHostPort(host, strconv.Itoa(n+1))
	}
	return net.JoinHostPort(host, "0")
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// role is how the site takes part in the mesh.
func (c Config) role() string {
	switch {
	case c.NATSURL != "":
		return "external"
	case c.Hub:
		return "hub"
	case len(c.HubURLs) > 0:
		return "leaf"
	}
	return "alone"
}
