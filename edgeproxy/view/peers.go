package view

import "github.com/meridian-mesh/meridian/api/mesh"

// Strict reports whether requests of other sites for a port have to come from proxies by
// their identities; for 0, a port that is not known, whether one of the service's has it so.
func (s *Service) Strict(port int) bool {
	if m, ok := s.Peers[port]; ok {
		return m.MTLS == mesh.MTLSStrict
	}
	for _, m := range s.Peers {
		if m.MTLS == mesh.MTLSStrict {
			return true
		}
	}
	return false
}
