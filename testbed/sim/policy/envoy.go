package policy

import (
	"math"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

// ZoneShares is Envoy's zone-aware routing (load_balancer_impl.cc): the parts of
// its requests that zone 0 sends to each zone, from the parts of all proxies and of
// all upstream hosts that stand in each. It looks at counts only.
func ZoneShares(proxies, hosts []int) []float64 {
	parts := func(xs []int) []float64 {
		sum := 0
		for _, x := range xs {
			sum += x
		}
		out := make([]float64, len(xs))
		for i, x := range xs {
			out[i] = 10000 * float64(x) / float64(max(1, sum))
		}
		return out
	}
	a, u := parts(proxies), parts(hosts)
	out := make([]float64, len(hosts))
	if u[0] >= a[0] {
		out[0] = 1
		return out
	}
	out[0] = u[0] / a[0]
	sum := 0.0
	for z := 1; z < len(u); z++ {
		sum += math.Max(0, u[z]-a[z])
	}
	for z := 1; z < len(u) && sum > 0; z++ {
		out[z] = (1 - out[0]) * math.Max(0, u[z]-a[z]) / sum
	}
	return out
}

// zoneAware is Envoy's zone-aware routing with one proxy at each site and as many
// hosts as the site has slots.
type zoneAware struct{ weighted }

func (p *zoneAware) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	for i := range m.Len() {
		sites := append([]int{i}, m.Nearest(i)...)
		proxies, hosts, row := make([]int, len(sites)), make([]int, len(sites)), make([]float64, m.Len())
		for k, j := range sites {
			proxies[k], hosts[k] = 1, m.Site(j).Slots
		}
		for k, x := range ZoneShares(proxies, hosts) {
			row[sites[k]] = x
		}
		p.split[i].set(i, row)
	}
	return nil
}

// Constants of Envoy's load-aware locality routing, as documented.
const (
	loadAwareTau    = 5.0 // s
	loadAwareBand   = 0.1
	loadAwareProbes = 0.03
)

// LoadShares is Envoy's load-aware locality routing: the parts that locality 0
// sends to each, from hosts and smoothed utilisations.
func LoadShares(hosts []int, utilisation []float64) []float64 {
	out := make([]float64, len(hosts))
	sum, remoteHosts, remoteUtil := 0.0, 0.0, 0.0
	for l := range hosts {
		out[l] = float64(hosts[l]) * math.Max(0, 1-utilisation[l])
		sum += out[l]
		if l > 0 {
			remoteHosts += float64(hosts[l])
			remoteUtil += float64(hosts[l]) * utilisation[l]
		}
	}
	if sum == 0 {
		for l := range hosts {
			out[l] = float64(hosts[l])
			sum += out[l]
		}
	}
	if remoteHosts == 0 || utilisation[0] <= remoteUtil/remoteHosts+loadAwareBand {
		for l := range out {
			out[l] = 0
		}
		out[0], sum = 1, 1
	}
	for l := range out {
		out[l] /= sum
	}
	// A few requests go elsewhere always, so that utilisations are heard of.
	if missing := loadAwareProbes - (1 - out[0]); missing > 0 && remoteHosts > 0 {
		out[0] -= missing
		for l := 1; l < len(out); l++ {
			out[l] += missing * float64(hosts[l]) / remoteHosts
		}
	}
	return out
}

// loadAware recomputes LoadShares every second.
type loadAware struct {
	weighted
	reports
	util [][]float64 // smoothed, by site and then by place in its list
}

func (p *loadAware) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	p.start(m)
	p.util = make([][]float64, m.Len())
	m.After(1e9, kindStep, 0, 0)
	return nil
}

func (p *loadAware) Pick(r int32, from int) int { return p.weighted.Pick(r, from) }

func (p *loadAware) Handle(kind uint8, _, _ int32) {
	if kind == kindSample {
		p.sample()
		return
	}
	if kind != kindStep {
		return
	}
	m := p.weighted.m
	for i := range m.Len() {
		sites := append([]int{i}, m.Nearest(i)...)
		hosts, row := make([]int, len(sites)), make([]float64, m.Len())
		first := p.util[i] == nil
		if first {
			p.util[i] = make([]float64, len(sites))
		}
		for k, j := range sites {
			hosts[k] = m.Site(j).Slots
			u := p.of(i, j).utilisation
			if first {
				p.util[i][k] = u
			} else {
				p.util[i][k] += -math.Expm1(-1/loadAwareTau) * (u - p.util[i][k])
			}
		}
		for k, x := range LoadShares(hosts, p.util[i]) {
			row[sites[k]] = x
		}
		p.split[i].set(i, row)
	}
	m.After(1e9, kindStep, 0, 0)
}
