package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/bus"
)

const (
	tickEvery   = 100 * time.Millisecond
	reportEvery = 500 * time.Millisecond
	// settle is how long changes are collected before they become a snapshot, so
	// that ten objects applied together are one generation.
	settle = 25 * time.Millisecond
	// forgetAfter is the age at which soft state is dropped.
	forgetAfter = 60 * time.Second
)

// errStopped answers calls to a controller that ends.
var errStopped = errors.New("the controller is stopping")

// heard is the soft state that comes over the bus.
type heard struct {
	reports <-chan bus.Received[*mesh.Report]
	nodes   <-chan bus.Received[*mesh.NodeReport]
	traffic <-chan bus.Received[*mesh.TrafficReport]
	flows   <-chan bus.Received[*mesh.NodeTraffic]
}

// loop owns the world: it is the only goroutine that touches it.
func (s *Server) loop(ctx context.Context, from heard) {
	defer close(s.stopped)
	every := tickEvery
	tick := time.NewTicker(every)
	defer tick.Stop()
	ticked, told := time.Now(), time.Time{} // the last tick, the last report of a node
	plan := func(now time.Time) {
		s.beat.Store(now.UnixNano())
		s.tick(now)
		ticked = now
		select {
		case s.looks <- struct{}{}:
		default: // it still looks
		}
		wait := s.pace()
		if wait == reportEvery && now.Sub(told) < 2*reportEvery {
			// Nodes at rest report every 500 ms with a beat of their own. What waits a
			// little longer than that comes with one of them, sooner or later, and goes on to.
			wait += tickEvery
		}
		if wait != every || wait > reportEvery {
			tick.Reset(wait)
		}
		every = wait
	}
	var settled <-chan time.Time
	version := s.world.Version()
	s.beat.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			s.keepBudgets(time.Now())
			return
		case e := <-s.events:
			s.configured(e)
		case r := <-from.reports:
			s.count.reportsIn.Add(1)
			s.world.Hear(r.Value, r.At)
		case r := <-from.nodes:
			s.count.nodeReportsIn.Add(1)
			if s.world.Tell(r.Value, r.At) {
				s.sent = nil // it has no plan yet
			}
			told = r.At
			if now := time.Now(); every >= reportEvery && now.Sub(ticked) >= reportEvery-tickEvery/2 {
				plan(now) // on the wake-up of the report
			}
		case r := <-from.traffic:
			s.hearTraffic(r)
		case r := <-from.flows:
			s.hearFlows(r)
		case f := <-s.calls:
			f()
		case o := <-s.fromBus:
			s.landed(o)
		case <-settled:
			settled = nil
			s.compile()
		case now := <-tick.C:
			plan(now)
		}
		if v := s.world.Version(); v != version {
			version = v
			if settled == nil {
				settled = time.After(settle)
			}
		}
	}
}

// pace is how often to plan: with nobody to share with, no more often than there is
// something to report, which is what an idle site alone spends its time on.
func (s *Server) pace() time.Duration {
	if s.weights != nil {
		for i := range s.weights.Services {
			if len(s.weights.Services[i].Remotes) > 0 {
				return tickEvery
			}
		}
	}
	return reportEvery
}

// do runs f in the loop and returns when it is done.
func (s *Server) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// configured takes in a change of a bucket.
func (s *Server) configured(e event) {
	mine := e.owner == s.world.Owner()
	if !s.enter(e) {
		return
	}
	before := s.rawObject(e.owner, e.entry.Key)
	if e.entry.Value == nil {
		s.world.Remove(e.owner, e.entry.Key)
		s.forgetRemoved(e.entry.Key)
		s.note(e, before)
	} else if doc, err := decodeObject(e.entry.Key, e.entry.Value); err != nil {
		// Written by another version, or damaged: what was known of it stays.
		s.count.objectFaults.Add(1)
		s.log.Error("object refused", "object", e.entry.Key, "owner", e.owner, "err", err)
	} else {
		s.world.Set(e.owner, e.entry.Key, doc)
		s.note(e, before)
	}
	if mine {
		s.revisions[e.entry.Key] = e.entry.Revision
	}
}

