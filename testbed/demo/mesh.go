package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/topo"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

// Names of the demo's objects.
const (
	gatewayName  = "ingress"
	usersName    = "users"    // the listener that users reach
	neighborName = "eastwest" // the listener that other sites reach
	serviceName  = "work"
	servicePort  = 80
	serviceKey   = mesh.DefaultNamespace + "/" + serviceName
	// host is what the requests name; the route takes any.
	host = "work.demo"
)

// clientDeadline is how long a user of the demo waits.
const clientDeadline = 30 * time.Second

// sharing maps the demo's names of policies to the API's.
var sharing = map[string]string{
	report.Cooperative:        mesh.SharingCooperative,
	report.None:               mesh.SharingNone,
	report.RoundRobin:         mesh.SharingRoundRobin,
	report.WeightedRoundRobin: mesh.SharingWeightedRoundRobin,
}

// endpoint is one backend server as the mesh is told of it.
type endpoint struct {
	address string
	slots   int
}

// layout is what the documents of a mesh are made from.
type layout struct {
	topology  *topo.Topology
	endpoints [][]endpoint // by site
	// links are the addresses of the relays from a site to another, "" to itself.
	links [][]string
}

// objects are the documents of the whole mesh but for the policy: what an
// operator would write for this topology.
func (l *layout) objects() *mesh.Objects {
	o := &mesh.Objects{
		Gateways: []*mesh.Gateway{{
			TypeMeta: mesh.TypeMeta{APIVersion: mesh.GatewayAPIVersion, Kind: mesh.KindGateway},
			Metadata: mesh.ObjectMeta{Name: gatewayName},
			Spec: mesh.GatewaySpec{
				GatewayClassName: mesh.GatewayClass,
				Addresses:        []mesh.GatewayAddress{{Value: "127.0.0.1"}},
				Listeners: []mesh.Listener{
					{Name: usersName, Protocol: mesh.ProtocolHTTP},
					{Name: neighborName, Protocol: mesh.ProtocolEastWest},
				},
			},
		}},
		HTTPRoutes: []*mesh.HTTPRoute{{
			TypeMeta: mesh.TypeMeta{APIVersion: mesh.GatewayAPIVersion, Kind: mesh.KindHTTPRoute},
			Metadata: mesh.ObjectMeta{Name: serviceName},
			Spec: mesh.HTTPRouteSpec{
				ParentRefs: []mesh.ParentRef{{Name: gatewayName}},
				Rules: []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{
					{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: serviceName, Port: servicePort},
				}}},
			},
		}},
	}
	service := &mesh.MeshService{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindMeshService},
		Metadata: mesh.ObjectMeta{Name: serviceName},
		Spec: mesh.MeshServiceSpec{
			Ports:  []mesh.ServicePort{{Name: "http", Port: servicePort, Protocol: "http"}},
			Export: &mesh.Export{Scope: mesh.ScopeMesh},
		},
	}
	for i, s := range l.topology.Sites {
		site := &mesh.Site{
			TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindSite},
			Metadata: mesh.ObjectMeta{Name: s.Name},
			Spec:     mesh.SiteSpec{Location: mesh.Location{Lon: s.Location[0], Lat: s.Location[1]}},
		}
		for j, other := range l.topology.Sites {
			if j != i {
				site.Spec.Links = append(site.Spec.Links, mesh.SiteLink{To: other.Name, Address: l.links[i][j]})
			}
		}
		o.Sites = append(o.Sites, site)
		for _, e := range l.endpoints[i] {
			service.Spec.Endpoints = append(service.Spec.Endpoints, mesh.Endpoint{
				Address: e.address, Site: s.Name, Weight: &e.slots,
				Capacity: &mesh.Capacity{Concurrency: e.slots, ServiceTime: mesh.Duration(s.ServiceTime)},
			})
		}
	}
	o.Services = append(o.Services, service)
	return o
}

// policy is the document that says how the service's load is shared.
func policy(name string) *mesh.TrafficPolicy {
	return &mesh.TrafficPolicy{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindTrafficPolicy},
		Metadata: mesh.ObjectMeta{Name: serviceName},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs:     []mesh.PolicyTargetRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: serviceName}},
			SiteSharing:    &mesh.SiteSharing{Policy: sharing[name]},
			ClientPosition: &mesh.ClientPosition{GeoHeader: wire.GeoHeader},
			// The users decide when they have waited long enough, not the proxy.
			Timeouts: &mesh.PolicyTimeouts{Request: duration(2 * clientDeadline)},
		},
	}
}

func duration(d time.Duration) *mesh.Duration { return (*mesh.Duration)(&d) }

// documents renders objects as a YAML stream (JSON is YAML), as it could be kept
// in a file and applied by hand.
func documents(o *mesh.Objects) ([]byte, error) {
	var b bytes.Buffer
	for key, doc := range o.All() {
		text, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		b.WriteString("---\n")
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}
