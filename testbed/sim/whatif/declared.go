package whatif

import (
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/world"
)

// Declared is what documents say of one service, whatever its load is.
type Declared struct {
	Service mesh.ServiceKey
	Sharing mesh.SiteSharing
	// Objective is what its users are promised, nil for nothing.
	Objective *mesh.ServiceObjective
	Sites     map[string]DeclaredSite
	// Ways are those from one site to another, by both names.
	Ways map[[2]string]Way
	// Sessions says that its load is open sessions, and Pool names a site where it shares
	// a machine with other services, empty for none. The simulator knows neither.
	Sessions bool
	Pool     string
}

// Unknown says why the simulator cannot judge the service, empty where it can.
func (d *Declared) Unknown() string {
	switch {
	case d.Sessions:
		return "it counts open sessions, which the simulator does not know"
	case d.Pool != "":
		return "it shares a machine with other services at site " + d.Pool + " (capacity.pool), which the simulator does not know"
	}
	return ""
}

// Served reports whether there is a site that is to serve.
func (d *Declared) Served() bool {
	for _, s := range d.Sites {
		if s.Serves {
			return true
		}
	}
	return false
}

// DeclaredSite is a service at a site by its documents.
type DeclaredSite struct {
	// Serves says that it has an endpoint there, Drained that none is to serve while
	// another site can.
	Serves, Drained bool
	// Slots and ServiceMS are the declared capacity, 0 where none is.
	Slots, ServiceMS float64
}

// Way is what is known of the way from one site to another.
type Way struct {
	RTTMS, PriceMS, MaxPerS float64
	// Excluded says why nothing may go that way.
	Excluded string
}

// Declare reads the documents of a mesh as each site's controller would (package
// world) and returns what they say of every service that is shared.
func Declare(objects []world.Object) map[mesh.ServiceKey]*Declared {
	out := map[mesh.ServiceKey]*Declared{}
	var sites []string
	for _, o := range objects {
		if o.Key.Kind == mesh.KindSite && !o.Shadowed {
			sites = append(sites, o.Key.Name)
		}
	}
	// Any moment will do: reports are as young as the question.
	now := time.Unix(1, 0)
	for _, name := range sites {
		w := world.New(name, world.Hub)
		var services []mesh.ServiceReport
		for _, o := range objects {
			w.Set(o.Owner, o.Key, o.Doc)
			if s, ok := o.Doc.(*mesh.MeshService); ok {
				services = append(services, mesh.ServiceReport{Service: s.Key(), Slots: 1, ServiceTimeMS: 1})
			}
		}
		// As if every site had just been heard: what then excludes one is declared.
		for _, other := range sites {
			w.Hear(&mesh.Report{Site: other, Reporter: "controller", Epoch: 1, Seq: 1, Services: services}, now)
		}
		for _, sh := range w.Shared(now, true) {
			d := out[sh.Service]
			if d == nil {
				d = &Declared{Service: sh.Service, Sessions: sh.Sessions, Sharing: sh.Sharing, Sites: map[string]DeclaredSite{}, Ways: map[[2]string]Way{}}
				out[sh.Service] = d
			}
			if sh.Mates > 0 && d.Pool == "" {
				d.Pool = name
			}
			d.Sites[name] = DeclaredSite{Serves: !sh.NoHome, Drained: sh.Drained, Slots: sh.Home.Slots, ServiceMS: sh.Home.ServiceTimeMS}
			for _, o := range sh.Options {
				d.Ways[[2]string{name, o.Site}] = Way{o.RTTMS, o.PriceMS, o.MaxRate, o.Excluded}
			}
		}
	}
	for _, o := range objects {
		if s, ok := o.Doc.(*mesh.MeshService); ok && !o.Shadowed && out[s.Key()] != nil {
			out[s.Key()].Objective = s.Spec.Objective
		}
	}
	return out
}

// become changes a world as documents change: capacity by the ratio of what was and is
// declared, so that what was measured counts on; ways whose declared round trip
// changed take the new one.
func (w *World) become(before, after *Declared) {
	for i := range w.Sites {
		s := &w.Sites[i]
		was, is := before.Sites[s.Name], after.Sites[s.Name]
		s.Drained = is.Drained
		if s.Closed = !is.Serves; s.Closed {
			continue
		}
		switch {
		case is.Slots > 0 && was.Slots > 0 && was.Serves:
			s.Slots *= is.Slots / was.Slots
			s.ServiceMS *= is.ServiceMS / was.ServiceMS
		case is.Slots > 0:
			s.Slots, s.ServiceMS = is.Slots, is.ServiceMS
		}
	}
	for pair, is := range after.Ways {
		if was, ok := before.Ways[pair]; !ok || was.RTTMS != is.RTTMS {
			w.RTTMS[pair] = is.RTTMS
		}
	}
	w.Declared = after
}
