package view

import (
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Busy is the number in flight that the service's slots see: its own requests and
// those of services that share a machine with it.
func (s *Service) Busy() int {
	n := int(s.Service.InFlight.Load())
	for _, m := range s.Mates {
		n += int(m.InFlight.Load())
	}
	return n
}

// pooled notes the slots that an endpoint has in a pool.
func (b *builder) pooled(s *Service, c *mesh.Capacity, slots int) {
	if c == nil || c.Pool == "" {
		s.unpooled += slots
		return
	}
	if s.pools == nil {
		s.pools = map[string]int{}
	}
	s.pools[c.Pool] += slots
}

// pools finds the services that share machines, directly or by way of others. A
// machine has as many slots as the service that declares most of them there, and a
// group as many as its machines together with what its services have elsewhere.
func (b *builder) pools() {
	var with []*Service
	for _, m := range b.snap.Objects.Services {
		if s := b.view.Services[m.Key()]; s != nil && len(s.pools) > 0 && !m.CountsSessions() && !slices.Contains(with, s) {
			with = append(with, s)
		}
	}
	left := slices.Clone(with)
	for len(left) > 0 {
		group, slots := []*Service{left[0]}, map[string]int{}
		left = left[1:]
		for k := 0; k < len(group); k++ {
			for pool, n := range group[k].pools {
				slots[pool] = max(slots[pool], n)
			}
			left = slices.DeleteFunc(left, func(s *Service) bool {
				for pool := range s.pools {
					if _, shares := group[k].pools[pool]; shares {
						group = append(group, s)
						return true
					}
				}
				return false
			})
		}
		total := 0
		for _, n := range slots {
			total += n
		}
		for _, s := range group {
			total += s.unpooled
		}
		for _, s := range group {
			s.Concurrency = total
			for _, m := range group {
				if m != s {
					s.Mates = append(s.Mates, m.Service)
				}
			}
		}
	}
}

// MateKeys appends the keys of the services that share a machine with it.
func (s *Service) MateKeys(dst []mesh.ServiceKey) []mesh.ServiceKey {
	for _, m := range s.Mates {
		dst = append(dst, m.Key)
	}
	return dst
}
