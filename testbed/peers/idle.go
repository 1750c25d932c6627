package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// idleConns is how many connections rest in mode idle.
const idleConns = 10_000

// hold opens connections, each of which serves one request and then rests, until
// its standard input ends. It says how many there are.
func hold(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleHold, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	n := fs.Int("connections", 1, "connections")
	if err := fs.Parse(args); err != nil {
		return err
	}
	conns := make([]net.Conn, *n)
	var next, open atomic.Int64
	var first atomic.Pointer[error]
	var dialers sync.WaitGroup
	for range 8 {
		dialers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(conns) || first.Load() != nil {
					return
				}
				c, err := rest(*addr)
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				conns[i] = c
				open.Add(1)
			}
		})
	}
	dialers.Wait()
	held := loadResult{Requests: int(open.Load())}
	if err := first.Load(); err != nil {
		held.Errors, held.Why = 1, (*err).Error()
	}
	if err := json.NewEncoder(out).Encode(held); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	for _, c := range conns {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// rest opens a connection and has it serve one request.
func rest(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", requestPath, addr)
	if err := served200(bufio.NewReaderSize(c, 2048)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// served200 reads a response after which the connection rests.
func served200(in *bufio.Reader) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Close {
		return fmt.Errorf("answered %s, close %v", resp.Status, resp.Close)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// idleRow is one proxy's memory, in bytes.
type idleRow struct {
	Name  string    `json:"name"`
	Rest  footprint `json:"at_rest"`
	Held  footprint `json:"with_idle_connections"`
	After footprint `json:"after_they_closed"`
}

// footprint is the most of several looks.
type footprint struct {
	RSS  int64 `json:"rss"`
	PSS  int64 `json:"pss"`
	Anon int64 `json:"anonymous"`
}

// look takes the most that a proxy holds in five seconds.
func look(ctx context.Context, r *running) (most footprint, err error) {
	for range 5 {
		u, err := r.usage()
		if err != nil {
			return most, err
		}
		most.RSS, most.PSS, most.Anon = max(most.RSS, u.rss), max(most.PSS, u.pss), max(most.Anon, u.anon)
		if err := pause(ctx, time.Second); err != nil {
			return most, err
		}
	}
	return most, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// runIdle measures the memory of proxies that have nothing to do, all at the same
// time: what they take at rest, with idle connections and after those have closed.
func runIdle(ctx context.Context, o options) (rows []idleRow, err error) {
	// Proxies inherit the limit; each needs a descriptor for a connection.
	if err := raiseFiles(idleConns + 1000); err != nil {
		return nil, err
	}
	backend, backendAddr, err := startBackend(roleBackend, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.stop()) }()
	var all []*running
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.stop())
		}
	}()
	ours, controller, err := startSite(ctx, o, backendAddr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, controller.stop()) }()
	all = append(all, ours)
	for _, name := range []string{"haproxy-idle", "nginx-idle"} {
		p, err := peerProxy(o, name)
		if err != nil {
			return nil, err
		}
		r, err := p.start(ctx, backendAddr, 1, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	fmt.Fprintf(os.Stderr, "idle: waiting %s\n", o.idleWait)
	if err := pause(ctx, o.idleWait-5*time.Second); err != nil {
		return nil, err
	}
	rows = make([]idleRow, len(all))
	looks := func(to func(*idleRow) *footprint) error {
		errs := make([]error, len(all))
		var wg sync.WaitGroup
		for i, r := range all {
			wg.Go(func() { *to(&rows[i]), errs[i] = look(ctx, r) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	for i, r := range all {
		rows[i].Name = r.name
	}
	if err := looks(func(r *idleRow) *footprint { return &r.Rest }); err != nil {
		return nil, err
	}
	var holders []*child
	release := func() (err error) {
		for _, h := range holders {
			err = errors.Join(err, h.stop())
		}
		holders = nil
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	for _, r := range all {
		h, err := startChild(nil, roleHold, "--addr", r.addr, "--connections", fmt.Sprint(idleConns))
		if err != nil {
			return nil, err
		}
		holders = append(holders, h)
		var held loadResult
		if err := h.answer(&held); err != nil {
			return nil, err
		}
		if held.Errors > 0 || held.Requests != idleConns {
			return nil, fmt.Errorf("%s: %d of %d connections rest: %s", r.name, held.Requests, idleConns, held.Why)
		}
	}
	settle := min(o.idleWait, 35*time.Second)
	if err := pause(ctx, settle-5*time.Second); err != nil {
		return nil, err
	}
	if err := looks(func(r *idleRow) *footprint { return &r.Held }); err != nil {
		return nil, err
	}
	if err := release(); err != nil {
		return nil, err
	}
	if err := pause(ctx, settle-5*time.Second); err != nil {
		return nil, err
	}
	return rows, looks(func(r *idleRow) *footprint { return &r.After })
}

func raiseFiles(n uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur >= n {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, limit.Max)}); err != nil {
		return fmt.Errorf("mode idle needs %d open files, the limit is %d (ulimit -n): %w", n, limit.Max, err)
	}
	return nil
}

// startSite starts a site controller with the NATS server in it, and our proxy
// connected to that: 50 routes and 200 endpoints, everything else as shipped.
func startSite(ctx context.Context, o options, backend string) (_ *running, controller *process, err error) {
	p, err := ourProxy(o, o.ours)
	if err != nil {
		return nil, nil, err
	}
	body, err := os.ReadFile(p.conf)
	if err != nil {
		return nil, nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	conf, err := replaceAddresses(string(body), addr, backend)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "peers-")
	if err != nil {
		return nil, nil, err
	}
	confFile, data := filepath.Join(dir, "mesh.yaml"), filepath.Join(dir, "site")
	if err := os.WriteFile(confFile, []byte(conf+moreServices()), 0o600); err != nil {
		return nil, nil, err
	}
	if controller, err = startProcess([]string{o.controller, "--site", "solo", "--data", data, "--config", confFile, "--log-level", "warn"}, nil); err != nil {
		return nil, nil, fmt.Errorf("site controller: %w (make build makes it)", err)
	}
	controller.dir = dir
	defer func() {
		if err != nil {
			err = errors.Join(err, controller.stop())
		}
	}()
	var run struct{ NATS, TokenFile, TrustKey string }
	for deadline := time.Now().Add(10 * time.Second); ; {
		text, rerr := os.ReadFile(filepath.Join(data, "run.json"))
		if rerr == nil && json.Unmarshal(text, &run) == nil && run.NATS != "" {
			break
		}
		if controller.ended() || time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("the site controller does not serve: %s", controller.said())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, nil, err
		}
	}
	proc, err := startProcess([]string{o.ours, "--config", run.NATS, "--nats-token-file", run.TokenFile, "--trust-key", run.TrustKey,
		"--site", "solo", "--state-dir", filepath.Join(dir, "state"), "--admin", "127.0.0.1:0", "--log-level", "warn"}, nil)
	if err != nil {
		return nil, nil, err
	}
	r := &running{proxy: p, process: proc, addr: addr}
	if err := r.awaitAnswer(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s does not serve: %w\n%s", p.name, err, proc.said()), proc.stop())
	}
	return r, controller, nil
}

// moreServices brings the endpoints of a configuration to 200.
func moreServices() string {
	var b strings.Builder
	left := 199
	for s := 0; left > 0; s++ {
		fmt.Fprintf(&b, "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: MeshService\nmetadata: {name: other-%d}\nspec:\n"+
			"  ports: [{name: http, port: 80, protocol: http}]\n  endpoints:\n", s)
		for i := 0; i < 10 && left > 0; i, left = i+1, left-1 {
			fmt.Fprintf(&b, "  - {address: \"127.0.1.%d:%d\"}\n", s+1, 9000+i)
		}
	}
	return b.String()
}

// Bars of our proxy's memory, in MB.
const (
	barRest  = 12.0 // at rest
	barConns = 6.0  // more with 10,000 idle connections
	barAfter = 1.0  // more than at rest after they have closed
)

// missedIdle says which bars our proxy's memory misses.
func missedIdle(rows []idleRow) (missed []string) {
	r := rows[0]
	check := func(what string, bytes int64, bar float64) {
		if v := float64(bytes) / mb; v > bar {
			missed = append(missed, fmt.Sprintf("idle: %s %.1f MB, the bar is %.1f MB", what, v, bar))
		}
	}
	check("at rest", r.Rest.RSS, barRest)
	check("10,000 idle connections take", r.Held.RSS-r.Rest.RSS, barConns)
	check("after they closed there is more than at rest:", r.After.RSS-r.Rest.RSS, barAfter)
	return missed
}
