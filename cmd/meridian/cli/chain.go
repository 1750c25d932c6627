package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// chainStatus is what a node's chain agent says at /status.
type chainStatus struct {
	Node   string            `json:"node"`
	Ready  bool              `json:"ready"`
	Fault  string            `json:"fault,omitempty"`
	View   string            `json:"view,omitempty"`
	Chains []chainState      `json:"chains"`
	Paths  []path.Path       `json:"paths"`
	Down   map[string]string `json:"down,omitempty"`
	// Configuration is where the agent's documents come from.
	Configuration *chainConfiguration `json:"configuration,omitempty"`
}

type chainConfiguration struct {
	Source     string           `json:"source"`
	Generation *mesh.Generation `json:"generation,omitempty"`
	Refused    string           `json:"refused,omitempty"`
	Connected  *bool            `json:"connected,omitempty"`
}

type chainState struct {
	Chain    string   `json:"chain"`
	SPIs     []uint32 `json:"spis"`
	Refused  string   `json:"refused,omitempty"`
	Bypassed []string `json:"bypassed,omitempty"`
}

func chainCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chain",
		Short: "See service function chains, and follow their paths",
		Long: `Chain shows what became of ServiceChain documents on a node, and follows paths with
echo requests. list, show, explain and top ask the node's chain agent (--agent or
MERIDIAN_CHAINAGENT: http://host:port or unix:/path), and list, show and explain with
--proxy a proxy, for chains of requests; trace and ping speak to the forwarders
themselves, over VXLAN-GPE; capture needs neither, but root. apply asks a site's
controller, and then the agent whether it serves what was applied.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var agent string
	cmd.PersistentFlags().StringVar(&agent, "agent", os.Getenv("MERIDIAN_CHAINAGENT"), "`address` of a chain agent: http://host:port or unix:/path (MERIDIAN_CHAINAGENT)")
	cmd.AddCommand(chainApplyCommand(e, &agent), chainListCommand(&agent), chainShowCommand(&agent), chainExplainCommand(&agent),
		chainTraceCommand(&agent), chainPingCommand(&agent), chainTopCommand(&agent), chainCaptureCommand())
	return cmd
}

// askAgent reads the agent's status.
func askAgent(ctx context.Context, agent string) (*chainStatus, error) {
	return getAgent[chainStatus](ctx, agent, "/status")
}

// getAgent reads what the agent says at a path.
func getAgent[T any](ctx context.Context, agent, path string) (*T, error) {
	if agent == "" {
		return nil, hinted{errUsage{fmt.Errorf("which chain agent?")}, "name it with --agent or MERIDIAN_CHAINAGENT; for chains of requests name a proxy with --proxy"}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, url := http.DefaultClient, strings.TrimSuffix(agent, "/")+path
	if file, ok := strings.CutPrefix(agent, "unix:"); ok {
		url = "http://chainagent" + path
		t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", file)
		}}
		defer t.CloseIdleConnections()
		client = &http.Client{Transport: t}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errUsage{fmt.Errorf("--agent %s: %w", agent, err)}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, hinted{fmt.Errorf("ask the chain agent: %w", err), "is chainagent running there, and its admin address that of --agent?"}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the chain agent for %s: %s", path, resp.Status)
	}
	v := new(T)
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(v); err != nil {
		return nil, fmt.Errorf("read the chain agent's answer: %w", err)
	}
	return v, nil
}

func (s *chainStatus) find(name string) (*chainState, error) {
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	var names []string
	for i := range s.Chains {
		if s.Chains[i].Chain == name {
			return &s.Chains[i], nil
		}
		names = append(names, s.Chains[i].Chain)
	}
	return nil, fmt.Errorf("node %s has no chain %s: it has %s", s.Node, name, strings.Join(names, ", "))
}

func (s *chainStatus) path(spi uint32) *path.Path {
	for i := range s.Paths {
		if s.Paths[i].SPI == spi {
			return &s.Paths[i]
		}
	}
	return nil
}

func chainListCommand(agent *string) *cobra.Command {
	var output, proxy string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List chains and whether they have paths",
		Example: `  meridian chain list --agent http://127.0.0.1:7490
  meridian chain list --proxy 127.0.0.1:15000`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if proxy != "" {
				return listRequestChains(cmd, proxy, output)
			}
			s, err := askAgent(cmd.Context(), *agent)
			if err != nil {
				return err
			}
			return print(cmd, output, s, func(w io.Writer) {
				fmt.Fprintln(w, "CHAIN\tPATHS\tSTATE")
				for _, c := range s.Chains {
					fmt.Fprintf(w, "%s\t%d\t%s\n", c.Chain, len(c.SPIs), c.state())
				}
				if !s.Ready {
					fmt.Fprintf(w, "node %s is not ready: %s\n", s.Node, s.Fault)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	chainProxyFlag(cmd, &proxy)
	return cmd
}

func (c *chainState) state() string {
	switch {
	case len(c.SPIs) == 0 && c.Refused != "":
		return "no path: " + c.Refused
	case c.Refused != "":
		return "degraded: " + c.Refused
	case len(c.Bypassed) > 0:
		return "without " + strings.Join(c.Bypassed, ", ")
	}
	return "ok"
}

func chainShowCommand(agent *string) *cobra.Command {
	var output, proxy string
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show the paths of a chain, stop by stop",
		Example: `  meridian chain show web --agent http://127.0.0.1:7490
  meridian chain show api --proxy 127.0.0.1:15000`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if proxy != "" {
				return showRequestChain(cmd, proxy, args[0], output)
			}
			s, err := askAgent(cmd.Context(), *agent)
			if err != nil {
				return err
			}
			c, err := s.find(args[0])
			if err != nil {
				return err
			}
			paths := s.pathsOf(c)
			return print(cmd, output, paths, func(w io.Writer) {
				for _, p := range paths {
					p.print(w)
				}
				if len(paths) == 0 {
					fmt.Fprintln(w, c.state())
				}
			})
		},
	}
	chainProxyFlag(cmd, &proxy)
	outputFlag(cmd, &output)
	return cmd
}

// shownPath is a path as people read it.
type shownPath struct{ path.Path }

// pathsOf are a chain's paths, each with its way back behind it.
func (s *chainStatus) pathsOf(c *chainState) []shownPath {
	var out []shownPath
	for _, spi := range c.SPIs {
		p := s.path(spi)
		if p == nil {
			continue
		}
		out = append(out, shownPath{*p})
		if back := s.path(p.Back); back != nil && p.Back != 0 {
			out = append(out, shownPath{*back})
		}
	}
	return out
}

func (p shownPath) print(w io.Writer) {
	way := "there"
	if p.Reversed {
		way = "back"
	}
	fmt.Fprintf(w, "path %d (%s), %s to %s, %.2f ms, weight %d", p.SPI, way, p.Ingress, p.Egress, p.LatencyMS, p.Weight)
	if p.Metadata != "" {
		fmt.Fprintf(w, ", metadata %q", p.Metadata)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "  SI\tNODE\tFUNCTION\tINSTANCE")
	for i, s := range p.Stops {
		name := s.Function
		if s.Branches != nil {
			name = "(classified again)"
		}
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\n", path.SI(i), s.Node, name, s.Instance)
	}
	fmt.Fprintf(w, "  %d\t%s\t(end)\n", path.SI(len(p.Stops)), p.Egress)
}

func chainExplainCommand(agent *string) *cobra.Command {
	var proxy string
	cmd := &cobra.Command{
		Use:   "explain NAME",
		Short: "Say why a chain goes the way it goes, or nowhere",
		Long: `Explain says for each path of a chain what it costs: ms of links and functions, and
