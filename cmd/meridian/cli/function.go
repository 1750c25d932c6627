package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
	"github.com/meridian-mesh/meridian/chaining/function/firewall"
	"github.com/meridian-mesh/meridian/chaining/function/mirror"
	"github.com/meridian-mesh/meridian/chaining/function/nat44"
	"github.com/meridian-mesh/meridian/chaining/function/policer"
	"github.com/meridian-mesh/meridian/chaining/function/tagger"
	"github.com/meridian-mesh/meridian/chaining/host"
	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// functionFlags are those of every function.
type functionFlags struct {
	listen, admin, mirrorTo string
	drain                   time.Duration
}

func functionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "function",
		Short: "Run a network function of a chain",
		Long: `Function runs one of the network functions that come with Meridian as a process that
knows NSH: packets come in and go back in VXLAN-GPE over UDP, which needs no
privileges. Echo requests are answered until it drains, so a chain's nsh-echo
probe is its health. On SIGTERM it drains: it answers no more probes, goes on with
the packets of flows it has for --drain, and ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := &functionFlags{}
	p := cmd.PersistentFlags()
	p.StringVar(&f.listen, "listen", "", "`address` for VXLAN-GPE; port 4790 unless it names one")
	p.StringVar(&f.admin, "admin", "", "`address` (host:port) that answers /healthz and /stats; none without it")
	p.DurationVar(&f.drain, "drain", 5*time.Second, "how long packets are served after SIGTERM")
	cmd.AddCommand(firewallCommand(f), natCommand(f), policerCommand(f), taggerCommand(f), mirrorCommand(f))
	return cmd
}

func leafFunction(use, short, long, example string, run func(cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}

func firewallCommand(f *functionFlags) *cobra.Command {
	var rules []string
	var flows int
	cmd := leafFunction("firewall", "Stateful packet filter",
		`Firewall decides about the first packet of a flow by its rules, in order; the first
that matches decides, and what none matches is denied. Answers follow their flow.

A rule is ACTION[:PROTOCOL[:PORTS]][,from=PREFIX][,to=PREFIX][,way=back]: allow or deny;
tcp, udp, sctp, icmp, icmp6 or any; a port or a range of the destination. way=back is for flows
that begin at the chain's end.`,
		`  meridian function firewall --listen 127.0.0.2 --rule allow:tcp:80-443 --rule allow:udp:53,from=10.0.0.0/8`,
		func(cmd *cobra.Command) error {
			var rs []firewall.Rule
			for _, text := range rules {
				r, err := firewallRule(text)
				if err != nil {
					return errUsage{fmt.Errorf("--rule %s: %w", text, err)}
				}
				rs = append(rs, r)
			}
			fw, err := firewall.New(rs, flows)
			if err != nil {
				return errUsage{err}
			}
			return f.serve(cmd, fw)
		})
	cmd.Flags().StringArrayVar(&rules, "rule", nil, "a `rule`; may be repeated")
	cmd.Flags().IntVar(&flows, "flows", 65536, "how many flows are remembered; more are denied")
	return cmd
}

