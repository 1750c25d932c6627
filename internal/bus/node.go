package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Node is a proxy's side of the bus: its site's snapshots and weights in, its
// reports out.
type Node struct {
	*Conn
	site string
}

// DialNode connects a node to its site's controller. It returns at once,
// connected or not.
func DialNode(o Options, site string) (*Node, error) {
	if site == "" {
		return nil, errors.New("bus: a node needs the name of its site")
	}
	c, err := Connect(o)
	if err != nil {
		return nil, err
	}
	return &Node{Conn: c, site: site}, nil
}

// WatchSnapshots calls take with the newest snapshot of site and with each that
// follows, one at a time and across reconnects, until ctx ends. A message that
// cannot be read, or that needs a newer build, comes as an error. The same
// snapshot may come again. It returns at once.
func (n *Node) WatchSnapshots(ctx context.Context, site string, take func(*mesh.Snapshot, error)) error {
	if site == "" {
		return errors.New("bus: snapshots of which site?")
	}
	var decoder mesh.Decoder
	go n.watchKey(ctx, SnapshotBucket(site), Token(site), func(b []byte) {
		s, err := decoder.Decode(b)
		if err != nil {
			n.faults.Add(1)
		}
		take(s, err)
	})
	return nil
}

// Weights delivers the plans of the site's controller until ctx ends; one that
// was not read before the next came is dropped. The time with each is when it
// was received, from which its TTL counts.
func (n *Node) Weights(ctx context.Context) (<-chan Received[*mesh.Weights], error) {
	return n.Conn.Weights(ctx, n.site)
}

// Serve answers one verb of the node ([NodeAPISubject]) until ctx ends. Calls come one
// at a time: a node has better things to do.
func (n *Node) Serve(ctx context.Context, node, verb string, answer Verb) error {
	sub, err := n.nc.Subscribe(NodeAPISubject(n.site, node, verb), func(m *nats.Msg) {
		call, done := context.WithTimeout(ctx, verbTimeout)
		defer done()
		out := nats.NewMsg(m.Reply)
		body, err := answer(call, m.Data)
		if err != nil {
			if body, err = json.Marshal(failure{err.Error()}); err != nil {
				return // a string that JSON cannot hold: the asker times out
			}
			out.Header.Set(micro.ErrorCodeHeader, "400")
		}
		out.Data = body
		if err := m.RespondMsg(out); err != nil {
			n.once("answer:"+verb, "answer is not sent", "verb", verb, "err", err)
		}
	})
	if err != nil {
		return fmt.Errorf("bus: serve %s: %w", verb, err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	return nil
}

// PublishReport sends the node's report; without a connection it is dropped and
// [ErrNotConnected] returned.
func (n *Node) PublishReport(r *mesh.NodeReport) error { return n.PublishNodeReport(r) }
