package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/admin"
)

// adminOff is the value of --admin that opens none.
const adminOff = "off"

type options struct {
	config                     string
	check                      bool
	site, node                 string
	admin                      string
	adminRemote                bool
	loops                      int
	memoryLimit                size
	clientMaxAge               time.Duration
	clientMaxReqs              int
	resolver                   netip.AddrPort
	stateDir                   string
	drainTimeout               time.Duration
	natsTokenFile              string
	trustKey                   string
	workload, workloadToken    string
	logLevel                   slog.Level
	logFormat                  string
	accessLog, accessLogFormat string
	version                    bool
}

const usageHead = `edgeproxy serves the traffic of one node: it listens where Gateways say and sends
requests to services of this site and, where sites share load, of others.

Usage:
  edgeproxy --config FILE|DIR|nats://host:port[,host:port] [flags]

Examples:
  edgeproxy --config mesh.yaml              serve a file; changes to it are followed
  edgeproxy --config mesh.yaml --check      print every fault of the file and stop
  edgeproxy --config nats://127.0.0.1:4222 --site melbourne --state-dir /var/lib/meridian
                                            serve what the site's controller says
  curl 127.0.0.1:15000/readyz?verbose       what the node thinks of itself

Signals:
  SIGHUP   read the configuration again
  SIGUSR1  open the access log again at its path
  SIGUSR2  start this program anew, hand it the sockets and, once it serves, drain and exit 0
  SIGTERM  stop accepting, let requests end (--drain-timeout), exit 0; a second one ends at once

Flags:
`

// parseFlags returns flag.ErrHelp after it printed help to w.
func parseFlags(args []string, w io.Writer) (options, error) {
	var o options
	host, hostErr := os.Hostname()
	fs := flag.NewFlagSet("edgeproxy", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "config", "", "where configuration comes from: a `file` or folder of YAML, or nats://host:port[,host:port] of the site's controller")
	fs.BoolVar(&o.check, "check", false, "read the configuration, print every fault and exit (1 when there is one); touches nothing")
	fs.StringVar(&o.site, "site", "", "`name` of the site this node belongs to; required with nats://")
	fs.StringVar(&o.node, "node", host, "`name` of this node within its site")
	fs.StringVar(&o.admin, "admin", admin.DefaultListen, "`address` of the admin server: host:port (port 0: any free one), unix:/path or off")
	fs.BoolVar(&o.adminRemote, "admin-allow-remote", false, "let --admin be an address that other machines reach; it asks nobody who they are")
	fs.IntVar(&o.loops, "loops", 0, "`number` of event loops; 0: half of the usable cores, at least one")
	fs.TextVar(&o.memoryLimit, "memory-limit", size(0), "the most memory to take, a `size` such as 64MiB: near it idle connections are closed, then new ones and requests refused (503, flag UO); 0: none of its own")
	fs.DurationVar(&o.clientMaxAge, "client-max-age", time.Hour, "age, give or take a tenth, at which a client's connection ends after its request; 0: no bound")
	fs.IntVar(&o.clientMaxReqs, "client-max-requests", 0, "`number` of requests, give or take a tenth, that a client's connection carries; 0: no bound")
	fs.TextVar(&o.resolver, "resolver", netip.AddrPort{}, "`ip:port` of the DNS server for names of endpoints; empty: those of /etc/resolv.conf")
	fs.StringVar(&o.stateDir, "state-dir", os.Getenv("STATE_DIRECTORY"), "`folder` for the last good configuration and run.json; empty: nothing is kept")
	fs.DurationVar(&o.drainTimeout, "drain-timeout", 30*time.Second, "how long requests may take to end after SIGTERM")
	fs.StringVar(&o.natsTokenFile, "nats-token-file", "", "`file` with the token for nats://")
	fs.StringVar(&o.workload, "workload", "", "`namespace/account` of the workload that this proxy is beside: other sites see its identity, and nothing is sent to them without it")
	fs.StringVar(&o.workloadToken, "workload-token-file", "", "`file` with the token of the workload's Kubernetes service account, for audience meridian")
	fs.StringVar(&o.trustKey, "trust-key", "", "`file` with the Ed25519 public key that must have signed each snapshot from nats:// (default: site.pub beside the token file, where it is)")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", "text", "text or json")
	fs.StringVar(&o.accessLog, "access-log", "", "write a line for each request to stdout or a `file`; empty: no access log")
	fs.StringVar(&o.accessLogFormat, "access-log-format", accesslog.FormatJSON, "json, or a `format` with Envoy's operators: '%START_TIME% %REQ(:METHOD)% %PATH% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%'")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(w, usageHead)
		fs.VisitAll(func(f *flag.Flag) { fmt.Fprint(w, usageOf(f)) })
		return o, err
	}
	if err != nil || o.version {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag; the configuration is given with --config", fs.Arg(0))
	}
	if o.node == "" {
		return o, errors.Join(errors.New("--node is needed: this machine tells no name"), hostErr)
	}
	return o, o.validate()
}

