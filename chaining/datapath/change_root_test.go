//go:build root

package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/internal/nstest"
)

// routers is what a datagram's TTL has lost at the server: one for each function, one for the node.
func ttlAfter(functions int) int { return 64 - functions - 1 }

// The process that made it all ends, another takes over with a new program, again
// and again under load: no packet is lost, none passes beside its chain.
func TestRootRestart(t *testing.T) {
	for _, attach := range []Attachment{AttachTCX, AttachClsact} {
		t.Run(string(attach), func(t *testing.T) {
			w := newWorld(t, 2, 1600)
			w.chain(10, w.function(0), w.function(0), w.function(1))
			w.apply(Config{Attach: attach})
			s := nstest.StartStream(t, w.client, w.server, serverAddr+":0", 200*time.Microsecond)
			restarts := 0
			for begin := time.Now(); restarts < 3 || time.Since(begin) < 3*time.Second; restarts++ {
				for _, n := range w.nodes {
					n.dp.Close()
					n.dp = nil
					n.open(Config{Attach: attach})
					if err := n.Do(func() error { return n.dp.Apply(n.tab) }); err != nil {
						t.Fatal(err)
					}
				}
			}
			sent, lost, hops := s.Stop()
			for _, n := range w.nodes {
				defer n.dp.Close()
			}
			t.Logf("%d restarts on each of two nodes, %d datagrams, %d lost, TTL at the server %v", restarts, sent, lost, hops)
			if lost != 0 {
				t.Errorf("%d of %d datagrams were lost", lost, sent)
			}
			if len(hops) != 1 || hops[ttlAfter(3)] == 0 {
				t.Errorf("TTL at the server %v: some datagrams passed beside the chain", hops)
			}
			if sent < 1000 {
				t.Error("too little happened: nothing was tested")
			}
			if d := w.drops(); len(d) != 0 {
				t.Errorf("dropped: %v", d)
			}
		})
	}
}

