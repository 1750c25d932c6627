//go:build wasip1

// Command wasm is a function of requests for the proxy's chains: it gives each request
// the tier of its customer and a note of where it came from, and answers those of
// customers that are blocked. make wasm builds it as
// bin/function.wasm.
package main

import (
	"strings"

	"github.com/meridian-mesh/meridian/edgeproxy/function/guest"
)

// blocked are the customers of the document's config, split by commas.
var blocked = map[string]bool{}

func init() {
	for name := range strings.SplitSeq(guest.Config(), ",") {
		blocked[strings.TrimSpace(name)] = true
	}
	guest.OnRequest = func(r guest.Message) bool {
		customer, agent := r.Get("x-customer"), r.Get("user-agent")
		if customer != "" && blocked[customer] {
			guest.Answer(403, "customer "+customer+" is blocked\n").Set("x-why", "blocked")
			return false
		}
		tier := "basic"
		if strings.HasPrefix(customer, "gold-") {
			tier = "gold"
		}
		r.Set("x-tier", tier)
		r.Set("x-client", agent)
		return true
	}
}

func main() {}
