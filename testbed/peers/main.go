// Command peers compares the CPU that Meridian's proxy spends on a request with
// what HAProxy and nginx spend on the same request, on this machine, now.
//
// Each comparison is a row of paired rounds: ours, then the peer, again and
// again, so that what else the machine does falls on both. The figure of a pair
// is the ratio of their CPU per request, taken from the scheduler's own accounts
// of the proxy's threads and from the requests that the load generator saw
// completed. Configurations stand in conf: each peer as its distribution ships it
// and tuned, ours as shipped with 50 routes. How to read the result:
// docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	ours       string
	vs         string
	conf       string
	peers      []string
	modes      []string
	rounds     int
	duration   time.Duration
	warmup     time.Duration
	conns      int
	rate       float64
	generator  string
	output     string
	markdown   string
	rateConns  int
	controller string
	idleWait   time.Duration
	assert     bool
}

const usageHead = `peers compares the CPU per request of bin/edgeproxy with HAProxy and nginx.

Usage:
  peers [flags]        (or: make bench-peers ARGS='[flags]')

Examples:
  peers                                     all modes, 9 paired rounds each
  peers --modes pinned --peers nginx-tuned  one comparison
  peers --markdown docs/benchmarks.md       write the table there, too
  peers --vs /tmp/edgeproxy-before          this build and another one of ours
  peers -o json > result.json

Modes:
  pinned   proxy with one worker on CPU 0, backend and load on CPU 1, closed loop
  shared   everything on all CPUs, peers with two workers, closed loop
  open     as pinned, at a fixed rate instead of as fast as it goes
  tcp      as pinned, one connection passed on whole, as fast as it goes; CPU per GB
  tls      as pinned, over TLS 1.3 on kept connections
  handshake  as tls, a connection and a full handshake for each request (X25519)
  mtls     as tls, with a certificate on both sides
  http2      as pinned, requests by HTTP/2 without TLS, 16 connections of 16 streams (h2load)
  grpc       unary calls of gRPC by HTTP/2 on both sides, as http2 (h2load, nghttpd)
  udp      as pinned, datagrams of 200 bytes there and back, two of each client under way
  burst    as tls at 1,000 requests/s, beside 500 new connections at once, again and again
  tls-idle memory with 5,000 connections over TLS: at rest, after records of 16 KiB, and
           after they have closed
  idle     memory of proxies at rest, with 10,000 idle connections and after those
           have closed; ours is connected to a site controller

Two peers are no proxies and show what the kernel alone takes: bare-splice (mode tcp)
and bare-relay (pinned, shared, open; name it in --peers).

Flags:
`

