package edgeproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/http1"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// Times of the prober. An idle way is asked once a second; one that carries
// requests brings reports by itself, and is asked only so that its round trip,
// which a response that waited for a backend does not show, stays known.
const (
	probeEvery   = time.Second
	probeBusy    = 5 * time.Second
	probeTimeout = time.Second
)

// probeHead bounds the response to a probe.
const probeHead = 32 << 10

// errStranger says that what answers a probe is something else than a site's proxy.
var errStranger = errors.New("not a gateway of a site")

// fault is why a probe failed: its kind (mesh.LinkReport.Fault) and in words.
type fault struct{ kind, said string }

func faultOf(err error) fault {
	kind := mesh.ProbeStranger
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		kind = mesh.ProbeName
	case errors.Is(err, syscall.ECONNREFUSED):
		kind = mesh.ProbeRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		kind = mesh.ProbeNoRoute
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		kind = mesh.ProbeTimeout
	default:
		switch tlsio.ReasonOf(err) {
		case tlsio.WrongSite:
			kind = mesh.ProbeOtherSite
		case tlsio.NoIdentity, tlsio.Expired, tlsio.UnknownAuthority, tlsio.WrongDomain, tlsio.WrongName, tlsio.Denied, tlsio.WrongCertificate, tlsio.Refused:
			kind = mesh.ProbeIdentity
		}
	}
	return fault{kind, err.Error()}
}

// peer is another site as the prober reaches it.
type peer struct {
	site string
	// addresses are its gateways, the best first.
	addresses []string
}

// prober asks other sites for their load over one kept connection each.
type prober struct {
	source string
	// answered reports when a response of the site came last, by time.Now's clock.
	answered func(site string) time.Time
	// result takes the round trip and the loads of a probe, or its error. The
	// loads are borrowed.
	result func(site string, rtt time.Duration, loads [][]byte, err error)
	// secure makes of a connection to a site's proxy what requests there go over.
	secure func(ctx context.Context, site string, conn net.Conn) (net.Conn, error)
}

// run follows the peers of each set that comes until ctx ends. A peer that is in
// the new set as it was keeps its connection.
func (p *prober) run(ctx context.Context, sets <-chan []peer) {
	type following struct {
		peer peer
		stop context.CancelFunc
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	active := map[string]following{}
	for {
		var set []peer
		select {
		case <-ctx.Done():
			return // ends every follower, too
		case set = <-sets:
		}
		next := map[string]following{}
		for _, q := range set {
			if f, ok := active[q.site]; ok && slices.Equal(f.peer.addresses, q.addresses) {
				next[q.site] = f
				delete(active, q.site)
				continue
			}
			pctx, stop := context.WithCancel(ctx)
			next[q.site] = following{q, stop}
			wg.Go(func() { p.follow(pctx, q) })
		}
		for _, f := range active {
			f.stop()
		}
		active = next
	}
}

// follow probes one site until ctx ends.
func (p *prober) follow(ctx context.Context, q peer) {
	c := &probeConn{source: p.source, secure: func(ctx context.Context, conn net.Conn) (net.Conn, error) { return p.secure(ctx, q.site, conn) }}
	defer c.close()
	// Spread, so that a site is not asked by all others in the same moment.
	wait := rand.N(probeEvery)
	probed := time.Time{}
	for next := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = probeEvery
		if time.Since(p.answered(q.site)) < probeEvery && time.Since(probed) < probeBusy {
			continue
		}
		probed = time.Now()
		address := q.addresses[next%len(q.addresses)]
		rtt, loads, err := c.probe(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.close()
			next++
			err = fmt.Errorf("probe %s: %w", address, err)
		}
		p.result(q.site, rtt, loads, err)
	}
}

// probeConn is a kept connection that asks for loads.
type probeConn struct {
	source  string
	secure  func(context.Context, net.Conn) (net.Conn, error)
	conn    net.Conn
	address string
	codec   *http1.Client
	out, in []byte
	loads   [][]byte
}

func (c *probeConn) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// probe asks once. The round trip does not include connecting. The loads are
// borrowed until the next call.
func (c *probeConn) probe(ctx context.Context, address string) (time.Duration, [][]byte, error) {
	ctx, done := context.WithTimeout(ctx, probeTimeout)
	defer done()
	if c.conn == nil || c.address != address || !c.codec.Reusable() {
		c.close()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			conn, err = c.secure(ctx, conn)
		}
		if err != nil {
			return 0, nil, err
		}
		c.conn, c.address, c.codec = conn, address, http1.NewClient(http1.Limits{Head: probeHead})
	}
	conn := c.conn
	defer context.AfterFunc(ctx, func() {
		// In the past: ends a read or write under way, and the connection is
		// closed by who owns it.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})()
	if err := c.request(address); err != nil {
		return 0, nil, err
	}
	start := time.Now()
	if _, err := conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	return c.response(start)
}

func (c *probeConn) request(address string) error {
	id, ok := c.codec.Open()
	if !ok {
		return errors.New("connection takes no request")
	}
	head := stream.Message{
		Method: []byte("GET"), Authority: []byte(address), Path: []byte(worker.LoadPath),
		Fields: []stream.Field{{Name: []byte(inband.HeaderSource), Value: []byte(c.source)}},
	}
	var err error
	if c.out, err = c.codec.Encode(c.out[:0], &stream.Event{Kind: stream.Head, Stream: id, Head: &head}); err != nil {
		return err
	}
	c.out, err = c.codec.Encode(c.out, &stream.Event{Kind: stream.End, Stream: id})
	return err
}

func (c *probeConn) response(start time.Time) (rtt time.Duration, loads [][]byte, err error) {
	if c.in == nil {
		c.in = make([]byte, probeHead)
	}
	filled, used, status := 0, 0, 0
	var ev stream.Event
	for {
		if filled == len(c.in) {
			return 0, nil, errors.New("response is too long")
		}
		n, err := c.conn.Read(c.in[filled:])
		if rtt == 0 {
			rtt = time.Since(start)
		}
		filled += n
		for {
			k, derr := c.codec.Decode(c.in[used:filled], &ev)
			if derr != nil {
				return 0, nil, derr
			}
			used += k
			if ev.Kind == stream.None {
				break
			}
			if ev.Kind == stream.Head && ev.Head.Status >= 200 {
				status = ev.Head.Status
				c.loads = c.loads[:0]
				for _, f := range ev.Head.Fields {
					if f.Is(inband.HeaderLoad) {
						c.loads = append(c.loads, f.Value)
					}
				}
			}
			if ev.Kind == stream.End {
				if status != 204 {
					return 0, nil, fmt.Errorf("answered %d: %w", status, errStranger)
				}
				return rtt, c.loads, nil
			}
		}
		if err != nil {
			return 0, nil, err
		}
	}
}
