package edgeproxy

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// tcpNamed says its name to every connection.
func tcpNamed(t *testing.T, name string) string {
	return tcpBackend(t, func(c *net.TCPConn) { fmt.Fprintln(c, name) })
}

// explainsTLS has the proxy say which route, and so which service, takes a connection with
// the server name: none where service is empty.
func explainsTLS(t *testing.T, p *proxy, listener, name, service string) {
	t.Helper()
	x, err := p.Explain(&mesh.ExplainQuery{Protocol: mesh.ExplainTCP, Port: int(p.addr(listener).Port()), Host: name})
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case service == "" && (x.Rule != "" || !strings.HasPrefix(x.Answer, closedAtOnce)):
		t.Errorf("explained: %+v, want nothing that takes it", x)
	case service != "" && (len(x.Backends) != 1 || x.Backends[0].Service != mesh.ServiceKey("default/"+service) || x.Rule != "default/"+service):
		t.Errorf("explained: %+v, want %s", x, service)
	}
}

// TestExplainStreams has the proxy say where a connection and a datagram would go, and looks
// who answers: the one endpoint that may.
func TestExplainStreams(t *testing.T) {
	zero := 0
	idle := func(s *mesh.MeshService, address string) *mesh.MeshService {
		s.Spec.Endpoints = append(s.Spec.Endpoints, mesh.Endpoint{Address: address, Weight: &zero})
		return s
	}
	for _, tt := range []struct {
		protocol, listener, refused string
		objects                     func(serving, idle string) mesh.Objects
		backend                     func(name string) string
		ask                         func(p *proxy) string
	}{
		{"tcp", "tcp", closedAtOnce, func(serving, spare string) mesh.Objects {
			o := tcpTo(serving)
			idle(o.Services[0], spare)
			o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, mesh.Listener{Name: "bare", Protocol: mesh.ProtocolTCP})
			o.TCPRoutes[0].Spec.ParentRefs[0].SectionName = "tcp"
			return o
		}, func(name string) string { return tcpNamed(t, name) }, func(p *proxy) string {
			line, err := bufio.NewReader(p.stream("tcp")).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(line)
		}},
		{"udp", "udp", dropped, func(serving, spare string) mesh.Objects {
			o := udpTo(serving)
			idle(o.Services[0], spare)
			o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, mesh.Listener{Name: "bare", Protocol: mesh.ProtocolUDP})
			o.UDPRoutes[0].Spec.ParentRefs[0].SectionName = "udp"
			return o
		}, func(name string) string { return udpBackend(t, udpNamed(name)) }, func(p *proxy) string {
			name, _, _ := strings.Cut(p.udp().ask("x"), " ")
			return name
		}},
	} {
		t.Run(tt.protocol, func(t *testing.T) {
			addresses := map[string]string{"serving": tt.backend("serving"), "spare": tt.backend("spare")}
			p := startProxy(t, Config{}, Deps{}, tt.objects(addresses["serving"], addresses["spare"]))
			port := int(p.addr(tt.listener).Port())
			for _, q := range []mesh.ExplainQuery{{Port: port}, {Listener: "default/ingress/" + tt.listener}, {}} {
				q.Protocol = tt.protocol
				x, err := p.Explain(&q)
				if err != nil || x.Protocol != tt.protocol || x.Rule != "default/all" || x.Listener != "default/ingress/"+tt.listener || len(x.Backends) != 1 {
					t.Fatalf("%+v: %+v, %v", q, x, err)
				}
				var may []string
				for _, e := range x.Backends[0].Endpoints {
					if e.May {
						may = append(may, e.Address)
					}
				}
				sites := x.Backends[0].Sites
				if answered := tt.ask(p); len(may) != 1 || may[0] != addresses[answered] || len(sites) != 1 || sites[0].Chance != 1 {
					t.Errorf("%+v: %s answered, explained are %q of %+v", q, answered, may, sites)
				}
			}
			x, err := p.Explain(&mesh.ExplainQuery{Protocol: tt.protocol, Listener: "default/ingress/bare"})
			if err != nil || x.Rule != "" || !strings.HasPrefix(x.Answer, tt.refused) {
				t.Errorf("a listener without a route: %+v, %v", x, err)
			}
			for _, q := range []mesh.ExplainQuery{{Protocol: tt.protocol, Port: 1}, {Protocol: tt.protocol, Listener: "default/ingress/none"}} {
				if _, err := p.Explain(&q); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("default/ingress/%s (port %d)", tt.listener, port)) {
					t.Errorf("%+v: %v, want the listeners that there are", q, err)
				}
			}
			other := map[string]string{"tcp": "udp", "udp": "tcp"}[tt.protocol]
			if _, err := p.Explain(&mesh.ExplainQuery{Protocol: other}); err == nil || !strings.Contains(err.Error(), "no listener for "+strings.ToUpper(other)) {
				t.Errorf("%s: %v", other, err)
			}
			// Nothing left that serves.
			o := tt.objects(addresses["serving"], addresses["spare"])
			for i := range o.Services[0].Spec.Endpoints {
				o.Services[0].Spec.Endpoints[i].Weight = &zero
			}
			p.apply(o)
			x, err = p.Explain(&mesh.ExplainQuery{Protocol: tt.protocol})
			if err != nil || len(x.Backends) != 1 || x.Backends[0].Sites[0].Chance != 0 || !strings.Contains(x.Backends[0].Sites[0].Why, tt.refused) {
				t.Errorf("without an endpoint: %+v, %v", x, err)
			}
		})
	}
}
