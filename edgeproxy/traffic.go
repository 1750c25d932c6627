package edgeproxy

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/internal/beat"
)

// trafficEvery is how often a node tells who talked to whom: the means that are made of
// it are of minutes. Until it has told of something it looks more often, so that who
// starts a mesh sees it soon.
const (
	trafficEvery  = 5 * time.Second
	trafficAtOnce = time.Second
)

// Flow counts what one workload asked of another at one endpoint, since the endpoint
// is known.
type Flow struct {
	From, To mesh.Workload
	// Away says that another site serves it.
	Away bool
	upstream.Sum
	key flowKey
}

type flowKey struct {
	endpoint *upstream.Endpoint
	caller   int
	era      uint32
}

// Flows appends the flows to all endpoints to dst. Requests from other sites' proxies
// are not among them: these tell of them.
func (s *Server) Flows(dst []Flow) []Flow {
	names := s.registry.CallerNames()
	for _, e := range s.registry.Endpoints(nil) {
		to := e.Workload.Load()
		if to == nil {
			continue // of a snapshot that was not taken
		}
		e.Flows(func(caller int, sum upstream.Sum) {
			// Else it came after the names were read.
			if caller < len(names) && names[caller].Workload != (mesh.Workload{}) {
				dst = append(dst, Flow{names[caller].Workload, *to, e.Site != "", sum, flowKey{e, caller, names[caller].Era}})
			}
		})
	}
	return dst
}

// TrafficConfig is what a Traffic needs to know of its node.
type TrafficConfig struct {
	Site, Node string
	// Publish sends a report to the site's controller. It must not block. What it
	// could not send is told of in the next.
	Publish func(*mesh.NodeTraffic) error
	Log     *slog.Logger
}

// Traffic tells a site's controller who talks to whom through this node. It reads
// counters that the loops keep anyway, now and then.
type Traffic struct {
	TrafficConfig
	epoch, seq uint64
	since      time.Time
	any        bool
	told       map[flowKey]upstream.Sum
	flows      []Flow
	fault      string
	heard      [upstream.MaxCallers]heard
}

// heard is when a caller was last heard of.
type heard struct {
	era uint32
	at  time.Time
}

// callerMemory is for how long a caller that is silent keeps its place among those that
// are told apart, once these are more than half of what there may be.
const callerMemory = time.Hour

// NewTraffic returns a Traffic that has told nothing yet.
func NewTraffic(cfg TrafficConfig) *Traffic {
	now := time.Now()
	return &Traffic{TrafficConfig: cfg, since: now, epoch: uint64(now.UnixNano()), told: map[flowKey]upstream.Sum{}}
}

// Run reports until ctx ends, and once more then.
func (t *Traffic) Run(ctx context.Context, s *Server) error {
	tick := beat.Every(trafficAtOnce)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.report(s, time.Now())
			return nil
		case now := <-tick.C:
			tick.Again()
			if !t.any && now.Sub(t.since) < trafficEvery-trafficAtOnce/2 && !t.flowed(s) {
				continue // the message of a second in which nothing was is its own cost
			}
			if first := !t.any; t.report(s, now) && first {
				tick.Reset(trafficEvery)
			}
		}
	}
}

// flowed tells whether there is anything to tell of.
func (t *Traffic) flowed(s *Server) bool {
	t.flows = s.Flows(t.flows[:0])
	return slices.ContainsFunc(t.flows, func(f Flow) bool { return f.Sum != (upstream.Sum{}) })
}

// report says whether it has told of something, ever.
func (t *Traffic) report(s *Server, now time.Time) bool {
	t.flows = s.Flows(t.flows[:0])
	r := t.fresh(t.flows)
	r.OverMS = float64(now.Sub(t.since)) / float64(time.Millisecond)
	if err := t.Publish(r); err != nil {
		if t.fault != err.Error() {
			t.fault = err.Error()
			t.Log.Warn("traffic is not told of; the next report has it", "err", err)
		}
		return t.any
	}
	t.fault, t.since, t.any = "", now, t.any || len(r.Flows) > 0
	for i := range t.flows {
		if f := &t.flows[i]; f.Sum != t.told[f.key] {
			t.heard[f.key.caller] = heard{f.key.era, now}
		}
	}
	// Only what was told of may be forgotten.
	s.registry.ReclaimCallers(func(place int, of upstream.CallerName) bool {
		h := &t.heard[place]
		if h.at.IsZero() || h.era != of.Era {
			*h = heard{of.Era, now} // it has its place, and was not heard of yet
		}
		return now.Sub(h.at) > callerMemory
	})
	clear(t.told)
	for i := range t.flows {
		t.told[t.flows[i].key] = t.flows[i].Sum
	}
	return t.any
}

// fresh is what flowed since the last report that was sent.
func (t *Traffic) fresh(flows []Flow) *mesh.NodeTraffic {
	type edge struct {
		from, to mesh.Workload
		away     bool
	}
	t.seq++
	r := &mesh.NodeTraffic{Site: t.Site, Node: t.Node, Epoch: t.epoch, Seq: t.seq, Flows: []mesh.NodeFlow{}}
	at := map[edge]int{}
	add := func(k edge, n upstream.Sum) {
		i, ok := at[k]
		if !ok {
			i = len(r.Flows)
			at[k] = i
			r.Flows = append(r.Flows, mesh.NodeFlow{From: k.from, To: k.to, Away: k.away})
		}
		f := &r.Flows[i]
		f.Requests, f.RequestBytes, f.ResponseBytes = f.Requests+n.Requests, f.RequestBytes+n.RequestBytes, f.ResponseBytes+n.ResponseBytes
	}
	for i := range flows {
		f := &flows[i]
		n, was := f.Sum, t.told[f.key]
		// An endpoint that was forgotten and is back has a key of its own.
		n.Requests, n.RequestBytes, n.ResponseBytes = n.Requests-was.Requests, n.RequestBytes-was.RequestBytes, n.ResponseBytes-was.ResponseBytes
		if n != (upstream.Sum{}) {
			add(edge{f.From, f.To, f.Away}, n)
		}
	}
	if len(r.Flows) <= mesh.MaxNodeFlows {
		return r
	}
	// The least are told of together: first by what they asked, then as one.
	all := r.Flows
	slices.SortFunc(all, func(a, b mesh.NodeFlow) int {
		return cmp.Compare(b.RequestBytes+b.ResponseBytes, a.RequestBytes+a.ResponseBytes)
	})
	const apart = mesh.MaxNodeFlows / 2
	r.Flows = slices.Clone(all[:apart])
	clear(at)
	for i := range r.Flows {
		at[edge{r.Flows[i].From, r.Flows[i].To, r.Flows[i].Away}] = i
	}
	for _, f := range all[apart:] {
		k := edge{mesh.Others, f.To, f.Away}
		if _, ok := at[k]; !ok && len(r.Flows) >= mesh.MaxNodeFlows-2 {
			k.to = mesh.Others
		}
		add(k, upstream.Sum{Requests: f.Requests, RequestBytes: f.RequestBytes, ResponseBytes: f.ResponseBytes})
	}
	return r
}
