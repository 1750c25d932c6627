package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Input is a cluster at one moment, and how it takes part in the mesh. Its objects
// may be in any order and are not changed.
type Input struct {
	// Cluster is the cluster's name in the mesh, Site where endpoints are whose node
	// says nothing better.
	Cluster, Site string
	// Sites are the sites that the mesh knows. A Node's zone counts as its site only
	// where one has its name: a label counts always.
	Sites []string
	// Pool are addresses of which each Gateway that names none gets one of its own.
	// Without them Gateways listen on all addresses, and have those of the nodes.
	Pool []netip.Prefix
	// Given is that of the output before this one: it may not stand in a status yet, and
	// nobody else is to get it meanwhile.
	Given map[string]netip.Addr
	// Certificates is the folder in which the proxies find the certificates of
	// Secrets, empty where Secrets are not read.
	Certificates string
	// Domain is the cluster's DNS domain, [DefaultDomain] where it is empty.
	Domain string

	Namespaces []*Namespace
	Nodes      []*Node
	Pods       []*Pod
	Secrets    []*Secret
	Services   []*Service
	Slices     []*EndpointSlice
	Classes    []*GatewayClass
	Gateways   []*Gateway
	Routes     []*Route
	Grants     []*Grant
	Own        []*Own
}

// Output is what a cluster means to the mesh.
type Output struct {
	// Objects are valid, each marked with [ClusterLabel], in an order that depends on
	// the input alone.
	Objects mesh.Objects
	// Files are the certificates and keys that Objects name, by path.
	Files map[string][]byte
	// Statuses are those of all objects that are served here, whether they changed
	// or not.
	Statuses []Status
	// Given are the addresses of the pool that Gateways have, by namespace/name.
	Given map[string]netip.Addr
	// Redirects are the EndpointSlices that are to be there, Stale those that are and are
	// not to be.
	Redirects []Redirect
	Stale     []Meta
	// Notices are faults of objects that have no status to say them in.
	Notices []string
}

// Status is the status that an object is to have.
type Status struct {
	Kind string
	Meta Meta
	// Want points to the status struct of the kind; it holds all of what others
	// wrote there too.
	Want any
	// Changed reports whether the object has another one.
	Changed bool
}

// translation is one run of [Translate].
type translation struct {
	in  *Input
	now time.Time
	out Output

	namespaces map[string]*Namespace
	nodes      map[string]*Node
	workloads  map[string]string // by namespace/pod
	secrets    map[string]*Secret
	services   map[string]*Service
	slices     map[string][]*EndpointSlice // by namespace/service
	ours       []*EndpointSlice
	own        map[mesh.Key]*Own
	sites      map[string]bool

	gateways []*gateway
	byName   map[string]*gateway
	// meshed says that there is a Gateway for requests between services.
	meshed bool
	// outbound says that one of these has a listener for connections that chainagent
	// redirects.
	outbound bool
	names    map[variant]string // of the services that are needed
}

// Translate says what a cluster means to the mesh, and what the status of its
// objects is to be.
//
//   - A Gateway of a class of [ControllerName] becomes a Gateway with the listeners
//     that are valid, a route the routes to those that take it: all that the Gateway
//     API says of attachment is decided here, so a proxy need not.
//   - A route whose parent is a Service is joined to listeners for the Service's names
//     at the Gateways with [MeshLabel].
//   - A port of a Service becomes a MeshService, if a route leads there or the Service
//     is exported ([ExportAnnotation]): nodes are not told of what they do not serve.
//   - A workload whose pods are no endpoints of these becomes a Caller, one for each site
//     where they run, so that it has a name where it calls.
//   - What a route refers to and may not, or is not there, leads nowhere, which the
//     proxies answer with 500.
//   - Objects of the mesh's own kinds stay as they are.
func Translate(in *Input, now time.Time) *Output {
	t := &translation{in: in, now: now, names: map[variant]string{}}
	t.index()
	t.classes()
	t.claimListeners()
	t.entries()
	t.routes()
	t.plainServices()
	t.redirects()
	t.finishGateways()
	t.meshServices()
	t.callers()
	t.grants()
	t.ownKinds()
	t.label()
	return &t.out
}

func index[T any](list []T, key func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, x := range list {
		m[key(x)] = x
	}
	return m
}

