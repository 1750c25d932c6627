package controller

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Config says which site a controller runs and how.
type Config struct {
	// Site is the site's name, an RFC 1123 label.
	Site string
	// Data is the data folder; it is made if it is not there.
	Data string
	// Hub gives this controller the hub's role as well.
	Hub bool
	// HubURLs (tls://host:port) make the site a leaf of that hub, with the hub's
	// CA and secret in files. Without Hub, HubURLs and NATSURL the site is alone.
	HubURLs          []string
	HubCA, HubSecret string
	// NATSURL uses a NATS that others run, with JetStream, instead of an embedded
	// server. Its credentials are in one of the files.
	NATSURL                             string
	NATSTokenFile, NATSNKeyFile, NATSCA string
	// Listen is where the site's nodes connect, LeafListen where sites connect to
	// the hub, API where the HTTP API listens (host:port on loopback, or
	// unix:/path). Port 0 is a free one.
	Listen, LeafListen, API string
	// Preload are documents that are applied at each start.
	Preload []mesh.Source
	Version string
}

// Deps is what a controller needs from its process.
type Deps struct {
	Log *slog.Logger
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
	case leaf && (c.HubCA == "" || c.HubSecret == ""):
		bad("a leaf needs the hub's CA and secret: copy hub/ca.pem and hub/leaf.secret from the hub's data folder")
	case c.NATSURL != "" && leaf:
		bad("with an external NATS there is no hub to connect to: the sites meet there")
	}
	if !leaf && (c.HubCA != "" || c.HubSecret != "") {
		bad("the hub's CA or secret is given, but not the hub's address")
	}
	if c.NATSURL == "" && (c.NATSTokenFile != "" || c.NATSNKeyFile != "" || c.NATSCA != "") {
		bad("credentials for an external NATS are given, but not its address")
	}
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:0")
	c.LeafListen = cmp.Or(c.LeafListen, "127.0.0.1:0")
	c.API = cmp.Or(c.API, "127.0.0.1:0")
	if !strings.HasPrefix(c.API, "unix:") && !loopback(c.API) {
		// Whoever reaches the API may change the mesh.
		bad("API address %q: only loopback (127.0.0.1:port, [::1]:port) or unix:/path, because it has no login", c.API)
	}
	return c, errors.Join(errs...)
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
