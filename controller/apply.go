package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// change is one object to write, or with a nil doc to delete.
type change struct {
	siteapi.Change
	doc any
}

// apply sets objects, all of them or none.
func (s *Server) apply(ctx context.Context, r siteapi.ApplyRequest) (*siteapi.Result, error) {
	sources := make([]mesh.Source, 0, len(r.Documents))
	for _, d := range r.Documents {
		sources = append(sources, mesh.Source{Name: d.Name, Data: []byte(d.YAML)})
	}
	out := &siteapi.Result{Site: s.cfg.Site, DryRun: r.DryRun, Changes: []siteapi.Change{}}
	objects, err := mesh.ParseSources(sources)
	if faults := (*mesh.Faults)(nil); errors.As(err, &faults) {
		out.Faults = faults.List
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if objects.Len() == 0 {
		out.Faults = []mesh.Fault{{Message: "there is no document in the input"}}
		return out, nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.set(ctx, out, objects)
}

// set is apply once its documents are read. The caller holds writing.
func (s *Server) set(ctx context.Context, out *siteapi.Result, objects *mesh.Objects) (*siteapi.Result, error) {
	if err := errors.Join(s.errStandby(), s.held(ctx)); err != nil {
		return nil, err
	}
	var changes []change
	err := s.do(ctx, func() {
		for key, doc := range objects.All() {
			if err := s.world.Claim(key); err != nil {
				p := objects.Positions[key]
				out.Faults = append(out.Faults, mesh.Fault{
					File: p.File, Line: p.Line, Column: p.Column, Object: key.String(), Message: err.Error(),
				})
				continue
			}
			have, ok := s.world.Get(key)
			if err := s.errBrought(doc, have.Doc); err != nil {
				p := objects.Positions[key]
				out.Faults = append(out.Faults, mesh.Fault{File: p.File, Line: p.Line, Column: p.Column, Object: key.String(), Message: err.Error()})
				continue
			}
			action := siteapi.Created
			if ok {
				action = siteapi.Updated
				if sameJSON(have.Doc, doc) {
					action = siteapi.Unchanged
				}
			}
			changes = append(changes, change{siteapi.Change{Key: key, Action: action}, doc})
		}
		if len(out.Faults) == 0 {
			out.Conditions = s.conditionsWith(objects)
		}
	})
	if err != nil || len(out.Faults) > 0 {
		return out, err
	}
	return s.write(ctx, out, changes)
}

// delete removes objects, all of them or none.
func (s *Server) delete(ctx context.Context, r siteapi.DeleteRequest) (*siteapi.Result, error) {
	out := &siteapi.Result{Site: s.cfg.Site, DryRun: r.DryRun, Changes: []siteapi.Change{}}
	if len(r.Keys) == 0 {
		out.Faults = []mesh.Fault{{Message: "no object is named"}}
		return out, nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.unset(ctx, out, r.Keys)
}

// unset is delete for a caller that holds writing.
func (s *Server) unset(ctx context.Context, out *siteapi.Result, keys []mesh.Key) (*siteapi.Result, error) {
	if err := errors.Join(s.errStandby(), s.held(ctx)); err != nil {
		return nil, err
	}
	var changes []change
	err := s.do(ctx, func() {
		for _, key := range keys {
			if have, ok := s.world.Get(key); !ok {
				out.Faults = append(out.Faults, mesh.Fault{Object: key.String(), Message: "there is no such object"})
			} else if err := errors.Join(s.world.Claim(key), s.errBrought(have.Doc)); err != nil {
				out.Faults = append(out.Faults, mesh.Fault{Object: key.String(), Message: err.Error()})
			}
			changes = append(changes, change{siteapi.Change{Key: key, Action: siteapi.Deleted}, nil})
		}
	})
	if err != nil || len(out.Faults) > 0 {
		return out, err
	}
	return s.write(ctx, out, changes)
}

// write stores changes and returns when the world has them, so that who asks
// next sees them.
func (s *Server) write(ctx context.Context, out *siteapi.Result, changes []change) (*siteapi.Result, error) {
	for _, c := range changes {
		out.Changes = append(out.Changes, c.Change)
	}
	if out.DryRun {
		return out, nil
	}
	written, err := s.signed(ctx)
	if err != nil {
		return nil, err
	}
	defer written()
	wait := map[mesh.Key]uint64{}
	for i, c := range changes {
		if c.Action == siteapi.Unchanged {
			continue
		}
		rev, err := s.store(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%d of %d changes were stored, then: %w; run it again to complete it", i, len(changes), err)
		}
		wait[c.Key] = rev
	}
	if err := s.await(ctx, wait); err != nil {
		return nil, err
	}
	return out, nil
}

// await returns when the world has the given revisions of its own bucket.
func (s *Server) await(ctx context.Context, wait map[mesh.Key]uint64) error {
	for {
		err := s.do(ctx, func() {
			for key, rev := range wait {
				if s.revisions[key] >= rev {
					delete(wait, key)
				}
			}
		})
		if err != nil || len(wait) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the changes are stored but not in force yet: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *Server) store(ctx context.Context, c change) (uint64, error) {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	known := bus.AnyRevision
	if s.lease != nil {
		// One that was taken over from must not write over what its successor wrote.
		if err := s.do(ctx, func() { known = bus.Revision(s.revisions[c.Key]) }); err != nil {
			return 0, err
		}
	}
	if c.doc == nil {
		return s.own.Delete(ctx, c.Key, known)
	}
	data, err := json.Marshal(c.doc)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", c.Key, err)
	}
	return s.own.Put(ctx, c.Key, data, known)
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// preload applies the documents this controller was started with. What somebody
// else owns by now is left to its owner: it must not keep a site from starting.
func (s *Server) preload(ctx context.Context) error {
	if err := s.held(ctx); err != nil {
		s.log.Error("configuration files are not loaded", "err", err)
		return nil
	}
	docs := make([]siteapi.Document, 0, len(s.cfg.Preload))
	for _, p := range s.cfg.Preload {
		docs = append(docs, siteapi.Document{Name: p.Name, YAML: string(p.Data)})
	}
	out, err := s.apply(by(ctx, "files at the start"), siteapi.ApplyRequest{Documents: docs})
	if err != nil {
		return fmt.Errorf("controller: load configuration: %w", err)
	}
	for _, f := range out.Faults {
		s.log.Error("configuration file is not loaded", "fault", f.String())
	}
	for _, c := range out.Conditions {
		s.log.Warn("configuration", "condition", c.String())
	}
	return nil
}

// conditions are what is wrong between the objects in force.
func (s *Server) conditions() []mesh.Condition {
	return s.conditionsWith(nil)
}

// conditionsWith is conditions as they would be with some objects set; then only
// those that concern these objects are returned.
func (s *Server) conditionsWith(set *mesh.Objects) []mesh.Condition {
	all := &mesh.Objects{}
	named := map[mesh.Key]bool{}
	if set != nil {
		*all = mesh.Objects{
			Gateways: set.Gateways, HTTPRoutes: set.HTTPRoutes, GRPCRoutes: set.GRPCRoutes, TCPRoutes: set.TCPRoutes, TLSRoutes: set.TLSRoutes, UDPRoutes: set.UDPRoutes, Sites: set.Sites,
			Services: set.Services, TrafficPolicies: set.TrafficPolicies, LocalResponses: set.LocalResponses, ReferenceGrants: set.ReferenceGrants, GeoFences: set.GeoFences, AuthorizationPolicies: set.AuthorizationPolicies, PeerAuthentications: set.PeerAuthentications, Callers: set.Callers,
			Certificates: set.Certificates, TrustBundles: set.TrustBundles,
			NetworkFunctions: set.NetworkFunctions, ServiceChains: set.ServiceChains, ChainNodes: set.ChainNodes, AfSfcRequirements: set.AfSfcRequirements, Positions: set.Positions,
		}
		for key := range set.All() {
			named[key] = true
		}
	}
	for _, o := range s.world.List() {
		if !o.Shadowed && !named[o.Key] {
			add(all, o)
		}
	}
	var out []mesh.Condition
	for _, c := range mesh.Check(all) {
		if set != nil && !named[c.Object] {
			continue
		}
		// What the hub's objects refer to may be in a site's own configuration,
		// which the hub does not see: the site says whether it is.
		if s.world.Owner() == world.Hub && dangling[c.Reason] {
			continue
		}
		out = append(out, c)
	}
	return out
}

var dangling = map[string]bool{
	mesh.ReasonNoMatchingParent: true, mesh.ReasonBackendNotFound: true, mesh.ReasonTargetNotFound: true,
	mesh.ReasonFilterNotFound: true, mesh.ReasonInvalidCertificateRef: true,
}

func add(all *mesh.Objects, o world.Object) {
	switch d := o.Doc.(type) {
	case *mesh.Gateway:
		all.Gateways = append(all.Gateways, d)
	case *mesh.HTTPRoute:
		all.HTTPRoutes = append(all.HTTPRoutes, d)
	case *mesh.GRPCRoute:
		all.GRPCRoutes = append(all.GRPCRoutes, d)
	case *mesh.TCPRoute:
		all.TCPRoutes = append(all.TCPRoutes, d)
	case *mesh.TLSRoute:
		all.TLSRoutes = append(all.TLSRoutes, d)
	case *mesh.UDPRoute:
		all.UDPRoutes = append(all.UDPRoutes, d)
	case *mesh.Site:
		all.Sites = append(all.Sites, d)
	case *mesh.MeshService:
		all.Services = append(all.Services, d)
	case *mesh.TrafficPolicy:
		all.TrafficPolicies = append(all.TrafficPolicies, d)
	case *mesh.LocalResponse:
		all.LocalResponses = append(all.LocalResponses, d)
	case *mesh.Certificate:
		all.Certificates = append(all.Certificates, d)
	case *mesh.TrustBundle:
		all.TrustBundles = append(all.TrustBundles, d)
	case *mesh.ReferenceGrant:
		all.ReferenceGrants = append(all.ReferenceGrants, d)
	case *mesh.GeoFence:
		all.GeoFences = append(all.GeoFences, d)
	case *mesh.AuthorizationPolicy:
		all.AuthorizationPolicies = append(all.AuthorizationPolicies, d)
	case *mesh.PeerAuthentication:
		all.PeerAuthentications = append(all.PeerAuthentications, d)
	case *mesh.NetworkFunction:
		all.NetworkFunctions = append(all.NetworkFunctions, d)
	case *mesh.ServiceChain:
		all.ServiceChains = append(all.ServiceChains, d)
	case *mesh.Caller:
		all.Callers = append(all.Callers, d)
	case *mesh.ChainNode:
		all.ChainNodes = append(all.ChainNodes, d)
	case *mesh.AfSfcRequirement:
		all.AfSfcRequirements = append(all.AfSfcRequirements, d)
	}
}
