package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/controller/history"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
)

const (
	// askFor bounds how long another site's controller is waited for.
	askFor = 800 * time.Millisecond
	// maxAsked bounds how many are asked at once.
	maxAsked = 32
	// maxTroubles bounds the ways that a site complains of.
	maxTroubles = 256
)

func ms(d time.Duration) float64 { return float64(max(0, d)) / float64(time.Millisecond) }

// self is what this controller says of itself. Loop only.
func (s *Server) self(now time.Time) siteapi.SiteStatus {
	out := siteapi.SiteStatus{
		Site: s.cfg.Site, Role: s.cfg.role(), Version: s.cfg.Version, Started: s.started, Problem: s.problem,
		Nodes: []siteapi.NodeStatus{}, Services: []siteapi.ServiceStatus{},
	}
	out.Traffic, out.TrafficReason = s.traffic(s.cfg.Site)
	if !s.active(now) {
		out.Standby = "nobody yet"
		if r := s.runs.Load(); r != nil && r.who != "" {
			out.Standby = r.who
		}
	}
	if s.snapshot != nil {
		g := s.snapshot.Generation
		out.Generation, out.Hash, out.Published = &g, s.snapshot.Hash, s.published == g
		out.Objects = s.snapshot.Objects.Len()
		if s.snapshot.Objects.Trust() != nil {
			out.Peers = s.snapshot.Objects.PeerScopes(s.cfg.Site)
		}
	}
	out.Now, out.Disk, out.Certificates, out.Doubles = now, s.disk(), s.certificates, s.world.Doubles(now)
	out.Identities, out.Budgets = s.issuing.status(), s.linkBudgets(now)
	if !s.snapshotAt.IsZero() {
		out.SnapshotAt = &s.snapshotAt
	}
	for _, n := range s.world.Nodes(now) {
		st := siteapi.NodeStatus{
			Node: n.Name, Status: n.Status, AgeMS: ms(now.Sub(n.At)), Applied: n.Report.Applied,
			Refused: n.Report.Refused, RefusedWhy: n.Report.RefusedWhy, Unverified: n.Report.Unverified, Problems: n.Report.Problems, Identity: n.Report.Identity, Workload: n.Report.Workload, Chains: n.Report.Chains,
		}
		for _, l := range n.Report.Links {
			if n.Status != membership.Dead && (l.Fault != "" || l.Suspect != "") && len(out.Links) < maxTroubles {
				out.Links = append(out.Links, siteapi.LinkTrouble{Node: n.Name, LinkReport: l})
			}
		}
		st.Behind = s.snapshot != nil && n.Report.Applied != s.snapshot.Generation
		out.Nodes = append(out.Nodes, st)
	}
	for _, l := range s.world.Loads(now) {
		out.Services = append(out.Services, siteapi.ServiceStatus{ServiceReport: l.ServiceReport, Demand: l.Demand})
	}
	return out
}

// status is how the mesh looks from here. Loop only.
func (s *Server) status(now time.Time) siteapi.Status {
	st := s.conn.State()
	out := siteapi.Status{
		Now: now, Self: s.self(now), Peer: []siteapi.PeerStatus{}, Conditions: s.conditions(),
		Link: siteapi.Link{Role: s.cfg.role(), Faults: st.Faults + s.count.objectFaults.Load(), Dropped: st.Dropped, Unsent: st.Unsent},
	}
	if l := s.link.Load(); l != nil {
		out.Link.Connected, out.Link.Since, out.Link.MirrorLag = l.up, l.since, l.lag
	}
	if s.nats != nil && s.cfg.Hub {
		out.Link.Sites = s.nats.Links()
	}
	for _, p := range s.world.Peers(now, s.reachable()) {
		ps := siteapi.PeerStatus{
			Site: p.Site, Status: p.Status, RTTMS: p.RTTMS,
			SuspectAfterMS: ms(p.Limits.Suspect), DeadAfterMS: ms(p.Limits.Dead),
		}
		ps.Traffic, ps.TrafficReason = s.traffic(p.Site)
		if at := p.News.At; !at.IsZero() {
			o := origin(p.News)
			ps.HeardAt, ps.AgeMS, ps.From = &at, ms(now.Sub(at)), &o
		}
		for _, n := range s.world.Known(p.Site) {
			ps.Known = append(ps.Known, siteapi.KnownService{ServiceReport: n.Report, Origin: origin(n), AgeMS: ms(now.Sub(n.At))})
		}
		if p.Status == membership.Unknown {
			since := s.started
			if ps.HeardAt != nil {
				since = *ps.HeardAt
			}
			ps.UnknownSince = &since
		}
		out.Peer = append(out.Peer, ps)
	}
	return out
}

func origin(n world.News) siteapi.Origin {
	return siteapi.Origin{Reporter: n.Reporter, Epoch: n.Epoch, Seq: n.Seq, InBand: n.InBand}
}

