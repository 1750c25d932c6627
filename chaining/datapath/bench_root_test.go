//go:build root

package datapath

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/internal/nstest"
)

// awareFunction adds a function that knows NSH to a node, as a program in its own
// namespace: VXLAN-GPE comes in and goes back.
func (w *world) awareFunction(at int) *testFunction {
	w.t.Helper()
	w.functions++
	i := w.functions
	n := w.nodes[at]
	f := &testFunction{Namespace: nstest.New(w.t, fmt.Sprintf("a%d", i)), at: at, function: uint16(len(n.tab.Functions))}
	n.tab.Functions = append(n.tab.Functions, path.FunctionRef{Function: "aware", Instance: f.Name})
	port := fmt.Sprintf("a%d", i)
	nstest.Veth(n.Namespace, port, f.Namespace, "eth0")
	n.IP("link set " + port + " mtu 1600")
	f.IP("link set eth0 mtu 1600")
	local := netip.AddrFrom4([4]byte{10, 9, byte(i), 1})
	f.remote = netip.AddrFrom4([4]byte{10, 9, byte(i), 2})
	n.IP(fmt.Sprintf("addr add %v/30 dev %s", local, port))
	f.IP(fmt.Sprintf("addr add %v/30 dev eth0", f.remote))
	f.macs[0] = macOf(w.t, f.Namespace, "eth0")
	f.ports[0] = n.port(path.Port{Interface: port, Role: path.RoleAware, Function: f.function, Address: local})
	spec, err := loadSpike()
	if err != nil {
		w.t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(coll.Close)
	in := interfaceOf(w.t, f.Namespace, "eth0")
	if err := f.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: in.Index, Program: coll.Programs["aware"], Attach: ebpf.AttachTCXIngress})
		if err == nil {
			w.t.Cleanup(func() { l.Close() })
			f.links = append(f.links, l)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return f
}

// policyRouting sends traffic through functions in order, both ways, by the kernel's
// own means: what chains are compared with.
func (w *world) policyRouting(functions ...*testFunction) {
	n := w.nodes[0]
	table := 100
	step := func(iif string, f *testFunction, side int) {
		table++
		port := n.tab.Ports[f.ports[side]].Interface
		n.IP(fmt.Sprintf("rule add iif %s lookup %d", iif, table))
		var id int
		if _, err := fmt.Sscanf(port, "f%d", &id); err != nil {
			w.t.Fatal(err)
		}
		n.IP(fmt.Sprintf("route add default via 10.9.%d.%d dev %s table %d", id, 4*side+2, port, table))
	}
	in := "c0"
	for _, f := range functions {
		step(in, f, towardsClient)
		in = n.tab.Ports[f.ports[towardsServer]].Interface
	}
	in = "s0"
	for _, f := range slices.Backward(functions) {
		step(in, f, towardsServer)
		in = n.tab.Ports[f.ports[towardsClient]].Interface
	}
}

type benchResult struct{ gbps, kpps, micros float64 }

