package admin

import (
	"maps"
	"slices"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

// writeTLS writes the figures of TLS, where there are any.
func (n Node) writeTLS(t *Text) {
	counts := n.Proxy.Handshakes()
	t.Family("meridian_tls_handshakes_in_flight", gauge, "TLS handshakes that are under way, with clients (server) and with backends (client).")
	for _, c := range counts {
		t.Value(float64(c.InFlight), "side", c.Side.String())
	}
	t.Family("meridian_tls_handshakes_total", counter, "TLS handshakes that brought a session, full ones and resumptions.")
	for _, c := range counts {
		t.Count(c.Done-c.Resumed, "side", c.Side.String(), "kind", "full")
		t.Count(c.Resumed, "side", c.Side.String(), "kind", "resumed")
	}
	t.Family("meridian_tls_handshake_failures_total", counter, "TLS handshakes that brought no session, by reason.")
	for _, c := range counts {
		for _, why := range slices.Sorted(maps.Keys(c.Failed)) {
			t.Count(c.Failed[why], "side", c.Side.String(), "reason", why.String())
		}
	}
	if c := n.Proxy.Identity(); c != nil {
		t.Family("meridian_identity_not_after_seconds", gauge, "When this proxy's certificate among those of its mesh, and that of the workload that it acts as, expire, in seconds since 1970.")
		t.Value(float64(c.NotAfter.Unix()), "id", c.URIs[0].String())
		if w := n.Proxy.Workload(); w != nil {
			t.Value(float64(w.NotAfter.Unix()), "id", w.URIs[0].String())
		}
	}
	held := n.Proxy.Certificates()
	if len(held) == 0 {
		return
	}
	t.Family("meridian_tls_certificate_not_after_seconds", gauge, "When a certificate in use expires, in seconds since 1970.")
	for _, h := range held {
		if !h.NotAfter.IsZero() {
			t.Value(float64(h.NotAfter.Unix()), "certificate", h.Name)
		}
	}
	t.Family("meridian_tls_certificate_problem", gauge, "Whether the files of a certificate cannot be used, or hold one that is not valid now.")
	for _, h := range held {
		t.Bool(h.Problem != "", "certificate", h.Name)
	}
}

// writePeers writes who hands requests in.
func writePeers(t *Text, loads []edgeproxy.ServiceLoad) {
	t.Family("meridian_peer_requests_total", counter, "Requests that proxies of other sites handed in, by the site in their certificate, or without TLS by the one that they say.")
	for i := range loads {
		for _, from := range loads[i].From {
			t.Count(from.N, "service", string(loads[i].Service), "peer_site", from.Site)
		}
	}
}

// writePlaintext writes what came from other sites without TLS.
func writePlaintext(t *Text, counts []edgeproxy.PlaintextCount) {
	t.Family("meridian_eastwest_plaintext_requests_total", counter, "Requests of other sites that came without TLS to a proxy that has it: accepted where mtls is permissive, else refused (mtls_required); service is empty where they named none.")
	for _, c := range counts {
		t.Count(c.Accepted, "service", string(c.Service), "decision", "accepted")
		t.Count(c.Refused, "service", string(c.Service), "decision", "refused")
	}
}
