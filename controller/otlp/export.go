package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// maxQueue is how many requests wait while the collector is slow or away, some 4 MB.
	maxQueue = 4096
	maxBatch = 512
	// flushEvery is the longest that a span waits for others to go with it.
	flushEvery = time.Second
	// callFor bounds one call, tryFor all of one batch, lastFor the last at the end.
	callFor = 10 * time.Second
	tryFor  = 2 * time.Minute
	lastFor = 2 * time.Second
	// firstPause is doubled after each failure, up to maxPause.
	firstPause = time.Second
	maxPause   = 30 * time.Second
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
)

// Config is where spans go.
type Config struct {
	// Endpoint is the collector's for traces: http(s)://host:port/v1/traces.
	Endpoint string
	Headers  map[string]string
	// Version is the mesh's, for the instrumentation scope.
	Version string
	Log     *slog.Logger
}

// Stats are counts of spans since the start, but Failures, which is of calls.
type Stats struct {
	Exported uint64
	// NoRoom were dropped because the queue was full, Refused because the collector would
	// not have them, Undelivered because it could not be reached for too long.
	NoRoom, Refused, Undelivered uint64
	Failures                     uint64
	Queued                       int
}

// Exporter sends spans. Add and Stats may be called from any goroutine.
type Exporter struct {
	cfg    Config
	client *http.Client
	wake   chan struct{}
	pause  time.Duration // firstPause, but in tests

	mu    sync.Mutex
	queue []mesh.EndedRequest
	stats Stats
}

// TracesURL is where traces go for the base address of a collector, as
// OTEL_EXPORTER_OTLP_ENDPOINT and --otlp have it: v1/traces is added.
func TracesURL(base string) (string, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return "", fmt.Errorf("address of a collector: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("address of a collector %q: want http://host:4318 or https://host (OTLP over HTTP; OTLP over gRPC, on port 4317, is not spoken)", base)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("address of a collector: no user, query or fragment is allowed; secrets go into OTEL_EXPORTER_OTLP_HEADERS")
	}
	return u.JoinPath("v1/traces").String(), nil
}

// ParseHeaders reads what OTEL_EXPORTER_OTLP_HEADERS holds: name=value pairs with commas
// between them, values percent-encoded.
func ParseHeaders(text string) (map[string]string, error) {
	out := map[string]string{}
	for i, pair := range strings.Split(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, v, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		// The value may be a secret, so no error shows it.
		if !ok || name == "" || strings.ContainsAny(name, " \t\r\n:") {
			return nil, fmt.Errorf("header %d: want name=value", i+1)
		}
		v, err := url.PathUnescape(strings.TrimSpace(v))
		if err != nil || strings.ContainsAny(v, "\r\n\x00") {
			return nil, fmt.Errorf("header %d, %s: its value is not percent-encoded text", i+1, name)
		}
		out[name] = v
	}
	return out, nil
}

