package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// traceFor bounds how long a proxy is waited for that sends a request.
const traceFor = 9 * time.Second

// trace has a proxy of this site or, at the hub, of any send a request.
func (s *Server) trace(ctx context.Context, r siteapi.TraceRequest) (*mesh.Traced, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, traceFor)
	defer done()
	if r.Site == "" || r.Site == s.cfg.Site {
		return s.traceHere(ctx, r)
	}
	if !s.cfg.Hub {
		return nil, fmt.Errorf("site %s sends requests for the hub alone: ask at the hub's controller or that of the site", r.Site)
	}
	site := r.Site
	r.Site = ""
	request, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	data, err := s.conn.Call(ctx, site, siteapi.VerbTrace, request)
	if err != nil {
		return nil, err
	}
	out := new(mesh.Traced)
	return out, json.Unmarshal(data, out)
}

// traceHere has a proxy of this site send it.
func (s *Server) traceHere(ctx context.Context, r siteapi.TraceRequest) (*mesh.Traced, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	s.log.Info("a request is traced", "node", r.Node, "method", r.Method, "host", r.Host, "path", r.Path, "id", r.ID)
	request, err := json.Marshal(r.TraceQuery)
	if err != nil {
		return nil, err
	}
	data, err := s.conn.CallNode(ctx, s.cfg.Site, r.Node, bus.VerbTrace, request)
	if err != nil {
		return nil, err
	}
	out := new(mesh.Traced)
	return out, json.Unmarshal(data, out)
}