// usageOf describes a flag as the other programs do, with two hyphens.
func usageOf(f *flag.Flag) string {
	value, usage := flag.UnquoteUsage(f)
	if value != "" {
		value = " " + value
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
		usage += fmt.Sprintf(" (default %q)", f.DefValue)
	}
	return fmt.Sprintf("  --%s%s\n        %s\n", f.Name, value, usage)
}

// fromBus reports whether the configuration comes from a controller.
func (o options) fromBus() bool { return strings.Contains(o.config, "://") }

func (o options) validate() error {
	scheme, _, _ := strings.Cut(o.config, "://")
	switch {
	case o.config == "":
		return errors.New("--config is needed: a file, a folder or nats://host:port")
	case o.fromBus() && scheme != "nats" && scheme != "tls":
		return fmt.Errorf("--config %s: want nats:// or tls://, a file or a folder", o.config)
	case o.fromBus() && o.check:
		return errors.New("--check reads files; the controller checks what it sends")
	case o.fromBus() && o.site == "":
		return errors.New("--site is needed with --config nats://: the controller has a snapshot for each site")
	case !o.fromBus() && o.natsTokenFile != "":
		return errors.New("--nats-token-file is for --config nats://")
	case !o.fromBus() && o.trustKey != "":
		return errors.New("--trust-key is for --config nats://: files are not signed")
	case !o.fromBus() && o.workload != "":
		return errors.New("--workload is for --config nats://: the site's controller issues its identity")
	case o.workload == "" && o.workloadToken != "":
		return errors.New("--workload-token-file is for --workload: whose token is it?")
	case o.workload != "" && workloadFault(o.workload) != nil:
		return fmt.Errorf("--workload %s: %w", o.workload, workloadFault(o.workload))
	case o.clientMaxAge < 0:
		return fmt.Errorf("--client-max-age %s: want 0 or more", o.clientMaxAge)
	case o.clientMaxReqs < 0:
		return fmt.Errorf("--client-max-requests %d: want 0 or more", o.clientMaxReqs)
	case o.loops < 0:
		return fmt.Errorf("--loops %d: want 0 or more", o.loops)
	case o.memoryLimit != 0 && o.memoryLimit < edgeproxy.MinMemoryLimit:
		return fmt.Errorf("--memory-limit %s: want at least %s, or 0 for none", o.memoryLimit, size(edgeproxy.MinMemoryLimit))
	case o.drainTimeout < 0:
		return fmt.Errorf("--drain-timeout %s: want 0 or more", o.drainTimeout)
	case o.logFormat != "text" && o.logFormat != "json":
		return fmt.Errorf("--log-format %s: want text or json", o.logFormat)
	}
	if _, err := accesslog.Parse(o.accessLogFormat); err != nil {
		return fmt.Errorf("--access-log-format: %w", err)
	}
	return nil
}

func (o options) logHandler(w io.Writer) slog.Handler {
	h := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "json" {
		return slog.NewJSONHandler(w, h)
	}
	return slog.NewTextHandler(w, h)
}
