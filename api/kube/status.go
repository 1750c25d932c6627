package kube

import (
	"cmp"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Condition is a metav1.Condition.
type Condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
	LastTransitionTime string `json:"lastTransitionTime"`
	Reason             string `json:"reason"`
	Message            string `json:"message"`
}

// Types of conditions.
const (
	Accepted     = "Accepted"
	Programmed   = "Programmed"
	ResolvedRefs = "ResolvedRefs"
	Conflicted   = "Conflicted"
)

// ClassStatus is the status of a GatewayClass.
type ClassStatus struct {
	Conditions        []Condition `json:"conditions,omitempty"`
	SupportedFeatures []Feature   `json:"supportedFeatures,omitempty"`
}

// Feature names a feature of the Gateway API as its conformance suite does.
type Feature struct {
	Name string `json:"name"`
}

// GatewayStatus is the status of a Gateway.
type GatewayStatus struct {
	Addresses  []GatewayAddress `json:"addresses,omitempty"`
	Conditions []Condition      `json:"conditions,omitempty"`
	Listeners  []ListenerStatus `json:"listeners,omitempty"`
}

// ListenerStatus is the status of one listener.
type ListenerStatus struct {
	Name           string      `json:"name"`
	SupportedKinds []RouteKind `json:"supportedKinds"`
	AttachedRoutes int         `json:"attachedRoutes"`
	Conditions     []Condition `json:"conditions"`
}

// RouteStatus is the status of a route, an entry for each parent and controller.
type RouteStatus struct {
	Parents []ParentStatus `json:"parents"`
}

// ParentStatus is what one controller says of a route and one of its parents.
type ParentStatus struct {
	ParentRef      ParentRef   `json:"parentRef"`
	ControllerName string      `json:"controllerName"`
	Conditions     []Condition `json:"conditions"`
}

// ParentRef names a parent as a route does. Its group is always written: the API
// server makes one that is left out the Gateway API's, and a Service has the empty one.
type ParentRef struct {
	Group       string `json:"group"`
	Kind        string `json:"kind,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName,omitempty"`
	Port        int    `json:"port,omitempty"`
}

// isService reports whether it is a Service of the core group.
func (p *ParentRef) isService() bool { return p.Group == "" && p.Kind == KindService }

// isGateway reports whether it is a Gateway, which it is where it says nothing else.
func (p *ParentRef) isGateway() bool {
	return cmp.Or(p.Group, mesh.GatewayGroup) == mesh.GatewayGroup && cmp.Or(p.Kind, mesh.KindGateway) == mesh.KindGateway
}

// OwnStatus is the status of an object of the mesh's own kinds.
type OwnStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// judgement is a condition before it is known since when it holds.
type judgement struct {
	typ     string
	holds   bool
	reason  string
	message string
}

// settle turns judgements into conditions: what an earlier one already said keeps its
// time. Conditions of other types that the object has stay.
func settle(have []Condition, generation int64, now time.Time, list ...judgement) []Condition {
	var out []Condition
	for _, j := range list {
		c := Condition{Type: j.typ, Status: "False", ObservedGeneration: generation, Reason: j.reason, Message: j.message,
			LastTransitionTime: now.UTC().Format(time.RFC3339)}
		if j.holds {
			c.Status = "True"
		}
		if i := slices.IndexFunc(have, func(h Condition) bool { return h.Type == c.Type }); i >= 0 && have[i].Status == c.Status {
			c.LastTransitionTime = have[i].LastTransitionTime
		}
		out = append(out, c)
	}
	for _, h := range have {
		if !slices.ContainsFunc(out, func(c Condition) bool { return c.Type == h.Type }) {
			out = append(out, h)
		}
	}
	return out
}
