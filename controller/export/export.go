// Package export gives a site's weights to proxies that are not Meridian's: by the
// runtime socket of a HAProxy ([HAProxy]), as a file of Envoy's endpoint discovery
// ([EnvoyEDS]) and as weights of Gateway API routes ([GatewayRoutes]). So a site
// profits from the others before it changes its proxy.
//
// What such a proxy cannot do is decide per request: it follows the plan, ten times a
// second, and not the live price. HAProxy is also asked for its load, which the plan
// is made of; the two file formats need another source of that.
package export

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Service is how the requests of a site's users for one service are to be shared.
type Service struct {
	Key  mesh.ServiceKey
	Port int
	// Shares add up to 1; the site's own is the first.
	Shares []Share
}

// Share is one site's part.
type Share struct {
	Site string
	Part float64
	// Addresses (host:port) are where requests go: the endpoints at home, the
	// gateways of another site.
	Addresses []Address
}

// Address is one place of a share.
type Address struct {
	Host string
	Port int
}

// Integers splits total into whole weights as near to the parts as can be (largest
// remainder): they add up to total, and no positive part of at least half a unit
// is rounded away.
func Integers(parts []float64, total int) []int {
	out := make([]int, len(parts))
	sum := 0.0
	for _, p := range parts {
		if p > 0 && !math.IsInf(p, 0) {
			sum += p
		}
	}
	if sum == 0 {
		return out
	}
	type rest struct {
		i    int
		part float64
	}
	var rests []rest
	left := total
	for i, p := range parts {
		if !(p > 0) || math.IsInf(p, 0) {
			continue
		}
		exact := p / sum * float64(total)
		out[i] = int(exact)
		left -= out[i]
		rests = append(rests, rest{i, exact - float64(out[i])})
	}
	slices.SortFunc(rests, func(a, b rest) int { return cmp.Or(cmp.Compare(b.part, a.part), cmp.Compare(a.i, b.i)) })
	for k := range left {
		out[rests[k%len(rests)].i]++
	}
	return out
}

func (s Service) parts() []float64 {
	out := make([]float64, len(s.Shares))
	for i, x := range s.Shares {
		out[i] = x.Part
	}
	return out
}

// fileTotal is what the weights in files add up to.
const fileTotal = 1000

// EnvoyEDS writes services as Envoy's filesystem subscription of endpoint discovery
// reads them (service.discovery.v3.DiscoveryResponse with
// config.endpoint.v3.ClusterLoadAssignment): the cluster's name is the service's
// key with a dot in place of the slash, each site is a locality (zone) with its
// load_balancing_weight. The cluster must have locality_weighted_lb_config.
func EnvoyEDS(services []Service, version string) ([]byte, error) {
	type object = map[string]any
	resources := []object{}
	for _, s := range services {
		weights := Integers(s.parts(), fileTotal)
		localities := []object{}
		for i, share := range s.Shares {
			if weights[i] == 0 || len(share.Addresses) == 0 {
				continue
			}
			var endpoints []object
			for _, a := range share.Addresses {
				endpoints = append(endpoints, object{"endpoint": object{"address": object{
					"socket_address": object{"address": a.Host, "port_value": a.Port},
				}}})
			}
			localities = append(localities, object{
				"locality": object{"zone": share.Site}, "load_balancing_weight": weights[i], "lb_endpoints": endpoints,
			})
		}
		resources = append(resources, object{
			"@type":        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
			"cluster_name": strings.ReplaceAll(string(s.Key), "/", "."), "endpoints": localities,
		})
	}
	data, err := json.MarshalIndent(object{"version_info": version, "resources": resources}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return append(data, '\n'), nil
}

// GatewayRoutes writes services as an HTTPRoute each, whose backends are named
// SERVICE-SITE and weighted; the implementation that reads them must know each as a
// Service or the like. They are for GitOps and kubectl, and attach to the Gateway of
// the given name.
func GatewayRoutes(services []Service, gateway string) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by sitecontroller; changes are overwritten.\n")
	for _, s := range services {
		namespace, name, _ := strings.Cut(string(s.Key), "/")
		fmt.Fprintf(&b, "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s-sites, namespace: %s}\nspec:\n  parentRefs: [{name: %s}]\n  rules:\n  - backendRefs:\n", name, namespace, gateway)
		for i, w := range Integers(s.parts(), fileTotal) {
			fmt.Fprintf(&b, "    - {name: %s-%s, port: %d, weight: %d}\n", name, s.Shares[i].Site, s.Port, w)
		}
	}
	return b.Bytes()
}
