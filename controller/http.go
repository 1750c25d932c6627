package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/dashboard"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

const (
	// maxRequest bounds what is read of a request.
	maxRequest = 64 << 20
	// requestTimeout bounds one request; stopTimeout those that run at the end.
	requestTimeout = 15 * time.Second
	stopTimeout    = 2 * time.Second
	// beatWithin is how lately the loop must have ticked to be called alive.
	beatWithin = 2 * time.Second
)

// httpAPI is the running HTTP server.
type httpAPI struct {
	url    string
	server *http.Server
	done   chan struct{}
}

func (a *httpAPI) close() {
	ctx, done := context.WithTimeout(context.Background(), stopTimeout)
	defer done()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
	<-a.done
}

func (s *Server) serveHTTP(stop context.CancelCauseFunc) (*httpAPI, error) {
	a := &httpAPI{done: make(chan struct{})}
	network, addr := "tcp", s.cfg.API
	if path, ok := strings.CutPrefix(s.cfg.API, "unix:"); ok {
		network, addr = "unix", path
		if err := removeSocket(path); err != nil {
			return nil, fmt.Errorf("controller: API socket: %w", err)
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("controller: API: %w", err)
	}
	a.url = "http://" + l.Addr().String()
	if network == "unix" {
		a.url = s.cfg.API
		if err := os.Chmod(addr, 0o600); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("controller: API socket: %w", err)
		}
	}
	routes, err := s.routes()
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	a.server = &http.Server{
		Handler: guard(routes), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: requestTimeout, IdleTimeout: time.Minute,
	}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("controller: API: %w", err))
		}
	}()
	return a, nil
}

// removeSocket removes what a killed controller left; anything but a socket stays.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // nothing there, or Listen says what is wrong
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket", path)
	}
	return os.Remove(path)
}

// guard keeps web pages in a browser on this machine from using the API: they
// come with an Origin of theirs, or with a Host that is a name of theirs. The
// controller's own page (package dashboard) comes with neither.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip := net.ParseIP(strings.Trim(host, "[]"))
		origin := r.Header.Get("Origin")
		if origin != "" && origin != "http://"+r.Host || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			fail(w, http.StatusForbidden, errors.New("the API is for programs on this machine and the controller's own page, not for other web pages"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) routes() (http.Handler, error) {
	m := http.NewServeMux()
	m.HandleFunc("GET "+siteapi.PathStatus, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, s.meshStatus)
	})
	m.HandleFunc("GET "+siteapi.PathWeights, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, s.meshWeights)
	})
	m.HandleFunc("GET "+siteapi.PathHistory, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, s.meshHistory)
	})
	m.HandleFunc("GET "+siteapi.PathPast, s.servePast)
	m.HandleFunc("GET "+siteapi.PathFlows, s.serveTraffic)
	m.HandleFunc("GET "+siteapi.PathObjects, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		answer(w, r, func(ctx context.Context) (*siteapi.Objects, error) {
			return s.list(ctx, siteapi.GetRequest{Kind: q.Get("kind"), Namespace: q.Get("namespace"), Name: q.Get("name")})
		})
	})
	m.HandleFunc("POST "+siteapi.PathApply, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.apply, refused)
	}))
	m.HandleFunc("POST "+siteapi.PathDelete, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.delete, refused)
	}))
	m.HandleFunc("POST "+siteapi.PathToken, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.createToken, nil)
	}))
	m.HandleFunc("POST "+siteapi.PathRemove, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.removeSite, nil)
	}))
	m.HandleFunc("POST "+siteapi.PathTraffic, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.setTraffic, func(r *siteapi.TrafficResult) bool { return refused(&r.Result) })
	}))
	m.HandleFunc("POST "+siteapi.PathRotate, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.rotate, nil)
	}))
	m.HandleFunc("POST "+siteapi.PathPin, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.pin, refused)
	}))
	m.HandleFunc("GET "+siteapi.PathCheck, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, s.check)
	})
	m.HandleFunc("POST "+siteapi.PathExplain, func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.explain, nil)
	})
	s.serveTaps(m)
	s.serveChanges(m)
	m.HandleFunc("POST "+siteapi.PathTrace, func(w http.ResponseWriter, r *http.Request) { post(w, r, s.trace, nil) })
	m.HandleFunc("POST "+siteapi.PathLogs, func(w http.ResponseWriter, r *http.Request) { post(w, r, s.logs, nil) })
	m.HandleFunc("GET "+siteapi.PathAudit, s.serveAudit)
	m.HandleFunc("GET "+siteapi.PathLogin, func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, caller(r))
	})
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if age := time.Since(time.Unix(0, s.beat.Load())); age > beatWithin {
			http.Error(w, fmt.Sprintf("the controller's loop stands still for %s", age.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	m.HandleFunc("GET /readyz", s.serveReady)
	m.HandleFunc("GET /metrics", s.serveMetrics)
	return m, dashboard.Register(m)
}

func (s *Server) list(ctx context.Context, r siteapi.GetRequest) (out *siteapi.Objects, err error) {
	if doErr := s.do(ctx, func() {
		var o siteapi.Objects
		o, err = s.get(r)
		out = &o
	}); doErr != nil {
		return nil, doErr
	}
	return out, err
}

// serveReady says ready when the site's nodes can get the newest snapshot. A
// site without its hub is ready: it serves alone.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), callTimeout)
	defer done()
	var st siteapi.Status
	if err := s.do(ctx, func() { st = s.status(time.Now()) }); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	ready := s.conn.Connected() && (st.Self.Generation == nil || st.Self.Published)
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if !r.URL.Query().Has("verbose") {
		fmt.Fprintln(w, map[bool]string{true: "ok", false: "not ready"}[ready])
		return
	}
	fmt.Fprintf(w, "bus: connected %v\n", s.conn.Connected())
	fmt.Fprintf(w, "link: %s, connected %v since %s %s\n", st.Link.Role, st.Link.Connected, st.Link.Since.Format(time.RFC3339), st.Link.MirrorLag)
	if g := st.Self.Generation; g != nil {
		fmt.Fprintf(w, "snapshot: generation %s, published %v %s\n", g, st.Self.Published, st.Self.Problem)
	} else {
		fmt.Fprintln(w, "snapshot: none, nothing is configured")
	}
	fmt.Fprintf(w, "nodes: %d\n", len(st.Self.Nodes))
}

func answer[T any](w http.ResponseWriter, r *http.Request, f func(context.Context) (*T, error)) {
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	out, err := f(ctx)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, out)
}