func firewallRule(text string) (r firewall.Rule, err error) {
	head, rest, _ := strings.Cut(text, ",")
	parts := strings.Split(head, ":")
	switch parts[0] {
	case "allow":
		r.Allow = true
	case "deny":
	default:
		return r, fmt.Errorf("action %q is not allow or deny", parts[0])
	}
	if len(parts) > 1 {
		protos := map[string]uint8{"any": 0, "tcp": flow.ProtoTCP, "udp": flow.ProtoUDP, "sctp": flow.ProtoSCTP, "icmp": flow.ProtoICMP, "icmp6": flow.ProtoICMPv6}
		p, ok := protos[parts[1]]
		if !ok {
			return r, fmt.Errorf("protocol %q is not tcp, udp, sctp, icmp, icmp6 or any", parts[1])
		}
		r.Proto = p
	}
	if len(parts) > 2 {
		lo, hi, isRange := strings.Cut(parts[2], "-")
		if !isRange {
			hi = lo
		}
		a, errA := strconv.ParseUint(lo, 10, 16)
		b, errB := strconv.ParseUint(hi, 10, 16)
		if errA != nil || errB != nil || b == 0 {
			return r, fmt.Errorf("ports %q are no port or range such as 80 or 8000-8999", parts[2])
		}
		r.FromPort, r.ToPort = uint16(a), uint16(b)
	}
	if len(parts) > 3 {
		return r, errors.New("more than three parts before the first comma")
	}
	for rest != "" {
		var option string
		option, rest, _ = strings.Cut(rest, ",")
		name, value, _ := strings.Cut(option, "=")
		switch {
		case name == "from":
			r.Src, err = netip.ParsePrefix(value)
		case name == "to":
			r.Dst, err = netip.ParsePrefix(value)
		case option == "way=back":
			r.Direction = function.Back
		default:
			err = fmt.Errorf("option %q is not from=, to= or way=back", option)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func natCommand(f *functionFlags) *cobra.Command {
	var public []string
	cmd := leafFunction("nat44", "Network address translation, IPv4", `Nat44 gives flows that begin at the chain's beginning a source address and port of
its own (RFC 4787, RFC 5382, RFC 5508) and translates their answers back.`,
		`  meridian function nat44 --listen 127.0.0.3 --public 203.0.113.9`,
		func(cmd *cobra.Command) error {
			var addrs []netip.Addr
			for _, p := range public {
				a, err := netip.ParseAddr(p)
				if err != nil {
					return errUsage{fmt.Errorf("--public: %w", err)}
				}
				addrs = append(addrs, a)
			}
			n, err := nat44.New(addrs)
			if err != nil {
				return errUsage{err}
			}
			return f.serve(cmd, n)
		})
	cmd.Flags().StringSliceVar(&public, "public", nil, "`addresses` to speak for")
	return cmd
}

func policerCommand(f *functionFlags) *cobra.Command {
	var c policer.Config
	var mbps float64
	cmd := leafFunction("policer", "Bound rates by token buckets", `Policer lets a rate and a burst through in each direction and drops what is beyond,
or gives it another DSCP.`,
		`  meridian function policer --listen 127.0.0.4 --mbps 50 --burst 100000 --per-source`,
		func(cmd *cobra.Command) error {
			c.BitsPerS = mbps * 1e6
			p, err := policer.New(c)
			if err != nil {
				return errUsage{err}
			}
			return f.serve(cmd, p)
		})
	cmd.Flags().Float64Var(&mbps, "mbps", 0, "rate in Mbit/s")
	cmd.Flags().IntVar(&c.Burst, "burst", 64000, "burst in `bytes`")
	cmd.Flags().BoolVar(&c.PerSource, "per-source", false, "a bucket for each address at the chain's beginning")
	cmd.Flags().IntVar(&c.Remark, "remark", -1, "`DSCP` for packets beyond the rate; -1 drops them")
	return cmd
}

func taggerCommand(f *functionFlags) *cobra.Command {
	return leafFunction("tagger", "Name flows by TLS server name and DNS", `Tagger names flows by the server name of a TLS hello, by a DNS question, or by the
answer that gave the address they go to. The name travels in the NSH (class 0xfff6,
type 2) for the functions behind.`,
		`  meridian function tagger --listen 127.0.0.5`,
		func(cmd *cobra.Command) error { return f.serve(cmd, tagger.New()) })
}

func mirrorCommand(f *functionFlags) *cobra.Command {
	var share float64
	cmd := leafFunction("mirror", "Copy flows to a collector", `Mirror sends copies of packets, as they came in their NSH and VXLAN-GPE, to a
collector. Of a flow all packets are copied, or none.`,
		`  meridian function mirror --listen 127.0.0.6 --to 192.0.2.50:4790 --share 0.1`,
		func(cmd *cobra.Command) error {
			m, err := mirror.New(share)
			if err != nil {
				return errUsage{err}
			}
			if f.mirrorTo == "" {
				return errUsage{errors.New("--to is needed: where do the copies go?")}
			}
			return f.serve(cmd, m)
		})
	cmd.Flags().StringVar(&f.mirrorTo, "to", "", "`address` (host:port) of the collector")
	cmd.Flags().Float64Var(&share, "share", 1, "share of flows, above 0 and at most 1")
	return cmd
}

// serve runs a function until the context ends, then drains.
func (f *functionFlags) serve(cmd *cobra.Command, fn function.Function) error {
	if f.listen == "" {
		return hinted{errUsage{errors.New("--listen is needed")}, "name the address that the NetworkFunction's instance has"}
	}
	addr, err := netip.ParseAddrPort(f.listen)
	if err != nil {
		a, err := netip.ParseAddr(f.listen)
		if err != nil {
			return errUsage{fmt.Errorf("--listen %s: want an address such as 127.0.0.2 or 127.0.0.2:4790", f.listen)}
		}
		addr = netip.AddrPortFrom(a, nsh.GPEPort)
	}
	a := &host.Aware{Function: fn}
	if f.mirrorTo != "" {
		if a.Mirror, err = netip.ParseAddrPort(f.mirrorTo); err != nil {
			return errUsage{fmt.Errorf("--to %s: want an address and a port", f.mirrorTo)}
		}
	}
	if a.Conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
		return hinted{fmt.Errorf("listen: %w", err), "is the address this machine's, and its port free?"}
	}
	defer a.Conn.Close()
	ctx, stop := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer stop()
	if f.admin != "" {
		srv := &http.Server{Handler: functionAdmin(a), ReadHeaderTimeout: 5 * time.Second}
		l, err := net.Listen("tcp", f.admin)
		if err != nil {
			return fmt.Errorf("listen for --admin: %w", err)
		}
		go func() { _ = srv.Serve(l) }() // ends with Close
		defer srv.Close()
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "listening on %v\n", a.Conn.LocalAddr())
	drained := context.AfterFunc(cmd.Context(), func() {
		a.Drain()
		time.AfterFunc(f.drain, stop)
	})
	defer drained()
	err = a.Run(ctx)
	s := a.Stats()
	fmt.Fprintf(cmd.ErrOrStderr(), "%d packets passed, %d dropped, %d were no NSH\n", s.Passed, s.Dropped, s.Malformed)
	return err
}

func functionAdmin(a *host.Aware) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if a.Stats().Draining {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Stats()) // who asked may be gone
	})
	return mux
}
