package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/meridian-mesh/meridian/chaining/host/hosttest"
	"github.com/meridian-mesh/meridian/cmd/meridian/cli"
)

// runChain starts a chain over real sockets; $NODE_A and $NODE_B become its nodes'
// addresses. What an agent of node a says at /status of the socket $WORK/agent.sock
// is made of the chain's real plan, and of a chain that has no path.
func runChain(ts *testscript.TestScript, _ bool, _ []string) {
	c, err := hosttest.Start()
	ts.Check(err)
	ts.Defer(func() { ts.Check(c.Close()) })
	ts.Setenv("NODE_A", c.AddressA.String())
	ts.Setenv("NODE_B", c.AddressB.String())
	status := map[string]any{
		"node": "a", "ready": true, "view": "flip", "paths": c.Plan.Paths,
		"configuration": map[string]any{"source": "chains.yaml"},
		"chains": []map[string]any{
			{"chain": c.Plan.Chains[0].Chain, "spis": c.Plan.Chains[0].SPIs},
			{"chain": "default/web", "spis": []uint32{}, "refused": "chain default/web: function cache has no instance"},
		},
		"down": map[string]string{"cache-0": "no answer"},
	}
	l, err := net.Listen("unix", filepath.Join(ts.Getenv("WORK"), "agent.sock"))
	ts.Check(err)
	// Counters as of an agent under steady load: each look is 2 s and 1000 packets on.
	var looks atomic.Uint64
	at := time.Now()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			_ = json.NewEncoder(w).Encode(status)
		case "/counters":
			n := looks.Add(1)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"node": "a", "at": at.Add(time.Duration(n) * 2 * time.Second),
				"hops": []map[string]any{
					{"spi": 1, "si": 254, "packets": 900 * n, "bytes": 250_000 * n, "drops": 100 * n},
					{"spi": 1, "si": 255, "packets": 1000 * n, "bytes": 500_000 * n, "drops": 0},
					{"spi": 77, "si": 255, "packets": 5, "bytes": 5, "drops": 5},
				},
				"drops":    map[string]uint64{"too-big": 100 * n, "ttl": 3},
				"probesMs": map[string]float64{"fw-0": 0.25},
			})
		default:
			http.NotFound(w, r)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	ts.Defer(func() { srv.Close() })
}

// TestFunctionDrains: a function serves until it is asked to end, drains and ends.
func TestFunctionDrains(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	root := cli.New("test")
	root.SetArgs([]string{"function", "tagger", "--listen", "127.0.0.1:0", "--drain", "10ms"})
	root.SetErr(w)
	done := make(chan error, 1)
	go func() {
		done <- root.ExecuteContext(ctx)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		t.Fatal("said nothing")
	}
	if !regexp.MustCompile(`^listening on 127\.0\.0\.1:[0-9]+$`).MatchString(lines.Text()) {
		t.Fatalf("said %q", lines.Text())
	}
	cancel()
	if !lines.Scan() || !regexp.MustCompile(`0 packets passed, 0 dropped, 0 were no NSH`).MatchString(lines.Text()) {
		t.Errorf("said %q", lines.Text())
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("did not end")
	}
}
