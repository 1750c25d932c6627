package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/scheduler/args"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

const (
	// lookEvery is how often files are looked at.
	lookEvery = 2 * time.Second
	// maxPairs bounds what is told apart of another mesh's metrics, perWorkload how
	// many peers of a workload are kept.
	maxPairs    = 50_000
	perWorkload = 64
	// maxText bounds an answer with metrics.
	maxText      = 256 << 20
	fetchTimeout = 20 * time.Second
)

// reading is what is known of traffic and delays. It is immutable.
type reading struct {
	index *traffic.Index
	sites traffic.Measured
	// at is when the traffic was true: a file's own time, or a scrape's.
	at time.Time
}

// source keeps the newest reading. What cannot be read leaves the last good one in
// place, to grow old, and is logged once.
type source struct {
	args   *args.Args
	log    *slog.Logger
	client *http.Client
	now    atomic.Pointer[reading]
	faults atomic.Uint64
	last   string // the last fault that was logged

	matrixTime, delaysTime time.Time
	importer               *traffic.Importer
	meter                  *traffic.Meter
	began                  time.Time

	told  <-chan bus.Received[*mesh.TrafficReport]
	board traffic.Board
}

func newSource(ctx context.Context, a *args.Args, log *slog.Logger) (*source, error) {
	s := &source{args: a, log: log, client: &http.Client{Timeout: fetchTimeout}, began: time.Now()}
	s.now.Store(&reading{})
	if n := a.NATS; n != nil {
		if err := s.subscribe(ctx, n); err != nil {
			return nil, err
		}
	}
	if m := a.Metrics; m != nil {
		var err error
		if s.importer, err = traffic.NewImporter(traffic.ImportOptions{Dialect: m.Dialect, Cluster: a.Cluster, BytesPerRequest: m.BytesPerRequest}); err != nil {
			return nil, err
		}
		s.meter = traffic.NewMeter(maxPairs)
	}
	return s, nil
}

// run refreshes until ctx ends.
func (s *source) run(ctx context.Context) {
	every := lookEvery
	if s.args.Metrics != nil {
		every = s.args.Metrics.Every.Duration
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		s.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (s *source) refresh(ctx context.Context) {
	next := *s.now.Load()
	err := errors.Join(s.readDelays(&next), s.readTraffic(ctx, &next))
	s.now.Store(&next)
	switch {
	case err == nil:
		s.last = ""
	case ctx.Err() == nil:
		s.faults.Add(1)
		if s.last != err.Error() {
			s.last = err.Error()
			s.log.Error("traffic is not refreshed; what was known grows old", "err", err)
		}
	}
}

func (s *source) readTraffic(ctx context.Context, r *reading) error {
	switch {
	case s.args.Metrics != nil:
		return s.scrape(ctx, r)
	case s.args.NATS != nil:
		return s.listen(r)
	}
	info, err := os.Stat(s.args.MatrixFile)
	if err != nil {
		return fmt.Errorf("traffic matrix: %w", err)
	}
	if info.ModTime().Equal(s.matrixTime) {
		return nil
	}
	f, err := os.Open(s.args.MatrixFile)
	if err != nil {
		return fmt.Errorf("traffic matrix: %w", err)
	}
	defer func() { _ = f.Close() }()
	m, err := traffic.ReadJSON(f)
	if err != nil {
		return fmt.Errorf("%s: %w", s.args.MatrixFile, err)
	}
	s.matrixTime = info.ModTime()
	r.index, r.at = s.prepare(m), info.ModTime()
	return nil
}

// prepare puts workloads without a cluster into this one.
func (s *source) prepare(m *traffic.Matrix) *traffic.Index {
	named := &traffic.Matrix{}
	for _, e := range m.Edges {
		if e.From.Namespace == "" || e.To.Namespace == "" {
			continue // who is not known has no pods
		}
		if e.From.Cluster == "" {
			e.From.Cluster = s.args.Cluster
		}
		if e.To.Cluster == "" {
			e.To.Cluster = s.args.Cluster
		}
		named.Edges = append(named.Edges, e)
	}
	return traffic.Merge(named).Bound(perWorkload).Index(traffic.Recent)
}

func (s *source) scrape(ctx context.Context, r *reading) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.args.Metrics.URL, nil)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("metrics: %s answers %s", s.args.Metrics.URL, resp.Status)
	}
	at := time.Now()
	got, err := s.importer.Scrape(io.LimitReader(resp.Body, maxText), at.Sub(s.began), s.meter)
	if err != nil {
		return err
	}
	if got.Pairs == 0 {
		return fmt.Errorf("metrics: %s has no %s traffic between workloads (%d samples name none)", s.args.Metrics.URL, s.args.Metrics.Dialect, got.Skipped)
	}
	if !got.First {
		r.index, r.at = s.prepare(s.meter.Matrix(perWorkload)), at
	}
	return nil
}

func (s *source) readDelays(r *reading) error {
	if s.args.DelaysFile == "" {
		return nil
	}
	info, err := os.Stat(s.args.DelaysFile)
	if err != nil {
		return fmt.Errorf("delays: %w", err)
	}
	if info.ModTime().Equal(s.delaysTime) {
		return nil
	}
	data, err := os.ReadFile(s.args.DelaysFile)
	if err != nil {
		return fmt.Errorf("delays: %w", err)
	}
	var m traffic.Measured
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%s: %w", s.args.DelaysFile, err)
	}
	// A first use, so that faults are found here and not while pods wait.
	if _, err := traffic.NewDelays(nil, func(string) string { return "" }, m.Sites, m.OneWayMS); err != nil {
		return fmt.Errorf("%s: %w", s.args.DelaysFile, err)
	}
	s.delaysTime = info.ModTime()
	r.sites = m
	return nil
}
