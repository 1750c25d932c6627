package natsd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/internal/bus"
	natsserver "github.com/nats-io/nats-server/v2/server"
)

// Config says which server a site runs.
type Config struct {
	Site string
	// StoreDir holds JetStream.
	StoreDir string
	// Listen is where the site's nodes connect (host:port, port 0 for a free one).
	Listen string
	// NodeToken and AdminToken are what nodes and the controller authenticate with.
	NodeToken, AdminToken string
	// Hub makes this the hub: LeafListen is where sites connect, and SiteOf returns
	// the site that an NKey belongs to, if it belongs to one.
	Hub        bool
	LeafListen string
	Authority  *Authority
	SiteOf     func(nkey string) (site string, ok bool)
	// HubURLs make this a leaf of that hub, which is checked by the CA in the file
	// HubCA; HubKey is the file with the site's NKey seed. Neither Hub nor HubURLs: a
	// site alone.
	HubURLs []string
	HubCA   string
	HubKey  string
	Log     *slog.Logger
}

// Limits of the embedded server. Configuration is small, and soft state is never
// stored; the limits are there so that a fault upstream cannot fill an edge disk.
const (
	maxMemory  = 16 << 20
	maxStore   = 256 << 20
	maxPayload = 8 << 20
	maxPending = 32 << 20
)

// Times of the links. The server's own default finds a dead link after four
// minutes; these find it within three seconds.
const (
	pingEvery      = time.Second
	pingsLost      = 2
	leafRedial     = 250 * time.Millisecond
	leafDial       = time.Second
	startTimeout   = 10 * time.Second
	lameDuckFor    = 300 * time.Millisecond
	lameDuckGrace  = 20 * time.Millisecond
	leafTLSTimeout = 5.0
)

// Server is a running NATS server.
type Server struct {
	ns  *natsserver.Server
	cfg Config
	log *slogger
}

// Start returns when the server accepts connections. A leaf whose hub is not
// there starts all the same and goes on trying.
func Start(cfg Config) (*Server, error) {
	o, err := options(cfg)
	if err != nil {
		return nil, err
	}
	ns, err := natsserver.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	logger := &slogger{log: cfg.Log, failed: make(chan string, 1), said: map[string]time.Time{}}
	ns.SetLoggerV2(logger, false, false, false)
	ns.Start()
	deadline := time.Now().Add(startTimeout)
	for !ns.ReadyForConnections(50 * time.Millisecond) {
		select {
		case why := <-logger.failed:
			ns.Shutdown()
			return nil, fmt.Errorf("natsd: %s", why)
		default:
		}
		if time.Now().After(deadline) {
			ns.Shutdown()
			return nil, fmt.Errorf("natsd: server is not ready after %s", startTimeout)
		}
	}
	select {
	case why := <-logger.failed:
		ns.Shutdown()
		return nil, fmt.Errorf("natsd: %s", why)
	default:
	}
	return &Server{ns: ns, cfg: cfg, log: logger}, nil
}

func options(cfg Config) (*natsserver.Options, error) {
	host, port, err := hostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("natsd: listen address: %w", err)
	}
	domain := bus.Domain(cfg.Site)
	if cfg.Hub {
		domain = bus.HubDomain
	} else if domain == bus.HubDomain {
		return nil, fmt.Errorf("natsd: %q is the name of the hub's domain: give this site another name, or start it with --hub", cfg.Site)
	}
	o := &natsserver.Options{
		ServerName: serverName(cfg.Site),
		Host:       host, Port: port,
		NoSigs: true, NoLog: true,
		MaxPayload: maxPayload, MaxPending: maxPending,
		PingInterval: pingEvery, MaxPingsOut: pingsLost,
		JetStream: true, JetStreamDomain: domain, StoreDir: cfg.StoreDir,
		JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxStore,
		// Only configuration is on disk, and an acknowledged change must survive a
		// power cut. Nothing that happens twice a second is written.
		SyncAlways:                 true,
		LameDuckDuration:           lameDuckFor,
		LameDuckGracePeriod:        lameDuckGrace,
		CustomClientAuthentication: &doorman{node: cfg.NodeToken, admin: cfg.AdminToken, perms: nodePermissions(cfg.Site), siteOf: cfg.SiteOf},
	}
	o.LeafNode.ReconnectInterval = leafRedial
	o.LeafNode.DialTimeout = leafDial
	if cfg.Hub {
		if err := hubOptions(o, cfg); err != nil {
			return nil, err
		}
	}
	if len(cfg.HubURLs) > 0 {
		if cfg.Hub {
			return nil, errors.New("natsd: the hub has no hub: give --hub or --hub-url, not both")
		}
		if err := leafOptions(o, cfg); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func hubOptions(o *natsserver.Options, cfg Config) error {
	host, port, err := hostPort(cfg.LeafListen)
	if err != nil {
		return fmt.Errorf("natsd: leaf listen address: %w", err)
	}
	o.LeafNode.Host, o.LeafNode.Port = host, port
	// Without this a leaf learns the hub's other addresses and goes around the
	// one it was given, relays and firewalls included.
	o.LeafNode.NoAdvertise = true
	o.LeafNode.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cfg.Authority.cert}, MinVersion: tls.VersionTLS13}
	o.LeafNode.TLSTimeout = leafTLSTimeout
	o.LeafNode.TLSHandshakeFirst = true
	return nil
}