// New makes an Exporter. Spans go out while Run runs.
func New(c Config) *Exporter {
	return &Exporter{cfg: c, wake: make(chan struct{}, 1), pause: firstPause, client: &http.Client{
		Timeout: callFor,
		// Headers are for this collector, and nobody it points to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Add takes those of the requests that can be spans. What finds no room is counted.
func (x *Exporter) Add(list []mesh.EndedRequest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range list {
		switch {
		case !Traced(&list[i]):
		case len(x.queue) >= maxQueue:
			x.stats.NoRoom++
		default:
			x.queue = append(x.queue, list[i])
		}
	}
	if len(x.queue) >= maxBatch {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// Stats are the counts so far.
func (x *Exporter) Stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.stats
	s.Queued = len(x.queue)
	return s
}

func (x *Exporter) count(f func(*Stats)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f(&x.stats)
}

// next takes a batch off the queue.
func (x *Exporter) next() []mesh.EndedRequest {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := min(len(x.queue), maxBatch)
	batch := x.queue[:n:n]
	if x.queue = x.queue[n:]; len(x.queue) == 0 {
		x.queue = nil // so that what was sent is free
	}
	return batch
}

// Run sends until ctx ends, and then what waits, once.
func (x *Exporter) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	defer x.client.CloseIdleConnections()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
		case <-tick.C:
		case <-x.wake:
		}
		for batch := x.next(); len(batch) > 0; batch = x.next() {
			if x.deliver(ctx, batch) || ctx.Err() == nil {
				continue
			}
			// It is away, and nobody waits until it is back.
			x.mu.Lock()
			x.stats.Undelivered += uint64(len(x.queue))
			x.queue = nil
			x.mu.Unlock()
		}
	}
}

// deliver sends a batch until the collector has it, will not have it, or was away too
// long, and reports whether it answered. When ctx has ended it tries once.
func (x *Exporter) deliver(ctx context.Context, batch []mesh.EndedRequest) (answered bool) {
	body, err := json.Marshal(requestOf(batch, x.cfg.Version))
	if err != nil {
		x.lost(batch, err, func(s *Stats) { s.Refused += uint64(len(batch)) })
		return true
	}
	end := time.Now().Add(tryFor)
	for pause := x.pause; ; pause = min(2*pause, maxPause) {
		call, done := context.WithTimeout(context.WithoutCancel(ctx), lastFor)
		if ctx.Err() == nil {
			done()
			call, done = context.WithCancel(ctx)
		}
		rejected, why, err := x.send(call, body)
		done()
		if err == nil {
			if rejected > 0 {
				x.cfg.Log.Warn("the collector of traces refused spans", "spans", rejected, "of", len(batch), "why", why)
			}
			rejected = min(rejected, uint64(len(batch)))
			x.count(func(s *Stats) { s.Exported += uint64(len(batch)) - rejected; s.Refused += rejected })
			return true
		}
		x.count(func(s *Stats) { s.Failures++ })
		var again *retryable
		if !errors.As(err, &again) {
			x.lost(batch, err, func(s *Stats) { s.Refused += uint64(len(batch)) })
			return true
		}
		wait := max(again.after, pause/2+rand.N(pause/2+1))
		if ctx.Err() != nil || time.Now().Add(wait).After(end) {
			x.lost(batch, err, func(s *Stats) { s.Undelivered += uint64(len(batch)) })
			return false
		}
		if pause == x.pause {
			x.cfg.Log.Warn("spans wait for the collector of traces", "err", err, "again_in", wait)
		}
		select {
		case <-ctx.Done(): // once more, for the last time
		case <-time.After(wait):
		}
	}
}

func (x *Exporter) lost(batch []mesh.EndedRequest, err error, count func(*Stats)) {
	x.count(count)
	x.cfg.Log.Error("spans are lost", "spans", len(batch), "err", err)
}

// retryable is a failure after which the same may be sent again (OTLP specification,
// failures of OTLP/HTTP), not before so long.
type retryable struct {
	error
	after time.Duration
}

func (r *retryable) Unwrap() error { return r.error }

// send makes one call; rejected is how many spans a collector that took the rest would
// not have.
func (x *Exporter) send(ctx context.Context, body []byte) (rejected uint64, why string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.cfg.Endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for name, v := range x.cfg.Headers {
		req.Header.Set(name, v)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.client.Do(req)
	if err != nil {
		return 0, "", &retryable{error: err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, "", &retryable{error: fmt.Errorf("answer of %s: %w", x.cfg.Endpoint, err)}
	}
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		rejected, why = partial(answer)
		return rejected, why, nil
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 0 { // a date, or nothing: the pause is ours
			after = 0
		}
		return 0, "", &retryable{error: fmt.Errorf("%s answers %s", x.cfg.Endpoint, resp.Status), after: min(time.Duration(after)*time.Second, tryFor)}
	default:
		return 0, "", fmt.Errorf("%s answers %s: %.200q", x.cfg.Endpoint, resp.Status, answer)
	}
}

// partial reads what a collector says of spans that it would not have. One that says
// nothing in JSON took all.
func partial(answer []byte) (rejected uint64, why string) {
	var said struct {
		PartialSuccess struct {
			RejectedSpans json.Number `json:"rejectedSpans"`
			ErrorMessage  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &said) != nil || said.PartialSuccess.RejectedSpans == "" {
		return 0, ""
	}
	if n, err := strconv.ParseUint(said.PartialSuccess.RejectedSpans.String(), 10, 64); err == nil {
		rejected = n // else 200 says that they were taken
	}
	return rejected, said.PartialSuccess.ErrorMessage
}
