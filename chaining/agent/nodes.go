package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Other nodes are asked every nodeInterval for an echo (ICMP) and have nodeLimit for the
// answer; after nodeFailures without one in a row they cannot be reached. That is slower
// than probes of instances: what lies between sites delays and loses.
const (
	nodeInterval = 250 * time.Millisecond
	nodeLimit    = 500 * time.Millisecond
	nodeFailures = 3
)

// nodeEvent says whether another node can be reached.
type nodeEvent struct {
	node string
	down bool
	why  error
}

// neighbours are the nodes, with the address to ask them at, on which chains that begin
// or end at a node have instances: the node that classifies must know whether these can
// be reached.
func neighbours(o *mesh.Objects, node string) map[string]string {
	var own *mesh.ChainNode
	nodes := map[string]*mesh.ChainNode{}
	for _, n := range o.ChainNodes {
		nodes[n.Metadata.Name] = n
		if n.Metadata.Name == node {
			own = n
		}
	}
	if own == nil {
		return nil
	}
	functions := map[string]*mesh.NetworkFunction{}
	for _, f := range o.NetworkFunctions {
		functions[fullName(f.Metadata)] = f
	}
	out := map[string]string{}
	for _, c := range o.ServiceChains {
		if c.Spec.Ingress.Node != node && c.Spec.Egress.Node != node {
			continue
		}
		for _, name := range c.Spec.Functions {
			f := functions[c.Metadata.Namespace+"/"+name]
			if f == nil {
				continue
			}
			for i := range f.Spec.Instances {
				at := f.Spec.Instances[i].Node
				if other := nodes[at]; other != nil && at != node {
					if a := addressFrom(own, other); a != "" {
						out[at] = a
					}
				}
			}
		}
	}
	return out
}

// addressFrom is where one node sends to another: its border where they are of two sites
// and both have one, else its underlay; "" where there is neither.
func addressFrom(from, to *mesh.ChainNode) string {
	switch {
	case from.Spec.Site != to.Spec.Site && from.Spec.Border != nil && to.Spec.Border != nil:
		return to.Spec.Border.Address
	case to.Spec.Underlay != nil:
		return to.Spec.Underlay.Address
	}
	return ""
}

// watchNode asks a node until ctx ends and reports changes. One that has never answered
// is not known to be cut off: something on the way may answer no echo.
func watchNode(ctx context.Context, node, address string, report func(nodeEvent)) {
	s := streak{failures: nodeFailures, successes: 1}
	answered := false
	tick := time.NewTicker(nodeInterval)
	defer tick.Stop()
	for seq := uint16(0); ; seq++ {
		err := echo(address, seq, nodeLimit)
		if ctx.Err() != nil {
			return
		}
		answered = answered || err == nil
		if answered && s.add(err == nil) {
			report(nodeEvent{node, s.down, err})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchNodes asks the nodes that the documents in force need, and reports whether one
// that could not be reached is no more asked.
func (r *run) watchNodes() (gone bool) {
	wanted := neighbours(r.objects, r.cfg.Node)
	for node, w := range r.nodes {
		if wanted[node] != w.of {
			w.cancel()
			delete(r.nodes, node)
			if _, was := r.cut[node]; was {
				delete(r.cut, node)
				gone = true
			}
		}
	}
	for node, address := range wanted {
		if r.nodes[node] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(r.ctx)
		r.nodes[node] = &watching{cancel, address}
		r.wg.Go(func() {
			watchNode(ctx, node, address, func(e nodeEvent) {
				select {
				case r.reached <- e:
				case <-ctx.Done():
				}
			})
		})
	}
	return gone
}

// reach notes that a node can be reached again, or no more, and plans anew.
func (r *run) reach(e nodeEvent) {
	if r.nodes[e.node] == nil {
		return // of documents that are gone
	}
	if e.down {
		r.cut[e.node] = fmt.Sprint(e.why)
		r.cfg.Log.Warn("node cannot be reached", "node", e.node, "why", e.why)
	} else {
		delete(r.cut, e.node)
		r.cfg.Log.Info("node can be reached", "node", e.node)
	}
	r.changed()
}

// unusable are all instances that no path may have, with the reason: this node's that do
// not answer, and those of nodes that cannot be reached.
func (r *run) unusable() map[string]string {
	out := maps.Clone(r.down)
	if len(r.cut) == 0 {
		return out
	}
	for _, f := range r.objects.NetworkFunctions {
		for i := range f.Spec.Instances {
			in := &f.Spec.Instances[i]
			if why, cut := r.cut[in.Node]; cut {
				out[in.Name] = fmt.Sprintf("node %s cannot be reached: %s", in.Node, why)
			}
		}
	}
	return out
}

// changed tells of what is down and plans without it.
func (r *run) changed() {
	down := r.unusable()
	r.mu.Lock()
	r.status.Down = down
	r.mu.Unlock()
	if err := r.replan(); err != nil {
		r.fault(err)
		r.cfg.Log.Error("no plan without what is down", "down", slices.Sorted(maps.Keys(down)), "err", err)
	}
}
