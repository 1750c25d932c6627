package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in ([\d.]+\w+),`)
	wrkBad      = regexp.MustCompile(`(?m)^\s*Non-2xx or 3xx responses: (\d+)$`)
	wrkSocket   = regexp.MustCompile(`(?m)^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$`)
	wrkLatency  = regexp.MustCompile(`(?m)^\s*(50|99)%\s+([\d.]+[a-z]+)$`)
)

// runWrk runs wrk with one thread. What is in flight at its end it does not
// count: at most one request per connection.
func runWrk(ctx context.Context, addr string, conns int, duration time.Duration, cpus []int) (loadResult, error) {
	cmd := exec.CommandContext(ctx, "wrk", "--latency", "-t1", "-c", strconv.Itoa(conns),
		"-d", fmt.Sprintf("%ds", duration/time.Second), "http://"+addr+requestPath)
	var out []byte
	err := onCPUs(cpus, func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w %s(apt-get install wrk, or use --generator own)", err, out)
	}
	return parseWrk(string(out))
}

func parseWrk(out string) (r loadResult, err error) {
	m := wrkRequests.FindStringSubmatch(out)
	if m == nil {
		return r, fmt.Errorf("wrk said no number of requests:\n%s", out)
	}
	if r.Requests, err = strconv.Atoi(m[1]); err != nil {
		return r, err
	}
	if r.Took, err = time.ParseDuration(m[2]); err != nil {
		return r, err
	}
	for _, re := range []*regexp.Regexp{wrkBad, wrkSocket} {
		for i, n := range re.FindStringSubmatch(out) {
			if i == 0 {
				r.Why = n
				continue
			}
			bad, err := strconv.Atoi(n)
			if err != nil {
				return r, err
			}
			r.Errors += bad
		}
	}
	// A bad answer is among wrk's requests; a broken connection is not.
	if m := wrkBad.FindStringSubmatch(out); m != nil {
		bad, _ := strconv.Atoi(m[1]) // parsed above
		r.Requests -= bad
	}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(m[2])
		if err != nil {
			return r, err
		}
		if m[1] == "50" {
			r.P50 = d
		} else {
			r.P99 = d
		}
	}
	return r, nil
}