the price, which is what the chain makes all others wait too. It names functions
that were left out, instances that are down, and why paths are missing.`,
		Example: `  meridian chain explain web --agent http://127.0.0.1:7490
  meridian chain explain api --proxy 127.0.0.1:15000`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if proxy != "" {
				return explainRequestChain(cmd, proxy, args[0])
			}
			s, err := askAgent(cmd.Context(), *agent)
			if err != nil {
				return err
			}
			c, err := s.find(args[0])
			if err != nil {
				return err
			}
			explainChain(cmd.OutOrStdout(), s, c)
			return nil
		},
	}
	chainProxyFlag(cmd, &proxy)
	return cmd
}

func explainChain(w io.Writer, s *chainStatus, c *chainState) {
	total := 0
	for _, p := range s.pathsOf(c) {
		if !p.Reversed {
			total += p.Weight
		}
	}
	for _, p := range s.pathsOf(c) {
		if p.Reversed {
			continue
		}
		var stops []string
		for _, stop := range p.Stops {
			if stop.Branches == nil {
				stops = append(stops, stop.Instance+"@"+stop.Node)
			}
		}
		fmt.Fprintf(w, "path %d takes %.0f %% of flows: %s\n", p.SPI, 100*float64(p.Weight)/float64(max(1, total)), strings.Join(stops, " -> "))
		fmt.Fprintf(w, "  %.2f ms by links and functions, price %.2f ms\n", p.LatencyMS, p.PriceMS)
		if p.Back != 0 {
			fmt.Fprintf(w, "  answers come back by path %d, over the same instances\n", p.Back)
		}
	}
	for _, b := range c.Bypassed {
		fmt.Fprintf(w, "left out: %s has no usable instance, and its failureMode is open\n", b)
	}
	if c.Refused != "" {
		fmt.Fprintf(w, "refused: %s\n", c.Refused)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Down)) {
		fmt.Fprintf(w, "down: %s: %s\n", name, s.Down[name])
	}
	if s.View != "" && s.View != "flip" {
		fmt.Fprintf(w, "a change is under way: step %s\n", s.View)
	}
	if !s.Ready {
		fmt.Fprintf(w, "node %s is not ready: %s\n", s.Node, s.Fault)
	}
}
