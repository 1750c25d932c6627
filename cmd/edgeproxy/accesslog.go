package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"sync"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// openAccessLog returns nil where none is asked for.
func (n *node) openAccessLog() (*accesslog.Log, error) {
	o := n.opts
	if o.accessLog == "" {
		return nil, nil
	}
	format, err := accesslog.Parse(o.accessLogFormat)
	if err != nil {
		return nil, fmt.Errorf("--access-log-format: %w", err)
	}
	l, err := accesslog.Open(accesslog.Config{
		Path: o.accessLog, Format: format, Site: o.site, Node: o.node, Rings: n.loops(), Now: loop.Now, Log: n.log, Copy: n.lines,
	})
	if err != nil {
		return nil, fmt.Errorf("--access-log: %w", err)
	}
	return l, nil
}

// logs answers which lines the node's logs have.
func (n *node) logs(q *mesh.LogQuery) (*mesh.LogAnswer, error) {
	switch {
	case q.Log != mesh.LogAccess:
		return n.said.Query(q)
	case n.requests == nil:
		return nil, errors.New("this proxy writes no access log: start it with --access-log; meridian tap shows requests without one")
	}
	return n.lines.Query(q)
}

// loops is the number of event loops.
func (n *node) loops() int {
	if n.opts.loops > 0 {
		return n.opts.loops
	}
	return loop.Default(loop.Processors())
}

// requestLog is how the admin server asks for the access log's figures, nil
// without one.
func (n *node) requestLog() func() accesslog.Stats {
	if n.requests == nil {
		return nil
	}
	return n.requests.Stats
}

// startAccessLog writes, and opens the log again on SIGUSR1, until the function
// it returns is called, which writes what is left.
func (n *node) startAccessLog() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	if n.requests != nil {
		parts.Go(func() { n.requests.Run(ctx) })
	}
	parts.Go(func() {
		defer signal.Stop(n.reopen)
		for {
			select {
			case <-ctx.Done():
				return
			case <-n.reopen:
				if n.requests != nil {
					n.requests.Reopen()
				}
			}
		}
	})
	return func() { cancel(); parts.Wait() }
}
