package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Modes.
const (
	modePinned = "pinned"
	modeShared = "shared"
	modeOpen   = "open"
	modeTCP    = "tcp"
	modeUDP    = "udp"
	modeIdle   = "idle"
	// Over TLS: on kept connections, and with a full handshake for each request.
	modeTLS       = "tls"
	modeHandshake = "handshake"
	// As tls, with a certificate on both sides.
	modeMutual = "mtls"
	// Memory of connections over TLS at rest, and many new ones at once.
	modeSecureIdle = "tls-idle"
	modeBurst      = "burst"
	modeHTTP2      = "http2"
	modeGRPC       = "grpc"
)

// sample is one run of one proxy.
type sample struct {
	CPU      float64 `json:"cpu_us"` // of the proxy, per request
	Rate     float64 `json:"requests_per_s"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	RSS      float64 `json:"rss_mb"`
	PSS      float64 `json:"pss_mb"`
	Requests int     `json:"requests"`
}

// row is one comparison: as many samples of ours as of the peer's, pair by pair.
type row struct {
	Mode   string   `json:"mode"`
	Peer   string   `json:"peer"`
	Ours   []sample `json:"ours"`
	Theirs []sample `json:"theirs"`
	Ratio  spread   `json:"ratio"`
}

// spread describes the pairs' ratios, ours over theirs; less than 1 is less CPU.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Near counts the pairs within 0.1 of the median.
	Near  int `json:"near"`
	Pairs int `json:"pairs"`
}

// established is the project's bar for a figure: nine pairs, seven of them near.
func (s spread) established() bool { return s.Pairs >= 9 && s.Near*9 >= s.Pairs*7 }

func spreadOf(ratios []float64) spread {
	s := spread{Median: median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios), Pairs: len(ratios)}
	const near = 0.1 + 1e-9 // 0.9 is within 0.1 of 0.8, whatever binary fractions say
	for _, r := range ratios {
		if math.Abs(r-s.Median) <= near {
			s.Near++
		}
	}
	return s
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// placement says where things run in a mode.
type placement struct {
	proxyCPUs, restCPUs []int // nil: anywhere
	workers             int
	conns               int
	rate                float64
}

func place(o options, mode string) (placement, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return placement{}, fmt.Errorf("read CPU affinity: %w", err)
	}
	var cpus []int
	for c := 0; len(cpus) < allowed.Count(); c++ {
		if allowed.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	p := placement{workers: len(cpus), conns: o.conns}
	if mode == modeShared {
		return p, nil
	}
	if len(cpus) < 2 {
		return p, errors.New("needs two CPUs: one for the proxy, one for the rest")
	}
	p.proxyCPUs, p.restCPUs, p.workers = cpus[:1], cpus[1:2], 1
	if mode == modeOpen {
		p.conns, p.rate = o.rateConns, o.rate
	}
	return p, nil
}

// runMode compares ours with each peer in one mode.
func runMode(ctx context.Context, o options, mode string, ours proxy, peers []proxy) (rows []row, err error) {
	at, err := place(o, mode)
	if err != nil {
		return nil, err
	}
	role, meter := roleBackend, measure
	switch mode {
	case modeTCP:
		role, meter = roleSink, measureTCP
	case modeTLS, modeMutual:
		meter = measureTLS
	case modeHandshake:
		meter = measureHandshakes
	case modeHTTP2:
		meter = measureHTTP2
	case modeGRPC:
		role, meter = roleGRPC, measureGRPC
	case modeUDP:
		role, meter = roleUDPEcho, measureUDP
	}
	backend, backendAddr, err := startBackend(role, at.restCPUs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.stop()) }()
	our, err := ours.start(ctx, backendAddr, at.workers, at.proxyCPUs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, our.stop()) }()
	for _, p := range peers {
		r, err := runPairs(ctx, o, mode, at, meter, our, p, backendAddr)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", ours.name, p.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// runPairs runs ours, theirs, ours, theirs: both are up all the time, one is busy.
func runPairs(ctx context.Context, o options, mode string, at placement, measure meter, our *running, p proxy, backend string) (_ row, err error) {
	their, err := p.start(ctx, backend, at.workers, at.proxyCPUs)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, their.stop()) }()
	r := row{Mode: mode, Peer: p.name}
	var ratios []float64
	for i := range o.rounds {
		a, err := measure(ctx, o, at, our)
		if err != nil {
			return r, fmt.Errorf("round %d, %s: %w", i+1, our.name, err)
		}
		b, err := measure(ctx, o, at, their)
		if err != nil {
			return r, fmt.Errorf("round %d, %s: %w", i+1, their.name, err)
		}
		r.Ours, r.Theirs = append(r.Ours, a), append(r.Theirs, b)
		ratios = append(ratios, a.CPU/b.CPU)
		fmt.Fprintf(os.Stderr, "%-6s %-16s %2d/%d  ours %6.3g  theirs %6.3g %s  ratio %.2f\n",
			mode, p.name, i+1, o.rounds, a.CPU, b.CPU, unit(mode), a.CPU/b.CPU)
	}
	r.Ratio = spreadOf(ratios)
	return r, nil
}

// meter makes one run of one proxy.
type meter func(ctx context.Context, o options, at placement, r *running) (sample, error)

const mb = 1e6

// measure warms the proxy up over the connections of the run, then runs.
func measure(ctx context.Context, o options, at placement, r *running) (sample, error) {
	return measureWith(ctx, o, at, r, roleLoad)
}

// measureTLS is measure over TLS.
func measureTLS(ctx context.Context, o options, at placement, r *running) (sample, error) {
	return measureWith(ctx, o, at, r, roleSecure, "--dir", r.dir)
}

// measureHandshakes is measureTLS with a connection for each request.
func measureHandshakes(ctx context.Context, o options, at placement, r *running) (sample, error) {
	return measureWith(ctx, o, at, r, roleSecure, "--dir", r.dir, "--each")
}

func measureWith(ctx context.Context, o options, at placement, r *running, role string, args ...string) (_ sample, err error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	load, err := startChild(at.restCPUs, append([]string{role, "--addr", r.addr, "--connections", strconv.Itoa(at.conns)}, args...)...)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	if o.warmup > 0 {
		if _, err := load.load(order{Duration: o.warmup, Rate: at.rate}); err != nil {
			return sample{}, err
		}
	}
	before, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	var got loadResult
	if o.generator == "wrk" && at.rate == 0 && role == roleLoad {
		got, err = runWrk(ctx, r.addr, at.conns, o.duration, at.restCPUs)
	} else {
		got, err = load.load(order{Duration: o.duration, Rate: at.rate})
	}
	if err != nil {
		return sample{}, err
	}
	after, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	cpu := after.cpu - before.cpu
	switch {
	case got.Errors > 0:
		return sample{}, fmt.Errorf("%d of %d requests went wrong, first: %s", got.Errors, got.Errors+got.Requests, got.Why)
	case got.Requests == 0:
		return sample{}, errors.New("no request was answered")
	case cpu <= 0:
		return sample{}, errors.New("a thread of the proxy ended during the run: its CPU is unknown")
	}
	return sample{
		CPU:      us(cpu) / float64(got.Requests),
		Rate:     float64(got.Requests) / got.Took.Seconds(),
		P50:      us(got.P50),
		P99:      us(got.P99),
		RSS:      float64(after.rss) / mb,
		PSS:      float64(after.pss) / mb,
		Requests: got.Requests,
	}, nil
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// unit is that of the CPU figures of a mode.
func unit(mode string) string {
	if mode == modeTCP {
		return "s/GB"
	}
	return "us"
}
