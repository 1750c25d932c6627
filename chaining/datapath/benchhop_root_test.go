//go:build root

package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// softAgent serves the world's three functions with the shipped chainagent, in
// userspace, and returns the process.
func (w *world) softAgent(t *testing.T, functions ...*testFunction) *exec.Cmd {
	t.Helper()
	n := w.nodes[0]
	dir := t.TempDir()
	binary := filepath.Join(dir, "chainagent")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/chainagent").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var b strings.Builder
	b.WriteString("apiVersion: mesh.meridian.dev/v1alpha1\nkind: ChainNode\nmetadata: {name: edge}\nspec: {ports: [{interface: c0}, {interface: s0}]}\n")
	var names []string
	for i, f := range functions {
		name := fmt.Sprintf("router-%d", i+1)
		names = append(names, name)
		fmt.Fprintf(&b, "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec: {instances: [{name: %s, node: edge, left: %s, right: %s, leftMAC: %q, rightMAC: %q}]}\n",
			name, name, n.tab.Ports[f.ports[0]].Interface, n.tab.Ports[f.ports[1]].Interface, f.macs[0], f.macs[1])
	}
	fmt.Fprintf(&b, "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: ServiceChain\nmetadata: {name: web}\nspec:\n  functions: [%s]\n  ingress: {node: edge, interface: c0}\n  egress: {node: edge, interface: s0}\n  match: [{sources: [10.1.0.0/24], destinations: [10.2.0.0/24]}]\n", strings.Join(names, ", "))
	file := filepath.Join(dir, "chains.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config", file, "--node", "edge", "--datapath", "soft", "--pins", n.pins, "--admin", "unix:"+filepath.Join(dir, "agent.sock"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Logf("chainagent: %v\n%s", err, log.String())
		}
		if out, err := n.Run(t.Context(), binary, "--detach", "--pins", n.pins); err != nil && t.Context().Err() == nil {
			t.Logf("detach: %v\n%s", err, out)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// Through three routers, and the node none.
		out, err := w.client.Run(t.Context(), "ping", "-c1", "-W1", serverAddr)
		if err == nil && strings.Contains(out, "ttl=61") {
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent's chain does not stand: %v\n%s\n%s", err, out, log.String())
		}
	}
}

// cpuOf is the time that a process has worked, in the kernel too.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, i := range []int{11, 12} { // utime and stime, from state on
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// roundTrips sends a datagram of 64 bytes from the client to the server and back, one
// after the other, and returns the time of the median one.
func (w *world) roundTrips(count int) (time.Duration, error) {
	var server, client *net.UDPConn
	if err := errors.Join(
		w.server.Do(func() (err error) {
			server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(serverAddr)})
			return err
		}),
		w.client.Do(func() (err error) {
			client, err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
			return err
		})); err != nil {
		return 0, err
	}
	defer client.Close()
	defer server.Close()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return // closed
			}
			_, _ = server.WriteToUDPAddrPort(b[:n], from) // the client notices
		}
	}()
	took, b := make([]time.Duration, 0, count), make([]byte, 64)
	for range count {
		began := time.Now()
		if err := client.SetReadDeadline(began.Add(5 * time.Second)); err != nil {
			return 0, err
		}
		if _, err := client.Write(b); err != nil {
			return 0, err
		}
		if _, err := client.Read(b); err != nil {
			return 0, fmt.Errorf("round trip %d: %w", len(took)+1, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[count/2], nil
}

// TestBenchChainHops prints what one function on a path costs, by who forwards: CPU of the
// forwarder alone, and time, both veths and a function that is a router in the kernel, or a
// BPF program that knows NSH, included. `make bench-chains` runs it.
func TestBenchChainHops(t *testing.T) {
	const trips, functions = 5000, 3
	rounds := benchRounds(t)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	direct := newWorld(t, 1, 1600)
	plain := newWorld(t, 1, 1600)
	plain.chain(10, plain.function(0), plain.function(0), plain.function(0))
	plain.apply(Config{})
	aware := newWorld(t, 1, 1600)
	aware.chain(10, aware.awareFunction(0), aware.awareFunction(0), aware.awareFunction(0))
	aware.apply(Config{})
	user := newWorld(t, 1, 1600)
	agent := user.softAgent(t, user.function(0), user.function(0), user.function(0))
	inKernel := func(w *world) func() time.Duration {
		return func() time.Duration {
			s, err := w.nodes[0].dp.chain.Programs[chainProgIngress].Stats()
			if err != nil {
				t.Fatal(err)
			}
			return s.Runtime
		}
	}
	none := func() time.Duration { return 0 }
	variants := []struct {
		name string
		w    *world
		own  func() time.Duration
	}{
		{"no functions", direct, none},
		{"BPF", plain, inKernel(plain)},
		{"BPF, NSH-aware", aware, inKernel(aware)},
		{"soft", user, func() time.Duration { return cpuOf(t, agent.Process.Pid) }},
	}
	type result struct{ trip, own float64 } // us
	results := make([][]result, len(variants))
	for range rounds {
		for i, v := range variants {
			before := v.own()
			trip, err := v.w.roundTrips(trips)
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			results[i] = append(results[i], result{trip.Seconds() * 1e6, (v.own() - before).Seconds() * 1e6 / (2 * trips)})
		}
	}
	median := func(of func(round int) float64) float64 {
		var all []float64
		for i := range rounds {
			all = append(all, of(i))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	t.Logf("%d rounds of %d round trips; medians; one function on a path, us", rounds, trips)
	t.Logf("| forwarder | its CPU | time | round trip through three |")
	t.Logf("| --- | --- | --- | --- |")
	t.Logf("| %s | | | %.1f |", variants[0].name, median(func(r int) float64 { return results[0][r].trip }))
	for i, v := range variants[1:] {
		m := results[i+1]
		t.Logf("| %s | %.2f | %.2f | %.1f |", v.name,
			// The forwarder sees a packet once more than there are functions.
			median(func(r int) float64 { return m[r].own / (functions + 1) }),
			median(func(r int) float64 { return (m[r].trip - results[0][r].trip) / (2 * functions) }),
			median(func(r int) float64 { return m[r].trip }))
	}
}
