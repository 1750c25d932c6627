package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// serveTaps serves what is asked about requests as they end.
func (s *Server) serveTaps(m *http.ServeMux) {
	m.HandleFunc("POST "+siteapi.PathTap, func(w http.ResponseWriter, r *http.Request) { post(w, r, s.tap, nil) })
	m.HandleFunc("POST "+siteapi.PathFailed, func(w http.ResponseWriter, r *http.Request) { post(w, r, s.failed, nil) })
}

// tapVerbs are the same on the bus, for this site alone.
func (s *Server) tapVerbs() map[string]bus.Verb {
	return map[string]bus.Verb{
		siteapi.VerbTap:    func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.tapHere) },
		siteapi.VerbLogs:   func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.logsHere) },
		siteapi.VerbTrace:  func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.traceHere) },
		siteapi.VerbFailed: func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.failedHere) },
		siteapi.VerbRequest: func(ctx context.Context, in []byte) ([]byte, error) {
			return decoded(ctx, in, func(ctx context.Context, q siteapi.RequestQuery) (any, error) {
				if err := q.Check(); err != nil {
					return nil, err
				}
				if q.Tap != nil {
					return s.tapHere(ctx, *q.Tap)
				}
				return s.failedHere(ctx, *q.Failed)
			})
		},
	}
}

// tap asks the proxies that a request names for what a tap has seen there.
func (s *Server) tap(ctx context.Context, r siteapi.TapRequest) (*siteapi.Tapped, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Tapped{Requests: []mesh.EndedRequest{}, After: map[string]uint64{}}
	there := r
	there.Where = siteapi.Where{Node: r.Node}
	silent, err := asked(ctx, s, r.Where, siteapi.VerbTap, r.Filter.ID, there, siteapi.RequestQuery{Tap: &there}, s.tapHere,
		func(a *siteapi.Tapped) { out.Add(a) })
	if err != nil {
		return nil, err
	}
	out.Silent = merged(out.Silent, silent)
	out.Sort()
	return out, nil
}

// tapHere asks those of this site.
func (s *Server) tapHere(ctx context.Context, r siteapi.TapRequest) (*siteapi.Tapped, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Tapped{Requests: []mesh.EndedRequest{}, After: map[string]uint64{}, Dropped: map[string]uint64{}}
	var mu sync.Mutex
	silent, err := s.askNodes(ctx, r.Node, bus.VerbTap, func(node string) any {
		q := r.TapQuery
		q.After = r.After[s.cfg.Site+"/"+node]
		return q
	}, func(node string, data []byte) error {
		a := new(mesh.TapAnswer)
		if err := json.Unmarshal(data, a); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		key := s.cfg.Site + "/" + node
		out.Requests, out.After[key], out.Dropped[key], out.More = append(out.Requests, a.Requests...), a.Seq, a.Dropped, out.More || a.More
		return nil
	})
	out.Silent = silent
	return out, err
}

// failed asks the proxies that a request names for what failed or took long there.
func (s *Server) failed(ctx context.Context, r siteapi.FailedRequest) (*siteapi.Failed, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Failed{Nodes: []mesh.FailedAnswer{}}
	there := r
	there.Where = siteapi.Where{Node: r.Node}
	silent, err := asked(ctx, s, r.Where, siteapi.VerbFailed, r.ID, there, siteapi.RequestQuery{Failed: &there}, s.failedHere,
		func(a *siteapi.Failed) {
			out.Nodes, out.Silent = append(out.Nodes, a.Nodes...), merged(out.Silent, a.Silent)
		})
	if err != nil {
		return nil, err
	}
	out.Silent = merged(out.Silent, silent)
	slices.SortFunc(out.Nodes, func(a, b mesh.FailedAnswer) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Node, b.Node))
	})
	return out, s.do(ctx, func() {
		for i := range out.Nodes {
			for k := range out.Nodes[i].Requests {
				if x := out.Nodes[i].Requests[k].Explanation; x != nil {
					s.addOwners(x)
				}
			}
		}
	})
}

