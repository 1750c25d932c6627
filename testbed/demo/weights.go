package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/testbed/report"
)

// pollEvery is how often the proxies are asked for their weights. Their history
// has the exact time of every change, so asking seldom loses nothing.
const pollEvery = 250 * time.Millisecond

// weightsView is what the admin of a proxy answers at /weights, as far as the
// demo reads it.
type weightsView struct {
	Services []serviceShares `json:"services"`
	History  []shareChange   `json:"history"`
	// DroppedBeforeMS says up to when history is gone.
	DroppedBeforeMS int64 `json:"droppedBeforeMs"`
}

type serviceShares struct {
	Service   string        `json:"service"`
	Policy    string        `json:"policy"`
	Source    string        `json:"source"`
	HomeLimit int           `json:"homeLimit"`
	HomeShare float64       `json:"homeShare"`
	InFlight  int           `json:"inFlight"`
	Remotes   []remoteShare `json:"remotes"`
}

type remoteShare struct {
	Site     string  `json:"site"`
	Share    float64 `json:"share"`
	RTTMS    float64 `json:"rttMs"`
	Excluded string  `json:"excluded"`
	Suspect  string  `json:"suspect"`
}

type shareChange struct {
	AtMS    int64              `json:"atMs"`
	Service string             `json:"service"`
	Shares  map[string]float64 `json:"shares"`
}

// watch keeps what the proxies said of their weights.
type watch struct {
	client *http.Client
	sites  []string
	admin  func(site int) string // address of the site's proxy's admin

	mu      sync.Mutex
	now     []serviceShares // by site; the zero value until one answered
	changes [][]shareChange // by site, in order
	lost    int             // answers whose history had a hole
}

func newWatch(client *http.Client, sites []string, admin func(int) string) *watch {
	return &watch{client: client, sites: sites, admin: admin,
		now: make([]serviceShares, len(sites)), changes: make([][]shareChange, len(sites))}
}

// poll asks one proxy and keeps the answer.
func (w *watch) poll(ctx context.Context, site int) error {
	var v weightsView
	if err := getJSON(ctx, w.client, "http://"+w.admin(site)+"/weights", &v); err != nil {
		return err
	}
	i := slices.IndexFunc(v.Services, func(s serviceShares) bool { return s.Service == serviceKey })
	if i < 0 {
		return fmt.Errorf("the proxy of %s shares no service %s", w.sites[site], serviceKey)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now[site] = v.Services[i]
	last := int64(0)
	if n := len(w.changes[site]); n > 0 {
		last = w.changes[site][n-1].AtMS
		if v.DroppedBeforeMS > last {
			w.lost++
		}
	}
	for _, c := range v.History {
		if c.Service == serviceKey && c.AtMS > last {
			w.changes[site] = append(w.changes[site], c)
		}
	}
	return nil
}

// run polls all proxies until ctx ends. One that does not answer is asked again:
// whether it lives is its process's affair.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		for i := range w.sites {
			if err := w.poll(ctx, i); err != nil && ctx.Err() != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shares returns the newest answers by site.
func (w *watch) shares() []serviceShares {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.now)
}

// timeline lays a run's weights out for the report: at every change and every
// 50 ms between, so that means over time are means over observations.
func (w *watch) timeline(start time.Time, length time.Duration) []report.Weights {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []report.Weights
	for site, changes := range w.changes {
		var shares []float64
		put := func(at time.Duration) {
			if shares != nil {
				out = append(out, report.Weights{At: at, Site: site, Shares: shares})
			}
		}
		next := 0
		for grid := time.Duration(0); grid <= length; grid += 50 * time.Millisecond {
			for ; next < len(changes); next++ {
				at := time.UnixMilli(changes[next].AtMS).Sub(start)
				if at > grid {
					break
				}
				shares = w.row(changes[next])
				if at >= 0 {
					put(at)
				}
			}
			put(grid)
		}
	}
	slices.SortStableFunc(out, func(a, b report.Weights) int { return int(a.At - b.At) })
	return out
}

func (w *watch) row(c shareChange) []float64 {
	row := make([]float64, len(w.sites))
	for i, name := range w.sites {
		row[i] = c.Shares[name]
	}
	return row
}

// getJSON reads a JSON document from an admin address.
func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", url, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}
