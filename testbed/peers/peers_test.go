package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const roleStandIn = "role-stand-in"

// TestMain lets the test binary be what the program starts: its own roles, and a
// stand-in for a proxy.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case roleBackend, roleLoad, roleSink, roleSource, roleUDPEcho, roleUDPLoad, roleHold, roleSecureHold, roleBurst, roleBare:
			os.Exit(run(os.Args[1:]))
		case roleStandIn:
			fmt.Fprintln(os.Stderr, standIn(os.Args[2]))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// standIn is a trivial proxy. Its configuration is listen address, backend and
// behaviour, one a line.
func standIn(confFile string) error {
	body, err := os.ReadFile(confFile)
	if err != nil {
		return err
	}
	lines := strings.Split(string(body), "\n")
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: lines[1]})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
	behaviour, arg, _ := strings.Cut(lines[2], " ")
	if behaviour == "stream" {
		return standInStream(lines[0], lines[1])
	}
	var n atomic.Int64
	return http.ListenAndServe(lines[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch behaviour {
		case "spin":
			d, _ := time.ParseDuration(arg)
			spin(d)
		case "refuse": // every tenth after the first
			if n.Add(1)%10 == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		case "short":
			if n.Add(1) > 1 {
				w.Header().Set("Content-Length", "1024")
				io.WriteString(w, "too little")
				return
			}
		case "close":
			w.Header().Set("Connection", "close")
		}
		proxy.ServeHTTP(w, r)
	}))
}

// standInStream passes connections on whole.
func standInStream(listen, backend string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		b, err := net.Dial("tcp", backend)
		if err != nil {
			return err
		}
		go func() {
			io.Copy(b, c)
			b.(*net.TCPConn).CloseWrite()
		}()
		go func() {
			io.Copy(c, b)
			c.Close()
		}()
	}
}

// spin burns that much CPU, however long it takes.
func spin(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			panic(err)
		}
		return time.Duration(ts.Nano())
	}
	for start := used(); used()-start < d; {
	}
}

func standInProxy(t *testing.T, behaviour string) proxy {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte(confListen+"\n"+confBackend+"\n"+behaviour), 0o600); err != nil {
		t.Fatal(err)
	}
	return proxy{name: behaviour, conf: conf, command: func(confFile, _ string) []string {
		return []string{exe, roleStandIn, confFile}
	}}
}

