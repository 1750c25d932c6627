package edgeproxy

import (
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// health judges the endpoints at home ten times a second, or at its [pulse], and writes the word that
// loops read at every pick. It is asked before a new view serves too, so that
// endpoints that appear with it are not taken for warm ones.
type health struct {
	log *slog.Logger

	mu       sync.Mutex
	services map[mesh.ServiceKey]*watched
}

// watched is one service's health between ticks.
type watched struct {
	detector  outlier.Detector
	endpoints []outlier.Endpoint
	was       []outlier.Health
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, services: map[mesh.ServiceKey]*watched{}}
}

// tick judges the services of a view; now is of the loops' clock. It tells whether there is
// something to judge soon again: an endpoint that does or did something since the last
// time, that is out or that warms up.
func (h *health) tick(now int64, v *view.View) (busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, s := range v.Services {
		w := h.services[key]
		since := now
		if w == nil {
			w = &watched{}
			h.services[key] = w
			// Where a service is new none of its endpoints is warmer than another.
			since = math.MinInt64 / 2
		}
		busy = h.judge(now, s, w, since) || busy
	}
	for key := range h.services {
		if v.Services[key] == nil {
			delete(h.services, key)
		}
	}
	return busy
}

func (h *health) judge(now int64, s *view.Service, w *watched, since int64) (busy bool) {
	w.endpoints, w.was = w.endpoints[:0], w.was[:0]
	for _, e := range s.Home {
		if !e.Watch.Known {
			e.Watch.Known, e.Watch.Since = true, since
		}
		w.was = append(w.was, e.Watch.Health())
		counts := e.Counts()
		busy = busy || counts != e.Watch.Seen() || e.InFlight.Load() > 0
		w.endpoints = append(w.endpoints, outlier.Endpoint{State: &e.Watch.State, Counts: counts})
	}
	w.detector.Config = s.Outlier
	w.detector.Tick(now, w.endpoints)
	healthy := 0
	for i, e := range s.Home {
		why := e.Watch.Health()
		if why == 0 {
			healthy++
		}
		if was := w.was[i]; was != why {
			h.changed(now, e, was, why)
		}
		missing := s.SlowStart.Missing(now - e.Watch.Since)
		busy = busy || why != 0 || missing > 0
		e.Health.Set(why, missing)
	}
	all := len(s.Home) > 0 && (healthy == 0 || float64(healthy) < s.PanicBelow*float64(len(s.Home)))
	if s.Panic.Swap(all) != all {
		h.log.Warn("health is looked at only while enough endpoints are healthy",
			"service", s.Key, "healthy", healthy, "of", len(s.Home), "all_are_used", all)
	}
	return busy
}

func (h *health) changed(now int64, e *upstream.Endpoint, was, why outlier.Health) {
	if why == 0 {
		e.Watch.Since = now
		h.log.Info("endpoint is back", "service", e.Service, "endpoint", e.Addr, "was", was.String())
		return
	}
	until := e.Watch.Until()
	e.Ejections.Add(1)
	e.EjectedUntil.Store(until)
	h.log.Warn("endpoint is ejected", "service", e.Service, "endpoint", e.Addr, "why", why.String(),
		"for", time.Duration(until-now).Round(time.Millisecond))
}
