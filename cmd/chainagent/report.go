package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// reportEvery is the longest that a controller waits for a node's next report before it
// begins to doubt.
const reportEvery = 500 * time.Millisecond

// report tells the controller how the node's chains are, until ctx ends. Without a
// connection there is nobody to tell.
func report(ctx context.Context, controller *bus.Node, site string, a *agent.Agent, src source.Source, log *slog.Logger) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var meter agent.HopMeter
	epoch, said := uint64(time.Now().UnixNano()), ""
	for seq := uint64(1); ; seq++ {
		status := a.Status()
		r := status.Report()
		if counters, err := a.Counters(); err != nil {
			r.Problems = append(r.Problems, fmt.Sprintf("counters cannot be read: %v", err))
		} else {
			r.Chains.Hops, r.Chains.Left = meter.Paths(&status, counters)
		}
		r.Site, r.Epoch, r.Seq = site, epoch, seq
		s := src.State()
		if s.Snapshot != nil {
			r.Applied = s.Snapshot.Generation
		}
		if s.Refused != nil {
			r.Refused, r.RefusedWhy = s.Refused.Generation, s.Refused.Why
		}
		switch err := controller.PublishReport(r); {
		case err == nil || errors.Is(err, bus.ErrNotConnected):
			said = ""
		case err.Error() != said: // once, not twice a second
			said = err.Error()
			log.Warn("the controller is not told how the chains are", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
