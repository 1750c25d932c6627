package kube

import (
	"encoding/json"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// closed stands for an AuthorizationPolicy that cannot be read as it is: its targets, as
// far as they can, let nobody in until it is put right. Leaving it out would open what
// it protects.
func closed(spec json.RawMessage, meta mesh.ObjectMeta) *mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{Metadata: meta, Spec: mesh.AuthorizationPolicySpec{Action: mesh.ActionAllow}}
	var said struct {
		TargetRefs []mesh.AuthorizationTargetRef `json:"targetRefs"`
	}
	if json.Unmarshal(spec, &said) != nil {
		said.TargetRefs = nil // then it is for all of the site
	}
	p.Spec.TargetRefs = said.TargetRefs
	p.Spec.TargetRefs = slices.DeleteFunc(p.Spec.TargetRefs, func(t mesh.AuthorizationTargetRef) bool {
		one := mesh.Objects{AuthorizationPolicies: []*mesh.AuthorizationPolicy{{
			Metadata: meta, Spec: mesh.AuthorizationPolicySpec{Action: mesh.ActionAllow, TargetRefs: []mesh.AuthorizationTargetRef{t}},
		}}}
		mesh.Default(&one)
		return mesh.Validate(&one) != nil
	})
	if len(said.TargetRefs) > 0 && len(p.Spec.TargetRefs) == 0 {
		return nil // what it names is nothing that a policy can be for
	}
	one := mesh.Objects{AuthorizationPolicies: []*mesh.AuthorizationPolicy{p}}
	mesh.Default(&one)
	if mesh.Validate(&one) != nil {
		return nil
	}
	return p
}

// strict stands for a PeerAuthentication that cannot be read as it is: until it is put
// right its namespace takes nothing from other sites without TLS.
func strict(meta mesh.ObjectMeta) *mesh.PeerAuthentication {
	return &mesh.PeerAuthentication{Metadata: meta, Spec: mesh.PeerAuthenticationSpec{MTLS: mesh.MTLSStrict}}
}
