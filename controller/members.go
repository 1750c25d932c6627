package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	defaultTokenLife = time.Hour
	maxTokenLife     = 30 * 24 * time.Hour
)

// errNotHub refuses what only a hub with its own server can do.
func (s *Server) errNotHub(what string) error {
	if s.cfg.NATSURL != "" {
		return fmt.Errorf("%s: with an external NATS its operator gives each site its key", what)
	}
	return fmt.Errorf("%s: site %s is not the hub: ask the hub (meridian --data of the hub)", what, s.cfg.Site)
}

// serveJoin listens for sites that want to join.
func (s *Server) serveJoin(stop context.CancelCauseFunc) (*httpAPI, error) {
	l, err := net.Listen("tcp", s.cfg.JoinListen)
	if err != nil {
		return nil, fmt.Errorf("controller: where sites ask to join: %w", err)
	}
	s.joinAddr = l.Addr().String()
	ca, _ := s.authority.CA()
	hub := join.Hub{
		Registry: s.members, CA: ca, Introduce: s.introduce, Now: time.Now,
		Joined: func(site string) { s.log.Info("site joined", "site", site) },
	}
	a := &httpAPI{done: make(chan struct{}), server: &http.Server{
		Handler: hub.Handler(), TLSConfig: s.authority.TLS(), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: requestTimeout, IdleTimeout: time.Minute,
	}}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(tls.NewListener(l, a.server.TLSConfig)); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("controller: where sites ask to join: %w", err))
		}
	}()
	return a, nil
}

// introduce applies the Site object that a new site brings, and nothing else. One
// that the hub has already is the operator's word and stands.
func (s *Server) introduce(ctx context.Context, site, document string) error {
	objects, err := mesh.ParseSources([]mesh.Source{{Name: "site " + site, Data: []byte(document)}})
	if err != nil {
		return err
	}
	if objects.Len() != 1 || len(objects.Sites) != 1 || objects.Sites[0].Metadata.Name != site {
		return fmt.Errorf("a site that joins may bring one document, kind Site and named %s", site)
	}
	known := false
	if err := s.do(ctx, func() { _, known = s.world.Get(siteKey(site)) }); err != nil || known {
		return err
	}
	r, err := s.apply(by(ctx, "site "+site+", which joined"), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "site " + site, YAML: document}}})
	if err != nil {
		return err
	}
	var faults []error
	for _, f := range r.Faults {
		faults = append(faults, errors.New(f.String()))
	}
	return errors.Join(faults...)
}

func siteKey(site string) mesh.Key {
	return mesh.Key{Kind: mesh.KindSite, Namespace: mesh.DefaultNamespace, Name: site}
}

// createToken makes a token for a site.
func (s *Server) createToken(_ context.Context, r siteapi.TokenRequest) (*siteapi.Token, error) {
	if s.members == nil {
		return nil, s.errNotHub("make a token")
	}
	if !label.MatchString(r.Site) {
		return nil, fmt.Errorf("site %q is not a name: lower-case letters, digits and -, a letter or digit at both ends, at most 63", r.Site)
	}
	if r.Site == s.cfg.Site {
		return nil, fmt.Errorf("%s is the hub's own name: a site that joins needs another", r.Site)
	}
	life := time.Duration(r.TTLSeconds * float64(time.Second))
	switch {
	case life == 0:
		life = defaultTokenLife
	case life < 0 || life > maxTokenLife:
		return nil, fmt.Errorf("a token is good for a moment up to %s", maxTokenLife)
	}
	leafHost, leafPort, err := net.SplitHostPort(s.nats.LeafAddr())
	if err != nil {
		return nil, fmt.Errorf("the hub's own address: %w", err)
	}
	_, joinPort, err := net.SplitHostPort(s.joinAddr)
	if err != nil {
		return nil, fmt.Errorf("the hub's own address: %w", err)
	}
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = s.cfg.Advertise
	}
	if len(hosts) == 0 {
		if hosts, err = reachableAt(leafHost); err != nil {
			return nil, err
		}
	}
	_, sum := s.authority.CA()
	t := join.Token{Site: r.Site, CA: sum}
	for _, h := range hosts {
		h = strings.Trim(h, "[]")
		if h == "" || strings.ContainsAny(h, "/ ") || strings.Contains(h, ":") && net.ParseIP(h) == nil {
			return nil, fmt.Errorf("host %q: want a name or an IP address, without a port", h)
		}
		t.Join = append(t.Join, "https://"+net.JoinHostPort(h, joinPort))
		t.Leaf = append(t.Leaf, "tls://"+net.JoinHostPort(h, leafPort))
	}
	if t.Key, t.Expires, err = s.members.Create(r.Site, time.Now(), life); err != nil {
		return nil, err
	}
	s.log.Info("token made", "site", r.Site, "expires", t.Expires)
	return &siteapi.Token{Site: r.Site, Token: t.String(), Expires: t.Expires, Hosts: hosts}, nil
}

