package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// pinPrefix begins the names of policies that were made for a pin alone.
const pinPrefix = "pin-"

// pin fixes, or with nothing to go to frees, where one site's requests for a service
// go. It is kept in the TrafficPolicy that says how the service is shared, one made
// for it where there is none.
func (s *Server) pin(ctx context.Context, r siteapi.PinRequest) (*siteapi.Result, error) {
	out := &siteapi.Result{Site: s.cfg.Site, DryRun: r.DryRun, Changes: []siteapi.Change{}}
	fault := func(format string, v ...any) {
		out.Faults = append(out.Faults, mesh.Fault{Object: string(r.Service), Message: fmt.Sprintf(format, v...)})
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	var policy *mesh.TrafficPolicy
	err := s.do(ctx, func() {
		var err error
		if policy, err = s.pinPolicy(r); err != nil {
			fault("%v", err)
		}
	})
	if err != nil || len(out.Faults) > 0 {
		return out, err
	}
	sharing := policy.Spec.SiteSharing
	sharing.Pins = slices.DeleteFunc(sharing.Pins, func(p mesh.SitePin) bool { return p.From == r.From })
	if len(r.To) > 0 {
		sharing.Pins = append(sharing.Pins, mesh.SitePin{From: r.From, To: r.To})
	}
	if len(sharing.Pins) == 0 && strings.HasPrefix(policy.Metadata.Name, pinPrefix) {
		return s.unset(ctx, out, []mesh.Key{{Kind: mesh.KindTrafficPolicy, Namespace: policy.Metadata.Namespace, Name: policy.Metadata.Name}})
	}
	document, err := json.Marshal(policy)
	if err != nil {
		return nil, err
	}
	objects, err := mesh.ParseSources([]mesh.Source{{Name: "pin", Data: document}})
	if faults, ok := err.(*mesh.Faults); ok { //nolint:errorlint // as ParseSources returns it
		out.Faults = faults.List
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return s.set(ctx, out, objects)
}

// pinPolicy is a copy of the policy that a pin belongs into. Loop only.
func (s *Server) pinPolicy(r siteapi.PinRequest) (*mesh.TrafficPolicy, error) {
	namespace, name, ok := strings.Cut(string(r.Service), "/")
	if !ok || namespace == "" || name == "" {
		return nil, fmt.Errorf("service %q: want namespace/name", r.Service)
	}
	svc, ok := s.world.Get(mesh.Key{Kind: mesh.KindMeshService, Namespace: namespace, Name: name})
	if !ok {
		return nil, fmt.Errorf("there is no MeshService %s here", r.Service)
	}
	if m, ok := svc.Doc.(*mesh.MeshService); ok && len(r.To) > 0 && (m.Spec.Export == nil || m.Spec.Export.Scope != mesh.ScopeMesh) {
		return nil, fmt.Errorf("it is not shared between sites (export: {scope: mesh})")
	}
	known := s.siteNames()
	for _, site := range append([]string{r.From}, namesOf(r.To)...) {
		if !slices.Contains(known, site) {
			return nil, fmt.Errorf("there is no site %q; there are: %s", site, strings.Join(known, ", "))
		}
	}
	var all mesh.Objects
	for _, o := range s.world.List() {
		if p, ok := o.Doc.(*mesh.TrafficPolicy); ok && !o.Shadowed {
			all.TrafficPolicies = append(all.TrafficPolicies, p)
		}
	}
	for _, origin := range mesh.PolicyOrigins(&all, r.Service) {
		if origin.Section != "siteSharing" {
			continue
		}
		o, _ := s.world.Get(origin.Policy)
		policy, ok := o.Doc.(*mesh.TrafficPolicy)
		if !ok {
			return nil, fmt.Errorf("%s cannot be read", origin.Policy)
		}
		if len(policy.Spec.TargetRefs) > 1 {
			return nil, fmt.Errorf("%s sets its siteSharing together with that of other targets: give the service a policy of its own first", origin.Policy)
		}
		data, err := json.Marshal(policy) // a copy: the world's own must not change
		if err != nil {
			return nil, err
		}
		policy = new(mesh.TrafficPolicy)
		return policy, json.Unmarshal(data, policy)
	}
	if len(r.To) == 0 {
		return nil, fmt.Errorf("nothing is pinned")
	}
	return &mesh.TrafficPolicy{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindTrafficPolicy},
		Metadata: mesh.ObjectMeta{Namespace: namespace, Name: pinPrefix + name},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs:  []mesh.PolicyTargetRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: name}},
			SiteSharing: &mesh.SiteSharing{},
		},
	}, nil
}

func namesOf(to []mesh.PinShare) []string {
	var out []string
	for _, t := range to {
		out = append(out, t.Site)
	}
	return out
}
