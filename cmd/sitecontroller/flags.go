package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/export"
	"github.com/meridian-mesh/meridian/controller/join"
)

type options struct {
	config    controller.Config
	documents []string
	bridge    bridge
	logLevel  slog.Level
	logFormat string
	version   bool
}

const usageHead = `sitecontroller runs one site: its NATS server, the configuration its nodes serve
from, and its share in the cooperation between sites.

Usage:
  sitecontroller --data DIR [--site NAME] [flags]

What 'meridian site init' or 'meridian join' wrote into DIR need not be said again;
a flag overrides it.

Examples:
  sitecontroller --site solo --data ./solo --config mesh.yaml
        a site alone
  sitecontroller --site centre --data ./hub --hub --leaf-listen 0.0.0.0:7422 --config mesh/
        the hub: it owns the configuration of the mesh, and sites connect to it
  sitecontroller --data ./north
        a site of that hub, after 'meridian join TOKEN --data ./north'
  sitecontroller --site north --data ./north --nats-url tls://nats.example:4222 --nats-ca ca.pem --nats-token-file token
        a site on a NATS that somebody else runs
  sitecontroller --site north --data ./north --kube=$HOME/.kube/config
        a site whose services and routes are those of a Kubernetes cluster

DIR/run.json says where a running controller listens; nodes connect with
  edgeproxy --config <nats> --nats-token-file <tokenFile> --trust-key <trustKey> --site NAME
and the operator with
  meridian --data DIR status

Signals:
  SIGTERM  stop in order, exit 0; a second one ends at once

Flags:
`