func refused(r *siteapi.Result) bool { return len(r.Faults) > 0 }

// post answers a request that changes something; refused, when not nil, tells
// whether the answer is a refusal.
func post[In, Out any](w http.ResponseWriter, r *http.Request, f func(context.Context, In) (*Out, error), refused func(*Out) bool) {
	// A form of a web page cannot have this type.
	if r.Header.Get("Content-Type") != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, errors.New("want Content-Type: application/json"))
		return
	}
	var in In
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request cannot be read: %w", err))
		return
	}
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	out, err := f(ctx, in)
	switch {
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err)
	case refused != nil && refused(out):
		reply(w, http.StatusUnprocessableEntity, out)
	default:
		reply(w, http.StatusOK, out)
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // fails only when the reader left
}

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}); err != nil {
		return // the reader left
	}
}

// serveBusAPI answers the same verbs on the bus, for this site alone.
func (s *Server) serveBusAPI(ctx context.Context) error {
	return s.conn.ServeAPI(ctx, s.cfg.Site, s.cfg.Version, joined(s.tapVerbs(), map[string]bus.Verb{
		siteapi.VerbStatus: func(ctx context.Context, _ []byte) ([]byte, error) {
			var out siteapi.SiteStatus
			err := s.do(ctx, func() { out = s.self(time.Now()) })
			return encoded(out, err)
		},
		siteapi.VerbWeights: func(ctx context.Context, _ []byte) ([]byte, error) {
			var out siteapi.WeightsRow
			err := s.do(ctx, func() { out = s.row(time.Now()) })
			return encoded(out, err)
		},
		siteapi.VerbHistory: func(ctx context.Context, _ []byte) ([]byte, error) {
			var out siteapi.HistoryRow
			err := s.do(ctx, func() { out = s.remembered() })
			return encoded(out, err)
		},
		siteapi.VerbGet:    func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.list) },
		siteapi.VerbApply:  func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.apply) },
		siteapi.VerbDelete: func(ctx context.Context, in []byte) ([]byte, error) { return decoded(ctx, in, s.delete) },
		siteapi.VerbExplain: func(ctx context.Context, in []byte) ([]byte, error) {
			return decoded(ctx, in, func(ctx context.Context, r siteapi.ExplainRequest) (*mesh.Explanation, error) {
				return s.explainHere(ctx, r)
			})
		},
	}))
}

// joined are the verbs of both.
func joined(a, b map[string]bus.Verb) map[string]bus.Verb {
	maps.Copy(a, b)
	return a
}

func decoded[In, Out any](ctx context.Context, data []byte, f func(context.Context, In) (Out, error)) ([]byte, error) {
	var in In
	if len(data) > 0 {
		if err := json.Unmarshal(data, &in); err != nil {
			return nil, fmt.Errorf("request cannot be read: %w", err)
		}
	}
	out, err := f(ctx, in)
	return encoded(out, err)
}

func encoded(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
