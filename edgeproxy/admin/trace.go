package admin

import (
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
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := time.Now()
	resp, err := client.Do(req)
	if err == nil {
		out.Status = resp.StatusCode
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, traceBody))
		err = errors.Join(err, resp.Body.Close())
	}
	out.TookMS = float64(time.Since(began)) / float64(time.Millisecond)
	if err != nil {
		out.Failed = err.Error()
	}
	return out, nil
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
