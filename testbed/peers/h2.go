package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// h2Connections and h2Streams are what the load of the mode http2 keeps under way.
const (
	h2Connections = 16
	h2Streams     = 16
)

var (
	h2loadRequests = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded,`)
	h2loadTook     = regexp.MustCompile(`(?m)^finished in ([\d.]+m?s),`)
	h2loadTime     = regexp.MustCompile(`(?m)^time for request:\s+\S+\s+\S+\s+([\d.]+\w+)`)
)

// measureHTTP2 asks by HTTP/2 without TLS for what the backend answers by HTTP/1.1;
// h2load (of nghttp2) is the client. Its mean stands for the median.
func measureHTTP2(ctx context.Context, o options, at placement, r *running) (sample, error) {
	return measureH2load(ctx, o, at, r)
}

// measureH2load runs h2load with arguments of the mode's own.
func measureH2load(ctx context.Context, o options, at placement, r *running, args ...string) (sample, error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	if o.warmup > 0 {
		if _, err := runH2load(ctx, r.addr, o.warmup, at.restCPUs, args...); err != nil {
			return sample{}, err
		}
	}
	before, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	got, err := runH2load(ctx, r.addr, o.duration, at.restCPUs, args...)
	if err != nil {
		return sample{}, err
	}
	after, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	cpu := after.cpu - before.cpu
	if cpu <= 0 {
		return sample{}, errors.New("a thread of the proxy ended during the run: its CPU is unknown")
	}
	return sample{
		CPU: cpu.Seconds() * 1e6 / float64(got.Requests), Rate: float64(got.Requests) / got.Took.Seconds(),
		P50: float64(got.P50) / 1e3, RSS: float64(after.rss) / mb, PSS: float64(after.pss) / mb, Requests: got.Requests,
	}, nil
}

func runH2load(ctx context.Context, addr string, d time.Duration, cpus []int, args ...string) (r loadResult, err error) {
	cmd := exec.CommandContext(ctx, "h2load", append(args, "-t1", "-c", strconv.Itoa(h2Connections), "-m", strconv.Itoa(h2Streams),
		"-D", d.String(), "http://"+addr+requestPath)...)
	var out []byte
	err = onCPUs(cpus, func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return r, fmt.Errorf("h2load: %w %s(apt-get install nghttp2-client, or leave modes http2 and grpc out)", err, out)
	}
	return parseH2load(string(out))
}

func parseH2load(out string) (r loadResult, err error) {
	requests, took := h2loadRequests.FindStringSubmatch(out), h2loadTook.FindStringSubmatch(out)
	if requests == nil || took == nil {
		return r, fmt.Errorf("h2load said no number of requests:\n%s", out)
	}
	done, err := strconv.Atoi(requests[1])
	if err != nil {
		return r, err
	}
	if r.Requests, err = strconv.Atoi(requests[2]); err != nil {
		return r, err
	}
	if r.Requests == 0 || r.Requests != done {
		return r, fmt.Errorf("%d of %d requests were answered well:\n%s", r.Requests, done, out)
	}
	if r.Took, err = time.ParseDuration(took[1]); err != nil {
		return r, err
	}
	if m := h2loadTime.FindStringSubmatch(out); m != nil {
		r.P50, err = time.ParseDuration(m[1])
	}
	return r, err
}