// row is this site's part of the matrix. Loop only.
func (s *Server) row(now time.Time) siteapi.WeightsRow {
	out := siteapi.WeightsRow{Site: s.cfg.Site, Nodes: map[string][]siteapi.Effective{}}
	if s.weights != nil {
		out.Services, out.AgeMS = s.weights.Services, ms(now.Sub(s.weights.IssuedAt))
	}
	for _, n := range s.world.Nodes(now) {
		if n.Status != membership.Dead && n.Report.Chains == nil {
			out.Nodes[n.Name] = n.Report.InForce
		}
	}
	return out
}

// get lists objects. Loop only.
func (s *Server) get(r siteapi.GetRequest) (siteapi.Objects, error) {
	owner := s.world.Owner()
	out := siteapi.Objects{Site: s.cfg.Site, Owner: owner, Revision: s.ledgerOf(owner).high, Objects: []siteapi.Object{}}
	for _, o := range s.world.List() {
		if r.Kind != "" && r.Kind != o.Key.Kind || r.Namespace != "" && r.Namespace != o.Key.Namespace || r.Name != "" && r.Name != o.Key.Name {
			continue
		}
		data, err := json.Marshal(o.Doc)
		if err != nil {
			return out, fmt.Errorf("encode %s: %w", o.Key, err)
		}
		out.Objects = append(out.Objects, siteapi.Object{Key: o.Key, Owner: o.Owner, Shadowed: o.Shadowed, Object: data})
	}
	return out, nil
}

// meshStatus is status with what the other controllers say of themselves.
func (s *Server) meshStatus(ctx context.Context) (*siteapi.Status, error) {
	var out siteapi.Status
	if err := s.do(ctx, func() { out = s.status(time.Now()) }); err != nil {
		return nil, err
	}
	began := time.Now()
	s.askPeers(ctx, len(out.Peer), func(i int) string { return out.Peer[i].Site }, siteapi.VerbStatus, func(i int, data []byte, err error) {
		p := &out.Peer[i]
		said := new(siteapi.SiteStatus)
		if err == nil {
			err = json.Unmarshal(data, said)
		}
		if err != nil {
			p.Silence = err.Error()
			return
		}
		p.Said = said
		if !said.Now.IsZero() {
			took := time.Since(began)
			skew := said.Now.Sub(began.Add(took/2)).Seconds() * 1000
			p.SkewMS, p.SkewWithinMS = &skew, ms(took/2)
		}
	})
	return &out, nil
}

// meshWeights is the matrix of all sites that answer.
func (s *Server) meshWeights(ctx context.Context) (*siteapi.Weights, error) {
	out := &siteapi.Weights{}
	var peers []string
	err := s.do(ctx, func() {
		now := time.Now()
		out.Rows = append(out.Rows, s.row(now))
		for _, p := range s.world.Peers(now, s.reachable()) {
			peers = append(peers, p.Site)
		}
	})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	s.askPeers(ctx, len(peers), func(i int) string { return peers[i] }, siteapi.VerbWeights, func(i int, data []byte, err error) {
		var row siteapi.WeightsRow
		if err == nil {
			err = json.Unmarshal(data, &row)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if out.Missing == nil {
				out.Missing = map[string]string{}
			}
			out.Missing[peers[i]] = err.Error()
			return
		}
		out.Rows = append(out.Rows, row)
	})
	slices.SortFunc(out.Rows[1:], func(a, b siteapi.WeightsRow) int {
		if a.Site < b.Site {
			return -1
		}
		return 1
	})
	return out, nil
}

// remembered is this site's part of the history. Loop only.
func (s *Server) remembered() siteapi.HistoryRow {
	return siteapi.HistoryRow{Site: s.cfg.Site, StepS: history.Step.Seconds(), Services: s.demand.Series(), Missed: s.demand.Missed()}
}

// meshHistory is the history of all sites that answer.
func (s *Server) meshHistory(ctx context.Context) (*siteapi.History, error) {
	out := &siteapi.History{}
	var peers []string
	err := s.do(ctx, func() {
		out.Rows = append(out.Rows, s.remembered())
		for _, p := range s.world.Peers(time.Now(), s.reachable()) {
			peers = append(peers, p.Site)
		}
	})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	s.askPeers(ctx, len(peers), func(i int) string { return peers[i] }, siteapi.VerbHistory, func(i int, data []byte, err error) {
		var row siteapi.HistoryRow
		if err == nil {
			err = json.Unmarshal(data, &row)
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			out.Rows = append(out.Rows, row)
			return
		}
		if out.Missing == nil {
			out.Missing = map[string]string{}
		}
		out.Missing[peers[i]] = err.Error()
	})
	slices.SortFunc(out.Rows, func(a, b siteapi.HistoryRow) int { return strings.Compare(a.Site, b.Site) })
	return out, nil
}

// askPeers asks the controllers of n sites for a verb and hands each answer on.
func (s *Server) askPeers(ctx context.Context, n int, site func(int) string, verb string, answer func(int, []byte, error)) {
	ctx, done := context.WithTimeout(ctx, askFor)
	defer done()
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			data, err := s.conn.Call(ctx, site(i), verb, nil)
			answer(i, data, err)
		})
	}
	wg.Wait()
}
