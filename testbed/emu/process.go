package emu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// RunFile says where a backend process can be reached. The process writes it when
// it serves.
type RunFile struct {
	// Endpoints are the servers' addresses in the order of [Config.SlotsOf].
	Endpoints []string `json:"endpoints"`
	// Control is the address that [Control] speaks to.
	Control string `json:"control"`
}

// Run serves one site's backends until ctx ends and writes a [RunFile] to path.
func Run(ctx context.Context, cfg Config, path string) error {
	loop, err := reactor.New()
	if err != nil {
		return err
	}
	loopCtx, cancel := context.WithCancel(context.Background())
	looping := make(chan error, 1)
	go func() { looping <- loop.Run(loopCtx) }()
	err = serve(ctx, loop, cfg, path)
	cancel()
	return errors.Join(err, <-looping)
}

func serve(ctx context.Context, loop *reactor.Loop, cfg Config, path string) error {
	site, err := Start(loop, cfg)
	if err != nil {
		return err
	}
	defer site.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(site.Stats()) // fails only when the reader left
	})
	mux.HandleFunc("PUT /factor/{value}", func(w http.ResponseWriter, r *http.Request) {
		f, err := strconv.ParseFloat(r.PathValue("value"), 64)
		if err != nil || f <= 0 || f > 1000 {
			http.Error(w, fmt.Sprintf("factor %q: want a number above 0 and up to 1000", r.PathValue("value")), http.StatusBadRequest)
			return
		}
		site.SetFactor(f)
		w.WriteHeader(http.StatusNoContent)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	ready := RunFile{Control: ln.Addr().String()}
	for _, a := range site.Addrs() {
		ready.Endpoints = append(ready.Endpoints, a.String())
	}
	if err := writeRunFile(path, ready); err != nil {
		return errors.Join(err, srv.Close())
	}
	select {
	case <-ctx.Done():
		return srv.Close()
	case err := <-served:
		return fmt.Errorf("control: %w", err)
	}
}

// writeRunFile renames a finished file into place: a reader sees all or nothing.
func writeRunFile(path string, r RunFile) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Control speaks to a backend process at RunFile.Control.
type Control struct {
	Addr   string
	Client *http.Client
}

// SetFactor makes requests that start from now on take so many times longer.
func (c Control) SetFactor(ctx context.Context, f float64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("http://%s/factor/%g", c.Addr, f), nil)
	if err != nil {
		return err
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("set the service time's factor: status %s", resp.Status)
	}
	return nil
}

// Stats reads the process's totals and gauges.
func (c Control) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Addr+"/stats", nil)
	if err != nil {
		return s, err
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("stats: %w", err)
	}
	return s, nil
}
