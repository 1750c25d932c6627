//go:build root

package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
	"github.com/meridian-mesh/meridian/chaining/soft/packetgrammar"
	"github.com/meridian-mesh/meridian/internal/nstest"
)

// skbContext is the part of struct __sk_buff that a test run takes and gives.
type skbContext struct {
	_       [40]byte
	Ifindex uint32
	_       [4]byte
	CB      [5]uint32
	_       [124]byte
}

// decision is what the program noted in the packet's control block.
func (c *skbContext) decision() (path.Verdict, path.Reason, path.Hop) {
	return path.Verdict(c.CB[0] >> 8), path.Reason(c.CB[0] & 0xff), path.Hop{SPI: c.CB[1] >> 8, SI: uint8(c.CB[1])}
}

// equalPackets is how many packets are compared: MERIDIAN_PACKETS, or what makes
// every verdict and reason at least a thousand.
func equalPackets(t *testing.T) int {
	if s := os.Getenv("MERIDIAN_PACKETS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("MERIDIAN_PACKETS: %v", err)
		}
		return n
	}
	return 1_000_000
}

// The programs and chaining/soft do the same with every packet that the grammar
// makes: verdict, reason, place on the path, bytes.
func TestRootEqualsSoft(t *testing.T) {
	table := packetgrammar.Table()
	ns := nstest.New(t, "equal")
	byName := map[string]device{}
	for _, p := range table.Ports {
		nstest.Veth(ns, p.Interface, ns, p.Interface+"-peer")
		byName[p.Interface] = device{index: uint32(interfaceOf(t, ns, p.Interface).Index)}
	}
	im, err := compile(table, func(name string) (device, error) { return byName[name], nil })
	if err != nil {
		t.Fatal(err)
	}
	pins := bpffs(t)
	// The kernel's cache forgets what it likes when it is nearly full.
	d, err := Open(Config{Pins: pins, Flows: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.applyTable(im); err != nil {
		t.Fatal(err)
	}
	forwarder := soft.New(table, soft.Limits{Flows: 1 << 20, Returns: 1 << 20}, nil)
	if err := ns.Do(func() error { return compareAll(t, d.chain.Programs[chainProgIngress], forwarder, table, byName) }); err != nil {
		t.Fatal(err)
	}
}

func compareAll(t *testing.T, program *ebpf.Program, forwarder *soft.Forwarder, table *path.Table, byName map[string]device) error {
	var verdicts [path.VerdictCount]int
	var reasonCounts [path.ReasonCount]int
	g := packetgrammar.New(uint64(time.Now().UnixNano()))
	dataOut := make([]byte, packetgrammar.MaxFrame+soft.Headroom+256)
	softOut := make([]byte, packetgrammar.MaxFrame+soft.Headroom)
	frame := make([]byte, packetgrammar.MaxFrame)
	short, differ := 0, 0
	total := equalPackets(t)
	for i := range total {
		port, made := g.Next()
		in := frame[:copy(frame, made)]
		want := forwarder.Forward(port, made, softOut, time.Time{})
		if len(in) <= 14 {
			// The kernel runs no test on a frame without a packet; there is nothing to decide.
			if short++; want.Verdict != path.VerdictDrop && want.Verdict != path.VerdictPass {
				return fmt.Errorf("packet %d of %d bytes: soft says %v", i, len(in), want.Verdict)
			}
			continue
		}
		ctx := skbContext{Ifindex: byName[table.Ports[port].Interface].index}
		var after skbContext
		opts := &ebpf.RunOptions{Data: in, DataOut: dataOut, Context: &ctx, ContextOut: &after}
		action, err := program.Run(opts)
		if err != nil {
			if errors.Is(err, unix.EINVAL) {
				short++
				continue
			}
			return fmt.Errorf("packet %d: %w", i, err)
		}
		verdict, reason, hop := after.decision()
		if verdict == path.VerdictDrop && reason == ReasonNoRoute {
			// The namespace routes nothing, so what is through its path ends here.
			verdict, reason = path.VerdictEnd, path.ReasonNone
		}
		verdicts[verdict]++
		if reason < path.ReasonCount {
			reasonCounts[reason]++
		}
		var fault string
		switch {
		case verdict != want.Verdict || reason != want.Reason:
			fault = fmt.Sprintf("kernel: %v %s, soft: %v %v", verdict, ReasonName(reason), want.Verdict, want.Reason)
		case want.Verdict != path.VerdictDrop && want.Verdict != path.VerdictPass && want.Hop != hop:
			fault = fmt.Sprintf("kernel: %v at %v, soft at %v", verdict, hop, want.Hop)
		case want.Verdict != path.VerdictDrop && !bytes.Equal(want.Frame, opts.DataOut):
			fault = fmt.Sprintf("%v at %v:\nkernel %x\nsoft   %x", verdict, hop, opts.DataOut, want.Frame)
		case (verdict == path.VerdictDrop) != (action == unix.BPF_OK+2) && verdict != path.VerdictEnd:
			fault = fmt.Sprintf("%v, action %d", verdict, action)
		}
		if fault != "" {
			t.Errorf("packet %d on %s: %s\nin     %x", i, table.Ports[port].Interface, fault, in)
			if differ++; differ > 10 {
				return errors.New("too many differ")
			}
		}
	}
	t.Logf("%d packets, %d too short for the kernel", total, short)
	for v := path.VerdictPass; v < path.VerdictCount; v++ {
		t.Logf("%-14v %d", v, verdicts[v])
		if verdicts[v] < 1000 && total >= 1_000_000 {
			t.Errorf("verdict %v only %d times", v, verdicts[v])
		}
	}
	for r := path.ReasonNone + 1; r < path.ReasonCount; r++ {
		t.Logf("drop %-14v %d", r, reasonCounts[r])
		if reasonCounts[r] < 1000 && total >= 1_000_000 && r != path.ReasonGuard {
			t.Errorf("reason %v only %d times", r, reasonCounts[r])
		}
	}
	return nil
}