// decodeObject reads an object as a bucket holds it.
func decodeObject(key mesh.Key, data []byte) (any, error) {
	var o mesh.Objects
	var doc any
	switch key.Kind {
	case mesh.KindGateway:
		doc = one(&o.Gateways)
	case mesh.KindHTTPRoute:
		doc = one(&o.HTTPRoutes)
	case mesh.KindGRPCRoute:
		doc = one(&o.GRPCRoutes)
	case mesh.KindTCPRoute:
		doc = one(&o.TCPRoutes)
	case mesh.KindTLSRoute:
		doc = one(&o.TLSRoutes)
	case mesh.KindUDPRoute:
		doc = one(&o.UDPRoutes)
	case mesh.KindSite:
		doc = one(&o.Sites)
	case mesh.KindMeshService:
		doc = one(&o.Services)
	case mesh.KindTrafficPolicy:
		doc = one(&o.TrafficPolicies)
	case mesh.KindLocalResponse:
		doc = one(&o.LocalResponses)
	case mesh.KindCertificate:
		doc = one(&o.Certificates)
	case mesh.KindTrustBundle:
		doc = one(&o.TrustBundles)
	case mesh.KindReferenceGrant:
		doc = one(&o.ReferenceGrants)
	case mesh.KindGeoFence:
		doc = one(&o.GeoFences)
	case mesh.KindAuthorizationPolicy:
		doc = one(&o.AuthorizationPolicies)
	case mesh.KindPeerAuthentication:
		doc = one(&o.PeerAuthentications)
	case mesh.KindNetworkFunction:
		doc = one(&o.NetworkFunctions)
	case mesh.KindServiceChain:
		doc = one(&o.ServiceChains)
	case mesh.KindCaller:
		doc = one(&o.Callers)
	case mesh.KindChainNode:
		doc = one(&o.ChainNodes)
	case mesh.KindAfSfcRequirement:
		doc = one(&o.AfSfcRequirements)
	default:
		return nil, fmt.Errorf("kind %s is not known to this build: upgrade it", key.Kind)
	}
	if err := json.Unmarshal(data, doc); err != nil {
		return nil, err
	}
	mesh.Default(&o)
	if err := mesh.Validate(&o); err != nil {
		return nil, err
	}
	for k := range o.All() {
		if k != key {
			return nil, fmt.Errorf("it is stored as %s but says it is %s", key, k)
		}
	}
	return doc, nil
}

func one[T any](list *[]*T) *T {
	v := new(T)
	*list = append(*list, v)
	return v
}

const (
	// lagAfter is how long a link must be up before a mirror that does not follow is
	// worth a word: right after a cut it never does.
	lagAfter = 10 * time.Second
	// A mirror backs off for up to a minute after a cut. Until it surely follows, the
	// hub is asked often, then now and then.
	mirrorUnsure          = 90 * time.Second
	askOften, askSometime = 500 * time.Millisecond, 10 * time.Second
)

// watchLink keeps an eye on the way to the other sites. When it comes back, and
// now and then, a leaf asks the hub for what the mirror has not got yet. Whoever is no
// leaf has only its store and its own connection to look at, and does with the loop.
func (s *Server) watchLink(ctx context.Context, stop context.CancelCauseFunc) {
	leaf := s.cfg.role() == "leaf"
	var every <-chan time.Time
	looks := s.looks
	if leaf {
		t := time.NewTicker(tickEvery)
		defer t.Stop()
		every, looks = t.C, nil
	}
	now := time.Now()
	state := linkState{since: now}
	lookAt := now
	for {
		if up := s.linkUp(); up != state.up {
			state = linkState{up: up, since: now}
			lookAt = now
			if leaf {
				s.log.Info("link to the hub", "up", up)
			}
		}
		if leaf && state.up && !now.Before(lookAt) {
			lag, err := s.lookAtMirror(ctx)
			lookAt = now.Add(askSometime)
			if err != nil || lag != "" || now.Sub(state.since) < mirrorUnsure {
				lookAt = now.Add(askOften)
			}
			if now.Sub(state.since) < lagAfter && !errors.Is(err, bus.ErrHubBehind) {
				lag = ""
			}
			if lag != state.lag && lag != "" {
				s.log.Warn("configuration of the hub", "lag", lag)
			}
			state.lag = lag
		}
		next := state
		s.link.Store(&next)
		if s.nats != nil && !s.nats.Stores() && ctx.Err() == nil {
			stop(errors.New("controller: the NATS server cannot write to its disk any more (is it full?): ending, to be started again"))
		}
		select {
		case <-ctx.Done():
			return
		case now = <-every:
		case <-looks:
			now = time.Now()
		}
	}
}

// lookAtMirror fetches what the mirror lacks and says in words how it stands,
// empty when it follows. The error is that of fetching.
func (s *Server) lookAtMirror(ctx context.Context) (string, error) {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	if err := s.refresh(ctx); err != nil {
		return err.Error(), err
	}
	m, err := s.hub.Mirror(ctx)
	switch {
	case err != nil:
		return err.Error(), nil
	case m.Active < 0:
		return "mirror has not heard from the hub yet", nil
	case m.Active > 15*time.Second:
		return fmt.Sprintf("mirror has not heard from the hub for %s", m.Active.Round(time.Second)), nil
	case m.Lag > 0:
		return fmt.Sprintf("mirror misses %d changes", m.Lag), nil
	}
	return "", nil
}

func (s *Server) linkUp() bool {
	switch s.cfg.role() {
	case "hub":
		return true
	case "leaf":
		return s.nats.Links() > 0
	case "external":
		return s.conn.Connected()
	}
	return false
}

// reachable reports whether news of other sites could come over the bus.
func (s *Server) reachable() bool {
	l := s.link.Load()
	return l != nil && l.up
}
