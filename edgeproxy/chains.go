package edgeproxy

import (
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// Chain is the state of a chain of requests.
type Chain struct {
	Name string // namespace/name
	// SPI names its path (RFC 8300).
	SPI uint32
	// Broken says why it cannot be served; Open that requests then pass without.
	Broken string
	Open   bool
	// Takes says what comes to it: listeners where it classifies, rules that name it.
	Takes []string
	Hops  []Hop
}

// Hop is a function's place in a chain, with what it did since the proxy's start.
type Hop struct {
	SI             int // the service index with which requests come
	Function, Kind string
	Open           bool // requests go on when it fails
	// Asks says what an external function asks, empty for others.
	Asks string
	// Passed, Answered and Failed are what it made of requests; Bypassed counts those
	// failures after which they went on.
	Passed, Answered, Failed, Bypassed uint64
	// Timed counts the passages that were timed, about one in 64 and all of external
	// functions, and Took sums them.
	Timed uint64
	Took  time.Duration
}

// Mean is the mean time of a passage, 0 where none was timed.
func (h *Hop) Mean() time.Duration {
	if h.Timed == 0 {
		return 0
	}
	return h.Took / time.Duration(h.Timed)
}

// Chains are the chains of requests in force, by name.
func (s *Server) Chains() []Chain {
	st := s.state.Load()
	if st == nil {
		return nil
	}
	takes := takers(st.View)
	var out []Chain
	for _, c := range function.Sorted(st.View.Chains) {
		x := Chain{Name: c.Key, SPI: c.SPI, Broken: c.Broken, Open: c.Open, Takes: takes[c.Key]}
		for i := range c.Hops {
			h := &c.Hops[i]
			sum := h.Counters.Sum()
			asks := ""
			if h.External != nil {
				asks = h.External.String()
			}
			x.Hops = append(x.Hops, Hop{
				Asks: asks,
				SI:   function.SI(h.Counters.Hop), Function: h.Name, Kind: h.Kind, Open: h.Open,
				Passed: sum.Passed, Answered: sum.Answered, Failed: sum.Failed, Bypassed: sum.Bypassed,
				Timed: sum.Timed, Took: time.Duration(sum.NS),
			})
		}
		out = append(out, x)
	}
	return out
}

// takers says of each chain what comes to it.
func takers(v *view.View) map[string][]string {
	out := map[string][]string{}
	add := func(f *route.Filters, what string) {
		if f == nil {
			return
		}
		for _, c := range f.Chains {
			if !slices.Contains(out[c.Key], what) {
				out[c.Key] = append(out[c.Key], what)
			}
		}
	}
	for _, s := range v.Sockets {
		if s.Classes != nil {
			for _, r := range s.Classes.Rules {
				for _, l := range s.Listeners {
					add(r.Filters, "Gateway/"+s.Gateway+" listener "+l)
				}
			}
		}
		if s.Routes == nil {
			continue
		}
		for _, r := range s.Routes.Rules {
			add(r.Filters, r.Kind+"/"+r.Key)
			for i := range r.Backends {
				add(r.Backends[i].Filters, r.Kind+"/"+r.Key)
			}
		}
	}
	return out
}