func quick(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parseFlags(append([]string{"--rounds", "2", "--duration", "100ms", "--warmup", "20ms", "--connections", "8"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRunMode_seesTheDearerProxy(t *testing.T) {
	const extra = 500 // us of CPU per request that the second one burns
	rows, err := runMode(t.Context(), quick(t), modeShared, standInProxy(t, "plain"), []proxy{standInProxy(t, "spin 500us")})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || len(rows[0].Ours) != 2 || len(rows[0].Theirs) != 2 {
		t.Fatalf("want one row of two pairs, got %+v", rows)
	}
	r := rows[0]
	for i, s := range r.Theirs {
		if s.CPU < extra {
			t.Errorf("pair %d: %g us of CPU per request, but each burned %d", i, s.CPU, extra)
		}
		if s.Requests < 1 || s.RSS <= 0 || s.PSS <= 0 || s.P99 < s.P50 || s.P50 < extra {
			t.Errorf("pair %d: %+v", i, s)
		}
	}
	if r.Ratio.Median >= 1 || r.Ratio.Pairs != 2 {
		t.Errorf("ratio %+v: ours is the cheaper one", r.Ratio)
	}
}

func TestMeasure_refusesBadAnswers(t *testing.T) {
	for behaviour, want := range map[string]string{
		"refuse": "went wrong, first: answer HTTP/1.1 503",
		"short":  "went wrong, first: connection closed inside an answer",
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			_, err := runMode(t.Context(), quick(t), modeShared, standInProxy(t, behaviour), []proxy{standInProxy(t, "plain")})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestMeasure_reconnectsWhenTold(t *testing.T) {
	rows, err := runMode(t.Context(), quick(t, "--rounds", "1"), modeShared, standInProxy(t, "close"), []proxy{standInProxy(t, "plain")})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].Ours[0].Requests < 1 {
		t.Errorf("no requests: %+v", rows[0])
	}
}

func TestStart_saysWhyAProxyDoesNotServe(t *testing.T) {
	p := proxy{name: "broken", conf: filepath.Join("conf", "nginx-tuned.conf"), command: func(string, string) []string {
		return []string{"sh", "-c", "echo cannot bind >&2"}
	}}
	_, err := p.start(t.Context(), "127.0.0.1:1", 1, nil)
	if err == nil || !strings.Contains(err.Error(), "it ended") || !strings.Contains(err.Error(), "cannot bind") {
		t.Errorf("got %v", err)
	}
}

// TestLoad_openLoop counts: what is due is sent, also when the server is slower
// than the rate, and latency counts from when it was due.
func TestLoad_openLoop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const delay = 20 * time.Millisecond
	go slowServer(l, delay)
	c, err := startChild(nil, roleLoad, "--addr", l.Addr().String(), "--connections", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	got, err := c.load(order{Duration: 100 * time.Millisecond, Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	if got.Requests != 10 || got.Errors != 0 {
		t.Errorf("10 requests were due, got %+v", got)
	}
	// One connection, 10 ms apart, 20 ms each: the last waits for all before it.
	if got.P99 < 9*delay/2 {
		t.Errorf("p99 %s hides the time that requests waited for a connection", got.P99)
	}
}

func slowServer(l net.Listener, delay time.Duration) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for r := bufio.NewReader(conn); ; {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_ = req.Body.Close()
				time.Sleep(delay)
				// In pieces, as a network would deliver it.
				for _, part := range [][]byte{response[:20], response[20:90], response[90:]} {
					conn.Write(part)
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
}

func TestBackend_countsHeads(t *testing.T) {
	s := &served{}
	got := 0
	for _, part := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r", "\nGET", " / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\r\n\r", "\n"} {
		got += s.heads([]byte(part))
	}
	if got != 3 {
		t.Errorf("got %d heads, want 3", got)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		ratios []float64
		want   spread
		ok     bool
	}{
		{[]float64{0.8, 0.7, 0.9}, spread{Median: 0.8, Min: 0.7, Max: 0.9, Near: 3, Pairs: 3}, false},
		{[]float64{0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.5, 1.5}, spread{Median: 0.8, Min: 0.5, Max: 1.5, Near: 7, Pairs: 9}, true},
		{[]float64{0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.5, 0.5, 1.5}, spread{Median: 0.8, Min: 0.5, Max: 1.5, Near: 6, Pairs: 9}, false},
		{[]float64{1, 2}, spread{Median: 1.5, Min: 1, Max: 2, Near: 0, Pairs: 2}, false},
	} {
		got := spreadOf(c.ratios)
		if got.Near != c.want.Near || got.Median != c.want.Median || got.Min != c.want.Min || got.Max != c.want.Max || got.Pairs != c.want.Pairs {
			t.Errorf("%v: got %+v, want %+v", c.ratios, got, c.want)
		}
		if got.established() != c.ok {
			t.Errorf("%v: established = %v", c.ratios, got.established())
		}
	}
}

// TestConfigurations holds the committed files to what the program does with them.
func TestConfigurations(t *testing.T) {
	files, err := filepath.Glob("conf/*")
	if err != nil || len(files) != 13 {
		t.Fatalf("conf holds %v (%v), want thirteen files", files, err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		conf, err := replaceAddresses(string(body), "127.0.0.1:7", "127.0.0.1:9")
		if err != nil || strings.Contains(conf, "1808") {
			t.Errorf("%s: addresses stay: %v", name, err)
		}
		for program, workers := range map[string]func(string, int) (string, error){
			"haproxy": replacing(nbthread, "${1}%d"), "nginx": replacing(workerProcesses, "${1}%d;"),
		} {
			if !strings.HasPrefix(filepath.Base(name), program) {
				continue
			}
			conf, err := workers(string(body), 7)
			if err != nil || !strings.Contains(conf, "nbthread 7\n") && !strings.Contains(conf, "worker_processes 7;\n") {
				t.Errorf("%s: workers are not set: %v", name, err)
			}
		}
	}
	ours, err := os.ReadFile("conf/meridian.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(ours), "value: /service-"); n != 50 || !strings.Contains(string(ours), "/service-25}") {
		t.Errorf("%d routes, want 50 and %s among them", n, requestPath)
	}
}

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(`Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%  817.00us
     75%    1.02ms
     90%    1.30ms
     99%    2.13ms
  77213 requests in 1.10s, 85.05MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 13
Requests/sec:  70205.21
`)
	want := loadResult{Requests: 77200, Errors: 23, Took: 1100 * time.Millisecond, P50: 817 * time.Microsecond, P99: 2130 * time.Microsecond}
	got.Why = ""
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseWrk("unable to connect"); err == nil {
		t.Error("no error for output without a result")
	}
}

func TestParseH2load(t *testing.T) {
	got, err := parseH2load(`starting benchmark...
finished in 1.00s, 27114.00 req/s, 30.10MB/s
requests: 27114 total, 27370 started, 27114 done, 27114 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 27114 2xx, 0 3xx, 0 4xx, 0 5xx
                     min         max         mean         sd        +/- sd
time for request:     1.01ms     34.22ms      9.21ms      1.80ms    74.13%
`)
	if want := (loadResult{Requests: 27114, Took: time.Second, P50: 9210 * time.Microsecond}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"connection refused", "finished in 1.00s, 1 req/s\nrequests: 5 total, 5 started, 5 done, 4 succeeded, 1 failed"} {
		if _, err := parseH2load(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestUpdateMarkdown(t *testing.T) {
	name := filepath.Join(t.TempDir(), "benchmarks.md")
	r := result{
		Date: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Machine: "2 CPUs of X", Versions: []string{"edgeproxy 1", "nginx 2"}, Rounds: 1, Duration: 2, Generator: "own",
		Rows: []row{{Mode: modePinned, Peer: "nginx-tuned", Ours: []sample{{CPU: 20}}, Theirs: []sample{{CPU: 25}}, Ratio: spreadOf([]float64{0.8})}},
	}
	for range 2 { // writing again replaces
		if _, err := os.Stat(name); err != nil {
			if err := os.WriteFile(name, []byte("before\n<!-- peers:begin -->\nold\n<!-- peers:end -->after\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.updateMarkdown(name); err != nil {
			t.Fatal(err)
		}
	}
	body, _ := os.ReadFile(name)
	text := string(body)
	if !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "after\n") || strings.Contains(text, "old") ||
		strings.Count(text, "| pinned | nginx-tuned | 20.0 / 25.0 | 0.80 | 1.00 | 0.80-0.80 | 1 of 1 | no |") != 1 || !strings.Contains(text, "2026-11-21") {
		t.Errorf("wrote\n%s", text)
	}
	if err := os.WriteFile(name, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.updateMarkdown(name); err == nil || !strings.Contains(err.Error(), "peers:begin") {
		t.Errorf("a file without markers: %v", err)
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--modes nowhere":                    `no mode "nowhere"`,
		"--rounds 0":                         "--rounds 0: want 1 or more",
		"--generator wrk --duration 300ms":   "wrk takes whole seconds",
		"-o xml":                             "want table or json",
		"--rate -1":                          "--rate -1: want more than 0",
		"left over":                          `unexpected argument "left"`,
		"--peers envoy-tuned --modes shared": `no peer "envoy-tuned"`,
	} {
		o, err := parseFlags(strings.Fields(args), io.Discard)
		if err == nil {
			o.ours = "true" // any program that ends well
			err = compare(context.Background(), o)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestTCP_seesCPUPerByte(t *testing.T) {
	ours := standInProxy(t, "stream")
	ours.stream = true
	seesCPUPerByte(t, ours)
}

func TestTCP_bareSpliceLosesNothing(t *testing.T) {
	bare, err := bareProxy(options{conf: "conf"}, bareSplice)
	if err != nil {
		t.Fatal(err)
	}
	bare.stream = true
	seesCPUPerByte(t, bare)
}

// seesCPUPerByte measures a proxy of streams twice: as it should be, and with nothing
// that takes the bytes.
func seesCPUPerByte(t *testing.T, p proxy) {
	sink, backend, err := startBackend(roleSink, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.stop()
	r, err := p.start(t.Context(), backend, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	s, err := measureTCP(t.Context(), quick(t), placement{}, r)
	if err != nil || s.CPU <= 0 || s.CPU > 60 || s.Requests < pieceBytes || s.Rate <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := sink.stop(); err != nil { // now nobody takes the bytes
		t.Fatal(err)
	}
	if _, err := measureTCP(t.Context(), quick(t), placement{}, r); err == nil {
		t.Error("bytes that nobody took are counted")
	}
}

func TestHold_restsAfterAnAnswer(t *testing.T) {
	backend, addr, err := startBackend(roleBackend, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.stop()
	h, err := startChild(nil, roleHold, "--addr", addr, "--connections", "20")
	if err != nil {
		t.Fatal(err)
	}
	var held loadResult
	if err := h.answer(&held); err != nil || held.Requests != 20 || held.Errors != 0 {
		t.Errorf("%+v, %v", held, err)
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
}

func TestMissed(t *testing.T) {
	steady := func(v float64) spread { return spreadOf([]float64{v, v, v, v, v, v, v, v, v}) }
	rows := []row{
		{Mode: modePinned, Peer: "haproxy-tuned", Ratio: steady(0.85)},
		{Mode: modePinned, Peer: "haproxy-default", Ratio: steady(0.86)},
		{Mode: modeOpen, Peer: "nginx-tuned", Ratio: spreadOf([]float64{0.5})},
		{Mode: modeTCP, Peer: "haproxy-splice", Ratio: steady(1)},
		{Mode: modeTCP, Peer: "nginx-stream", Ratio: steady(0.7)},
		{Mode: modeShared, Peer: otherBuild, Ratio: steady(2)},
	}
	idle := []idleRow{{Rest: footprint{RSS: 12_000_000}, Held: footprint{RSS: 18_500_000}, After: footprint{RSS: 12_900_000}}}
	got := result{Rows: rows, Idle: idle}.missed()
	want := []string{"pinned, haproxy-default", "open, nginx-tuned", "tcp, nginx-stream", "idle: 10,000 idle connections take 6.5 MB"}
	if len(got) != len(want) {
		t.Fatalf("missed: %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("missed %q, want %q", got[i], want[i])
		}
	}
}

func TestMoreServices(t *testing.T) {
	if n := strings.Count(moreServices(), "- {address:"); n != 199 {
		t.Errorf("%d more endpoints, want 199: one is the load's", n)
	}
}
