package admin

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// traceLimit bounds a traced request, under the bus's bound for an answer.
	traceLimit = 8 * time.Second
	// traceBody is how much of its response is read.
	traceBody = 1 << 20
)

// Trace sends one request to a listener of HTTP of a proxy, as a client on its machine
// would, and says what came of it. site and node are the proxy's names.
func Trace(p Proxy, site, node string, q *mesh.TraceQuery) (*mesh.Traced, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	x, err := p.Explain(&q.ExplainQuery)
	if err != nil {
		return nil, err
	}
	out := &mesh.Traced{Site: site, Node: node}
	address, err := listens(p, cmp.Or(x.Listener, q.Listener), out)
	if err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(context.Background(), traceLimit)
	defer done()
	req, err := http.NewRequestWithContext(ctx, q.Method, "http://"+address.String()+q.Path, nil)
	if err != nil {
		return nil, fmt.Errorf("no request can be made of it: %w", err)
	}
	for _, h := range q.Headers {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	req.Host = q.Host
	req.Header.Set("X-Request-Id", q.ID)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "meridian-trace")
	}
	began := time.Now()
	out.Status, err = exchange(ctx, address, req)
	out.TookMS = float64(time.Since(began)) / float64(time.Millisecond)
	if err != nil {
		out.Failed = err.Error()
	}
	return out, nil
}

// exchange sends a request over a connection of its own and reads what comes back, to
// its end or [traceBody]. Not by [http.Client]: that alone would make the proxy's program
// a thirtieth larger.
func exchange(ctx context.Context, to netip.AddrPort, req *http.Request) (status int, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return 0, err
		}
	}
	req.Close = true
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	r := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return 0, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue // the final one follows
		}
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, traceBody))
		return resp.StatusCode, errors.Join(err, resp.Body.Close())
	}
}

// listens finds where a listener can be reached from here; the first for HTTP where
// none is named. It notes it.
func listens(p Proxy, name string, out *mesh.Traced) (netip.AddrPort, error) {
	for _, l := range p.Listeners() {
		is := l.Gateway + "/" + l.Name
		if name != "" && is != name || name == "" && l.Protocol != mesh.ProtocolHTTP {
			continue
		}
		if l.Protocol != mesh.ProtocolHTTP {
			return netip.AddrPort{}, fmt.Errorf("listener %s speaks %s: requests are traced at listeners of protocol HTTP only; name one that has the route with --listener", is, l.Protocol)
		}
		to := l.Addr
		if to.Addr().IsUnspecified() {
			loopback := netip.IPv6Loopback()
			if to.Addr().Is4() {
				loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			}
			to = netip.AddrPortFrom(loopback, to.Port())
		}
		out.Listener, out.Address = is, to.String()
		return to, nil
	}
	return netip.AddrPort{}, errors.New("no listener of protocol HTTP is bound here that could take it")
}
