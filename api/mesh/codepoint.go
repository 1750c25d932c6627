package mesh

// CodePoint is the DSCP by which a chain of packets knows connections that routes open for
// it: the one, other than 0, that all of its matches name. ok is false where there is none.
func (s *ServiceChainSpec) CodePoint() (dscp uint8, ok bool) {
	if s.ForRequests() {
		return 0, false
	}
	for i := range s.Match {
		named := s.Match[i].DSCP
		if len(named) != 1 || i > 0 && named[0] != int(dscp) {
			return 0, false
		}
		dscp = uint8(named[0])
	}
	return dscp, dscp != 0
}

// NoCodePoint says why a route cannot name a chain that has an ingress of its own, empty
// where it can: its connections are then to pass the chain.
func (c *ServiceChain) NoCodePoint() string {
	name := "ServiceChain " + c.Metadata.Namespace + "/" + c.Metadata.Name
	if c.Spec.ForRequests() {
		return name + " has an ingress of its own: a route names those that have none"
	}
	if _, ok := c.Spec.CodePoint(); !ok {
		return name + " is of packets, and a route can send connections by it only where all of its matches name the same dscp, one other than 0"
	}
	return ""
}