func parseFlags(args []string, w io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.StringVar(&o.ours, "ours", "bin/edgeproxy", "our proxy's `binary`")
	fs.StringVar(&o.vs, "vs", "", "another `build` of our proxy to compare with, in the place of the peers unless --peers names some")
	fs.StringVar(&o.conf, "conf", "testbed/peers/conf", "`folder` of the configurations")
	peers := fs.String("peers", "haproxy-default,haproxy-tuned,nginx-default,nginx-tuned", "comma-separated `names` of the peers' configurations")
	modes := fs.String("modes", "pinned,shared,open", "comma-separated `modes`, also tcp, udp, tls, mtls, handshake, http2, grpc, burst, tls-idle and idle")
	fs.StringVar(&o.controller, "controller", "bin/sitecontroller", "our site controller's `binary`, of mode idle")
	fs.DurationVar(&o.idleWait, "idle-wait", time.Minute, "mode idle: from the start to the look at memory at rest")
	fs.BoolVar(&o.assert, "assert", false, "fail when a bar of docs/benchmarks.md is missed")
	fs.IntVar(&o.rounds, "rounds", 9, "paired rounds of each comparison; a published figure needs at least 9")
	fs.DurationVar(&o.duration, "duration", 2*time.Second, "measured time of one run")
	fs.DurationVar(&o.warmup, "warmup", 300*time.Millisecond, "load before each run that is not measured")
	fs.IntVar(&o.conns, "connections", 64, "keep-alive connections of the closed loop")
	fs.Float64Var(&o.rate, "rate", 2000, "requests per second of the open loop")
	fs.IntVar(&o.rateConns, "open-connections", 32, "keep-alive connections of the open loop")
	fs.StringVar(&o.generator, "generator", "own", "own or wrk (closed loop only, whole seconds)")
	fs.StringVar(&o.output, "o", "table", "table or json")
	fs.StringVar(&o.markdown, "markdown", "", "`file` in which to replace the table between the peers markers")
	fs.Usage = func() {
		fmt.Fprint(w, usageHead)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.peers, o.modes = strings.Split(*peers, ","), strings.Split(*modes, ",")
	named := false
	fs.Visit(func(f *flag.Flag) { named = named || f.Name == "peers" })
	if o.vs != "" && !named {
		o.peers = nil
	}
	for _, m := range o.modes {
		if !slices.Contains([]string{modePinned, modeShared, modeOpen, modeTCP, modeUDP, modeTLS, modeHandshake, modeMutual, modeHTTP2, modeGRPC, modeBurst, modeSecureIdle, modeIdle}, m) {
			return o, fmt.Errorf("--modes: no mode %q: there are pinned, shared, open, tcp, udp, tls, mtls, handshake, http2, grpc, burst, tls-idle and idle", m)
		}
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rounds < 1:
		return o, fmt.Errorf("--rounds %d: want 1 or more", o.rounds)
	case o.duration < 50*time.Millisecond:
		return o, fmt.Errorf("--duration %s: want 50ms or more", o.duration)
	case o.conns < 1 || o.rateConns < 1:
		return o, errors.New("--connections: want 1 or more")
	case o.rate <= 0:
		return o, fmt.Errorf("--rate %g: want more than 0", o.rate)
	case o.idleWait < 6*time.Second:
		return o, fmt.Errorf("--idle-wait %s: want 6s or more", o.idleWait)
	case o.generator != "own" && o.generator != "wrk":
		return o, fmt.Errorf("--generator %s: want own or wrk", o.generator)
	case o.generator == "wrk" && o.duration%time.Second != 0:
		return o, fmt.Errorf("--duration %s: wrk takes whole seconds", o.duration)
	case o.output != "table" && o.output != "json":
		return o, fmt.Errorf("-o %s: want table or json", o.output)
	}
	return o, nil
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// The backend and the generator are this program again: processes of their
	// own, so that their CPU is nobody else's.
	if len(args) > 0 && slices.Contains(roles, args[0]) {
		if err := runRole(args); err != nil {
			fmt.Fprintf(os.Stderr, "peers %s: %v\n", args[0], err)
			return 1
		}
		return 0
	}
	o, err := parseFlags(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "peers: %v\nRun 'peers --help' for usage.\n", err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := compare(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "peers: %v\n", err)
		return 1
	}
	return 0
}

// otherBuild is the name of another build of ours among the peers.
const otherBuild = "other-build"

// confFile is a file of the folder of configurations.
func (o options) confFile(name string) string { return filepath.Join(o.conf, name) }

// compare runs every comparison asked for and writes the results.
func compare(ctx context.Context, o options) error {
	cpus := runtime.NumCPU()
	if cpus < 2 && slices.ContainsFunc(o.modes, func(m string) bool { return m != modeShared && m != modeIdle && m != modeSecureIdle }) {
		return errors.New("modes pinned, open, tcp and udp need two CPUs: one for the proxy, one for the rest; use --modes shared")
	}
	ours, err := ourProxy(o, o.ours)
	if err != nil {
		return err
	}
	var peers []proxy
	if o.vs != "" {
		p, err := ourProxy(o, o.vs)
		if err != nil {
			return err
		}
		p.name = otherBuild
		peers = append(peers, p)
	}
	for _, name := range o.peers {
		p, err := peerProxy(o, name)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	result := result{Machine: describeMachine(), Date: time.Now().UTC(), Rounds: o.rounds, Duration: o.duration.Seconds(), Generator: o.generator}
	result.Versions = append(result.Versions, ours.version)
	for _, p := range peers {
		if !slices.Contains(result.Versions, p.version) {
			result.Versions = append(result.Versions, p.version)
		}
	}
	for _, m := range o.modes {
		if m == modeIdle {
			if result.Idle, err = runIdle(ctx, o); err != nil {
				return fmt.Errorf("mode %s: %w", m, err)
			}
			continue
		}
		if m == modeSecureIdle {
			if result.SecureIdle, err = runSecureIdle(ctx, o); err != nil {
				return fmt.Errorf("mode %s: %w", m, err)
			}
			continue
		}
		if m == modeBurst {
			if result.Burst, err = runBurst(ctx, o, append([]proxy{ours}, peers...)); err != nil {
				return fmt.Errorf("mode %s: %w", m, err)
			}
			continue
		}
		mine, others := ours, peers
		if m == modeTLS || m == modeHandshake || m == modeMutual {
			with := secured
			if m == modeMutual {
				with = mutual
			}
			mine, others = with(ours), nil
			for _, p := range peers {
				others = append(others, with(p))
			}
		}
		if m == modeGRPC {
			mine, others = calling(ours), nil
			for _, p := range peers {
				others = append(others, calling(p))
			}
		}
		if m == modeTCP || m == modeUDP {
			if mine, others, err = streamProxies(o, m); err != nil {
				return err
			}
		}
		rows, err := runMode(ctx, o, m, mine, others)
		if err != nil {
			return fmt.Errorf("mode %s: %w", m, err)
		}
		result.Rows = append(result.Rows, rows...)
	}
	if o.markdown != "" {
		if err := result.updateMarkdown(o.markdown); err != nil {
			return err
		}
	}
	write := result.writeTable
	if o.output == "json" {
		write = result.writeJSON
	}
	if err := write(os.Stdout); err != nil || !o.assert {
		return err
	}
	if missed := result.missed(); len(missed) > 0 {
		return errors.New("missed: " + strings.Join(missed, "; "))
	}
	return nil
}