// Whatever is taken away, nothing passes unclassified; what is put right passes again.
func TestRootGuard(t *testing.T) {
	w := newWorld(t, 1, 1600)
	w.chain(10, w.function(0), w.function(0))
	w.apply(Config{})
	n := w.nodes[0]
	passes := func() (int, bool) {
		s := nstest.StartStream(t, w.client, w.server, serverAddr+":0", time.Millisecond)
		for end := time.Now().Add(500 * time.Millisecond); s.Answered() == 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		hops := s.Halt()
		if len(hops) > 1 {
			t.Errorf("TTL at the server %v", hops)
		}
		for ttl := range hops {
			return ttl, true
		}
		return 0, false
	}
	if ttl, ok := passes(); !ok || ttl != ttlAfter(2) {
		w.report()
		t.Fatalf("at first: passes %v with TTL %d", ok, ttl)
	}
	links := filepath.Join(n.pins, "links")
	removePins := func(prefix string) {
		files, err := os.ReadDir(links)
		if err != nil {
			t.Fatal(err)
		}
		removed := 0
		for _, f := range files {
			if strings.HasPrefix(f.Name(), prefix) {
				if err := os.Remove(filepath.Join(links, f.Name())); err != nil {
					t.Fatal(err)
				}
				removed++
			}
		}
		if removed == 0 {
			t.Fatalf("no pins %s*", prefix)
		}
	}
	heal := func() {
		t.Helper()
		w.apply(Config{})
		if ttl, ok := passes(); !ok || ttl != ttlAfter(2) {
			w.report()
			t.Fatalf("after the next apply: passes %v with TTL %d", ok, ttl)
		}
	}
	before := w.drops()[path.ReasonGuard]
	for _, gone := range []struct {
		what string
		take func()
	}{
		{"the links of the datapath", func() { removePins("ingress-") }},
		{"one link, that of the client's port", func() { removePins(fmt.Sprintf("ingress-%d", interfaceOf(t, n.Namespace, "c0").Index)) }},
		{"the pinned maps of the datapath", func() {
			if err := os.RemoveAll(filepath.Join(n.pins, layout, chainFolder)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		gone.take()
		ttl, ok := passes()
		if ok && ttl != ttlAfter(2) {
			t.Errorf("without %s a datagram passes beside the chain (TTL %d)", gone.what, ttl)
		}
		t.Logf("without %s: passes %v; dropped as unclassified %d", gone.what, ok, w.drops()[path.ReasonGuard]-before)
		heal()
	}
	if w.drops()[path.ReasonGuard] == before {
		t.Error("the guard dropped nothing: nothing was tested")
	}
	// The process is gone: the chain goes on.
	n.dp.Close()
	if ttl, ok := passes(); !ok || ttl != ttlAfter(2) {
		t.Errorf("without a process: passes %v with TTL %d", ok, ttl)
	}
	if err := n.Do(func() error { return Detach(Config{Pins: n.pins}) }); err != nil {
		t.Fatal(err)
	}
	if ttl, ok := passes(); !ok || ttl != 63 {
		t.Errorf("after detach: passes %v with TTL %d, expected the plain route", ok, ttl)
	}
	if _, err := os.Stat(n.pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	n.dp = nil
	n.open(Config{})
}

// Full-size packets over an underlay without room for the tunnel: senders are told.
func TestRootTooBig(t *testing.T) {
	w := newWorld(t, 2, 1500)
	w.chain(10, w.function(0), w.function(1))
	w.apply(Config{})
	for _, to := range []string{serverAddr, serverAddr6} {
		rate, err := bulk(w.client, w.server, net.JoinHostPort(to, "0"), 16<<20, 20*time.Second)
		if err != nil {
			w.report()
			t.Fatalf("TCP to %s: %v", to, err)
		}
		t.Logf("TCP to %s: %.1f Gbit/s", to, rate)
	}
	if rate, err := bulk(w.server, w.client, clientAddr+":0", 16<<20, 20*time.Second); err != nil {
		t.Errorf("TCP back: %v", err)
	} else {
		t.Logf("TCP back: %.1f Gbit/s", rate)
	}
	told := w.drops()[path.ReasonTooBig]
	if told == 0 {
		t.Error("nobody sent a packet that was too big: nothing was tested")
	}
	for to, headers := range map[string]int{serverAddr: 28, serverAddr6: 48} {
		// A fresh address of the client's: what TCP learnt is for another flow, but the
		// route's MTU is shared, so forget it.
		for _, family := range []string{"", "-6 "} {
			w.client.IP(family + "route flush cache")
		}
		if err := w.client.Do(func() error {
			c, err := net.Dial("udp", net.JoinHostPort(to, "9999"))
			if err != nil {
				return err
			}
			defer c.Close()
			full := make([]byte, 1500-headers)
			// Linux sets DF on UDP by default (IP_PMTUDISC_WANT would cut after the news: forbid that).
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				return err
			}
			var serr error
			if err := raw.Control(func(fd uintptr) {
				if headers == 28 {
					serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
				} else {
					serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
				}
			}); err != nil || serr != nil {
				return errors.Join(err, serr)
			}
			if _, err := c.Write(full); err != nil {
				return fmt.Errorf("the first full datagram: %w", err)
			}
			for range 200 {
				time.Sleep(10 * time.Millisecond)
				if _, err := c.Write(full); errors.Is(err, unix.EMSGSIZE) {
					return nil
				}
			}
			return errors.New("the sender was never told")
		}); err != nil {
			w.report()
			t.Errorf("UDP with DF to %s: %v", to, err)
		}
	}
	d := w.drops()
	t.Logf("dropped: %v", d)
	delete(d, path.ReasonTooBig)
	if len(d) != 0 {
		t.Errorf("dropped for another reason: %v", d)
	}
}

// A fourth function comes in and another goes under load. Known flows stay on
// their path until they are classified again; nothing fails.
func TestRootChange(t *testing.T) {
	w := newWorld(t, 2, 1600)
	f1, f2, f3, f4 := w.function(0), w.function(0), w.function(1), w.function(1)
	w.chain(10, f1, f2, f3)
	w.apply(Config{})
	r := nstest.StartRequests(t, w.client, w.server, serverAddr+":0", 2, 4)
	s := nstest.StartStream(t, w.client, w.server, serverAddr+":0", 500*time.Microsecond)
	time.Sleep(300 * time.Millisecond)

	// Every node knows the path before one sends anything on it.
	w.paths(20, f1, f2, f3, f4)
	w.apply(Config{})
	w.classify(20)
	w.apply(Config{})
	before, known := w.counts(1)[20<<8|252], s.Answered()
	time.Sleep(500 * time.Millisecond)
	hops := len(s.Hops())
	passed := w.counts(1)[20<<8|252]
	if passed.Packets <= before.Packets {
		t.Error("no new flow passes the new function")
	}
	if hops != 1 || s.Answered() == known {
		t.Errorf("the known flow left its path: TTLs at the server %v", s.Hops())
	}
	old := w.counts(1)[10<<8|253].Packets

	// Now all flows: the path is none that flows may be on any more.
	w.forget(10)
	w.apply(Config{})
	time.Sleep(300 * time.Millisecond)
	moved := w.counts(1)[10<<8|253].Packets
	time.Sleep(300 * time.Millisecond)
	if still := w.counts(1)[10<<8|253].Packets; still != moved {
		t.Errorf("%d packets took the old path after all flows were told to leave it", still-moved)
	}
	t.Logf("old path: %d packets, then %d, then no more", old, moved)

	// The first function goes.
	w.paths(30, f2, f3, f4)
	w.apply(Config{})
	w.classify(30)
	w.forget(20)
	w.apply(Config{})
	time.Sleep(300 * time.Millisecond)
	sent, lost, ttl := s.Stop()
	r.Stop()
	t.Logf("%v; %d datagrams, %d lost, TTL at the server %v", r, sent, lost, ttl)
	if lost != 0 {
		t.Errorf("%d of %d datagrams were lost", lost, sent)
	}
	for k := range ttl {
		if k != ttlAfter(3) && k != ttlAfter(4) {
			t.Errorf("TTL at the server %v: some datagrams passed beside the chain", ttl)
		}
	}
	if d := w.drops(); len(d) != 0 {
		t.Errorf("dropped: %v", d)
	}
}
