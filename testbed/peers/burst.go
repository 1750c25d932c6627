package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Mode burst: requests on so many kept connections are due at this distance each, while
// so many new connections come at once.
const (
	burstLoops = 32
	burstEvery = 32 * time.Millisecond // 1,000 requests/s
	burstConns = 500
)

// burst opens connections over TLS all at once when it is asked to, closes them, and
// does so again until the order's time is over, or once. It gives way to everything else on its
// CPU: what it computes is not the proxy's.
func burst(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleBurst, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	n := fs.Int("connections", burstConns, "connections at once")
	dir := fs.String("dir", "", "folder of the proxy")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientConfig(*dir)
	if err != nil {
		return err
	}
	if err := giveWay(); err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var r loadResult
		began := time.Now()
		for r.Errors == 0 && (r.Requests == 0 || !o.Once) && time.Since(began) < o.Duration {
			conns, err := atOnce(*addr, config, *n)
			r.Requests += conns
			if err != nil {
				r.Errors, r.Why = 1, err.Error()
			}
		}
		r.Took = time.Since(began)
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

// giveWay has every thread of this process, and those they start, run after others.
func giveWay() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, 19); err != nil {
			return fmt.Errorf("nice of thread %d: %w", id, err)
		}
	}
	return nil
}

// atOnce opens n connections, all of them before the first of them shakes hands, and
// closes them when all have.
func atOnce(addr string, config *tls.Config, n int) (shaken int, err error) {
	conns := make([]*tls.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close() // the handshake's outcome is what counts
			}
		}
	}()
	for i := range conns {
		c, err := net.DialTimeout("tcp", addr, answerLimit)
		if err != nil {
			return 0, err
		}
		conns[i] = tls.Client(c, config)
		if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
			return 0, err
		}
	}
	var ok atomic.Int64
	var first atomic.Pointer[error]
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() {
			if err := c.Handshake(); err != nil {
				first.CompareAndSwap(nil, &err)
				return
			}
			ok.Add(1)
		})
	}
	all.Wait()
	if err := first.Load(); err != nil {
		return int(ok.Load()), *err
	}
	return n, nil
}

// burstRow is what requests of one proxy took, in microseconds, round by round: without
// anything beside them, with one burst of new connections, and with one after the other.
type burstRow struct {
	Name   string    `json:"name"`
	Alone  []float64 `json:"p99_alone_us"`
	Once   []float64 `json:"p99_one_burst_us"`
	Again  []float64 `json:"p99_bursts_us"`
	Shaken []float64 `json:"handshakes_per_s"` // with one after the other
}

// more is the median of what the 99th percentile rises by.
func (r burstRow) more(p99 []float64) float64 {
	by := make([]float64, len(r.Alone))
	for i := range by {
		by[i] = p99[i] - r.Alone[i]
	}
	return median(by)
}

// runBurst measures ours and each peer, one after the other: the proxy with one worker on
// one CPU, everything else on another.
func runBurst(ctx context.Context, o options, peers []proxy) (rows []burstRow, err error) {
	at, err := place(o, modeBurst)
	if err != nil {
		return nil, err
	}
	backend, backendAddr, err := startBackend(roleBackend, at.restCPUs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.stop()) }()
	for _, p := range peers {
		r, err := secured(p).start(ctx, backendAddr, at.workers, at.proxyCPUs)
		if err != nil {
			return nil, err
		}
		row, err := burstOn(ctx, o, at, r)
		if err := errors.Join(err, r.stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func burstOn(ctx context.Context, o options, at placement, r *running) (_ burstRow, err error) {
	row := burstRow{Name: r.name}
	to := []string{"--addr", r.addr, "--dir", r.dir}
	load, err := startChild(at.restCPUs, append([]string{roleSecure, "--connections", strconv.Itoa(burstLoops), "--every", burstEvery.String()}, to...)...)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	burst, err := startChild(at.restCPUs, append([]string{roleBurst}, to...)...)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, burst.stop()) }()
	if _, err := wellServed(load.load(order{Duration: max(o.warmup, 2*burstEvery)})); err != nil {
		return row, err
	}
	for i := range o.rounds {
		if err := ctx.Err(); err != nil {
			return row, err
		}
		alone, err := wellServed(load.load(order{Duration: o.duration}))
		if err != nil {
			return row, err
		}
		once, _, err := beside(load, burst, order{Duration: o.duration, Once: true})
		if err != nil {
			return row, err
		}
		again, shaken, err := beside(load, burst, order{Duration: o.duration})
		if err != nil {
			return row, err
		}
		row.Alone, row.Once, row.Again = append(row.Alone, us(alone.P99)), append(row.Once, us(once.P99)), append(row.Again, us(again.P99))
		row.Shaken = append(row.Shaken, float64(shaken.Requests)/shaken.Took.Seconds())
		fmt.Fprintf(os.Stderr, "burst  %-16s %2d/%d  p99 %.0f us alone, %.0f us beside one burst, %.0f us beside %d new connections\n",
			r.name, i+1, o.rounds, us(alone.P99), us(once.P99), us(again.P99), shaken.Requests)
	}
	return row, nil
}

// beside has both children carry out an order at the same time.
func beside(load, burst *child, o order) (requests, shaken loadResult, err error) {
	var failed error
	var bursts sync.WaitGroup
	bursts.Go(func() { shaken, failed = wellServed(burst.load(o)) })
	requests, err = wellServed(load.load(o))
	bursts.Wait()
	return requests, shaken, errors.Join(err, failed)
}

// wellServed has a result with errors be one.
func wellServed(r loadResult, err error) (loadResult, error) {
	switch {
	case err != nil:
		return r, err
	case r.Errors > 0:
		return r, fmt.Errorf("%d went wrong beside %d that did not: %s", r.Errors, r.Requests, r.Why)
	case r.Requests == 0:
		return r, errors.New("nothing was served")
	}
	return r, nil
}

// barBurst is how much p99 may rise by, in microseconds.
const barBurst = 10_000

func burstTable(rows []burstRow, paired string) table {
	t := table{mark: "peers-burst", caption: fmt.Sprintf("%s at %.0f requests/s, alone and beside %d new connections at once; milliseconds.", paired, burstLoops/burstEvery.Seconds(), burstConns),
		headings: []string{"proxy", "p99 alone", "beside one burst", "more", "bar", "beside one after the other", "more", "handshakes/s"}}
	for i, r := range rows {
		ms := func(us float64) string { return fmt.Sprintf("%.2f", us/1000) }
		bar := "-"
		if i == 0 {
			bar = ms(barBurst)
		}
		t.rows = append(t.rows, []string{r.Name, ms(median(r.Alone)), ms(median(r.Once)), ms(r.more(r.Once)), bar, ms(median(r.Again)), ms(r.more(r.Again)), fmt.Sprintf("%.0f", median(r.Shaken))})
	}
	return t
}
