package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Handler answers the operator's questions:
//
//	/healthz   the process runs
//	/readyz    200 when the documents are what forwards; ?verbose says what is wrong
//	/status    Status as JSON
//	/metrics   counters in Prometheus' text format
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /status", a.showStatus)
	mux.HandleFunc("GET /metrics", a.metrics)
	return mux
}

// say answers; who asked may be gone, which is nobody's fault.
func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// ServeAdmin answers at address until the returned function is called.
func (a *Agent) ServeAdmin(address string) (stop func(), err error) {
	l, err := net.Listen("tcp", address)
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

func (a *Agent) readyz(w http.ResponseWriter, r *http.Request) {
	s := a.Status()
	var b strings.Builder
	code := http.StatusOK
	if !s.Ready {
		code = http.StatusServiceUnavailable
	}
	if r.URL.Query().Has("verbose") {
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
	data, err := json.MarshalIndent(a.Status(), "", "  ")
	if err != nil {
		say(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n')) // who asked may be gone
}

func (a *Agent) metrics(w http.ResponseWriter, _ *http.Request) {
	counts, err := a.dp.Counts()
	var drops map[path.Reason]uint64
	if err == nil {
		drops, err = a.dp.Drops()
	}
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
	family("meridian_chain_instances_down", "gauge", "Instances of this node that do not answer.")
	fmt.Fprintf(&b, "meridian_chain_instances_down %d\n", len(s.Down))
	order := slices.Sorted(maps.Keys(counts))
	for _, f := range []struct {
		name, help string
		value      func(datapath.Count) uint64
	}{
		{"meridian_chain_hop_packets_total", "Packets sent to a hop of a path.", func(c datapath.Count) uint64 { return c.Packets }},
		{"meridian_chain_hop_bytes_total", "Bytes of frames sent to a hop of a path.", func(c datapath.Count) uint64 { return c.Bytes }},
		{"meridian_chain_hop_drops_total", "Packets dropped at a hop of a path.", func(c datapath.Count) uint64 { return c.Drops }},
	} {
		family(f.name, "counter", f.help)
		for _, p := range order {
			fmt.Fprintf(&b, "%s{spi=\"%d\",si=\"%d\"} %d\n", f.name, p>>8, p&0xff, f.value(counts[p]))
		}
	}
	family("meridian_chain_drops_total", "counter", "Packets dropped, by reason.")
	for _, r := range slices.Sorted(maps.Keys(drops)) {
		fmt.Fprintf(&b, "meridian_chain_drops_total{reason=%q} %d\n", datapath.ReasonName(r), drops[r])
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(w, b.String()) // who asked may be gone
}
