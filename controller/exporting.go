package controller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/export"
	"github.com/meridian-mesh/meridian/controller/store"
)

// Export says which proxies that are not ours follow the site's weights.
type Export struct {
	HAProxy []export.HAProxy
	// EnvoyFile and GatewayFile are files to write, empty for none. Gateway is the
	// name of the Gateway that the routes in the second attach to.
	EnvoyFile, GatewayFile, Gateway string
}

// exported is what exporting needs of one moment.
type exported struct {
	services []export.Service
	sites    []string
	capacity map[mesh.ServiceKey]mesh.ServiceReport
}

// exported returns the plan with the addresses that belong to it. Loop only.
func (s *Server) exported() exported {
	out := exported{capacity: map[mesh.ServiceKey]mesh.ServiceReport{}}
	gateways := map[string][]string{}
	links := map[string]string{}
	objects := s.world.Objects()
	for _, site := range objects.Sites {
		out.sites = append(out.sites, site.Metadata.Name)
		for _, g := range site.Spec.Gateways {
			gateways[site.Metadata.Name] = append(gateways[site.Metadata.Name], g.Address)
		}
		if site.Metadata.Name == s.cfg.Site {
			for _, l := range site.Spec.Links {
				links[l.To] = l.Address
			}
		}
	}
	plans := map[mesh.ServiceKey]mesh.ServiceWeights{}
	if s.weights != nil {
		for _, w := range s.weights.Services {
			plans[w.Service] = w
		}
	}
	for _, svc := range objects.Services {
		w, ok := plans[svc.Key()]
		if !ok || len(svc.Spec.Ports) == 0 {
			continue
		}
		home := export.Share{Site: s.cfg.Site, Part: w.HomeWeight}
		for _, e := range svc.Spec.Endpoints {
			if (e.Site == "" || e.Site == s.cfg.Site) && s.world.Barred(svc.Key(), s.cfg.Site) == "" {
				home.Addresses = append(home.Addresses, address(e.Address)...)
			}
		}
		x := export.Service{Key: svc.Key(), Port: svc.Spec.Ports[0].Port, Shares: []export.Share{home}}
		for _, r := range w.Remotes {
			if s.world.Barred(svc.Key(), r.Site) != "" {
				continue // what is not named cannot be sent to
			}
			share := export.Share{Site: r.Site, Part: r.Weight}
			if l := links[r.Site]; l != "" {
				share.Addresses = address(l)
			} else {
				for _, g := range gateways[r.Site] {
					share.Addresses = append(share.Addresses, address(g)...)
				}
			}
			x.Shares = append(x.Shares, share)
		}
		out.services = append(out.services, x)
		out.capacity[svc.Key()] = s.world.Declared(svc.Key())
	}
	return out
}

func address(s string) []export.Address {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil {
		return nil
	}
	return []export.Address{{Host: host, Port: n}}
}

// exporting has each foreign proxy follow the plan until ctx ends, each by itself:
// one that hangs keeps no other waiting.
func (s *Server) exporting(ctx context.Context, run func(func())) {
	e := s.cfg.Export
	for i, h := range e.HAProxy {
		f := &follower{s: s, h: h, name: fmt.Sprintf("haproxy-%d-%s", i, h.Backend), meter: export.NewMeter(h, s.cfg.Site)}
		run(func() { s.every(ctx, tickEvery, "HAProxy "+h.Socket, f.turn) })
	}
	if e.EnvoyFile != "" {
		w := &fileWriter{s: s, path: e.EnvoyFile, encode: func(x exported) ([]byte, error) {
			// The version must change with the content, and with nothing else.
			body, err := export.EnvoyEDS(x.services, "")
			if err != nil {
				return nil, err
			}
			sum := sha256.Sum256(body)
			return export.EnvoyEDS(x.services, hex.EncodeToString(sum[:8]))
		}}
		run(func() { s.every(ctx, reportEvery, e.EnvoyFile, w.turn) })
	}
	if e.GatewayFile != "" {
		w := &fileWriter{s: s, path: e.GatewayFile, encode: func(x exported) ([]byte, error) {
			return export.GatewayRoutes(x.services, e.Gateway), nil
		}}
		run(func() { s.every(ctx, reportEvery, e.GatewayFile, w.turn) })
	}
}

// every calls turn, and logs a fault when it begins and when it ends.
func (s *Server) every(ctx context.Context, d time.Duration, what string, turn func(context.Context) error) {
	t := time.NewTicker(d)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		call, done := context.WithTimeout(ctx, callTimeout)
		err := turn(call)
		done()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != said:
			s.log.Warn("weights are not exported", "to", what, "err", err)
			said = err.Error()
		case err == nil && said != "":
			s.log.Info("weights are exported again", "to", what)
			said = ""
		}
	}
}

// follower is one HAProxy: its load goes into the world as that of a node, and the
// plan comes back as weights.
type follower struct {
	s     *Server
	h     export.HAProxy
	name  string
	meter *export.Meter
	seq   uint64
}

func (f *follower) turn(ctx context.Context) error {
	var x exported
	if err := f.s.do(ctx, func() { x = f.s.exported() }); err != nil {
		return err
	}
	for _, svc := range x.services {
		if svc.Key != f.h.Service {
			continue
		}
		servers, err := f.h.Servers(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		report, err := f.meter.Read(now, f.h.Backend, servers, x.sites, x.capacity[svc.Key])
		if err != nil {
			return err
		}
		f.seq++
		node := &mesh.NodeReport{
			Site: f.s.cfg.Site, Node: f.name, Epoch: uint64(f.s.started.UnixNano()), Seq: f.seq,
			Services: []mesh.NodeServiceReport{report},
		}
		if err := f.s.do(ctx, func() {
			// It serves what we tell it, so it is never behind.
			if f.s.snapshot != nil {
				node.Applied = f.s.snapshot.Generation
			}
			f.s.world.Tell(node, now)
		}); err != nil {
			return err
		}
		return f.h.Follow(ctx, servers, svc)
	}
	return fmt.Errorf("service %s is not shared here: it must be exported to the mesh, and this site have a Site object", f.h.Service)
}

// fileWriter replaces a file when what belongs into it has changed.
type fileWriter struct {
	s      *Server
	path   string
	encode func(exported) ([]byte, error)
	last   []byte
}

func (w *fileWriter) turn(ctx context.Context) error {
	var x exported
	ready := false
	if err := w.s.do(ctx, func() { x, ready = w.s.exported(), w.s.weights != nil }); err != nil || !ready {
		return err
	}
	data, err := w.encode(x)
	if err != nil || bytes.Equal(data, w.last) {
		return err
	}
	// Renamed into place: Envoy takes a file up when it is moved, and nobody reads half.
	if err := store.WriteFile(w.path, data, 0o644); err != nil {
		return err
	}
	w.last = data
	return nil
}
