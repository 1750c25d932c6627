package edgeproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/http1/hostiletest"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// recorder is a backend that keeps every octet it is sent, by connection. It
// answers each message that the oracle finds complete, and what it cannot read.
type recorder struct {
	mu    sync.Mutex
	wires []string
	open  sync.WaitGroup
}

func (b *recorder) serve(_ int, c net.Conn, in *bufio.Reader) {
	b.open.Add(1)
	defer b.open.Done()
	b.mu.Lock()
	n := len(b.wires)
	b.wires = append(b.wires, "")
	b.mu.Unlock()
	answered := 0
	buf := make([]byte, 64<<10)
	for {
		k, err := in.Read(buf)
		b.mu.Lock()
		b.wires[n] += string(buf[:k])
		wire := b.wires[n]
		b.mu.Unlock()
		complete, fault := judgeRequests(wire)
		if fault != nil {
			complete++
		}
		for ; answered < complete; answered++ {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		if err != nil {
			return
		}
	}
}

// take returns what has been recorded once all connections are closed.
func (b *recorder) take() []string {
	b.open.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	wires := b.wires
	b.wires = nil
	return wires
}

func guarded(addr string) mesh.Objects {
	o := toOne(addr)
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", prefixRule("/", backendRef("echo")), prefixRule("/admin"))}
	return o
}

// tally prints what a table held.
type tally map[string][2]int

func (t tally) add(m hostiletest.Message) {
	n := t[m.Class]
	if m.Verdict == hostiletest.Valid {
		n[1]++
	} else {
		n[0]++
	}
	t[m.Class] = n
}

func (t tally) check(tb testing.TB, direction string) {
	var classes []string
	for c, n := range t {
		classes = append(classes, c)
		if n[0] < 10 {
			tb.Errorf("%s: class %s has %d hostile messages, want 10", direction, c, n[0])
		}
	}
	slices.Sort(classes)
	hostile, valid := 0, 0
	for _, c := range classes {
		tb.Logf("%-8s %-10s %3d hostile %3d valid", direction, c, t[c][0], t[c][1])
		hostile, valid = hostile+t[c][0], valid+t[c][1]
	}
	tb.Logf("%-8s %-10s %3d hostile %3d valid", direction, "all", hostile, valid)
}

// say sends raw in the given number of pieces and returns all that comes back
// until the proxy closes. The client says that it is done once it has a whole
// final response.
func (p *proxy) say(raw string, pieces int, methods ...string) string {
	c := p.dial("http")
	defer c.Close()
	go func() {
		for i := range pieces {
			if _, err := io.WriteString(c, raw[len(raw)*i/pieces:len(raw)*(i+1)/pieces]); err != nil {
				return
			}
			if pieces > 1 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	got, buf := "", make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		got += string(buf[:n])
		if e, ok := err.(net.Error); ok && e.Timeout() {
			p.t.Errorf("%.200q: neither answered nor closed", raw)
		}
		if err != nil {
			return got
		}
		final, _ := judgeResponses(got, methods...)
		if n := len(final); n == len(methods) && final[n-1].complete {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}
}

// TestHostileClients sends every request of the table through a proxy and judges
// the octets that reach the backend.
func TestHostileClients(t *testing.T) {
	b := &recorder{}
	addr := rawBackend(t, b.serve)
	p := startProxy(t, Config{}, Deps{}, guarded(addr))
	times := worker.DefaultTimes
	times.Head, times.Body, times.KeepAlive = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	hasty := startProxy(t, Config{times: times}, Deps{}, guarded(addr))
	count := tally{}
	for _, m := range hostiletest.Requests() {
		count.add(m)
		for _, pieces := range []int{1, 3} {
			via := p
			if m.Verdict == hostiletest.Bad {
				via = hasty // many end without an end
			}
			name := fmt.Sprintf("%s: %s, in %d", m.Class, m.Name, pieces)
			method, _, _ := strings.Cut(strings.TrimLeft(m.Raw, "\r\n"), " ")
			got := via.say(m.Raw, pieces, method)
			complete := 0
			for _, wire := range b.take() {
				n, err := judgeRequests(wire)
				if err != nil {
					t.Errorf("%s: unsafe: %v\nthe backend saw %.400q", name, err, wire)
				}
				complete += n
			}
			final, err := judgeResponses(got, method, "GET", "GET")
			if err != nil {
				t.Errorf("%s: response: %v\nof %.400q", name, err, got)
			}
			first := ""
			if len(final) > 0 {
				first = final[0].start
			}
			passed := strings.HasPrefix(first, "HTTP/1.1 200")
			switch m.Verdict {
			case hostiletest.Valid:
				if complete != 1 || !passed || len(final) != 1 {
					t.Errorf("%s: valid, but %d reached the backend and the answer is %.200q", name, complete, got)
				}
			case hostiletest.Bad:
				if complete != 0 || passed {
					t.Errorf("%s: %d reached the backend and the answer is %.200q", name, complete, got)
				}
			case hostiletest.Tame:
				if complete > 1 {
					t.Errorf("%s: one message became %d", name, complete)
				}
			}
		}
	}
	count.check(t, "client")
}

// TestHostileBackends answers a client's first request with every response of the
// table and judges the octets that reach the client, which asks once more on the
// same connection: that answer must be its own.
func TestHostileBackends(t *testing.T) {
	var now hostiletest.Message
	var mu sync.Mutex
	addr := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			head := ""
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				head += line
			}
			if !strings.HasPrefix(head, "GET /first ") {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")
				continue
			}
			mu.Lock()
			m := now
			mu.Unlock()
			io.WriteString(c, m.Raw)
			if m.Class == "close" || m.Class == "interim" && m.Name == "and then no response" {
				return
			}
		}
	})
	times := worker.DefaultTimes
	o := toOne(addr)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "once", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
			Retries:    &mesh.Retries{Attempts: new(int)},
		},
	}}
	p := startProxy(t, Config{times: times}, Deps{}, o)
	count := tally{}
	for _, m := range hostiletest.Responses() {
		count.add(m)
		mu.Lock()
		now = m
		mu.Unlock()
		got := p.say("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1, "GET", "GET")
		final, err := judgeResponses(got, "GET", "GET")
		if err != nil {
			t.Errorf("%s: %s: unsafe: %v\nthe client saw %.400q", m.Class, m.Name, err, got)
			continue
		}
		var first, second *wireMessage
		if len(final) > 0 {
			first = final[0]
		}
		if len(final) > 1 {
			second = final[1]
		}
		if second != nil && (second.body != "own" || !second.complete) {
			t.Errorf("%s: %s: unsafe: the second answer is %q", m.Class, m.Name, got)
		}
		refused := first == nil || !first.complete || strings.HasPrefix(first.start, "HTTP/1.1 50")
		switch {
		case m.Verdict == hostiletest.Valid:
			want := m.Raw[strings.LastIndex(m.Raw, "HTTP/1."):] // the last status line of an honest message
			if m.Name == "a response in a body" {
				want = m.Raw
			}
			if refused || second == nil || first.start[9:12] != want[9:12] {
				t.Errorf("%s: %s: valid, but the client saw %.400q", m.Class, m.Name, got)
			} else if strings.HasSuffix(m.Raw, "\r\n\r\nok") && first.body != "ok" {
				t.Errorf("%s: %s: body %q", m.Class, m.Name, first.body)
			}
		case m.Verdict == hostiletest.Bad && !refused:
			t.Errorf("%s: %s: the client saw %.400q", m.Class, m.Name, got)
		case strings.Contains(got, "evil") || strings.Contains(got, "X-Evil"):
			t.Errorf("%s: %s: unsafe: the client saw %.400q", m.Class, m.Name, got)
		}
	}
	count.check(t, "backend")
}
