package edgeproxy

import (
	"context"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/resolve"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
	"github.com/meridian-mesh/meridian/internal/beat"
)

const (
	// healthEvery is how often endpoints are judged, but at rest ([pulse]).
	healthEvery = tickEvery
	// modulesEvery is how often the files of WebAssembly modules are looked at.
	modulesEvery = time.Second
	// firstAnswer is how long a new configuration waits for DNS.
	firstAnswer = time.Second
)

// tend judges endpoints and applies what DNS changes until ctx ends.
func (s *Server) tend(ctx context.Context) {
	p := newPulse(s.watch, make(chan struct{}, 1))
	defer p.stop()
	files := beat.Every(modulesEvery)
	defer files.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.woken:
			p.wake()
		case at := <-p.timer.C:
			busy := false
			if st := s.state.Load(); st != nil {
				busy = s.health.tick(s.Now(), st.View)
			}
			p.ticked(at, busy)
		case <-files.C:
			files.Again()
			if !s.modulesChanged() {
				continue
			}
			if err := s.rebuild(); err != nil && ctx.Err() == nil {
				s.deps.Log.Error("a changed WebAssembly module is not applied", "err", err)
			}
		case <-s.names.Changed():
			if err := s.rebuild(); err != nil && ctx.Err() == nil {
				s.deps.Log.Error("what DNS says is not applied", "err", err)
			}
		case <-s.certs.Changed():
			if err := s.rebuild(); err != nil && ctx.Err() == nil {
				s.deps.Log.Error("changed certificates are not applied", "err", err)
			}
		}
	}
}

func (s *Server) modulesChanged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chains.Changed()
}

// namesOf lists the addresses of a snapshot's endpoints at home that are DNS names.
func (s *Server) namesOf(snap *mesh.Snapshot) []string {
	var names []string
	site := s.site(snap)
	for _, m := range snap.Objects.Services {
		for _, e := range m.Spec.Endpoints {
			if (e.Site == "" || e.Site == site) && resolve.IsName(e.Address) {
				names = append(names, e.Address)
			}
		}
	}
	return names
}

// follow has names followed and waits a little for those that are new, so that a
// configuration does not begin without endpoints that are there.
func (s *Server) follow(names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), firstAnswer)
	defer cancel()
	s.names.Follow(ctx, names)
}

func (s *Server) targets(address string) ([]view.Target, error) {
	found, err := s.names.Targets(address)
	targets := make([]view.Target, len(found))
	for i, t := range found {
		targets[i] = view.Target(t)
	}
	return targets, err
}

// rebuild serves the snapshot in force with what its names mean now. Handles of
// endpoints that stay are kept, and so are their connections and counters.
func (s *Server) rebuild() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snap == nil || s.draining {
		return nil
	}
	return s.install(s.snap, keptSharing{s.current().View})
}

// keptSharing hands out the gates of the view that serves: the snapshot is the
// same, and so are its sites.
type keptSharing struct{ view *view.View }

func (k keptSharing) Gate(service mesh.ServiceKey, _ []string) upstream.Gate {
	if s := k.view.Services[service]; s != nil {
		return s.Gate
	}
	return nil
}

func (k keptSharing) Meter(site string) *limit.Meter {
	for _, s := range k.view.Services {
		for i := range s.Remotes {
			if s.Remotes[i].Site == site {
				return s.Remotes[i].Endpoint.Meter
			}
		}
	}
	return nil
}

func (k keptSharing) Report(service mesh.ServiceKey) upstream.Report {
	if s := k.view.Services[service]; s != nil {
		return s.Report
	}
	return nil
}