// iperf runs one measurement from client to server and returns received bits and
// datagrams a second, and the machine's busy microseconds per datagram.
func (w *world) iperf(udp bool, span time.Duration) (gbps, kpps, micros float64, err error) {
	server := exec.Command("iperf3", "-s", "-1", "-p", "5201")
	if err := w.server.Start(server); err != nil {
		return 0, 0, 0, err
	}
	defer func() {
		_ = server.Process.Kill() // it has ended by itself when all went well
		_ = server.Wait()
	}()
	args := []string{"-c", serverAddr, "-p", "5201", "-J", "-t", fmt.Sprint(int(span.Seconds()))}
	if udp {
		args = append(args, "-u", "-l", "64", "-b", "0")
	}
	ctx, cancel := context.WithTimeout(context.Background(), span+10*time.Second)
	defer cancel()
	var out string
	before := busy()
	for range 100 { // until the server listens; with -J it ends well also when it does not
		if out, err = w.client.Run(ctx, "iperf3", args...); !strings.Contains(out, "Connection refused") {
			break
		}
		time.Sleep(20 * time.Millisecond)
		before = busy()
	}
	used := busy() - before
	if err != nil {
		return 0, 0, 0, err
	}
	var r struct {
		Error string `json:"error"`
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Sum struct {
				Seconds     float64 `json:"seconds"`
				Packets     float64 `json:"packets"`
				LostPackets float64 `json:"lost_packets"`
			} `json:"sum"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, 0, 0, fmt.Errorf("%w in %s", err, out)
	}
	if r.Error != "" {
		return 0, 0, 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	if !udp {
		if r.End.SumReceived.BitsPerSecond == 0 {
			return 0, 0, 0, fmt.Errorf("nothing was received: %s", out)
		}
		return r.End.SumReceived.BitsPerSecond / 1e9, 0, 0, nil
	}
	got := r.End.Sum.Packets - r.End.Sum.LostPackets
	if got <= 0 {
		return 0, 0, 0, fmt.Errorf("no datagram was received: %s", out)
	}
	return 0, got / r.End.Sum.Seconds / 1e3, used.Seconds() * 1e6 / got, nil
}

// busy is the time that all processors have worked.
func busy() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int
	for i, f := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 7 { // idle, iowait, guests
			continue
		}
		n, _ := strconv.Atoi(f)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func benchRounds(t *testing.T) int {
	s := os.Getenv("MERIDIAN_ROUNDS")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("MERIDIAN_ROUNDS: %v", err)
	}
	return n
}

// TestBenchChains measures what chains cost: interleaved rounds in one run, medians
// of ratios within rounds. `make bench-chains` runs it.
func TestBenchChains(t *testing.T) {
	rounds, span := benchRounds(t), time.Second
	type variant struct {
		name string
		w    *world
	}
	var variants []variant
	add := func(name string, w *world) { variants = append(variants, variant{name, w}) }

	add("direct", newWorld(t, 1, 1600))
	r := newWorld(t, 1, 1600)
	r.policyRouting(r.function(0), r.function(0), r.function(0))
	add("three kernel routers", r)
	c := newWorld(t, 1, 1600)
	c.chain(10, c.function(0), c.function(0), c.function(0))
	c.apply(Config{})
	add("chain, one node", c)
	g := newWorld(t, 1, 1600)
	g.chain(10, g.awareFunction(0), g.awareFunction(0), g.awareFunction(0))
	g.apply(Config{})
	add("chain, one node, NSH-aware", g)
	c2 := newWorld(t, 2, 1600)
	c2.chain(10, c2.function(0), c2.function(0), c2.function(1))
	c2.apply(Config{})
	add("chain, two nodes", c2)
	off := newWorld(t, 2, 1600)
	off.chain(10, off.function(0), off.function(0), off.function(1))
	off.apply(Config{})
	vx := newWorld(t, 2, 1600)
	for i, n := range vx.nodes {
		n.IP(fmt.Sprintf("link add vx0 type vxlan id 7 local 192.0.2.%d remote 192.0.2.%d dstport 4789 dev u0", i+1, 2-i))
		n.IP(fmt.Sprintf("addr add 198.51.100.%d/24 dev vx0", i+1))
		n.IP("link set vx0 mtu 1500 up")
		n.IP(fmt.Sprintf("route replace 10.%d.0.0/24 via 198.51.100.%d", 2-i, 2-i))
	}
	for _, w := range []*world{off, vx} {
		for _, n := range w.nodes {
			setOffload(t, n.Namespace, "u0", false)
		}
	}
	add("chain, two nodes, underlay without TSO", off)
	add("kernel VXLAN, two nodes, without TSO", vx)

	results := make([][]benchResult, len(variants))
	for range rounds {
		for i, v := range variants {
			gbps, _, _, err := v.w.iperf(false, span)
			if err != nil {
				t.Fatalf("%s: TCP: %v", v.name, err)
			}
			_, kpps, micros, err := v.w.iperf(true, span)
			if err != nil {
				t.Fatalf("%s: UDP: %v", v.name, err)
			}
			t.Logf("round: %-40s %6.2f Gbit/s %6.1f kpps", v.name, gbps, kpps)
			results[i] = append(results[i], benchResult{gbps, kpps, micros})
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
	t.Logf("%d rounds; medians, and medians of ratios within rounds", rounds)
	t.Logf("| variant | Gbit/s | x routers | x direct | kpps | x routers | x direct | CPU us/packet |")
	t.Logf("| --- | --- | --- | --- | --- | --- | --- | --- |")
	for i, v := range variants {
		m := results[i]
		t.Logf("| %s | %.1f | %.2f | %.2f | %.0f | %.2f | %.2f | %.1f |", v.name,
			median(func(r int) float64 { return m[r].gbps }),
			median(func(r int) float64 { return m[r].gbps / results[1][r].gbps }),
			median(func(r int) float64 { return m[r].gbps / results[0][r].gbps }),
			median(func(r int) float64 { return m[r].kpps }),
			median(func(r int) float64 { return m[r].kpps / results[1][r].kpps }),
			median(func(r int) float64 { return m[r].kpps / results[0][r].kpps }),
			median(func(r int) float64 { return m[r].micros }))
	}
	last := len(variants) - 1
	t.Logf("without TSO, chain against kernel VXLAN: %.2f", median(func(r int) float64 { return results[last-1][r].gbps / results[last][r].gbps }))
	for _, v := range variants[2:6] {
		if d := v.w.drops(); len(d) > 0 {
			t.Logf("%s: dropped %v", v.name, d)
		}
	}
}
