package http1

import "github.com/meridian-mesh/meridian/edgeproxy/stream"

var errHeadLate = fault(408, "head not received in time")

// Refuse gives up on a request whose head has not come whole. It returns the
// stream on which one response may be encoded, the last of the connection; false
// when a request is under way.
func (s *Server) Refuse() (stream.ID, bool) {
	if s.reading || s.writing || s.err != nil {
		return 0, false
	}
	var ev stream.Event
	_ = s.fail(errHeadLate, &ev)
	return s.id, true
}