func leafOptions(o *natsserver.Options, cfg Config) error {
	tlsConfig, err := leafTLS(cfg.HubCA)
	if err != nil {
		return err
	}
	seed, err := readSeed(cfg.HubKey)
	if err != nil {
		return err
	}
	r := &natsserver.RemoteLeafOpts{
		TLS: true, TLSConfig: tlsConfig, TLSTimeout: leafTLSTimeout, TLSHandshakeFirst: true,
		IgnoreDiscoveredServers: true, NoRandomize: true, Nkey: seed,
	}
	for _, raw := range cfg.HubURLs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" {
			return fmt.Errorf("natsd: hub address %q: want tls://host:port", raw)
		}
		if u.User != nil {
			return fmt.Errorf("natsd: hub address tls://%s: the site's key is in a file (--hub-key), not in the address", u.Host)
		}
		r.URLs = append(r.URLs, u)
	}
	o.LeafNode.Remotes = []*natsserver.RemoteLeafOpts{r}
	return nil
}

func hostPort(s string) (string, int, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: port is not a number from 0 to 65535", s)
	}
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, nil
}

// ClientURL is where the site's nodes connect.
func (s *Server) ClientURL() string {
	return "nats://" + s.ns.Addr().String()
}

// LeafAddr is where sites connect to the hub (host:port), empty for a leaf.
func (s *Server) LeafAddr() string {
	if !s.cfg.Hub {
		return ""
	}
	// The server reports no address of this listener, but wrote the port it got
	// into its options.
	v, err := s.ns.Varz(nil)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(v.LeafNode.Host, strconv.Itoa(v.LeafNode.Port))
}

// InProcessConn connects the controller without a socket.
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Links is how many leaf links are up: for a leaf 1 while the hub is reached.
func (s *Server) Links() int { return s.ns.NumLeafNodes() }

// Stores reports whether the server still keeps what it is given: it stops that for
// good, until it is started again, when a write to disk fails.
func (s *Server) Stores() bool { return s.ns.JetStreamEnabled() && !s.log.broken.Load() }

// Disconnect ends the links of a site, whose key should be out of force first.
func (s *Server) Disconnect(site string) error {
	links, err := s.ns.Leafz(nil)
	if err != nil {
		return fmt.Errorf("natsd: list links: %w", err)
	}
	var errs []error
	for _, l := range links.Leafs {
		if l.Name == serverName(site) {
			errs = append(errs, s.ns.DisconnectClientByID(l.ID))
		}
	}
	return errors.Join(errs...)
}

// serverName is a stable name: the hub tells leaves apart by it.
func serverName(site string) string { return "site-" + bus.Token(site) }

// Stop tells clients to go elsewhere, then ends the server.
func (s *Server) Stop() {
	s.ns.LameDuckShutdown()
	s.ns.WaitForShutdown()
}

// Kill ends the server without a word.
func (s *Server) Kill() { s.ns.Shutdown() }

// slogger writes the server's log into slog. What the server calls a notice is
// routine here, and a warning that repeats (a hub that is down is dialled every
// second) is said once in repeatAfter.
type slogger struct {
	log    *slog.Logger
	failed chan string
	// broken is set when a bucket takes nothing any more.
	broken atomic.Bool

	mu   sync.Mutex
	said map[string]time.Time
}

const repeatAfter = time.Minute

func line(format string, v []any) string {
	return "nats: " + strings.TrimSpace(fmt.Sprintf(format, v...))
}

func (l *slogger) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l *slogger) Warnf(format string, v ...any)   { l.warn(format, v) }
func (l *slogger) Errorf(format string, v ...any)  { l.warn(format, v) }
func (l *slogger) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *slogger) Tracef(string, ...any)           {}

func (l *slogger) warn(format string, v []any) {
	// The server stops a stream whose file could not be written, for good, and says
	// so nowhere else.
	if strings.Contains(format, "critical write error") {
		l.broken.Store(true)
	}
	now := time.Now()
	l.mu.Lock()
	again := now.Sub(l.said[format]) < repeatAfter
	if !again && len(l.said) < 256 {
		l.said[format] = now
	}
	l.mu.Unlock()
	level := slog.LevelWarn
	if again {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, line(format, v))
}

// Fatalf is the server's last word before it stops serving: at start it becomes
// Start's error.
func (l *slogger) Fatalf(format string, v ...any) {
	why := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.log.Error("nats: " + why)
	select {
	case l.failed <- why:
	default:
	}
}
