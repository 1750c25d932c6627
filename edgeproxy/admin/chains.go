package admin

import (
	"net/http"
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

// chainView is a chain of requests as /chains shows it.
type chainView struct {
	Chain string `json:"chain"`
	SPI   uint32 `json:"spi"`
	// Broken says why it cannot be served, Open that requests then pass without.
	Broken string    `json:"broken,omitempty"`
	Open   bool      `json:"open,omitempty"`
	Takes  []string  `json:"takes,omitempty"`
	Hops   []hopView `json:"hops"`
}

type hopView struct {
	SI       int    `json:"si"`
	Function string `json:"function"`
	Kind     string `json:"kind"`
	Open     bool   `json:"open,omitempty"`
	// Asks is what an external function asks.
	Asks     string `json:"asks,omitempty"`
	Passed   uint64 `json:"passed"`
	Answered uint64 `json:"answered"`
	Failed   uint64 `json:"failed"`
	Bypassed uint64 `json:"bypassed"`
	// MeanUS is the mean time of a passage in us, of the share that is timed.
	MeanUS float64 `json:"meanUs,omitempty"`
	Timed  uint64  `json:"timed"`
}

func (n Node) chains(w http.ResponseWriter, _ *http.Request) {
	views := []chainView{}
	for _, c := range n.Proxy.Chains() {
		v := chainView{Chain: c.Name, SPI: c.SPI, Broken: c.Broken, Open: c.Open, Takes: c.Takes, Hops: []hopView{}}
		for i := range c.Hops {
			h := &c.Hops[i]
			v.Hops = append(v.Hops, hopView{
				SI: h.SI, Function: h.Function, Kind: h.Kind, Open: h.Open, Asks: h.Asks, Passed: h.Passed, Answered: h.Answered,
				Failed: h.Failed, Bypassed: h.Bypassed, MeanUS: float64(h.Mean().Nanoseconds()) / 1000, Timed: h.Timed,
			})
		}
		views = append(views, v)
	}
	writeJSON(w, struct {
		Chains []chainView `json:"chains"`
	}{views})
}

func writeChains(t *Text, chains []edgeproxy.Chain) {
	each := func(name, kind, help string, value func(h *edgeproxy.Hop, labels ...string)) {
		t.Family(name, kind, help)
		for i := range chains {
			for k := range chains[i].Hops {
				h := &chains[i].Hops[k]
				value(h, "chain", chains[i].Name, "si", strconv.Itoa(h.SI), "function", h.Function)
			}
		}
	}
	if len(chains) == 0 {
		return
	}
	each("meridian_chain_hop_requests_total", counter, "Requests at a hop of a chain, by what the function made of them: passed, answered, failed (refused since) or bypassed (failed, and went on without).",
		func(h *edgeproxy.Hop, labels ...string) {
			for _, o := range []struct {
				name string
				n    uint64
			}{{"passed", h.Passed}, {"answered", h.Answered}, {"failed", h.Failed - h.Bypassed}, {"bypassed", h.Bypassed}} {
				t.Count(o.n, append(labels[:len(labels):len(labels)], "outcome", o.name)...)
			}
		})
	each("meridian_chain_hop_timed_seconds_total", counter, "Time that requests took at a hop of a chain, of those that were timed.",
		func(h *edgeproxy.Hop, labels ...string) { t.Value(h.Took.Seconds(), labels...) })
	each("meridian_chain_hop_timed_total", counter, "Requests that were timed at a hop of a chain: about one in 64, and all of external functions.",
		func(h *edgeproxy.Hop, labels ...string) { t.Count(h.Timed, labels...) })
}
