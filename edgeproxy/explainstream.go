package edgeproxy

import (
	"fmt"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
)

// What becomes of connections and datagrams that are not served.
const (
	closedAtOnce = "the connection is closed"
	dropped      = "datagrams are dropped"
)

// stream finds the listener and the route of a connection that is passed on whole, or of
// datagrams.
func (x *explainer) stream(out *mesh.Explanation, q *mesh.ExplainQuery) error {
	out.Protocol = q.Protocol
	packets := q.Protocol == mesh.ExplainUDP
	if x.refused = closedAtOnce; packets {
		x.refused = dropped
	}
	ports := map[string]int{} // of listeners that are there
	for _, l := range x.s.Listeners() {
		ports[l.Gateway+"/"+l.Name] = int(l.Addr.Port())
	}
	var names, asked []string
	for _, socket := range x.v.Sockets {
		if socket.Streams == nil || socket.Key.Packets != packets {
			continue
		}
		for _, l := range socket.Listeners {
			name := socket.Gateway + "/" + l
			port, bound := ports[name]
			if !bound {
				continue
			}
			names = append(names, fmt.Sprintf("%s (port %d)", name, port))
			if q.Listener != "" && q.Listener != name || q.Port != 0 && q.Port != port {
				continue
			}
			asked = append(asked, name)
			if rule, ok := socket.Streams.Match([]byte(q.Host)); ok && out.Rule == "" {
				out.Listener = name
				x.streamRule(out, rule, packets)
			}
		}
	}
	switch {
	case len(names) == 0:
		return fmt.Errorf("no listener for %s is served here", strings.ToUpper(q.Protocol))
	case len(asked) == 0:
		return fmt.Errorf("there is no such listener for %s here; there are: %s", strings.ToUpper(q.Protocol), strings.Join(names, ", "))
	case out.Rule == "" && packets:
		out.Answer = x.refused + ": no UDPRoute joins " + strings.Join(asked, ", ")
	case out.Rule == "":
		out.Answer = x.refused + ": no route of " + strings.Join(asked, ", ") + " takes " + serverName(q.Host)
	}
	return nil
}

func serverName(host string) string {
	if host == "" {
		return "a connection without a server name"
	}
	return "the server name " + host
}

func (x *explainer) streamRule(out *mesh.Explanation, r *route.Rule, packets bool) {
	out.Rule = r.Key
	total := 0
	for i := range r.Backends {
		total += r.Backends[i].Weight
	}
	if total == 0 {
		out.Answer = x.refused + ": the route has no backend with a weight"
		return
	}
	for i := range r.Backends {
		b := &r.Backends[i]
		e := mesh.ExplainedBackend{Service: b.Service, Port: b.Port, Chance: float64(b.Weight) / float64(total), Sites: []mesh.ExplainedSite{}}
		svc := x.v.Services[b.Service]
		switch {
		case b.Invalid != "":
			e.Invalid = x.refused + ": " + b.Invalid
		case svc == nil, packets && !svc.HasPacketPort(b.Port), !packets && !svc.HasStreamPort(b.Port):
			e.Invalid = x.refused + ": there is no such service or port here"
		default:
			x.backend(&e, svc)
		}
		out.Backends = append(out.Backends, e)
	}
}