// reachableAt are the addresses at which a listener on host can be dialled.
func reachableAt(host string) ([]string, error) {
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsUnspecified() {
		return []string{host}, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this machine's addresses: %w", err)
	}
	var out []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	if len(out) == 0 {
		return nil, errors.New("this machine has no address that others could reach: name one (--host)")
	}
	return out, nil
}

// removeSite takes a site out of the mesh: its key first, so that nothing it still
// says is heard, then its link, its object and what is known of it.
func (s *Server) removeSite(ctx context.Context, r siteapi.RemoveRequest) (*siteapi.Removed, error) {
	if !s.cfg.Hub {
		return nil, s.errNotHub("remove a site")
	}
	if r.Site == s.cfg.Site {
		return nil, fmt.Errorf("%s is the hub itself", r.Site)
	}
	out := &siteapi.Removed{Site: r.Site, Did: []string{}}
	did := func(what string) { out.Did = append(out.Did, what) }
	if s.members != nil {
		known, err := s.members.Remove(r.Site)
		if err != nil {
			return nil, err
		}
		if known {
			did("its key and tokens are withdrawn")
		}
		if err := s.nats.Disconnect(r.Site); err != nil {
			return nil, fmt.Errorf("its key is withdrawn, but its link could not be ended: %w; run it again", err)
		}
	} else {
		purged, err := s.conn.PurgeSite(ctx, r.Site)
		if err != nil {
			return nil, fmt.Errorf("purge what site %s stored: %w; run it again", r.Site, err)
		}
		for _, bucket := range purged {
			did("bucket " + bucket + " is deleted")
		}
	}
	has, heard := false, false
	err := s.do(ctx, func() {
		_, has = s.world.Get(siteKey(r.Site))
		out.Left = s.naming(r.Site)
		heard = s.world.Drop(r.Site)
	})
	if err != nil {
		return nil, err
	}
	if heard {
		did("what was known of its load is forgotten")
	}
	if has {
		d, err := s.delete(ctx, siteapi.DeleteRequest{Keys: []mesh.Key{siteKey(r.Site)}})
		if err != nil {
			return nil, fmt.Errorf("delete its Site object: %w; run it again", err)
		}
		if len(d.Faults) > 0 {
			return nil, fmt.Errorf("delete its Site object: %s", d.Faults[0])
		}
		did("its Site object is deleted")
	}
	if len(out.Did) == 0 {
		return nil, fmt.Errorf("no site %s is known here; those that joined: %s", r.Site, strings.Join(s.joined(), ", "))
	}
	s.log.Info("site removed", "site", r.Site)
	return out, nil
}

func (s *Server) joined() []string {
	if s.members == nil {
		return nil
	}
	return s.members.Sites()
}

// naming returns the objects, but for its own, that name a site. Loop only.
func (s *Server) naming(site string) []mesh.Key {
	var out []mesh.Key
	for _, o := range s.world.List() {
		switch d := o.Doc.(type) {
		case *mesh.MeshService:
			if slices.ContainsFunc(d.Spec.Endpoints, func(e mesh.Endpoint) bool { return e.Site == site }) ||
				d.Spec.Export != nil && slices.Contains(d.Spec.Export.Sites, site) {
				out = append(out, o.Key)
			}
		case *mesh.Site:
			if slices.ContainsFunc(d.Spec.Links, func(l mesh.SiteLink) bool { return l.To == site }) {
				out = append(out, o.Key)
			}
		}
	}
	return out
}

// forgetRemoved drops what is known of a site whose Site object an owner deleted.
// Loop only.
func (s *Server) forgetRemoved(key mesh.Key) {
	if key.Kind != mesh.KindSite {
		return
	}
	if _, still := s.world.Get(key); !still {
		s.world.Drop(key.Name)
	}
}
