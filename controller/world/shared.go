package world

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
)

// Shared is one service that this site may share, with all that a plan needs.
type Shared struct {
	Service mesh.ServiceKey
	// Sharing is the policy in force, with its defaults.
	Sharing mesh.SiteSharing
	// Home is the load here; declared capacity where no node has reported yet.
	Home Load
	// Sessions says that the load is open sessions.
	Sessions bool
	// Mates is how many other services share a machine with it here (capacity.pool).
	Mates int
	// NoHome says that no endpoint here can serve, Drained that none is to serve
	// while another site can.
	NoHome, Drained bool
	// Options are the other sites, the nearest first.
	Options []Option
}

// Option is one other site for a service.
type Option struct {
	Site string
	// RTTMS is the expected round trip, PriceMS the declared price of the link.
	RTTMS, PriceMS float64
	// MaxRate is the declared bound of requests per second that way, 0 for none.
	MaxRate float64
	// Report is the youngest there is, declared capacity where there is none.
	Report mesh.ServiceReport
	// AgeMS is how old the report is, and InBand whether it came on a response.
	AgeMS  float64
	InBand bool
	// Excluded says why the site gets nothing, empty when it may.
	Excluded string
}

// Shared returns the services that this site shares, by key. reachable tells
// whether the bus could bring news of other sites at all.
func (w *World) Shared(now time.Time, reachable bool) []Shared {
	objects := w.own()
	var here *mesh.Site
	for _, s := range objects.Sites {
		if s.Metadata.Name == w.site {
			here = s
		}
	}
	if here == nil {
		return nil
	}
	loads := map[mesh.ServiceKey]Load{}
	for _, l := range w.Loads(now) {
		loads[l.Service] = l
	}
	view := view{here: here, sites: objects.Sites, suspects: w.suspects(now), now: now, reachable: reachable}
	var out []Shared
	for _, svc := range objects.Services {
		key := svc.Key()
		if !allowed(svc, w.site) {
			continue
		}
		capacity := w.cache.declared[key][w.site]
		home, ok := loads[key]
		if !ok {
			home = Load{ServiceReport: capacity}
		}
		out = append(out, Shared{
			Service: key, Sessions: svc.CountsSessions(), Mates: matesAt(objects.Services, svc, w.site), Sharing: w.cache.sharing[key], Home: home,
			// Nodes that count no slots where some are declared, or learn them, have lost them all.
			NoHome:  !servedAt(svc, w.site) || w.Barred(key, w.site) != "" || (capacity.Slots > 0 || home.Learned != mesh.SlotsDeclared) && home.Slots == 0,
			Drained: here.Spec.Traffic == mesh.SiteDrained,
			Options: w.options(svc, view),
		})
	}
	return out
}

// view is what all services of one moment have in common.
type view struct {
	here      *mesh.Site
	sites     []*mesh.Site
	suspects  map[string]string
	now       time.Time
	reachable bool
}

func (w *World) options(svc *mesh.MeshService, v view) []Option {
	out := make([]Option, 0, len(v.sites))
	for _, s := range v.sites {
		name := s.Metadata.Name
		if name == w.site || !allowed(svc, name) {
			continue
		}
		news, heard := w.Freshest(name, svc.Key())
		capacity := w.cache.declared[svc.Key()][name]
		if !heard && capacity.Slots == 0 {
			continue // nothing says that it serves this
		}
		link := linkTo(v.here, name)
		o := Option{Site: name, RTTMS: w.rttMS(v.here, s, v.now), PriceMS: link.Price, MaxRate: link.MaxRate, Report: capacity}
		if heard {
			o.Report = news.Report
			o.AgeMS = float64(max(0, v.now.Sub(news.At))) / float64(time.Millisecond)
			o.InBand = news.InBand
		}
		switch why, barred := v.suspects[name], w.Barred(svc.Key(), name); {
		case barred != "":
			o.Excluded = barred
		case s.Excluded() != "":
			o.Excluded = s.Excluded()
		case link.Address == "" && len(s.Spec.Gateways) == 0:
			o.Excluded = "no route: the Site has no gateway address"
		case !heard && !v.reachable:
			o.Excluded = "unknown: no report, and the bus to other sites is down"
		case !heard:
			o.Excluded = "no report yet"
		case why != "":
			o.Excluded = "suspect: " + why
		}
		out = append(out, o)
	}
	return nearestFirst(out)
}

