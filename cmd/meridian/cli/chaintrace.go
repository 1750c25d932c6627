package cli

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/chaining/host"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// traceFlags say which path, and where it begins.
type traceFlags struct {
	node    string
	spi     uint32
	back    bool
	vni     uint32
	timeout time.Duration
	agent   *string
}

func (f *traceFlags) add(cmd *cobra.Command, agent *string) {
	f.agent = agent
	cmd.Flags().StringVar(&f.node, "node", "", "`address` of the node where the path begins, on its underlay; its VXLAN-GPE port unless it names one")
	cmd.Flags().Uint32Var(&f.spi, "path", 0, "service path identifier; needed where no chain is named")
	cmd.Flags().BoolVar(&f.back, "back", false, "follow the way back")
	cmd.Flags().Uint32Var(&f.vni, "vni", 0, "VXLAN network identifier of the forwarders")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Second, "how long to wait for each reply")
}

// config finds the path of a chain, by the agent, or takes --path.
func (f *traceFlags) config(cmd *cobra.Command, args []string) (host.TraceConfig, error) {
	c := host.TraceConfig{SPI: f.spi, VNI: f.vni, Timeout: f.timeout}
	if f.node == "" {
		return c, hinted{errUsage{fmt.Errorf("where does the path begin?")}, "name the node's underlay address with --node"}
	}
	addr, err := netip.ParseAddrPort(f.node)
	if err != nil {
		a, err := netip.ParseAddr(f.node)
		if err != nil {
			return c, errUsage{fmt.Errorf("--node %s: want an address such as 192.0.2.1 or 192.0.2.1:4790", f.node)}
		}
		addr = netip.AddrPortFrom(a, nsh.GPEPort)
	}
	c.Node = addr
	switch {
	case len(args) == 1 && f.spi != 0:
		return c, errUsage{fmt.Errorf("a chain and --path: use one of them")}
	case len(args) == 1:
		s, err := askAgent(cmd.Context(), *f.agent)
		if err != nil {
			return c, err
		}
		chain, err := s.find(args[0])
		if err != nil {
			return c, err
		}
		if len(chain.SPIs) == 0 {
			return c, fmt.Errorf("chain %s has no path: %s", chain.Chain, chain.Refused)
		}
		c.SPI = chain.SPIs[0]
	case f.spi == 0:
		return c, hinted{errUsage{fmt.Errorf("which path?")}, "name a chain (and --agent), or an SPI with --path"}
	}
	if f.back {
		c.SPI |= path.ReversedBit
	}
	return c, nil
}

func chainTraceCommand(agent *string) *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace [NAME]",
		Short: "Follow a path hop by hop and time each",
		Long: `Trace sends echo requests (in the manner of RFC 9516) along a path, each one stop
further: functions that know NSH pass them on, forwarders step past those that do
not. Each line is a stop: node, function, instance, round trip, and what this stop
took more than the one before.`,
		Example: `  meridian chain trace web --node 192.0.2.1 --agent http://127.0.0.1:7490
  meridian chain trace --node 192.0.2.1 --path 4711`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.config(cmd, args)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "path %d from %v\n", c.SPI, c.Node)
			return host.Trace(cmd.Context(), c, func(h host.Hop) { traceLine(out, h) })
		},
	}
	f.add(cmd, agent)
	return cmd
}

func traceLine(w io.Writer, h host.Hop) {
	what := "(" + oam.CodeText(h.Reply.Code) + ")"
	if h.Reply.Instance != "" {
		what = h.Reply.Function + " " + h.Reply.Instance
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Fprintf(w, "%3d  %-12s %-32s %8.3f ms  +%.3f ms\n", h.Number, h.Reply.Node, what, ms(h.RTT), ms(h.Added))
}

func chainPingCommand(agent *string) *cobra.Command {
	var f traceFlags
	var count int
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "ping [NAME]",
		Short: "Time a whole path, several times",
		Example: `  meridian chain ping web --node 192.0.2.1 --agent http://127.0.0.1:7490
  meridian chain ping --node 192.0.2.1 --path 4711 --count 10`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.config(cmd, args)
			if err != nil {
				return err
			}
			if count < 1 {
				return errUsage{fmt.Errorf("--count %d: want at least 1", count)}
			}
			var rtts []time.Duration
			out := cmd.OutOrStdout()
			for i := range count {
				if i > 0 {
					select {
					case <-cmd.Context().Done():
						return cmd.Context().Err()
					case <-time.After(interval):
					}
				}
				h, err := host.Ping(cmd.Context(), c, uint32(i+1))
				if err != nil {
					fmt.Fprintf(out, "%d: %v\n", i+1, err)
					continue
				}
				rtts = append(rtts, h.RTT)
				fmt.Fprintf(out, "%d: end at node %s, %.3f ms\n", i+1, h.Reply.Node, float64(h.RTT.Microseconds())/1000)
			}
			if len(rtts) == 0 {
				return fmt.Errorf("path %d: none of %d requests came to its end", c.SPI, count)
			}
			slices.Sort(rtts)
			fmt.Fprintf(out, "%d of %d came to the end; median %.3f ms, most %.3f ms\n", len(rtts), count,
				float64(rtts[len(rtts)/2].Microseconds())/1000, float64(rtts[len(rtts)-1].Microseconds())/1000)
			return nil
		},
	}
	f.add(cmd, agent)
	cmd.Flags().IntVar(&count, "count", 5, "`number` of requests")
	cmd.Flags().DurationVar(&interval, "interval", 200*time.Millisecond, "time between requests")
	return cmd
}
