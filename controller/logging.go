package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// logs gives the end of a log of this site or, at the hub, of any.
func (s *Server) logs(ctx context.Context, r siteapi.LogsRequest) (*siteapi.Logs, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	var out *siteapi.Logs
	there := r
	there.Site = ""
	_, err := asked(ctx, s, siteapi.Where{Site: r.Site}, siteapi.VerbLogs, "", there, siteapi.RequestQuery{}, s.logsHere, func(a *siteapi.Logs) { out = a })
	return out, err
}

// logsHere gives the end of a log of this site.
func (s *Server) logsHere(ctx context.Context, r siteapi.LogsRequest) (*siteapi.Logs, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out := &siteapi.Logs{Lines: []mesh.LogLine{}, After: map[string]uint64{}, Missed: map[string]uint64{}}
	var mu sync.Mutex
	add := func(node string, a *mesh.LogAnswer) {
		mu.Lock()
		defer mu.Unlock()
		for _, l := range a.Lines {
			l.Site, l.Node = s.cfg.Site, node
			out.Lines = append(out.Lines, l)
		}
		out.After[node], out.More = a.Next, out.More || a.More
		if a.Missed > 0 {
			out.Missed[node] = a.Missed
		}
	}
	if r.Controller {
		if s.said == nil {
			return nil, errors.New("this controller does not keep what it logs")
		}
		q := r.LogQuery
		q.After = r.After[""]
		a, err := s.said.Query(&q)
		if err != nil {
			return nil, err
		}
		add("", a)
		return out, nil
	}
	var err error
	out.Silent, err = s.askNodes(ctx, r.Node, bus.VerbLogs, func(node string) any {
		q := r.LogQuery
		q.After = r.After[node]
		return q
	}, func(node string, data []byte) error {
		a := new(mesh.LogAnswer)
		if err := json.Unmarshal(data, a); err != nil {
			return err
		}
		add(node, a)
		return nil
	})
	slices.SortStableFunc(out.Lines, func(a, b mesh.LogLine) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node))
	})
	return out, err
}
