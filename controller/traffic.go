package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
)

// traffic is what a site's object says that it takes, empty for all, and why. Loop
// only.
func (s *Server) traffic(site string) (takes, reason string) {
	o, ok := s.world.Get(siteKey(site))
	if !ok {
		return "", ""
	}
	d, ok := o.Doc.(*mesh.Site)
	if !ok || d.Excluded() == "" {
		return "", ""
	}
	return d.Spec.Traffic, d.Metadata.Annotations[mesh.TrafficReason]
}

// setTraffic changes what a site takes of new requests: it is durable intent, kept
// in the Site object by its owner, so that it holds for a site that is cut off, and
// for its nodes when their controller is gone.
func (s *Server) setTraffic(ctx context.Context, r siteapi.TrafficRequest) (*siteapi.TrafficResult, error) {
	out := &siteapi.TrafficResult{Result: siteapi.Result{Site: s.cfg.Site, DryRun: r.DryRun, Changes: []siteapi.Change{}}}
	fault := func(format string, v ...any) {
		out.Faults = append(out.Faults, mesh.Fault{Object: siteKey(r.Site).String(), Message: fmt.Sprintf(format, v...)})
	}
	if !slices.Contains([]string{mesh.SiteAccepts, mesh.SiteCordoned, mesh.SiteDrained}, r.Traffic) {
		fault("traffic %q: want %s, %s or %s", r.Traffic, mesh.SiteAccepts, mesh.SiteCordoned, mesh.SiteDrained)
		return out, nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	var document []byte
	err := s.do(ctx, func() {
		o, ok := s.world.Get(siteKey(r.Site))
		if !ok {
			fault("there is no such site; there are: %s", strings.Join(s.siteNames(), ", "))
			return
		}
		if r.Traffic == mesh.SiteDrained {
			if !r.Force && !s.anotherTakes(r.Site, time.Now()) {
				fault("no other site is alive and takes requests: drained, it would serve on")
				return
			}
			out.Stays = s.stays(r.Site)
		}
		doc, err := withTraffic(o.Doc, r)
		if err != nil {
			fault("%v", err)
		}
		document = doc
	})
	if err != nil || len(out.Faults) > 0 {
		return out, err
	}
	objects, err := mesh.ParseSources([]mesh.Source{{Name: "site " + r.Site, Data: document}})
	if err != nil {
		return nil, err
	}
	set, err := s.set(ctx, &out.Result, objects)
	if err != nil {
		return nil, err
	}
	out.Result = *set
	if len(out.Faults) == 0 && !r.DryRun {
		s.log.Info("traffic of a site is changed", "site", r.Site, "traffic", r.Traffic, "reason", r.Reason)
	}
	return out, nil
}

// withTraffic is a Site object's document as asked for.
func withTraffic(doc any, r siteapi.TrafficRequest) ([]byte, error) {
	have, ok := doc.(*mesh.Site)
	if !ok {
		return nil, fmt.Errorf("it is a %T", doc)
	}
	data, err := json.Marshal(have)
	if err != nil {
		return nil, err
	}
	site := new(mesh.Site) // a copy: the world's own must not change
	if err := json.Unmarshal(data, site); err != nil {
		return nil, err
	}
	site.Spec.Traffic = r.Traffic
	delete(site.Metadata.Annotations, mesh.TrafficReason)
	if r.Traffic == mesh.SiteAccepts {
		site.Spec.Traffic = ""
	} else if r.Reason != "" {
		if site.Metadata.Annotations == nil {
			site.Metadata.Annotations = map[string]string{}
		}
		site.Metadata.Annotations[mesh.TrafficReason] = r.Reason
	}
	if strings.ContainsAny(r.Reason, "\n\r") || len(r.Reason) > 256 {
		return nil, errors.New("the reason is one line of at most 256 bytes")
	}
	return json.Marshal(site)
}

// anotherTakes reports whether some other site is alive and takes requests of
// others. Loop only.
func (s *Server) anotherTakes(site string, now time.Time) bool {
	takes := func(name string) bool {
		o, ok := s.world.Get(siteKey(name))
		if !ok {
			return false
		}
		d, ok := o.Doc.(*mesh.Site)
		return ok && d.Excluded() == ""
	}
	if s.cfg.Site != site && takes(s.cfg.Site) {
		return true
	}
	return slices.ContainsFunc(s.world.Peers(now, s.reachable()), func(p world.Peer) bool {
		return p.Site != site && p.Status == membership.Alive && takes(p.Site)
	})
}

// siteNames are the sites with an object. Loop only.
func (s *Server) siteNames() []string {
	var out []string
	for _, o := range s.world.List() {
		if o.Key.Kind == mesh.KindSite && !o.Shadowed {
			out = append(out, o.Key.Name)
		}
	}
	return out
}

// stays says which services' requests a drained site goes on to serve, as far as
// their objects are known here. Loop only.
func (s *Server) stays(site string) []string {
	var out []string
	objects := s.world.Compile(site)
	for _, svc := range objects.Services {
		at, elsewhere := false, false
		for _, e := range svc.Spec.Endpoints {
			at = at || e.Site == site || e.Site == ""
			elsewhere = elsewhere || e.Site != site && e.Site != ""
		}
		shared := svc.Spec.Export != nil && svc.Spec.Export.Scope == mesh.ScopeMesh
		switch {
		case !at:
		case !shared:
			out = append(out, fmt.Sprintf("%s: it is not shared (export: {scope: mesh})", svc.Key()))
		case mesh.EffectivePolicy(&objects, svc.Key()).SiteSharing.Policy == mesh.SharingNone:
			out = append(out, fmt.Sprintf("%s: its policy is %s", svc.Key(), mesh.SharingNone))
		case !elsewhere:
			out = append(out, fmt.Sprintf("%s: no other site has an endpoint of it", svc.Key()))
		}
	}
	return out
}
