package mesh

import (
	"cmp"
	"fmt"
	"slices"
)

// KindReferenceGrant is the kind of [ReferenceGrant].
const KindReferenceGrant = "ReferenceGrant"

// ReferenceGrant lets routes of other namespaces name services of its own
// (Gateway API, ReferenceGrant). Every pair of a From and a To is granted.
type ReferenceGrant struct {
	TypeMeta
	Metadata ObjectMeta         `json:"metadata"`
	Spec     ReferenceGrantSpec `json:"spec"`
}

// ReferenceGrantSpec is the content of a ReferenceGrant.
type ReferenceGrantSpec struct {
	From []ReferenceGrantFrom `json:"from"`
	To   []ReferenceGrantTo   `json:"to"`
}

// ReferenceGrantFrom names who may refer: the routes of a kind in a namespace.
type ReferenceGrantFrom struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
}

// ReferenceGrantTo names what may be referred to in the grant's namespace: one
// object, or all of the kind. The empty group is Kubernetes' core.
type ReferenceGrantTo struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name,omitempty"`
}

// PermitsBackend reports whether a route of the kind and namespace may name the
// MeshService: it is of the same namespace, or a ReferenceGrant there says so.
func (o *Objects) PermitsBackend(kind, from, namespace, service string) bool {
	if cmp.Or(namespace, from) == from {
		return true
	}
	return slices.ContainsFunc(o.ReferenceGrants, func(g *ReferenceGrant) bool {
		return g.Metadata.Namespace == namespace &&
			slices.ContainsFunc(g.Spec.From, func(f ReferenceGrantFrom) bool {
				return f.Group == GatewayGroup && f.Kind == kind && f.Namespace == from
			}) &&
			slices.ContainsFunc(g.Spec.To, func(t ReferenceGrantTo) bool {
				return t.Group == MeshGroup && t.Kind == KindMeshService && (t.Name == "" || t.Name == service)
			})
	})
}

// NotPermitted says why a route may not name the MeshService, and what to do.
func NotPermitted(kind, from string, service ServiceKey) string {
	return fmt.Sprintf("MeshService %s is in another namespace, and no ReferenceGrant there lets %ss of %s name it", service, kind, from)
}

func grantToRelations(t *ReferenceGrantTo, fault faultFunc) {
	want := ""
	if t.Kind == KindMeshService {
		want = MeshGroup
	}
	if t.Group != want {
		fault("group", fmt.Sprintf("%q is not that of kind %s", t.Group, t.Kind), fmt.Sprintf("write group: %q", want))
	}
}
