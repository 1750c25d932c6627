package edgeproxy

import (
	"context"
	"errors"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Tap answers a query of a tap: the first of its session turns it on.
func (s *Server) Tap(q *mesh.TapQuery) (*mesh.TapAnswer, error) {
	out, err := s.tap.Ask(q)
	if err != nil {
		return nil, err
	}
	out.Site, out.Node = s.whoAmI()
	for i := range out.Requests {
		out.Requests[i].Site, out.Requests[i].Node = out.Site, out.Node
	}
	return out, nil
}

// Failed answers which requests failed or took long, and why.
func (s *Server) Failed(q *mesh.FailedQuery) (*mesh.FailedAnswer, error) {
	out, err := s.tap.Failed(q)
	if err != nil {
		return nil, err
	}
	out.Site, out.Node = s.whoAmI()
	for i := range out.Requests {
		out.Requests[i].Site, out.Requests[i].Node = out.Site, out.Node
	}
	return out, nil
}

func (s *Server) whoAmI() (site, node string) {
	site = string(s.current().View.Site)
	if c, ok := s.deps.Sharing.(*Cooperation); ok {
		node = c.Node
	}
	return site, node
}

// explainEnded says where a request such as one that just ended would go now. What is
// known of it are its host, its path and, where it came that far, its rule and service:
// those two are taken as they were, since the headers by which they may have been
// chosen are not known.
func (s *Server) explainEnded(e *mesh.EndedRequest) (*mesh.Explanation, error) {
	release, err := s.Acquire(context.Background())
	if err != nil {
		return nil, err
	}
	defer release()
	if e.Service == "" {
		return s.Explain(&mesh.ExplainQuery{Host: e.Authority, Path: e.Path, Method: e.Method})
	}
	st := s.state.Load()
	s.mu.Lock()
	snap := s.snap
	s.mu.Unlock()
	if st == nil || snap == nil {
		return nil, errors.New("nothing is served any more")
	}
	x := explainer{s: s, v: st.View, snap: snap, now: s.Now()}
	if e.ID != "" {
		x.fields = []stream.Field{{Name: []byte("x-request-id"), Value: []byte(e.ID)}}
	}
	out := &mesh.Explanation{Generation: st.View.Generation, Rule: e.Rule}
	out.Site, out.Node = s.whoAmI()
	if c, ok := s.deps.Sharing.(*Cooperation); ok {
		x.coop = c
	}
	if _, path, ok := route.Normalize([]byte(e.Path), nil); ok {
		out.Path = string(path)
	}
	svc := st.View.Services[e.Service]
	if svc == nil {
		out.Answer = "404: there is no service " + string(e.Service) + " here any more"
		return out, nil
	}
	b := mesh.ExplainedBackend{Service: e.Service, Chance: 1, Sites: []mesh.ExplainedSite{}}
	if x.eastWest(e.Gateway) {
		x.handedIn(&b, svc)
	} else {
		x.backend(&b, svc)
	}
	out.Backends = append(out.Backends, b)
	return out, nil
}

// eastWest reports whether a gateway is where other sites hand requests in.
func (x *explainer) eastWest(gateway string) bool {
	for _, socket := range x.v.Sockets {
		if socket.Gateway == gateway && socket.EastWest() {
			return true
		}
	}
	return false
}
