//go:build root

package netns

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/link"
)

// TestRootIdle weighs a site of one node that does nothing: its controller, with the
// NATS server inside, and its proxy. The least of three looks at its CPU counts,
// because others use the machine too.
func TestRootIdle(t *testing.T) {
	n := New(t, 1, link.Shape{}, "solo")
	s := newMesh(t, n)[0]
	s.users.CloseIdleConnections()
	time.Sleep(3 * time.Second)
	var rss, cpu float64
	for look := range 3 {
		before := s.burnt()
		const span = 5 * time.Second
		time.Sleep(span)
		used := (s.burnt() - before).Seconds() * 1e3 / span.Seconds()
		if look == 0 || used < cpu {
			cpu = used
		}
	}
	for _, role := range []string{controllerRole, proxyRole} {
		mb := s.resident(role)
		t.Logf("%s: %.1f MB", role, mb)
		rss += mb
	}
	t.Logf("idle site of one node: %.1f MB, %.2f ms of CPU a second", rss, cpu)
	if rss > 60 {
		t.Errorf("an idle site holds %.1f MB, want 60", rss)
	}
	// The bar is 5 ms and is missed (docs/benchmarks.md); this is what must not grow.
	if cpu > 20 {
		t.Errorf("an idle site uses %.2f ms of CPU a second, had 8 to 10", cpu)
	}
}

// burnt is the CPU time of the site's controller and proxy so far, to the
// nanosecond where the kernel counts so.
func (s *site) burnt() (total time.Duration) {
	s.t.Helper()
	for _, role := range []string{controllerRole, proxyRole} {
		pid := s.procs[role].cmd.Process.Pid
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, thread := range threads {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, thread.Name()))
			if err != nil {
				s.t.Fatal(err)
			}
			ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			total += time.Duration(ns)
		}
	}
	return total
}

// resident is a process's resident memory in MB.
func (s *site) resident(role string) float64 {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.procs[role].cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return kb / 1024
		}
	}
	s.t.Fatal("no VmRSS")
	return 0
}