func (t *translation) index() {
	in := t.in
	t.out.Files = map[string][]byte{}
	t.namespaces = index(in.Namespaces, func(n *Namespace) string { return n.Name })
	t.nodes = index(in.Nodes, func(n *Node) string { return n.Name })
	t.secrets = index(in.Secrets, func(s *Secret) string { return s.key() })
	t.services = index(in.Services, func(s *Service) string { return s.key() })
	t.workloads = make(map[string]string, len(in.Pods))
	for _, p := range in.Pods {
		t.workloads[p.key()] = p.Workload
	}
	t.slices = map[string][]*EndpointSlice{}
	for _, s := range slices.SortedFunc(slices.Values(in.Slices), func(a, b *EndpointSlice) int { return cmp.Compare(a.key(), b.key()) }) {
		key := s.Namespace + "/" + s.Service
		if s.Ours {
			t.ours = append(t.ours, s) // it leads to the proxies
			continue
		}
		t.slices[key] = append(t.slices[key], s)
	}
	t.own = map[mesh.Key]*Own{}
	for _, o := range in.Own {
		t.own[mesh.Key{Kind: o.Kind, Namespace: cmp.Or(o.Namespace, mesh.DefaultNamespace), Name: o.Name}] = o
	}
	t.sites = map[string]bool{in.Site: true}
	for _, s := range in.Sites {
		t.sites[s] = true
	}
}

// oldestFirst is the order in which the Gateway API settles conflicts.
func oldestFirst(a, b *Meta) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// features are those of which every test of the conformance suite passes
// (docs/conformance), as [ClassStatus] lists them: sorted.
var features = []string{
	"GRPCRoute", "Gateway", "GatewayPort8080",
	"HTTPRoute", "HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode",
	"HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification", "HTTPRouteBackendTimeout",
	"HTTPRouteCORS", "HTTPRouteDestinationPortMatching", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule",
	"HTTPRouteParentRefPort", "HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect", "HTTPRouteQueryParamMatching",
	"HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror", "HTTPRouteRequestTimeout",
	"HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "TLSRoute", "TLSRouteModeMixed", "TLSRouteModeTerminate", "UDPRoute",
}

func (t *translation) classes() {
	for _, c := range t.in.Classes {
		if c.Controller != ControllerName {
			continue
		}
		j := judgement{Accepted, true, "Accepted", "served by Meridian"}
		if c.Parameters {
			j = judgement{Accepted, false, "InvalidParameters", "spec.parametersRef is not served: a class has no parameters"}
		}
		want := ClassStatus{Conditions: settle(c.Status.Conditions, c.Generation, t.now, j)}
		for _, f := range features {
			want.SupportedFeatures = append(want.SupportedFeatures, Feature{f})
		}
		t.status(KindGatewayClass, c.Meta, &want, &c.Status)
	}
}

// status adds an object's status.
func (t *translation) status(kind string, meta Meta, want, have any) {
	t.out.Statuses = append(t.out.Statuses, Status{kind, meta, want, !reflect.DeepEqual(want, have)})
}

func (t *translation) notice(format string, args ...any) {
	t.out.Notices = append(t.out.Notices, fmt.Sprintf(format, args...))
}

// ownKinds passes the objects of the mesh's own kinds on.
func (t *translation) ownKinds() {
	for _, o := range slices.SortedFunc(slices.Values(t.in.Own), func(a, b *Own) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.key(), b.key()))
	}) {
		j := judgement{Accepted, true, "Accepted", "in force"}
		if o.Doc == nil {
			j = judgement{Accepted, false, "Invalid", o.Problem}
			if o.Instead != nil {
				j.message += "; until it is put right, what it is for lets nobody in"
				appendDocument(&t.out.Objects, o.Instead)
			}
		} else {
			appendDocument(&t.out.Objects, o.Doc)
		}
		t.status(o.Kind, o.Meta, &OwnStatus{settle(o.Status.Conditions, o.Generation, t.now, j)}, &o.Status)
	}
}

// appendDocument adds a copy of a document, whose metadata may be changed.
func appendDocument(all *mesh.Objects, doc any) {
	lists := reflect.ValueOf(all).Elem()
	for i := range lists.NumField() {
		if l := lists.Field(i); l.Type() == reflect.SliceOf(reflect.TypeOf(doc)) {
			v := reflect.New(reflect.TypeOf(doc).Elem())
			v.Elem().Set(reflect.ValueOf(doc).Elem())
			l.Set(reflect.Append(l, v))
		}
	}
}

// label marks every object with the cluster that it came from.
func (t *translation) label() {
	mesh.Default(&t.out.Objects)
	for _, doc := range t.out.Objects.All() {
		meta := reflect.ValueOf(doc).Elem().FieldByName("Metadata").Addr().Interface().(*mesh.ObjectMeta)
		labels := map[string]string{ClusterLabel: t.in.Cluster}
		for k, v := range meta.Labels {
			if k != ClusterLabel {
				labels[k] = v
			}
		}
		meta.Labels = labels
	}
}
