//go:build root

package datapath

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// eventually waits for a condition, generously: the machine may be busy.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var transmitted = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// lost reads ping's summary.
func lost(t testing.TB, out string) int {
	t.Helper()
	m := transmitted.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no summary of ping in %q", out)
	}
	sent, _ := strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	return sent - received
}

// setOffload turns segmentation offload of a device on or off.
func setOffload(t testing.TB, n *nstest.Namespace, device string, on bool) {
	t.Helper()
	if err := n.Do(func() error { return SetSegmentation(device, on) }); err != nil {
		t.Fatal(err)
	}
}

// testUDP is an IPv4 UDP packet with valid checksums of the header.
func testUDP(t testing.TB, src, dst string, payload int) []byte {
	t.Helper()
	p := make([]byte, 28+payload)
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	binary.BigEndian.PutUint16(p[24:], uint16(8+payload))
	for i := range payload {
		p[28+i] = byte(i)
	}
	return p
}
