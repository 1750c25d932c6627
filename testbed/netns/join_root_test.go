//go:build root

package netns

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/testbed/link"
)

// TestRootJoin is the README's third command on two machines: the second one has
// the binaries and a token, and nothing else of the first but a line to it.
func TestRootJoin(t *testing.T) {
	n := New(t, 1, link.Shape{Delay: 10 * time.Millisecond}, "one", "two")
	first, second := newSite(t, n.Places[0], "centre"), newSite(t, n.Places[1], "north")
	first.run("site", "init", "--data", first.dir, "--name", "centre", "--location", "144.9631,-37.8136")
	first.start(controllerRole, "--data", first.dir, "--api", "unix:"+first.socket("api"))
	within(t, 20*time.Second, "the first site", func() bool { _, err := first.status(t.Context()); return err == nil })
	token := first.run("token", "create", "--data", first.dir, "north")

	begin := time.Now()
	second.start("meridian", "join", token, "--data", second.dir, "--location", "145.0,-37.7", "--gateway", second.Addr.String()+":15443")
	within(t, 30*time.Second, "both sites to see each other", func() bool {
		there := second.sees("centre") && first.sees("north")
		return there
	})
	t.Logf("joined and seen by both %s after the command", time.Since(begin).Round(time.Millisecond))
	out := second.run("status", "--data", second.dir)
	if !strings.Contains(out, "seen from site north (leaf)") {
		t.Errorf("status at the second site:\n%s", out)
	}
	// The token is worth nothing now.
	third := newSite(t, n.Places[1], "thief")
	ctx, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	if out, err := third.Run(ctx, third.bin+"/meridian", "join", token, "--data", third.dir, "--prepare"); err == nil || !strings.Contains(err.Error(), "was used already") {
		t.Errorf("second use: %v\n%s", err, out)
	}
}

// sees asks the site's controller, wherever it listens, by its run file.
func (s *site) sees(other string) bool {
	ctx, done := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer done()
	out, err := s.Run(ctx, s.bin+"/meridian", "status", "--data", s.dir)
	if err != nil {
		return false
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == other && f[1] == "alive" {
			return true
		}
	}
	return false
}

// setting reads a number from the environment: CI runs the short form.
func setting(t *testing.T, name string, short int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return short
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestRootPartition cuts a site off, again and again. Its users see no error;
// after the heal it is heard again within 2 s and has the hub's configuration
// within 5 s. MERIDIAN_CUTS and MERIDIAN_CUT_SECONDS set how many cuts there are
// and how long the first is; the others take 1 to 12 s.
func TestRootPartition(t *testing.T) {
	cuts, long := setting(t, "MERIDIAN_CUTS", 3), setting(t, "MERIDIAN_CUT_SECONDS", 12)
	n := New(t, 2, link.Shape{Delay: 5 * time.Millisecond, Jitter: 500 * time.Microsecond}, "hub", "a", "b")
	sites := newMesh(t, n)
	hub, cut := sites[0], sites[1]
	ctx, stop := context.WithCancel(t.Context())
	var users usage
	var wg sync.WaitGroup
	wg.Go(func() { cut.serveUsers(ctx, &users) })
	defer func() { stop(); wg.Wait() }()
	within(t, 20*time.Second, "the site to be alive at the hub", func() bool { return alive(ctx, hub, cut.name) })

	var prices, config []time.Duration
	for i := range cuts {
		length := time.Duration(long) * time.Second
		if i > 0 {
			length = time.Duration(1+i*7%12) * time.Second
		}
		cut.Partition(true)
		time.Sleep(length)
		if err := apply(ctx, hub, register("reg", i+1)); err != nil {
			t.Fatal(err)
		}
		if length > 10*time.Second {
			within(t, 10*time.Second, "the hub to know that it does not hear the site", func() bool { return !alive(ctx, hub, cut.name) })
		}
		before := heard(ctx, hub, cut.name)
		cut.Partition(false)
		healed := time.Now()
		var wait sync.WaitGroup
		var p, c time.Duration
		wait.Go(func() {
			for time.Since(healed) < 20*time.Second && heard(ctx, hub, cut.name) == before {
				time.Sleep(10 * time.Millisecond)
			}
			p = time.Since(healed)
		})
		wait.Go(func() {
			for time.Since(healed) < 20*time.Second {
				if _, sites, err := cut.applied(); err == nil && sites["reg"] == longitude(i+1) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			c = time.Since(healed)
		})
		wait.Wait()
		t.Logf("cut %d of %s: prices after %s, configuration after %s", i+1, length, p.Round(time.Millisecond), c.Round(time.Millisecond))
		prices, config = append(prices, p), append(config, c)
	}
	if u := users.failed.Load(); u > 0 {
		t.Errorf("%d of %d users of the site that was cut off saw an error, the first: %s", u, u+users.ok.Load(), *users.first.Load())
	}
	slices.Sort(prices)
	slices.Sort(config)
	t.Logf("%d cuts, %d requests: prices p50 %s, worst %s; configuration p50 %s, worst %s", cuts, users.ok.Load(),
		prices[cuts/2], prices[cuts-1], config[cuts/2], config[cuts-1])
	// Of up to 20 the 99th percentile is the worst.
	if prices[cuts-1] > 2*time.Second {
		t.Errorf("prices flow %s after a heal, want 2s", prices[cuts-1])
	}
	if config[cuts-1] > 5*time.Second {
		t.Errorf("the configuration is equal %s after a heal, want 5s", config[cuts-1])
	}
}

// heard is the number of the newest report of a site that another's controller has.
func heard(ctx context.Context, s *site, of string) (mark [2]uint64) {
	st, err := s.status(ctx)
	if err != nil {
		return mark
	}
	for _, p := range st.Peer {
		if p.Site == of && p.From != nil {
			mark = [2]uint64{p.From.Epoch, p.From.Seq}
		}
	}
	return mark
}

func alive(ctx context.Context, s *site, of string) bool {
	st, err := s.status(ctx)
	if err != nil {
		return false
	}
	for _, p := range st.Peer {
		if p.Site == of {
			return p.Status == membership.Alive
		}
	}
	return false
}
