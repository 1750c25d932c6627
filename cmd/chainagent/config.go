package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// stateFolder is where, within --state-dir, the agent keeps what it needs to start
// alone: a proxy may have the same --state-dir, and its own last good copy there.
const stateFolder = "chains"

// openSource is where the agent's documents come from. controller is nil of files, and
// must be closed when nothing of the source runs any more.
func openSource(o *options, apply source.Apply, log *slog.Logger) (src source.Source, controller *bus.Node, err error) {
	state := ""
	if o.stateDir != "" {
		state = filepath.Join(o.stateDir, stateFolder)
		if err := os.MkdirAll(state, 0o700); err != nil {
			return nil, nil, fmt.Errorf("--state-dir: %w", err)
		}
	}
	if !o.fromBus() {
		src, err = source.NewFiles(o.config, o.site, state, apply, log)
		return src, nil, err
	}
	if state == "" {
		log.Warn("without --state-dir this agent cannot start while its controller is away; what forwards goes on")
	}
	p := &patient{}
	b := source.BusConfig{Name: o.config, Site: o.site, StateDir: state, Controller: p, Apply: p.watched(apply), Log: log}
	if b.Trust, err = source.OpenTrustKey(o.trustKey, o.tokenFile, log); err != nil {
		return nil, nil, fmt.Errorf("--trust-key: %w", err)
	}
	if p.Node, err = bus.DialNode(bus.Options{URL: o.config, Name: "chainagent " + o.agent.Node, TokenFile: o.tokenFile, Log: log}, o.site); err != nil {
		return nil, nil, err
	}
	return source.NewBus(b), p.Node, nil
}

// askAgain is how often a snapshot that this node could not serve is tried again:
// what was missing, such as the port of a function that starts later, may be there
// then, and the controller sends a snapshot only once.
const askAgain = time.Second

// patient is a controller whose newest snapshot is offered again for as long as the
// node cannot serve it.
type patient struct {
	*bus.Node
	serial  sync.Mutex // held while a snapshot is offered
	refused atomic.Pointer[mesh.Snapshot]
}

// watched is apply, of whose refusals the patient knows.
func (p *patient) watched(apply source.Apply) source.Apply {
	return func(s *mesh.Snapshot) error {
		err := apply(s)
		if err == nil {
			s = nil
		}
		p.refused.Store(s)
		return err
	}
}

// WatchSnapshots implements source.Controller.
func (p *patient) WatchSnapshots(ctx context.Context, site string, take func(*mesh.Snapshot, error)) error {
	go func() {
		tick := time.NewTicker(askAgain)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			p.serial.Lock()
			if s := p.refused.Load(); s != nil {
				take(s, nil)
			}
			p.serial.Unlock()
		}
	}()
	return p.Node.WatchSnapshots(ctx, site, func(s *mesh.Snapshot, err error) {
		p.serial.Lock()
		defer p.serial.Unlock()
		if err == nil {
			p.refused.Store(nil)
		}
		take(s, err)
	})
}

// configuration is the source's state as the agent shows it.
func configuration(s source.State) agent.Configuration {
	c := agent.Configuration{Source: s.Source, AppliedAt: s.AppliedAt, Restored: s.Restored, Refusals: s.Refusals}
	if s.Snapshot != nil {
		g := s.Snapshot.Generation
		c.Generation = &g
	}
	if s.Refused != nil {
		c.Refused = s.Refused.Why
		if g := s.Refused.Generation; g != nil {
			c.Refused = "generation " + g.String() + ": " + c.Refused
		}
	}
	if s.Link != nil {
		c.Connected = &s.Link.Connected
	}
	return c
}

// take has an agent serve a snapshot's documents.
func take(a *agent.Agent, s *mesh.Snapshot) error {
	err := a.Take(&s.Objects)
	if errors.Is(err, agent.ErrEnded) {
		return source.ErrLeaving
	}
	return err
}
