package share

import "github.com/meridian-mesh/meridian/api/mesh"

// pool is what the services that share a machine with one do there: their load as
// arrivals of this one, by the time that theirs take, and their requests in flight.
// Nothing where it has the machine to itself.
type pool struct {
	perS     float64
	inFlight int
}

// busyWith is the number in flight on a service's machine.
func busyWith(c *Counters, all map[mesh.ServiceKey]*Counters) int {
	n := c.InFlight
	for _, m := range c.Mates {
		if x := all[m]; x != nil {
			n += x.InFlight
		}
	}
	return n
}

// measureMates follows the services that share a machine with a shared one and are
// not shared themselves.
func (n *Node) measureMates(nowNS int64, counters map[mesh.ServiceKey]*Counters) {
	seen := map[mesh.ServiceKey]*service{}
	for _, s := range n.services {
		c := counters[s.Key]
		if c == nil {
			continue
		}
		for _, m := range c.Mates {
			x := counters[m]
			if seen[m] != nil || n.shares(m) || x == nil {
				continue
			}
			mate := n.mates[m]
			if mate == nil || mate.DeclaredMS != x.DeclaredMS {
				mate = newService(Service{Key: m, DeclaredMS: x.DeclaredMS}, n.curves)
			}
			mate.measure(nowNS, x, counters)
			seen[m] = mate
		}
	}
	n.mates = seen
}

func (n *Node) shares(key mesh.ServiceKey) bool { return n.service(key) != nil }

// service finds one that is shared.
func (n *Node) service(key mesh.ServiceKey) *service {
	for _, s := range n.services {
		if s.Key == key {
			return s
		}
	}
	return nil
}

// pool sums what a service's machine does for others. All must have been measured.
func (n *Node) pool(s *service, c *Counters, counters map[mesh.ServiceKey]*Counters) pool {
	p := pool{inFlight: busyWith(c, counters) - c.InFlight}
	for _, m := range c.Mates {
		mate := n.service(m)
		if mate == nil {
			mate = n.mates[m]
		}
		if own := s.serviceTime.MS(); mate != nil && own > 0 {
			p.perS += mate.served.PerS() * mate.serviceTime.MS() / own
		}
	}
	return p
}
