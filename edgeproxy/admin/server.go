package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
)

// DefaultListen is where the admin server listens unless told otherwise.
const DefaultListen = "127.0.0.1:15000"

// Node is what the admin server asks. Everything may be asked from any goroutine.
type Node struct {
	Build  Build
	Config func() source.State
	// History lists the configurations that were in force, the newest first.
	History func() ([]source.Kept, error)
	Proxy   Proxy
	// Weights returns the shares in force and the changes after since.
	Weights func(since time.Time) edgeproxy.WeightsView
	// Draining reports that the node is stopping.
	Draining func() bool
	// Turn takes a turn among the goroutines that may use the processor beside
	// the event loops, and returns what gives it back.
	Turn func(context.Context) (done func(), err error)
	// Requests returns the access log's figures; nil without one.
	Requests func() accesslog.Stats
	// Logs answers which lines the node's logs have.
	Logs func(*mesh.LogQuery) (*mesh.LogAnswer, error)
}

// Build says which program this is.
type Build struct {
	Version, Revision, GoVersion string
}

// String is one line for people.
func (b Build) String() string {
	s := "edgeproxy " + b.Version
	if b.Revision != "" {
		s += " (" + b.Revision[:min(12, len(b.Revision))] + ")"
	}
	return s + " " + b.GoVersion
}

// Server is the admin server of a node.
type Server struct {
	listener net.Listener
	http     *http.Server
	address  string
}

// Listen opens the admin server on addr: host:port, or unix:/path. An address
// that other machines reach is refused unless remote is true.
func Listen(addr string, remote bool, n Node, log *slog.Logger) (*Server, error) {
	l, local, err := listen(addr, remote)
	if err != nil {
		return nil, err
	}
	return newServer(l, local, n, log), nil
}

// Inherit is Listen on the socket of a process that this one takes over from; f
// stays the caller's.
func Inherit(f *os.File, n Node, log *slog.Logger) (*Server, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("admin: inherited socket: %w", err)
	}
	local := false
	switch l := l.(type) {
	case *net.UnixListener:
		l.SetUnlinkOnClose(true)
	case *net.TCPListener:
		local = l.Addr().(*net.TCPAddr).IP.IsLoopback()
	}
	return newServer(l, local, n, log), nil
}

// Socket returns a new descriptor of the listening socket, for a process that
// takes over, closed on exec.
func (s *Server) Socket() (int, error) {
	raw, err := s.listener.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	// Not by File, whose Fd would make the socket blocking for this process too.
	fd, dupErr := -1, error(nil)
	err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr)
}

// Leave stops accepting, as another process goes on with the socket, and lets
// what was asked be answered until ctx ends.
func (s *Server) Leave(ctx context.Context) error {
	if l, ok := s.listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	return s.http.Shutdown(ctx)
}

func newServer(l net.Listener, local bool, n Node, log *slog.Logger) *Server {
	s := &Server{listener: l, address: l.Addr().String()}
	if l.Addr().Network() == "unix" {
		s.address = unixPrefix + s.address
	}
	h := routes(n)
	if local {
		h = onlyByAddress(h)
	}
	s.http = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Address is where the server really listens ("127.0.0.1:41241", "unix:/run/x").
func (s *Server) Address() string { return s.address }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

const unixPrefix = "unix:"

// listen reports also whether only this machine reaches the listener by IP.
func listen(addr string, remote bool) (net.Listener, bool, error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		l, err := listenUnix(path)
		return l, false, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, false, fmt.Errorf("--admin %q: want host:port, unix:/path or off", addr)
	}
	local := host == "localhost"
	if ip, err := netip.ParseAddr(host); err == nil {
		local = ip.Unmap().IsLoopback()
	}
	if !local && !remote {
		return nil, false, fmt.Errorf("--admin %s: other machines could reach it, and it asks nobody who they are; use a loopback address or unix:/path, or say --admin-allow-remote", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, false, fmt.Errorf("--admin: %w", err)
	}
	return l, local, nil
}

// listenUnix replaces a socket that a dead process left, and only that.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("--admin unix:%s: a file that is not a socket is there", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			return nil, errors.Join(fmt.Errorf("--admin unix:%s: another process answers there", path), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("--admin: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("--admin: %w", err), l.Close())
	}
	return l, nil
}

// onlyByAddress refuses requests that name this server otherwise than by address
// or localhost: a web page whose name was rebound to 127.0.0.1 must not read it.
func onlyByAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && host != "localhost" {
			http.Error(w, "ask by address or as localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func routes(n Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", n.readyz)
	mux.HandleFunc("GET /metrics", n.metrics)
	mux.HandleFunc("GET /chains", n.chains)
	mux.HandleFunc("GET /config", n.config)
	mux.HandleFunc("GET /connections", n.connections)
	mux.HandleFunc("GET /explain", n.explain)
	mux.HandleFunc("GET /failed", n.failed)
	mux.HandleFunc("GET /logs", n.logs)
	mux.HandleFunc("GET /tap", n.tap)
	mux.HandleFunc("GET /upstreams", n.upstreams)
	mux.HandleFunc("GET /weights", n.weights)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

const indexText = `edgeproxy

/healthz            the process is alive
/readyz             it serves (?verbose says what it looked at)
/metrics            Prometheus text
/chains             chains of requests: what comes to them, and each hop's counters
/config             the snapshot in force and the last one refused (?format=yaml), ?history lists those before
/connections        clients' connections, ?id=N for the state of one
/explain            where a request would go and why (?host=, path=, method=, header=, or protocol=tcp|udp, port=, or service=)
/failed             requests that failed or took long, and why (?q= a query in JSON, such as {"id":"..."})
/logs               the end of the node's own log and of its access log (?q= a query in JSON, such as {"log":"access"})
/tap                requests as they end (?q= a query in JSON, such as {"session":"me"}, asked again and again)
/upstreams          endpoints: health, requests, connections (?format=text)
/weights            shares between sites in force, and their history (?format=text, ?since=<Unix ms>)
/debug/pprof/       Go profiles
`

func index(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, []byte(indexText)) }
