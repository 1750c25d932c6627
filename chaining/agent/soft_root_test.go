//go:build root

package agent

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// bulk sends n bytes from the client to the server over one connection, as large as
// the client's kernel makes its segments, and returns what arrived.
func (s *site) bulk(n int) (got int64, err error) {
	err = s.server.Do(func() error {
		l, err := net.Listen("tcp", "10.2.0.2:0")
		if err != nil {
			return err
		}
		defer l.Close()
		sent := make(chan error, 1)
		go func() {
			sent <- s.client.Do(func() error {
				c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write(make([]byte, n))
				return err
			})
		}()
		if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if got, err = io.Copy(io.Discard, c); err != nil {
			return err
		}
		return <-sent
	})
	return got, err
}

// The same chain in userspace: functions come and go under load; what belongs to no
// chain passes; while nobody forwards, nothing does; the kernel takes over and
// gives back, and --detach opens the way.
func TestRootSoft(t *testing.T) {
	s := newSite(t, 3)
	s.datapath, s.interval = "soft", "1s" // a busy machine must not look like a dead router
	s.write(1, []int{0}, []int{1})
	s.start()
	stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 2*time.Millisecond)
	r := nstest.StartRequests(t, s.client, s.server, "10.2.0.2:0", 1, 1)
	time.Sleep(500 * time.Millisecond)
	s.write(1, []int{0}, []int{1}, []int{2})
	s.until("three functions", func(st *Status) bool {
		return st.Ready && st.View == "remove" && len(st.Paths[0].Stops) == 3
	})
	sent, lost, hops := stream.Stop()
	r.Stop()
	t.Logf("%v; %d datagrams, %d lost, TTL at the server %v", r, sent, lost, hops)
	if lost != 0 || hops[62] == 0 || hops[61] == 0 || len(hops) != 2 {
		t.Errorf("%d lost, TTL at the server %v", lost, hops)
	}
	const size = 32 << 20
	began := time.Now()
	if got, err := s.bulk(size); err != nil || got != size {
		metrics, _ := s.get("/metrics")
		t.Fatalf("bulk: %d bytes of %d: %v\n%s", got, size, err, metrics)
	}
	t.Logf("%.2f Gbit/s in userspace", size*8/1e9/time.Since(began).Seconds())
	counters, err := s.get("/counters")
	if err != nil || !strings.Contains(counters, `"packets"`) {
		t.Errorf("counters: %v %s", err, counters)
	}
	for _, ns := range []*nstest.Namespace{s.client, s.server} {
		for _, to := range []string{"10.1.0.1", "10.2.0.1"} { // of no chain, and to the node
			if out, err := ns.Run(t.Context(), "ping", "-c2", "-i0.01", "-W2", to); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}

	passes := func() int { // routers that a packet has passed, 0 for one that is lost
		t.Helper()
		stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 10*time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		hops := stream.Halt()
		for ttl := range hops {
			return 64 - ttl
		}
		return 0
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s.end(sig)
		if n := passes(); n != 0 {
			t.Errorf("after signal %v packets pass %d routers, want none to pass", sig, n)
		}
		s.start()
		if n := passes(); n != 3 {
			t.Errorf("after a restart packets pass %d routers, want 3", n)
		}
	}
	s.end(syscall.SIGTERM)
	for _, s.datapath = range []string{"bpf", "soft"} {
		s.start()
		if n := passes(); n != 3 {
			t.Errorf("with --datapath %s packets pass %d routers, want 3", s.datapath, n)
		}
		if s.datapath == "bpf" {
			s.end(syscall.SIGTERM)
			if n := passes(); n != 3 {
				t.Errorf("without the agent, in the kernel, packets pass %d routers, want 3", n)
			}
		}
	}
	s.end(syscall.SIGTERM)
	if out, err := s.node.Run(t.Context(), s.binary, "--detach", "--pins", s.pins); err != nil {
		t.Fatal(err, out)
	}
	if n := passes(); n != 1 {
		t.Errorf("after --detach packets pass %d routers, want 1, the node", n)
	}
}

// The shipped functions, as processes that know NSH, in the userspace forwarder's
// chain.
func TestRootSoftFunctions(t *testing.T) {
	s := newSite(t, 0)
	s.datapath = "soft"
	functionsInOrder(t, s)
}
