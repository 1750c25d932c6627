package mesh

import (
	"fmt"
	"slices"
)

// AllowedRoutes says which routes may join a listener; without it those of the
// Gateway's namespace (Gateway API, AllowedRoutes).
type AllowedRoutes struct {
	Namespaces *RouteNamespaces `json:"namespaces,omitempty"`
	// Kinds narrows those that the listener's protocol takes.
	Kinds []RouteKind `json:"kinds,omitempty"`
}

// Where routes may come from.
const (
	NamespacesSame     = "Same"
	NamespacesAll      = "All"
	NamespacesSelector = "Selector"
)

// RouteNamespaces are the namespaces whose routes may join.
type RouteNamespaces struct {
	From     string             `json:"from,omitempty"`
	Selector *NamespaceSelector `json:"selector,omitempty"`
}

// NamespaceLabel is the one label that a namespace has here, its name, as
// Kubernetes sets it.
const NamespaceLabel = "kubernetes.io/metadata.name"

// NamespaceSelector selects namespaces by [NamespaceLabel], in the shape of
// Kubernetes' LabelSelector. All of its parts must hold; none is every namespace.
type NamespaceSelector struct {
	MatchLabels      map[string]string      `json:"matchLabels,omitempty"`
	MatchExpressions []NamespaceRequirement `json:"matchExpressions,omitempty"`
}

// Operators of a [NamespaceRequirement].
const (
	OperatorIn    = "In"
	OperatorNotIn = "NotIn"
)

// NamespaceRequirement asks for one of several names, or none of them.
type NamespaceRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// RouteKind is a kind of routes.
type RouteKind struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
}

// Allows reports whether a route of the kind and namespace may join the listener
// of a Gateway of the namespace gateway. What the listener's protocol takes, and
// whether the route names it, is not looked at.
func (l *Listener) Allows(kind, namespace, gateway string) bool {
	a := l.AllowedRoutes
	if a == nil {
		return namespace == gateway
	}
	if len(a.Kinds) > 0 && !slices.ContainsFunc(a.Kinds, func(k RouteKind) bool { return k.Kind == kind }) {
		return false
	}
	switch n := a.Namespaces; {
	case n == nil:
		return namespace == gateway
	case n.From == NamespacesAll:
		return true
	case n.From == NamespacesSelector && n.Selector != nil:
		return n.Selector.selects(namespace)
	}
	return namespace == gateway
}

func (s *NamespaceSelector) selects(namespace string) bool {
	for key, value := range s.MatchLabels {
		if key != NamespaceLabel || value != namespace {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		if r.Key != NamespaceLabel || slices.Contains(r.Values, namespace) != (r.Operator == OperatorIn) {
			return false
		}
	}
	return true
}

const onlyLabel = "here a namespace has one label, " + NamespaceLabel

func routeNamespacesRelations(n *RouteNamespaces, fault faultFunc) {
	switch {
	case n.From == NamespacesSelector && n.Selector == nil:
		fault("selector", "is missing", "such as {matchLabels: {"+NamespaceLabel+": shop}}")
	case n.From != NamespacesSelector && n.Selector != nil:
		fault("selector", "is there although from is not "+NamespacesSelector, "write from: "+NamespacesSelector)
	}
}

func namespaceSelectorRelations(s *NamespaceSelector, fault faultFunc) {
	for key := range s.MatchLabels {
		if key != NamespaceLabel {
			fault("matchLabels", fmt.Sprintf("label %s selects nothing", key), onlyLabel)
		}
	}
	for i, r := range s.MatchExpressions {
		at := fmt.Sprintf("matchExpressions[%d]", i)
		if r.Key != NamespaceLabel {
			fault(at, fmt.Sprintf("label %s selects nothing", r.Key), onlyLabel)
		}
		if len(r.Values) == 0 {
			fault(at, "has no values", "name the namespaces")
		}
	}
}