// parseFlags returns flag.ErrHelp after it printed help to w.
func parseFlags(args []string, w io.Writer) (options, error) {
	var o options
	c := &o.config
	fs := flag.NewFlagSet("sitecontroller", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.Site, "site", "", "`name` of the site")
	fs.StringVar(&c.Data, "data", "", "`folder` for keys, configuration and the last snapshot; one controller at a time")
	fs.BoolVar(&c.Hub, "hub", false, "be the hub too: own the mesh's configuration and let sites connect")
	fs.Func("hub-url", "`address` of the hub, tls://host:port; several: the first that answers", func(s string) error {
		c.HubURLs = append(c.HubURLs, strings.Split(s, ",")...)
		return nil
	})
	fs.StringVar(&c.HubCA, "hub-ca", "", "`file` with the hub's CA certificate (hub/ca.pem in the hub's data folder; joining fetches it)")
	fs.StringVar(&c.HubKey, "hub-key", "", "`file` with the NKey seed by which the hub knows this site")
	fs.StringVar(&c.LeafListen, "leaf-listen", "", "with --hub: `address` where sites connect, over TLS (default 127.0.0.1:0, a free port)")
	fs.StringVar(&c.JoinListen, "join-listen", "", "with --hub: `address` where new sites ask to join, over TLS (default: the host of --leaf-listen and the port after its)")
	fs.Func("advertise", "with --hub: `host` under which other sites reach it, for tokens; may be given again (default: this machine's addresses)", func(s string) error {
		c.Advertise = append(c.Advertise, s)
		return nil
	})
	fs.StringVar(&c.TrustDomain, "trust-domain", "", "with --hub: `name` of the trust domain in the mesh's SPIFFE IDs, for good (default mesh.meridian.internal)")
	fs.StringVar(&c.RootCert, "root-cert", "", "with --hub: `file` with a CA certificate that becomes the mesh's newest root, instead of one of its own (PEM)")
	fs.StringVar(&c.RootKey, "root-key", "", "`file` with the key of --root-cert (PEM, unencrypted)")
	fs.StringVar(&c.Listen, "listen", "", "`address` where this site's nodes connect (default 127.0.0.1:0, a free port)")
	fs.StringVar(&c.API, "api", "", "`address` of the HTTP API, /healthz, /readyz and /metrics: loopback or unix:/path (default 127.0.0.1:0, a free port)")
	fs.StringVar(&c.Page.Listen, "dashboard-listen", "", "`address` where the web page is served to users with a login, over TLS")
	fs.StringVar(&c.Page.Users, "dashboard-users", "", "`file` with who may log in, as meridian dashboard user writes it; read again when it changes")
	fs.StringVar(&c.Page.Cert, "dashboard-cert", "", "`file` with the certificate of --dashboard-listen (PEM); read again when it changes")
	fs.StringVar(&c.Page.Key, "dashboard-key", "", "`file` with its key (PEM, unencrypted)")
	fs.StringVar(&c.SFC.Listen, "sfc-listen", "", "`address` where application functions set AfSfcRequirements (3GPP TS 29.514), with a token")
	fs.StringVar(&c.SFC.TokenFile, "sfc-token-file", "", "`file` with their tokens, one a line; read at each request")
	fs.StringVar(&c.SFC.Cert, "sfc-cert", "", "`file` with the certificate of --sfc-listen (PEM); only loopback can do without")
	fs.StringVar(&c.SFC.Key, "sfc-key", "", "`file` with its key (PEM, unencrypted)")
	fs.StringVar(&c.NATSURL, "nats-url", "", "`address` of an external NATS with JetStream, instead of an embedded server")
	fs.StringVar(&c.NATSTokenFile, "nats-token-file", "", "`file` with the token for --nats-url")
	fs.StringVar(&c.NATSNKeyFile, "nats-nkey-file", "", "`file` with the NKey seed for --nats-url")
	fs.IntVar(&c.NATSReplicas, "nats-replicas", 0, "how many servers of --nats-url keep each bucket: 3 in a cluster of three (default 1)")
	fs.StringVar(&c.NATSCA, "nats-ca", "", "`file` with the CA certificate of --nats-url")
	fs.Func("export-haproxy", "have a HAProxy follow the weights: `socket=PATH,service=NAME,backend=NAME[,from.SITE=BACKEND]`; may be given again", func(s string) error {
		h, err := export.ParseHAProxy(s)
		c.Export.HAProxy = append(c.Export.HAProxy, h)
		return err
	})
	fs.StringVar(&c.Export.EnvoyFile, "export-envoy", "", "`file` to keep the weights in as Envoy's filesystem endpoint discovery (EDS)")
	fs.StringVar(&c.Export.GatewayFile, "export-gateway", "", "`file` to keep the weights in as Gateway API HTTPRoutes, for kubectl")
	fs.StringVar(&c.Export.Gateway, "export-gateway-name", "ingress", "`name` of the Gateway that those routes attach to")
	o.bridge.flags(fs)
	fs.Func("config", "`file` or folder of YAML to apply at the start, as 'meridian apply' does; may be given again", func(s string) error {
		o.documents = append(o.documents, s)
		return nil
	})
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", "auto", "text, json, or auto: text on a terminal, else json")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(w)
		fmt.Fprint(w, usageHead)
		fs.PrintDefaults()
		return o, err
	}
	if err != nil || o.version {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("%q is not a flag; see --site and --data", fs.Arg(0))
	case c.Data == "":
		return o, errors.New("--data is needed")
	case o.logFormat != "auto" && o.logFormat != "text" && o.logFormat != "json":
		return o, fmt.Errorf("--log-format %s: want auto, text or json", o.logFormat)
	}
	if err := o.fromFolder(); err != nil {
		return o, err
	}
	switch {
	case c.Site == "":
		return o, fmt.Errorf("--site is needed: %s has no site.json ('meridian site init' or 'meridian join' writes one)", c.Data)
	case !c.Hub && (c.LeafListen != "" || c.JoinListen != "" || len(c.Advertise) > 0):
		return o, errors.New("--leaf-listen, --join-listen and --advertise are for --hub")
	}
	return o, o.bridge.check(c.Site)
}

// fromFolder takes what the flags do not say from the data folder's site file.
func (o *options) fromFolder() error {
	c := &o.config
	f, err := join.ReadSiteFile(c.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.Site != "" && c.Site != f.Site {
		return fmt.Errorf("--site %s: %s is the folder of site %s", c.Site, c.Data, f.Site)
	}
	c.Site = f.Site
	c.Hub = c.Hub || f.Hub
	c.Listen, c.API = cmp.Or(c.Listen, f.Listen), cmp.Or(c.API, f.API)
	c.LeafListen, c.JoinListen = cmp.Or(c.LeafListen, f.LeafListen), cmp.Or(c.JoinListen, f.JoinListen)
	if len(c.Advertise) == 0 {
		c.Advertise = f.Advertise
	}
	if len(c.HubURLs) == 0 && c.NATSURL == "" {
		c.HubURLs = f.HubURLs
	}
	if len(c.HubURLs) > 0 {
		c.HubCA, c.HubKey = cmp.Or(c.HubCA, f.HubCA), cmp.Or(c.HubKey, f.HubKey)
	}
	o.documents = append(f.Config, o.documents...)
	return nil
}

func (o options) logHandler(w io.Writer) slog.Handler {
	h := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "json" || o.logFormat == "auto" && !terminal(w) {
		return slog.NewJSONHandler(w, h)
	}
	return slog.NewTextHandler(w, h)
}

// terminal reports whether a person reads w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
