package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/nats-io/nats.go"
)

// ErrNotConnected is returned for soft state published without a connection; it
// is dropped, because the next will be newer.
var ErrNotConnected = errors.New("bus: not connected")

// Received is a message and when it came, by the reader's clock: the only time
// by which soft state may age.
type Received[T any] struct {
	Value T
	At    time.Time
}

// subscribe delivers the messages of a subject into a queue of the given depth.
// When the reader falls behind, the oldest are dropped and counted. own is the
// subject that a message's content belongs on: rights are given by subject, so
// content that claims to be from elsewhere is refused. The channel is never
// closed; it ends with ctx.
func subscribe[T any](ctx context.Context, c *Conn, subject string, depth int, decode func([]byte) (T, error), own func(T) string) (<-chan Received[T], error) {
	q := make(chan Received[T], depth)
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		v, err := decode(m.Data)
		if err == nil && own(v) != m.Subject {
			err = fmt.Errorf("content belongs on %s", own(v))
		}
		if err != nil {
			c.faults.Add(1)
			c.once("decode:"+m.Subject, "message refused", "subject", m.Subject, "err", err)
			return
		}
		r := Received[T]{v, time.Now()}
		for {
			select {
			case q <- r:
				return
			default:
			}
			select {
			case <-q:
				c.dropped.Add(1)
			default:
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bus: subscribe to %s: %w", subject, err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	return q, nil
}

func (c *Conn) publish(subject string, b []byte, err error) error {
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	switch err := c.nc.Publish(subject, b); {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting):
		c.unsent.Add(1)
		return ErrNotConnected
	default:
		return fmt.Errorf("bus: publish to %s: %w", subject, err)
	}
}

// Reports delivers the reports of every site, this one's too.
func (c *Conn) Reports(ctx context.Context, depth int) (<-chan Received[*mesh.Report], error) {
	return subscribe(ctx, c, AllReports, depth, mesh.DecodeReport,
		func(r *mesh.Report) string { return ReportSubject(r.Site) })
}

// NodeReports delivers the reports of the nodes of a site.
func (c *Conn) NodeReports(ctx context.Context, site string, depth int) (<-chan Received[*mesh.NodeReport], error) {
	return subscribe(ctx, c, NodesSubject(site), depth, mesh.DecodeNodeReport,
		func(r *mesh.NodeReport) string { return NodeSubject(r.Site, r.Node) })
}

// Traffic delivers the traffic reports of every site, this one's too.
func (c *Conn) Traffic(ctx context.Context, depth int) (<-chan Received[*mesh.TrafficReport], error) {
	return subscribe(ctx, c, AllTraffic, depth, mesh.DecodeTrafficReport,
		func(r *mesh.TrafficReport) string { return TrafficSubject(r.Site) })
}

// NodeTraffic delivers what the nodes of a site tell of who talks to whom.
func (c *Conn) NodeTraffic(ctx context.Context, site string, depth int) (<-chan Received[*mesh.NodeTraffic], error) {
	return subscribe(ctx, c, AllFlows(site), depth, mesh.DecodeNodeTraffic,
		func(r *mesh.NodeTraffic) string { return FlowsSubject(r.Site, r.Node) })
}

// Weights delivers the plans for a site's nodes; one that was not read before the
// next came is dropped.
func (c *Conn) Weights(ctx context.Context, site string) (<-chan Received[*mesh.Weights], error) {
	return subscribe(ctx, c, WeightsSubject(site), 1, mesh.DecodeWeights,
		func(w *mesh.Weights) string { return WeightsSubject(w.Site) })
}

// PublishReport sends a site's report to every site.
func (c *Conn) PublishReport(r *mesh.Report) error {
	b, err := mesh.EncodeReport(r)
	return c.publish(ReportSubject(r.Site), b, err)
}

// PublishNodeReport sends a node's report to its site's controller.
func (c *Conn) PublishNodeReport(r *mesh.NodeReport) error {
	b, err := mesh.EncodeNodeReport(r)
	return c.publish(NodeSubject(r.Site, r.Node), b, err)
}

// PublishTraffic sends a site's traffic to every site.
func (c *Conn) PublishTraffic(r *mesh.TrafficReport) error {
	b, err := mesh.EncodeTrafficReport(r)
	return c.publish(TrafficSubject(r.Site), b, err)
}

// PublishNodeTraffic sends a node's traffic to its site's controller.
func (c *Conn) PublishNodeTraffic(r *mesh.NodeTraffic) error {
	b, err := mesh.EncodeNodeTraffic(r)
	return c.publish(FlowsSubject(r.Site, r.Node), b, err)
}

// PublishWeights sends a plan to the nodes of its site.
func (c *Conn) PublishWeights(w *mesh.Weights) error {
	b, err := mesh.EncodeWeights(w)
	return c.publish(WeightsSubject(w.Site), b, err)
}
