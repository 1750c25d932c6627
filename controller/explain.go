package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// explain says where a request would go: it asks a node of the site where the
// request comes in, and the other sites where it may go.
func (s *Server) explain(ctx context.Context, r siteapi.ExplainRequest) (*siteapi.Explained, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Explained{}
	if r.From != "" {
		if r.Site != "" {
			return nil, errors.New("give the site or the client's position, not both")
		}
		lon, lat, err := parseGeo(r.From)
		if err != nil {
			return nil, err
		}
		if err := s.do(ctx, func() { out.Nearest = s.nearest(lon, lat) }); err != nil {
			return nil, err
		}
		if len(out.Nearest) == 0 {
			return nil, errors.New("no site has a position: there is no Site object")
		}
		r.Site = out.Nearest[0].Site
	}
	x, err := s.explainAt(ctx, cmp.Or(r.Site, s.cfg.Site), r)
	if err != nil {
		return nil, err
	}
	out.Explanation = *x
	if err := s.do(ctx, func() { s.addOwners(&out.Explanation) }); err != nil {
		return nil, err
	}
	if r.Deep {
		for i := range out.Backends {
			s.explainThere(ctx, &out.Backends[i])
		}
	}
	return out, nil
}

// explainAt asks a site.
func (s *Server) explainAt(ctx context.Context, site string, r siteapi.ExplainRequest) (*mesh.Explanation, error) {
	r.Site, r.From, r.Deep = "", "", false
	if site == s.cfg.Site {
		return s.explainHere(ctx, r)
	}
	request, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, 2*askFor)
	defer done()
	data, err := s.conn.Call(ctx, site, siteapi.VerbExplain, request)
	if err != nil {
		return nil, err
	}
	x := new(mesh.Explanation)
	return x, json.Unmarshal(data, x)
}

// maxThere is how many other sites are asked for their endpoints.
const maxThere = 4

// explainThere adds what the likeliest other sites say of their endpoints.
func (s *Server) explainThere(ctx context.Context, b *mesh.ExplainedBackend) {
	sites := slices.DeleteFunc(slices.Clone(b.Sites), func(x mesh.ExplainedSite) bool { return x.Home || x.Chance == 0 })
	slices.SortStableFunc(sites, func(a, b mesh.ExplainedSite) int { return cmp.Compare(b.Chance, a.Chance) })
	for _, site := range sites[:min(len(sites), maxThere)] {
		there, err := s.explainAt(ctx, site.Site, siteapi.ExplainRequest{ExplainQuery: mesh.ExplainQuery{Service: b.Service}})
		if err == nil {
			b.There = append(b.There, there)
			continue
		}
		if b.Silent == nil {
			b.Silent = map[string]string{}
		}
		b.Silent[site.Site] = err.Error()
	}
}

// explainHere asks a node of this site, the first that is alive where none is named.
func (s *Server) explainHere(ctx context.Context, r siteapi.ExplainRequest) (*mesh.Explanation, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	var node, names string
	err := s.do(ctx, func() {
		var all []string
		for _, n := range s.world.Nodes(time.Now()) {
			if n.Report.Chains != nil {
				continue // it forwards packets
			}
			all = append(all, n.Name)
			if node == "" && n.Status == membership.Alive && (r.Node == "" || r.Node == n.Name) {
				node = n.Name
			}
		}
		names = strings.Join(all, ", ")
	})
	if err != nil {
		return nil, err
	}
	switch {
	case node != "":
	case names == "":
		return nil, fmt.Errorf("site %s has no proxy that could say: name another site", s.cfg.Site)
	case r.Node != "":
		return nil, fmt.Errorf("site %s has no live proxy %s; it has: %s", s.cfg.Site, r.Node, names)
	default:
		return nil, fmt.Errorf("no proxy of site %s is alive; it had: %s", s.cfg.Site, names)
	}
	request, err := json.Marshal(r.ExplainQuery)
	if err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, askFor)
	defer done()
	data, err := s.conn.CallNode(ctx, s.cfg.Site, node, bus.VerbExplain, request)
	if err != nil {
		return nil, err
	}
	x := new(mesh.Explanation)
	return x, json.Unmarshal(data, x)
}

// addOwners says who owns the objects that an explanation names, as far as they are
// known here. Loop only.
func (s *Server) addOwners(x *mesh.Explanation) {
	owner := func(k mesh.Key) string {
		if o, ok := s.world.Get(k); ok {
			return o.Owner
		}
		return ""
	}
	kinds, parts := []string{mesh.KindGRPCRoute, mesh.KindHTTPRoute}, 3
	switch x.Protocol {
	case mesh.ExplainTCP:
		kinds, parts = []string{mesh.KindTCPRoute, mesh.KindTLSRoute}, 2 // their one rule has no name
	case mesh.ExplainUDP:
		kinds, parts = []string{mesh.KindUDPRoute}, 2
	}
	if p := strings.SplitN(x.Rule, "/", 3); len(p) == parts {
		for _, kind := range kinds {
			// A GRPCRoute's rules are named as such where they have no name; see route.Rule.
			if o := owner(mesh.Key{Kind: kind, Namespace: p[0], Name: p[1]}); o != "" {
				x.RuleOwner = o
			}
		}
	}
	for i := range x.Backends {
		for j := range x.Backends[i].Policies {
			p := &x.Backends[i].Policies[j]
			p.Owner = owner(p.Policy)
		}
	}
}

// nearest lists the sites by distance. Loop only.
func (s *Server) nearest(lon, lat float64) []siteapi.Distance {
	var out []siteapi.Distance
	for _, o := range s.world.List() {
		d, ok := o.Doc.(*mesh.Site)
		if !ok || o.Shadowed {
			continue
		}
		m := geo.DistanceMeters([2]float64{lon, lat}, [2]float64{d.Spec.Location.Lon, d.Spec.Location.Lat})
		out = append(out, siteapi.Distance{Site: d.Metadata.Name, KM: math.Round(m) / 1000})
	}
	slices.SortFunc(out, func(a, b siteapi.Distance) int { return cmp.Or(cmp.Compare(a.KM, b.KM), cmp.Compare(a.Site, b.Site)) })
	return out
}

// parseGeo reads a geo URI (RFC 5870): geo:latitude,longitude, with an altitude and
// parameters that are passed over.
func parseGeo(uri string) (lon, lat float64, err error) {
	wrong := fmt.Errorf("position %q: want a geo URI, geo:latitude,longitude in degrees (RFC 5870)", uri)
	rest, ok := strings.CutPrefix(uri, "geo:")
	if !ok {
		return 0, 0, wrong
	}
	rest, _, _ = strings.Cut(rest, ";")
	p := strings.Split(rest, ",")
	if len(p) < 2 || len(p) > 3 {
		return 0, 0, wrong
	}
	lat, errLat := strconv.ParseFloat(p[0], 64)
	lon, errLon := strconv.ParseFloat(p[1], 64)
	if errLat != nil || errLon != nil || !(math.Abs(lat) <= 90) || !(math.Abs(lon) <= 180) {
		return 0, 0, wrong
	}
	return lon, lat, nil
}
