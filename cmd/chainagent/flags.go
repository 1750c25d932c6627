package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

type options struct {
	config   string
	site     string
	stateDir string
	// tokenFile and trustKey are for a controller.
	tokenFile, trustKey string
	// integrityKeys and integrityWindow are for headers at a site's border.
	integrityKeys   string
	integrityWindow time.Duration
	check           bool
	detach          bool
	version         bool
	admin           string
	forwarder       string // a value of --datapath
	mount           string
	cgroups         string
	agent           agent.Config
	datapath        datapath.Config
}

const usage = `chainagent runs the service chains of one node: it owns the node's BPF programs, fills
them from ChainNode, NetworkFunction and ServiceChain documents, and moves flows away
from function instances that fail. When it ends, chains go on; the next one takes over.

Usage:
  chainagent --config FILE|DIR|nats://host:port[,host:port] [flags]
  chainagent --detach [--pins DIR]

Examples:
  chainagent --config chains.yaml --node edge-1          run the chains of node edge-1
  chainagent --config chains.yaml --node edge-1 --check  print every fault and stop
  chainagent --config nats://127.0.0.1:4222 --site melbourne --node edge-1 --state-dir /var/lib/meridian
                                                         serve what the site's controller says
  chainagent --detach                                    take everything out of the kernel:
                                                         traffic then takes its own way
  curl 127.0.0.1:15010/readyz?verbose                    what the node thinks of its chains

Signals:
  SIGHUP   read the documents again, though they seem unchanged
  SIGTERM  end; what forwards goes on forwarding

Needs CAP_BPF and CAP_NET_ADMIN, CAP_NET_RAW for icmp probes, CAP_SYS_ADMIN to mount pins;
with --datapath soft CAP_NET_ADMIN and CAP_NET_RAW. Redirection to the node's proxy
(ChainNode spec.redirect) is the kernel's with either, and needs CAP_BPF and CAP_NET_ADMIN. In userspace chains end with the process: what
comes in on their ports is then dropped, until it runs again or --detach gives the ports back.

Flags:
`

// defaultPins is made, and a BPF file system mounted there, when --pins is not given.
const defaultPins = "/run/meridian/bpf"

func parseFlags(args []string, stdout io.Writer) (*options, error) {
	var o options
	fs := flag.NewFlagSet("chainagent", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "config", "", "`FILE|DIR` of documents, whose changes are followed, or nats://host:port[,host:port] of the site's controller")
	fs.StringVar(&o.site, "site", "", "`NAME` of the site this node belongs to; required with nats://")
	fs.StringVar(&o.stateDir, "state-dir", os.Getenv("STATE_DIRECTORY"), "`DIR` for the last good documents; empty: nothing is kept")
	fs.StringVar(&o.tokenFile, "nats-token-file", "", "`FILE` with the token for nats://")
	fs.StringVar(&o.trustKey, "trust-key", "", "`FILE` with the Ed25519 public key that must have signed each snapshot from nats:// (default: site.pub beside the token file, where it is)")
	fs.StringVar(&o.agent.Node, "node", "", "`NAME` of this node's ChainNode (default the host's name)")
	fs.BoolVar(&o.check, "check", false, "check the documents and stop")
	fs.BoolVar(&o.detach, "detach", false, "take programs and maps out of the kernel and stop")
	fs.StringVar(&o.admin, "admin", "127.0.0.1:15010", "`ADDRESS` for /healthz, /readyz, /status, /counters, /metrics: of the loopback, or unix:/path; off for none")
	fs.StringVar(&o.datapath.Pins, "pins", "", "`DIR` on a BPF file system for what goes on forwarding (default "+defaultPins+", mounted when it is not)")
	fs.StringVar(&o.cgroups, "cgroups", "", "`DIR` where cgroup v2 is mounted, the machine's root of it (default what /proc/self/mounts says)")
	fs.StringVar(&o.forwarder, "datapath", datapathAuto, "what forwards: bpf, the kernel; soft, this process; auto, the kernel where it can")
	fs.StringVar(&o.integrityKeys, "integrity-keys", "", "`FILE` of keys that this site shares with others, a line each: id, blank, secret in base64; the first signs, all are accepted. With it --datapath auto is soft")
	fs.DurationVar(&o.integrityWindow, "integrity-window", soft.DefaultWindow, "`TIME` by which the clocks of two sites, and the way between them, may differ")
	attach := fs.String("attach", "auto", "how programs get to ports: auto, tcx (Linux 6.6) or clsact")
	fs.IntVar(&o.datapath.Flows, "flows", 0, "`N` flows are remembered at most (default 131072)")
	fs.DurationVar(&o.agent.Settle, "settle", agent.DefaultSettle, "`TIME` for which all nodes know new paths before flows take them")
	fs.DurationVar(&o.agent.Drain, "drain-timeout", agent.DefaultDrain, "`TIME` for which flows may stay on paths that a change has replaced")
	fs.BoolVar(&o.version, "version", false, "print the version and stop")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			fs.SetOutput(stdout)
			fs.PrintDefaults()
		}
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if !slices.Contains([]string{datapathAuto, datapathBPF, datapathSoft}, o.forwarder) {
		return nil, fmt.Errorf("--datapath %s: want auto, bpf or soft", o.forwarder)
	}
	o.agent.Linger = agent.DefaultLinger
	o.datapath.Attach = datapath.Attachment(strings.TrimPrefix(*attach, "auto"))
	if o.datapath.Pins == "" {
		o.mount = defaultPins
		o.datapath.Pins = filepath.Join(defaultPins, "chains")
	}
	if o.version || o.detach {
		return &o, nil
	}
	if o.integrityWindow <= 0 {
		return nil, fmt.Errorf("--integrity-window %v: want more than 0", o.integrityWindow)
	}
	if o.integrityKeys != "" && o.forwarder == datapathBPF {
		return nil, errors.New("--integrity-keys: the kernel's side cannot make codes; leave --datapath bpf out")
	}
	if err := o.validateSource(); err != nil {
		return nil, err
	}
	if o.agent.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("--node is missing and the host has no name: %w", err)
		}
		o.agent.Node = host
	}
	if o.admin == "off" {
		o.admin = ""
	} else if err := loopback(o.admin); err != nil {
		return nil, err
	}
	return &o, nil
}

// fromBus reports whether the documents come from a controller.
func (o *options) fromBus() bool { return strings.Contains(o.config, "://") }

func (o *options) validateSource() error {
	scheme, _, _ := strings.Cut(o.config, "://")
	switch {
	case o.config == "":
		return errors.New("--config is missing: a file, a folder or nats://host:port")
	case o.fromBus() && scheme != "nats" && scheme != "tls":
		return fmt.Errorf("--config %s: want nats:// or tls://, a file or a folder", o.config)
	case o.fromBus() && o.check:
		return errors.New("--check reads files; the controller checks what it sends")
	case o.fromBus() && o.site == "":
		return errors.New("--site is needed with --config nats://: the controller has a snapshot for each site")
	case !o.fromBus() && o.tokenFile != "":
		return errors.New("--nats-token-file is for --config nats://")
	case !o.fromBus() && o.trustKey != "":
		return errors.New("--trust-key is for --config nats://: files are not signed")
	}
	return nil
}

// loopback refuses to tell the network what only the operator should know.
func loopback(address string) error {
	if strings.HasPrefix(address, "unix:") {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--admin %s: %w", address, err)
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
		return fmt.Errorf("--admin %s is not a loopback address such as 127.0.0.1:15010", address)
	}
	return nil
}
