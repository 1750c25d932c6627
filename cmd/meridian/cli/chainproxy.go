package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// requestChain is a chain of requests as a proxy's admin server shows it at /chains.
type requestChain struct {
	Chain  string       `json:"chain"`
	SPI    uint32       `json:"spi"`
	Broken string       `json:"broken,omitempty"`
	Open   bool         `json:"open,omitempty"`
	Takes  []string     `json:"takes,omitempty"`
	Hops   []requestHop `json:"hops"`
}

type requestHop struct {
	SI       int     `json:"si"`
	Function string  `json:"function"`
	Kind     string  `json:"kind"`
	Open     bool    `json:"open,omitempty"`
	Asks     string  `json:"asks,omitempty"`
	Passed   uint64  `json:"passed"`
	Answered uint64  `json:"answered"`
	Failed   uint64  `json:"failed"`
	Bypassed uint64  `json:"bypassed"`
	MeanUS   float64 `json:"meanUs,omitempty"`
	Timed    uint64  `json:"timed"`
}

func chainProxyFlag(cmd *cobra.Command, proxy *string) {
	cmd.Flags().StringVar(proxy, "proxy", "", "ask the proxy at this admin `address` for chains of requests: host:port or unix:/path")
}

func requestChains(ctx context.Context, proxy string) ([]requestChain, error) {
	var out struct {
		Chains []requestChain `json:"chains"`
	}
	err := askProxy(ctx, proxy, "/chains", url.Values{}, &out)
	return out.Chains, err
}

func findRequestChain(ctx context.Context, proxy, name string) (*requestChain, error) {
	chains, err := requestChains(ctx, proxy)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	var names []string
	for i := range chains {
		if chains[i].Chain == name {
			return &chains[i], nil
		}
		names = append(names, chains[i].Chain)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the proxy at %s has no chain of requests", proxy)
	}
	return nil, fmt.Errorf("the proxy at %s has no chain %s: it has %s", proxy, name, strings.Join(names, ", "))
}

func (c *requestChain) state() string {
	switch {
	case c.Broken != "" && c.Open:
		return "left out: " + c.Broken
	case c.Broken != "":
		return "refuses requests: " + c.Broken
	case len(c.Takes) == 0:
		return "nothing comes to it"
	}
	return "ok"
}

func listRequestChains(cmd *cobra.Command, proxy, output string) error {
	chains, err := requestChains(cmd.Context(), proxy)
	if err != nil {
		return err
	}
	return print(cmd, output, chains, func(w io.Writer) {
		fmt.Fprintln(w, "CHAIN\tSPI\tHOPS\tSTATE")
		for i := range chains {
			c := &chains[i]
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", c.Chain, c.SPI, len(c.Hops), c.state())
		}
	})
}

func showRequestChain(cmd *cobra.Command, proxy, name, output string) error {
	c, err := findRequestChain(cmd.Context(), proxy, name)
	if err != nil {
		return err
	}
	return print(cmd, output, c, func(w io.Writer) {
		fmt.Fprintf(w, "path %d of requests, in the proxy: %s\n", c.SPI, c.state())
		fmt.Fprintln(w, "  SI\tFUNCTION\tKIND\tPASSED\tANSWERED\tFAILED\tBYPASSED\tMEAN")
		for _, h := range c.Hops {
			mean := "-"
			if h.Timed > 0 {
				mean = fmt.Sprintf("%.2fus", h.MeanUS)
			}
			fmt.Fprintf(w, "  %d\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", h.SI, h.Function, h.Kind, h.Passed, h.Answered, h.Failed, h.Bypassed, mean)
		}
	})
}

func explainRequestChain(cmd *cobra.Command, proxy, name string) error {
	c, err := findRequestChain(cmd.Context(), proxy, name)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "chain %s, path %d: %s\n", c.Chain, c.SPI, c.state())
	for _, t := range c.Takes {
		fmt.Fprintf(w, "takes requests of %s\n", t)
	}
	for i := range c.Hops {
		h := &c.Hops[i]
		failing := "when it fails, requests are refused (503)"
		if h.Open {
			failing = "when it fails, requests go on without it"
		}
		fmt.Fprintf(w, "%d %s (%s): %s\n", h.SI, h.Function, h.Kind, failing)
		if h.Asks != "" {
			fmt.Fprintf(w, "  asks %s\n", h.Asks)
		}
		if h.Failed > 0 {
			fmt.Fprintf(w, "  failed %d times, %d of them bypassed\n", h.Failed, h.Bypassed)
		}
		if h.Answered > 0 {
			fmt.Fprintf(w, "  answered %d requests itself\n", h.Answered)
		}
	}
	return nil
}