// nearestFirst sorts options: those that may be used by distance, then the others.
// It goes by way of their numbers, since an option is too large to be moved at every
// step of a sort.
func nearestFirst(all []Option) []Option {
	order := make([]int32, len(all))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(i, j int32) int {
		a, b := &all[i], &all[j]
		return cmp.Or(compareBool(a.Excluded != "", b.Excluded != ""), cmp.Compare(a.RTTMS, b.RTTMS), cmp.Compare(a.Site, b.Site))
	})
	out := make([]Option, len(all))
	for i, k := range order {
		out[i] = all[k]
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// servedAt reports whether a service has an endpoint at a site.
func servedAt(svc *mesh.MeshService, site string) bool {
	return slices.ContainsFunc(svc.Spec.Endpoints, func(e mesh.Endpoint) bool {
		return (e.Site == "" || e.Site == site) && (e.Weight == nil || *e.Weight > 0)
	})
}

// matesAt counts the services that name a pool of a service at a site.
func matesAt(all []*mesh.MeshService, svc *mesh.MeshService, site string) int {
	pools := poolsAt(svc, site)
	if len(pools) == 0 {
		return 0
	}
	n := 0
	for _, s := range all {
		if s != svc && slices.ContainsFunc(poolsAt(s, site), func(p string) bool { return slices.Contains(pools, p) }) {
			n++
		}
	}
	return n
}

func poolsAt(svc *mesh.MeshService, site string) []string {
	var out []string
	for _, e := range svc.Spec.Endpoints {
		if e.Capacity != nil && e.Capacity.Pool != "" && (e.Site == "" || e.Site == site) {
			out = append(out, e.Capacity.Pool)
		}
	}
	return out
}

// declared is the capacity that a service's endpoints at a site declare.
func declared(svc *mesh.MeshService, site string) mesh.ServiceReport {
	r := mesh.ServiceReport{Service: svc.Key()}
	for _, e := range svc.Spec.Endpoints {
		if e.Site != "" && e.Site != site || e.Capacity == nil || e.Weight != nil && *e.Weight == 0 {
			continue
		}
		slots := float64(e.Capacity.Concurrency)
		r.Slots += slots
		r.ServiceTimeMS += slots * float64(e.Capacity.ServiceTime.D()) / float64(time.Millisecond)
	}
	if r.Slots > 0 {
		r.ServiceTimeMS /= r.Slots
	}
	return r
}

// Peer is another site and what may be believed of it.
type Peer struct {
	Site   string
	Status membership.Status
	// News is the youngest of the site as a whole; its zero At says that none came.
	News News
	// Limits are those that hold for it, by how regularly it is heard.
	Limits membership.Limits
	// RTTMS is 0 where one of the two sites has no Site object.
	RTTMS float64
}

// Peers returns the other sites by name: those with a Site object, and those
// that report without one.
func (w *World) Peers(now time.Time, reachable bool) []Peer {
	sites := map[string]*mesh.Site{}
	for _, s := range w.own().Sites {
		sites[s.Metadata.Name] = s
	}
	here := sites[w.site]
	for _, name := range w.ReportedSites() {
		if sites[name] == nil {
			sites[name] = nil
		}
	}
	var out []Peer
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		if name == w.site {
			continue
		}
		news, heard := w.Freshest(name, "")
		l := membership.Sites.For(w.rhythms[name])
		p := Peer{Site: name, News: news, Limits: l, Status: l.Judge(heard, now.Sub(news.At), reachable)}
		if here != nil && sites[name] != nil {
			p.RTTMS = w.rttMS(here, sites[name], now)
		}
		out = append(out, p)
	}
	return out
}