// failedHere asks those of this site.
func (s *Server) failedHere(ctx context.Context, r siteapi.FailedRequest) (*siteapi.Failed, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Failed{Nodes: []mesh.FailedAnswer{}}
	var mu sync.Mutex
	silent, err := s.askNodes(ctx, r.Node, bus.VerbFailed, func(string) any { return r.FailedQuery }, func(_ string, data []byte) error {
		a := new(mesh.FailedAnswer)
		if err := json.Unmarshal(data, a); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out.Nodes = append(out.Nodes, *a)
		return nil
	})
	out.Silent = silent
	return out, err
}

func merged(a, b map[string]string) map[string]string {
	if a == nil {
		return b
	}
	maps.Copy(a, b)
	return a
}

// asked asks each site that where names, this one by here, and calls take with each
// answer, one at a time. The hub sends others there by verb; a site that is not the
// hub byID, for a request whose ID it knows.
func asked[In, Out any](ctx context.Context, s *Server, where siteapi.Where, verb, id string, there In, byID siteapi.RequestQuery, here func(context.Context, In) (*Out, error), take func(*Out)) (silent map[string]string, err error) {
	sites := []string{cmp.Or(where.Site, s.cfg.Site)}
	if where.All {
		if err := s.do(ctx, func() {
			for _, p := range s.world.Peers(time.Now(), s.reachable()) {
				sites = append(sites, p.Site)
			}
		}); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	one := func(site string) error {
		var a *Out
		var err error
		if site == s.cfg.Site {
			a, err = here(ctx, there)
		} else {
			a, err = askSite[Out](ctx, s, site, verb, id, there, byID)
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			take(a)
		}
		return err
	}
	if !where.All { // its refusal is the answer
		return nil, one(sites[0])
	}
	silent = map[string]string{}
	var all sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for _, site := range sites {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := one(site); err != nil {
				mu.Lock()
				defer mu.Unlock()
				silent[site] = err.Error()
			}
		})
	}
	all.Wait()
	return silent, nil
}

func askSite[Out, In any](ctx context.Context, s *Server, site, verb, id string, there In, byID siteapi.RequestQuery) (*Out, error) {
	var body any = there
	if !s.cfg.Hub {
		if len(id) < siteapi.MinRequestID {
			return nil, fmt.Errorf("site %s tells only the hub of its requests, and others of one whose ID they know (%d bytes or more): ask at the hub's controller", site, siteapi.MinRequestID)
		}
		verb, body = siteapi.VerbRequest, byID
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, 2*askFor)
	defer done()
	data, err = s.conn.Call(ctx, site, verb, data)
	if err != nil {
		return nil, err
	}
	out := new(Out)
	return out, json.Unmarshal(data, out)
}

// askNodes asks a verb of one proxy of this site, or of all that are not dead. An
// error is that there is none.
func (s *Server) askNodes(ctx context.Context, only, verb string, query func(node string) any, take func(node string, data []byte) error) (silent map[string]string, err error) {
	var nodes, names []string
	if err := s.do(ctx, func() {
		for _, n := range s.world.Nodes(time.Now()) {
			if n.Report.Chains != nil {
				continue // it forwards packets
			}
			names = append(names, n.Name)
			if n.Status != membership.Dead && (only == "" || only == n.Name) {
				nodes = append(nodes, n.Name)
			}
		}
	}); err != nil {
		return nil, err
	}
	switch {
	case len(nodes) > 0:
	case only != "" && len(names) > 0:
		return nil, fmt.Errorf("site %s has no live proxy %s; it has: %s", s.cfg.Site, only, names)
	default:
		return nil, fmt.Errorf("site %s has no proxy that could say: name another site", s.cfg.Site)
	}
	silent = map[string]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	var refusals []error
	for _, node := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			request, err := json.Marshal(query(node))
			if err == nil {
				ctx, done := context.WithTimeout(ctx, askFor)
				defer done()
				var data []byte
				if data, err = s.conn.CallNode(ctx, s.cfg.Site, node, verb, request); err == nil {
					err = take(node, data)
				}
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				silent[s.cfg.Site+"/"+node] = err.Error()
				refusals = append(refusals, err)
			}
		})
	}
	all.Wait()
	if len(refusals) == len(nodes) {
		return nil, errors.Join(refusals...)
	}
	return silent, nil
}
