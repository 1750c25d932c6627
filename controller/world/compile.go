package world

import (
	"cmp"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/fence"
)

// Compile returns what one site's nodes need, in an order that depends on the
// objects alone:
//
//   - every Site, because sharing needs their places and gateways, and every
//     GeoFence, which no label may take away;
//   - the other kinds unless [SiteLabel] names another site;
//   - of a service that is not exported to the mesh, only the endpoints here;
//   - an endpoint without a site is at every site that reads it, which for a
//     service that a site owns is that site.
//
// The objects may be those of the world itself and must not be changed.
func (w *World) Compile(site string) mesh.Objects {
	var out mesh.Objects
	for _, o := range w.List() {
		if o.Shadowed {
			continue
		}
		switch d := o.Doc.(type) {
		case *mesh.Site:
			out.Sites = append(out.Sites, d)
		case *mesh.Gateway:
			if here(d.Metadata, site) {
				out.Gateways = append(out.Gateways, d)
			}
		case *mesh.HTTPRoute:
			if here(d.Metadata, site) {
				out.HTTPRoutes = append(out.HTTPRoutes, d)
			}
		case *mesh.TCPRoute:
			if here(d.Metadata, site) {
				out.TCPRoutes = append(out.TCPRoutes, d)
			}
		case *mesh.GRPCRoute:
			if here(d.Metadata, site) {
				out.GRPCRoutes = append(out.GRPCRoutes, d)
			}
		case *mesh.UDPRoute:
			if here(d.Metadata, site) {
				out.UDPRoutes = append(out.UDPRoutes, d)
			}
		case *mesh.TLSRoute:
			if here(d.Metadata, site) {
				out.TLSRoutes = append(out.TLSRoutes, d)
			}
		case *mesh.MeshService:
			if here(d.Metadata, site) {
				out.Services = append(out.Services, w.service(d, o.Owner, site))
			}
		case *mesh.TrafficPolicy:
			if here(d.Metadata, site) {
				out.TrafficPolicies = append(out.TrafficPolicies, d)
			}
		case *mesh.LocalResponse:
			if here(d.Metadata, site) {
				out.LocalResponses = append(out.LocalResponses, d)
			}
		case *mesh.Certificate:
			if here(d.Metadata, site) {
				out.Certificates = append(out.Certificates, d)
			}
		case *mesh.TrustBundle:
			if o.Owner == Hub {
				out.TrustBundles = append(out.TrustBundles, d)
			}
		case *mesh.ReferenceGrant:
			if here(d.Metadata, site) {
				out.ReferenceGrants = append(out.ReferenceGrants, d)
			}
		case *mesh.GeoFence:
			out.GeoFences = append(out.GeoFences, d)
		case *mesh.AuthorizationPolicy:
			if here(d.Metadata, site) {
				out.AuthorizationPolicies = append(out.AuthorizationPolicies, d)
			}
		case *mesh.PeerAuthentication:
			if here(d.Metadata, site) {
				out.PeerAuthentications = append(out.PeerAuthentications, d)
			}
		case *mesh.Caller:
			if here(d.Metadata, site) {
				out.Callers = append(out.Callers, d)
			}
		case *mesh.NetworkFunction:
			out.NetworkFunctions = append(out.NetworkFunctions, d)
		case *mesh.ServiceChain:
			out.ServiceChains = append(out.ServiceChains, d)
		case *mesh.ChainNode:
			out.ChainNodes = append(out.ChainNodes, d)
		case *mesh.AfSfcRequirement:
			out.AfSfcRequirements = append(out.AfSfcRequirements, d)
		}
	}
	return out
}

func here(m mesh.ObjectMeta, site string) bool {
	l := m.Labels[SiteLabel]
	return l == "" || l == site
}

// service is what a site needs of a service. While the service stays the object that
// it is, the result for the own site is the same pointer, by which others see that
// nothing changed.
func (w *World) service(s *mesh.MeshService, owner, site string) *mesh.MeshService {
	if site != w.site {
		return narrowed(s, owner, site)
	}
	c, ok := w.narrow[s]
	if !ok || c.owner != owner {
		c = narrow{owner, narrowed(s, owner, site)}
		w.narrow[s] = c
	}
	return c.service
}

// widen forgets what is known of a document that goes.
func (w *World) widen(doc any) {
	if s, ok := doc.(*mesh.MeshService); ok {
		delete(w.narrow, s)
	}
}

// narrow is a service as the own site needs it.
type narrow struct {
	owner   string
	service *mesh.MeshService
}

func narrowed(s *mesh.MeshService, owner, site string) *mesh.MeshService {
	local := slices.Clone(s.Spec.Endpoints)
	if !exported(s) {
		local = slices.DeleteFunc(local, func(e mesh.Endpoint) bool { return e.Site != "" && e.Site != site })
	}
	if owner != Hub {
		for i := range local {
			local[i].Site = cmp.Or(local[i].Site, owner)
		}
	}
	c := *s
	c.Spec.Endpoints = local
	if owner != Hub && owner != site {
		c.Spec.Addresses = nil // two clusters may give the same address to different services
	}
	return &c
}

func exported(s *mesh.MeshService) bool {
	return s.Spec.Export != nil && s.Spec.Export.Scope == mesh.ScopeMesh
}

// allowed reports whether a service that is exported may be shared with a site.
func allowed(s *mesh.MeshService, site string) bool {
	e := s.Spec.Export
	return exported(s) && (len(e.Sites) == 0 || slices.Contains(e.Sites, site))
}

// compiled keeps what is asked for ten times a second and changes once a day.
type compiled struct {
	valid   bool
	version uint64
	objects mesh.Objects
	sharing map[mesh.ServiceKey]mesh.SiteSharing
	fences  *fence.Fences
	// declared is capacity by service and site.
	declared map[mesh.ServiceKey]map[string]mesh.ServiceReport
}

// own is Compile of the own site, as of now.
func (w *World) own() *mesh.Objects {
	if c := &w.cache; !c.valid || c.version != w.version {
		*c = compiled{
			valid: true, version: w.version, objects: w.Compile(w.site),
			sharing:  map[mesh.ServiceKey]mesh.SiteSharing{},
			declared: map[mesh.ServiceKey]map[string]mesh.ServiceReport{},
		}
		c.fences = fence.Compile(&c.objects)
		for _, s := range c.objects.Services {
			c.sharing[s.Key()] = *mesh.EffectivePolicy(&c.objects, s.Key()).SiteSharing
			sites := map[string]mesh.ServiceReport{}
			for _, site := range c.objects.Sites {
				sites[site.Metadata.Name] = declared(s, site.Metadata.Name)
			}
			c.declared[s.Key()] = sites
		}
	}
	return &w.cache.objects
}

// Objects is [World.Compile] of the own site, kept between changes. It must not be
// changed.
func (w *World) Objects() *mesh.Objects { return w.own() }

// Barred says why the traffic of a service may not go to a site, by the GeoFences;
// empty where it may.
func (w *World) Barred(service mesh.ServiceKey, site string) string {
	w.own()
	return w.cache.fences.Bars(service, site)
}

// Declared is the capacity that a service's endpoints at the own site declare.
func (w *World) Declared(service mesh.ServiceKey) mesh.ServiceReport {
	w.own()
	return w.cache.declared[service][w.site]
}
