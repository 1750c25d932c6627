package edgeproxy

import (
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/budget"
	"github.com/meridian-mesh/meridian/controller/fence"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/geo/rtt"
)

// read says what a snapshot shares and with whom.
func (c *Cooperation) read(s *mesh.Snapshot) ([]share.Service, []way, *sharing) {
	out := &sharing{
		services: map[mesh.ServiceKey]bool{}, up: map[mesh.ServiceKey]bool{},
		gates: map[mesh.ServiceKey]*gate{}, reports: map[mesh.ServiceKey]*report{},
	}
	if c.Site == "" {
		return nil, nil, out
	}
	drained := slices.ContainsFunc(s.Objects.Sites, func(x *mesh.Site) bool {
		return x.Metadata.Name == c.Site && x.Spec.Traffic == mesh.SiteDrained
	})
	fences := fence.Compile(&s.Objects)
	names := make([]string, len(s.Objects.Sites))
	for i, x := range s.Objects.Sites {
		names[i] = x.Metadata.Name
	}
	var services []share.Service
	for _, m := range s.Objects.Services {
		if m.Spec.Export == nil || m.Spec.Export.Scope != mesh.ScopeMesh || out.services[m.Key()] {
			continue
		}
		policy := mesh.EffectivePolicy(&s.Objects, m.Key()).SiteSharing
		services = append(services, share.Service{
			Key: m.Key(), Policy: policy.Policy, StayHome: policy.StayHome, ShedAfterMS: shedAfterMS(policy), Classes: plan.Classes(policy), DeclaredMS: c.declaredMS(m), Sessions: m.CountsSessions(), Drained: drained, Pin: policy.PinOf(c.Site),
			Barred: fences.Barred(m.Key(), names),
		})
		out.services[m.Key()] = true
		out.up[m.Key()] = fences.Bars(m.Key(), c.Site) == "" && slices.ContainsFunc(m.Spec.Endpoints, c.atHome)
	}
	return services, c.waysTo(s.Objects.Sites), out
}

// shedAfterMS is the policy's longest wait, 0 for none.
func shedAfterMS(p *mesh.SiteSharing) float64 {
	if p.ShedAfter == nil {
		return 0
	}
	return ms(p.ShedAfter.D())
}

func (c *Cooperation) atHome(e mesh.Endpoint) bool { return e.Site == "" || e.Site == c.Site }

// declaredMS is the mean declared service time at home, by slots; 0 for none.
func (c *Cooperation) declaredMS(m *mesh.MeshService) float64 {
	slots, sum := 0.0, 0.0
	for _, e := range m.Spec.Endpoints {
		if e.Capacity != nil && c.atHome(e) {
			n := float64(e.Capacity.Concurrency)
			slots += n
			sum += n * e.Capacity.ServiceTime.D().Seconds() * 1000
		}
	}
	if slots == 0 {
		return 0
	}
	return sum / slots
}

// waysTo lists the other sites and how to reach them: by the address of the own
// site's link, which is there because the advertised ones do not reach, else by
// the site's gateways. The round trip is the link's, else guessed by distance.
func (c *Cooperation) waysTo(sites []*mesh.Site) []way {
	var own *mesh.Site
	for _, s := range sites {
		if s.Metadata.Name == c.Site {
			own = s
		}
	}
	var out []way
	for _, s := range sites {
		if s == own || slices.ContainsFunc(out, func(w way) bool { return w.Site == s.Metadata.Name }) {
			continue
		}
		w := way{Peer: share.Peer{Site: s.Metadata.Name, Excluded: s.Excluded()}}
		for _, g := range s.Spec.Gateways {
			w.addresses = append(w.addresses, g.Address)
		}
		if own != nil {
			meters := geo.DistanceMeters(pointOf(own), pointOf(s))
			w.RTTMS = ms(rtt.Prior(meters, rtt.DefaultAccess, rtt.DefaultAccess))
			for _, l := range own.Spec.Links {
				if l.To != w.Site {
					continue
				}
				w.PriceMS, w.MaxRate, w.Budget = l.Price, l.MaxRate, l.Budget != nil
				if w.Budget {
					w.budget = budget.LimitOf(l.Budget)
				}
				if l.RTT != nil {
					w.RTTMS = ms(l.RTT.D())
				}
				if l.Address != "" {
					w.addresses = []string{l.Address}
				}
			}
		}
		if len(w.addresses) == 0 && w.Excluded == "" {
			w.Excluded = "no route: the site advertises no gateway"
		}
		out = append(out, w)
	}
	return out
}

func pointOf(s *mesh.Site) [2]float64 { return [2]float64{s.Spec.Location.Lon, s.Spec.Location.Lat} }

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
