package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/meridian-mesh/meridian/chaining/datapath"
)

// Handler answers the operator's questions:
//
//	/healthz   the process runs
//	/readyz    200 when the documents are what forwards; ?verbose says what is wrong
//	/status    Status as JSON
//	/counters  Counters as JSON
//	/metrics   counters in Prometheus' text format
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /status", a.showStatus)
	mux.HandleFunc("GET /counters", a.showCounters)
	mux.HandleFunc("GET /metrics", a.metrics)
	return mux
}

// Counters is what a node's hops have seen since they were first in a table.
type Counters struct {
	Node string       `json:"node"`
	At   time.Time    `json:"at"` // by the node's clock
	Hops []HopCounter `json:"hops"`
	// Drops are packets by reason, of all paths and of none.
	Drops map[string]uint64 `json:"drops"`
	// Probes are the times in which this node's instances answer probes, smoothed.
	Probes map[string]float64 `json:"probesMs,omitempty"`
	// Echoes are of paths that begin here; Broken says where
	// one got no further, and EchoFailures how often that was since the agent's start.
	Echoes       []HopEcho         `json:"echoes,omitempty"`
	Broken       map[uint32]string `json:"broken,omitempty"`
	EchoFailures uint64            `json:"echoFailures"`
}

// HopCounter is what one hop of a path has seen.
type HopCounter struct {
	SPI     uint32 `json:"spi"`
	SI      uint8  `json:"si"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Drops   uint64 `json:"drops"`
}

// Counters reads the counters now.
func (a *Agent) Counters() (*Counters, error) {
	counts, err := a.dp.Counts()
	if err != nil {
		return nil, err
	}
	drops, err := a.dp.Drops()
	if err != nil {
		return nil, err
	}
	c := &Counters{Node: a.cfg.Node, At: time.Now(), Hops: []HopCounter{}, Drops: map[string]uint64{}, Probes: map[string]float64{}}
	for _, p := range slices.Sorted(maps.Keys(counts)) {
		n := counts[p]
		c.Hops = append(c.Hops, HopCounter{SPI: p >> 8, SI: uint8(p), Packets: n.Packets, Bytes: n.Bytes, Drops: n.Drops})
	}
	for r, n := range drops {
		c.Drops[datapath.ReasonName(r)] += n
	}
	for name, d := range a.probes.all() {
		c.Probes[name] = d.Seconds() * 1000
	}
	c.Echoes, c.Broken, c.EchoFailures = a.followed.all()
	slices.SortFunc(c.Echoes, func(a, b HopEcho) int { return cmp.Or(cmp.Compare(a.SPI, b.SPI), cmp.Compare(b.SI, a.SI)) })
	return c, nil
}

func (a *Agent) showCounters(w http.ResponseWriter, _ *http.Request) {
	c, err := a.Counters()
	if err != nil {
		say(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	showJSON(w, c)
}

// say answers; who asked may be gone, which is nobody's fault.
func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// ServeAdmin answers at address, host:port or unix:/path, until the returned function
// is called.
func (a *Agent) ServeAdmin(address string) (stop func(), err error) {
	l, err := listen(address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	a.cfg.Log.Info("admin listens", "address", l.Addr().String())
	s := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.cfg.Log.Error("admin ends", "err", err)
		}
	}()
	return func() {
		if err := s.Close(); err != nil {
			a.cfg.Log.Warn("admin", "err", err)
		}
		<-done
	}, nil
}

// listen takes the place of a socket file that a process which was killed has left.
func listen(address string) (net.Listener, error) {
	file, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return net.Listen("tcp", address)
	}
	if c, err := net.Dial("unix", file); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is in use: another agent answers there", file)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(file); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", file)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(file, 0o600)
}

func (a *Agent) readyz(w http.ResponseWriter, r *http.Request) {
	s := a.Status()
	var b strings.Builder
	code := http.StatusOK
	if !s.Ready {
		code = http.StatusServiceUnavailable
	}
	if r.URL.Query().Has("verbose") {
		if c := s.Configuration; c != nil {
			b.WriteString(c.line() + "\n")
		}
		for _, c := range s.Chains {
			fmt.Fprintf(&b, "chain %s: %d paths", c.Chain, len(c.SPIs))
			if c.Refused != "" {
				fmt.Fprintf(&b, "; %s", c.Refused)
			}
			if len(c.Bypassed) > 0 {
				fmt.Fprintf(&b, "; left out: %s", strings.Join(c.Bypassed, ", "))
			}
			b.WriteByte('\n')
		}
		if d := s.Redirect; d != nil {
			b.WriteString(d.line() + "\n")
		}
		for _, name := range slices.Sorted(maps.Keys(s.Down)) {
			fmt.Fprintf(&b, "instance %s is down: %s\n", name, s.Down[name])
		}
	}
	switch {
	case s.Ready:
		b.WriteString("ready\n")
	case s.Fault != "":
		fmt.Fprintf(&b, "not ready: %s\n", s.Fault)
	default:
		b.WriteString("not ready: no table is in force yet\n")
	}
	say(w, code, b.String())
}

func (a *Agent) showStatus(w http.ResponseWriter, _ *http.Request) {
	showJSON(w, a.Status())
}

func showJSON(w http.ResponseWriter, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		say(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n')) // who asked may be gone
}

func (a *Agent) metrics(w http.ResponseWriter, _ *http.Request) {
	c, err := a.Counters()
	if err != nil {
		say(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	s := a.Status()
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	family("meridian_chain_ready", "gauge", "Whether the documents are what forwards.")
	ready := 0
	if s.Ready {
		ready = 1
	}
	fmt.Fprintf(&b, "meridian_chain_ready %d\n", ready)
	family("meridian_chain_tables_total", "counter", "Tables put in force since the agent's start.")
	fmt.Fprintf(&b, "meridian_chain_tables_total %d\n", s.Applied)
	family("meridian_chain_instances_down", "gauge", "Instances of this node that do not answer, and of nodes that cannot be reached.")
	fmt.Fprintf(&b, "meridian_chain_instances_down %d\n", len(s.Down))
	if f := s.Configuration; f != nil && f.Generation != nil {
		family("meridian_config_generation_incarnation", "gauge", "Incarnation of the generation in force.")
		fmt.Fprintf(&b, "meridian_config_generation_incarnation %d\n", f.Generation.Incarnation)
		family("meridian_config_generation_counter", "gauge", "Counter of the generation in force.")
		fmt.Fprintf(&b, "meridian_config_generation_counter %d\n", f.Generation.Counter)
		family("meridian_config_refusals_total", "counter", "Configurations that were not served.")
		fmt.Fprintf(&b, "meridian_config_refusals_total %d\n", f.Refusals)
	}
	for _, f := range []struct {
		name, help string
		value      func(HopCounter) uint64
	}{
		{"meridian_chain_hop_packets_total", "Packets sent to a hop of a path.", func(c HopCounter) uint64 { return c.Packets }},
		{"meridian_chain_hop_bytes_total", "Bytes of frames sent to a hop of a path.", func(c HopCounter) uint64 { return c.Bytes }},
		{"meridian_chain_hop_drops_total", "Packets dropped at a hop of a path.", func(c HopCounter) uint64 { return c.Drops }},
	} {
		family(f.name, "counter", f.help)
		for _, h := range c.Hops {
			fmt.Fprintf(&b, "%s{spi=\"%d\",si=\"%d\"} %d\n", f.name, h.SPI, h.SI, f.value(h))
		}
	}
	family("meridian_chain_drops_total", "counter", "Packets dropped, by reason.")
	for _, r := range slices.Sorted(maps.Keys(c.Drops)) {
		fmt.Fprintf(&b, "meridian_chain_drops_total{reason=%q} %d\n", r, c.Drops[r])
	}
	if d := s.Redirect; d != nil {
		family("meridian_redirect_connections_total", "counter", "Connections of redirected processes to what is redirected, by what became of them.")
		for _, n := range []struct {
			result string
			value  uint64
		}{{"redirected", d.Redirected}, {"excluded", d.Excluded}, {"proxy-not-listening", d.NotListening}, {"failed", d.Failed}} {
			fmt.Fprintf(&b, "meridian_redirect_connections_total{result=%q} %d\n", n.result, n.value)
		}
	}
	family("meridian_chain_probe_seconds", "gauge", "Time in which an instance of this node answers probes, smoothed.")
	for _, name := range slices.Sorted(maps.Keys(c.Probes)) {
		fmt.Fprintf(&b, "meridian_chain_probe_seconds{instance=%q} %g\n", name, c.Probes[name]/1000)
	}
	family("meridian_chain_hop_echo_seconds", "gauge", "Round trip of echoes from the beginning of a path, here, to a hop, smoothed.")
	for _, e := range c.Echoes {
		fmt.Fprintf(&b, "meridian_chain_hop_echo_seconds{spi=\"%d\",si=\"%d\"} %g\n", e.SPI, e.SI, e.MS/1000)
	}
	family("meridian_chain_path_broken", "gauge", "Whether the last echo along a path that begins here did not come to its end.")
	for _, spi := range slices.Sorted(maps.Keys(c.Broken)) {
		fmt.Fprintf(&b, "meridian_chain_path_broken{spi=\"%d\"} 1\n", spi)
	}
	family("meridian_chain_echo_failures_total", "counter", "Echoes along paths that did not come to the end.")
	fmt.Fprintf(&b, "meridian_chain_echo_failures_total %d\n", c.EchoFailures)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(w, b.String()) // who asked may be gone
}

// line is the configuration in one line of /readyz?verbose.
func (c *Configuration) line() string {
	var b strings.Builder
	b.WriteString("config of " + c.Source + ": ")
	if c.Generation == nil {
		b.WriteString("nothing in force yet")
	} else {
		fmt.Fprintf(&b, "generation %s since %s", c.Generation, c.AppliedAt.UTC().Format(time.RFC3339))
	}
	if c.Restored {
		b.WriteString(", the last good copy on disk")
	}
	if c.Connected != nil && !*c.Connected {
		b.WriteString(", the controller is not connected")
	}
	return b.String()
}
