package controller

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"math"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/otlp"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// Spans says where requests of the site's proxies go as spans.
type Spans struct {
	// Endpoint is a collector's address for traces over OTLP/HTTP, empty for none.
	Endpoint string
	Headers  map[string]string
	// Sample is the part of requests whose caller decided nothing, over 0 to 1.
	Sample float64
}

// spansEvery is the time between two questions to the proxies: each keeps a thousand
// requests, and is asked for no more than that many a second.
const spansEvery = 500 * time.Millisecond

// spans is the export of spans, nil where there is none.
type spans struct {
	*otlp.Exporter
	missed atomic.Uint64 // requests that proxies could not tell of
}

func newSpans(c *Config, s *Server) *spans {
	if c.Spans.Endpoint == "" {
		return nil
	}
	return &spans{Exporter: otlp.New(otlp.Config{Endpoint: c.Spans.Endpoint, Headers: c.Spans.Headers, Version: c.Version, Log: s.log})}
}

// exportSpans starts the export, where there is one.
func (s *Server) exportSpans(ctx context.Context, start func(func())) {
	if s.spans == nil {
		return
	}
	start(func() { s.collectSpans(ctx) })
	start(func() { s.spans.Run(ctx) })
}

// collectSpans taps the site's proxies until ctx ends. It is a tap as meridian tap has, and
// one of the few that a proxy lets be on.
func (s *Server) collectSpans(ctx context.Context) {
	r := siteapi.TapRequest{TapQuery: mesh.TapQuery{Session: "spans-" + rand.Text(), PerSecond: mesh.MaxTapRate, Filter: mesh.TapFilter{TraceSample: s.cfg.Spans.Sample}}}
	dropped := map[string]uint64{}
	said := ""
	tick := time.NewTicker(spansEvery)
	defer tick.Stop()
	for more := false; ; {
		if !more {
			select {
			case <-ctx.Done():
				return // taps that nobody asks for end by themselves
			case <-tick.C:
			}
		}
		more = false
		if !s.active(time.Now()) {
			continue
		}
		a, err := s.tapHere(ctx, r)
		if ctx.Err() != nil {
			return
		}
		problem := ""
		switch {
		case err != nil:
			problem = err.Error()
		case len(a.Silent) > 0:
			problem = fmt.Sprint(a.Silent)
		}
		if problem != said { // once, not twice a second
			if said = problem; problem != "" {
				s.log.Warn("spans of proxies are missing", "why", problem)
			}
		}
		if err != nil {
			continue
		}
		kept := a.Requests[:0]
		for _, e := range a.Requests {
			// Of a proxy of the version before, which selects less.
			if mesh.TraceSampled([]byte(e.TraceParent), []byte(e.ID), s.cfg.Spans.Sample) {
				kept = append(kept, e)
			}
		}
		s.spans.Add(kept)
		for key, n := range a.Dropped {
			if n < dropped[key] { // the tap is a new one
				dropped[key] = 0
			}
			s.spans.missed.Add(n - dropped[key])
			dropped[key] = n
		}
		if r.After == nil {
			r.After = map[string]uint64{}
		}
		maps.Copy(r.After, a.After) // one that is silent for once goes on where it was
		more = a.More
	}
}

// spanMetrics are those of the export, where there is one.
func (s *Server) spanMetrics(metric func(name, kind, help string, lines ...string)) {
	if s.spans == nil {
		return
	}
	n := s.spans.Stats()
	metric("spans_exported_total", "counter", "Spans that the collector of traces took.", fmt.Sprintf(" %d", n.Exported))
	metric("spans_dropped_total", "counter", "Spans that it did not get, by reason: over the rate of a proxy's tap, no room in the queue, refused by it, undelivered.",
		fmt.Sprintf("{reason=%q} %d", "tap", s.spans.missed.Load()), fmt.Sprintf("{reason=%q} %d", "queue", n.NoRoom),
		fmt.Sprintf("{reason=%q} %d", "refused", n.Refused), fmt.Sprintf("{reason=%q} %d", "undelivered", n.Undelivered))
	metric("spans_queued", "gauge", "Spans that wait for the collector.", fmt.Sprintf(" %d", n.Queued))
	metric("spans_call_failures_total", "counter", "Calls to the collector that failed.", fmt.Sprintf(" %d", n.Failures))
}

// check says what of the configuration cannot be.
func (c *Spans) check() error {
	if c.Endpoint != "" && (math.IsNaN(c.Sample) || c.Sample <= 0 || c.Sample > 1) {
		return fmt.Errorf("part of requests that become spans %g: want over 0, up to 1", c.Sample)
	}
	return nil
}
