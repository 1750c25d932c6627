//go:build root

package datapath

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TCP, UDP and ICMP pass three functions in order, both ways, on one node and over two.
func TestRootChain(t *testing.T) {
	for nodes := 1; nodes <= 2; nodes++ {
		for _, attach := range []Attachment{AttachTCX, AttachClsact} {
			t.Run(fmt.Sprintf("nodes=%d,%s", nodes, attach), func(t *testing.T) {
				w := newWorld(t, nodes, 1600)
				f1, f2, f3 := w.function(0), w.function(0), w.function(nodes-1)
				w.chain(10, f1, f2, f3)
				w.apply(Config{Attach: attach})
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				for _, to := range []string{serverAddr, serverAddr6} {
					out, err := w.client.Run(ctx, "ping", "-q", "-i0.01", "-c50", "-W5", to)
					if err != nil || lost(t, out) != 0 {
						w.report()
						t.Fatalf("ping %s: %v\n%s", to, err, out)
					}
				}
				for _, to := range []string{serverAddr + ":0", "[" + serverAddr6 + "]:0"} {
					for _, dir := range []string{"up", "down"} {
						from, dst, addr := w.client, w.server, to
						if dir == "down" {
							from, dst = w.server, w.client
							addr = map[string]string{serverAddr + ":0": clientAddr + ":0", "[" + serverAddr6 + "]:0": "[" + clientAddr6 + "]:0"}[to]
						}
						rate, err := bulk(from, dst, addr, 64<<20, 20*time.Second)
						if err != nil {
							w.report()
							t.Fatalf("TCP %s to %s: %v", dir, addr, err)
						}
						t.Logf("TCP %s to %s: %.1f Gbit/s", dir, addr, rate)
					}
				}
				w.report()
				if d := w.drops(); len(d) > 0 {
					t.Errorf("dropped: %v", d)
				}
			})
		}
	}
}
