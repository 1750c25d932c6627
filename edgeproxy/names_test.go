package edgeproxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// zone answers questions for A records over UDP.
type zone struct {
	addr netip.AddrPort
	mu   sync.Mutex
	a    map[string][]string // name -> addresses; a name without is refused
}

func startZone(t *testing.T) *zone {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	z := &zone{addr: netip.MustParseAddrPort(c.LocalAddr().String()), a: map[string][]string{}}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(z.answer(buf[:n]), from)
		}
	}()
	return z
}

func (z *zone) answer(msg []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(msg) != nil {
		return nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
	addrs, ok := z.a[m.Questions[0].Name.String()]
	if !ok {
		r.RCode = dnsmessage.RCodeServerFailure
	}
	for _, a := range addrs {
		r.Answers = append(r.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
		})
	}
	b, _ := r.Pack()
	return b
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(addrs) == 0 {
		delete(z.a, name)
		return
	}
	z.a[name] = addrs
}

// backendsAt listens on one port of several loopback addresses.
func backendsAt(t *testing.T, hosts ...string) (port string) {
	t.Helper()
	var listeners []net.Listener
	for try := 0; len(listeners) < len(hosts); {
		if len(listeners) == 0 {
			port = "0"
		}
		l, err := net.Listen("tcp", hosts[len(listeners)]+":"+port)
		if err == nil {
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
			continue
		}
		// Somebody has the port at another of the addresses.
		if try++; try == 20 {
			t.Fatal(err)
		}
		for _, l := range listeners {
			l.Close()
		}
		listeners = nil
	}
	for i, l := range listeners {
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) })}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close() })
	}
	return port
}

func TestEndpointsByName(t *testing.T) {
	z := startZone(t)
	port := backendsAt(t, "127.0.0.11", "127.0.0.12", "127.0.0.13")
	z.set("echo.test.", "127.0.0.11", "127.0.0.12")
	address := "echo.test:" + port
	p := startProxy(t, Config{Loops: 1, Resolver: z.addr}, Deps{}, with(toOne(address), mesh.TrafficPolicySpec{LoadBalancing: &mesh.LoadBalancing{Algorithm: mesh.LBRoundRobin}}))
	reach := func() string {
		got := map[string]bool{}
		for range 12 {
			status, body, _ := visit(t, p.url("/"), "", "")
			got[fmt.Sprint(status, body)] = true
		}
		var names []string
		for k := range got {
			names = append(names, k)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	if got := reach(); got != "2000 2001" {
		t.Fatalf("reached %s; problems %v", got, p.Problems())
	}
	kept := p.endpoint("127.0.0.12:" + port)
	if kept.Host != address {
		t.Errorf("host %q", kept.Host)
	}
	connects := p.Stats().UpstreamConnects

	z.set("echo.test.", "127.0.0.12", "127.0.0.13")
	await(t, "the change", func() bool { return reach() == "2001 2002" })
	if now := p.endpoint("127.0.0.12:" + port); now.Requests <= kept.Requests || now.Connects != kept.Connects {
		t.Errorf("the endpoint that stayed did not keep its connection and counters: %+v, was %+v", now, kept)
	}
	if n := p.Stats().UpstreamConnects - connects; n != 1 {
		t.Errorf("%d new connections for one new endpoint", n)
	}

	z.set("echo.test.") // DNS fails
	await(t, "the failure", func() bool { return len(p.Problems()) > 0 })
	if got := reach(); got != "2001 2002" {
		t.Errorf("without DNS %s", got)
	}
	if problem := p.Problems()[0]; !strings.Contains(problem, address) || !strings.Contains(problem, "ServerFailure") {
		t.Errorf("problem %q", problem)
	}
	p.apply(p.snap.Objects) // a reload without DNS loses nothing
	if got := reach(); got != "2001 2002" {
		t.Errorf("after a reload without DNS %s", got)
	}
}

// TestNameThatIsNotThere serves the rest and says why; it is there as soon as DNS says so.
func TestNameThatIsNotThere(t *testing.T) {
	z := startZone(t)
	port := backendsAt(t, "127.0.0.11")
	p := startProxy(t, Config{Loops: 1, Resolver: z.addr}, Deps{}, toOne("late.test:"+port))
	if status, _, _ := visit(t, p.url("/"), "", ""); status != 503 {
		t.Errorf("status %d", status)
	}
	if got := strings.Join(p.Problems(), "\n"); !strings.Contains(got, "late.test") || !strings.Contains(got, "ServerFailure") {
		t.Errorf("problems %q", got)
	}
	z.set("late.test.", "127.0.0.11")
	await(t, "the endpoint", func() bool {
		status, _, _ := visit(t, p.url("/"), "", "")
		return status == 200
	})
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("problems %q", got)
	}
}
