package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options say how to reach a bus.
type Options struct {
	// URL is one or more addresses, comma separated: nats://host:port or tls://host:port.
	URL string
	// Name is shown in the server's list of connections.
	Name string
	// Site, when set, has the answers to this connection's requests on that site's
	// own subjects ([Inboxes]).
	Site string
	// TokenFile holds a shared secret, NKeyFile an NKey seed; one at most.
	TokenFile string
	NKeyFile  string
	// CAFile holds the certificates (PEM) that a tls:// server's must chain to;
	// empty means the machine's own.
	CAFile string
	// Replicas is how many servers of a NATS cluster keep each bucket; 0 means 1.
	Replicas int
	// InProcess, when set, is a server inside this process: no socket is used and
	// URL may be empty.
	InProcess interface{ InProcessConn() (net.Conn, error) }
	Log       *slog.Logger
}

// State is what is known of a connection. All counts are since the start.
type State struct {
	Connected bool
	// Since is when Connected last changed.
	Since time.Time
	// Reconnects counts connections after the first.
	Reconnects uint64
	// LastError is the newest asynchronous fault, empty when there was none.
	LastError string
	// Faults counts messages that could not be read or needed a newer build,
	// Dropped those that a full queue lost, Unsent those published without a connection.
	Faults, Dropped, Unsent uint64
}

// Conn is a connection that reconnects for ever. Its methods are safe for
// concurrent use.
type Conn struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	log      *slog.Logger
	replicas int

	mu     sync.Mutex
	state  State
	redial chan struct{} // closed and replaced at each reconnect
	logged map[string]bool

	faults, dropped, unsent atomic.Uint64
}

// Times of a connection: a cut is seen within two pings, and retried often,
// because on the other side of a site's own loopback nothing is overloaded by it.
const (
	pingEvery     = 5 * time.Second
	reconnectWait = 200 * time.Millisecond
	dialTimeout   = 2 * time.Second
)

// Connect returns at once, connected or not: a server that is not there yet is
// tried again until it is. An error means the options can never work.
func Connect(o Options) (*Conn, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Conn{log: log, replicas: max(1, o.Replicas), redial: make(chan struct{}), logged: map[string]bool{}}
	c.state.Since = time.Now()
	opts, err := c.options(o)
	if err != nil {
		return nil, err
	}
	url := o.URL
	if o.InProcess != nil {
		url = ""
	} else if url == "" {
		return nil, errors.New("bus: no NATS address given")
	}
	if c.nc, err = nats.Connect(url, opts...); err != nil {
		return nil, fmt.Errorf("bus: connect to %s: %w", redact(url), err)
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	if c.nc.IsConnected() {
		c.link(true, false)
	}
	return c, nil
}

func (c *Conn) options(o Options) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/2, reconnectWait/2),
		// Soft state that waited for a connection would arrive as news.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(dialTimeout),
		// A token that is wrong now may be right after the next rotation.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			c.fault(err)
			c.once("connect:"+err.Error(), "no connection to the bus", "err", err)
		}),
		nats.ConnectHandler(func(*nats.Conn) { c.link(true, false) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.link(true, true) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.fault(err); c.link(false, false) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) { c.async(s, err) }),
	}
	if o.Site != "" {
		opts = append(opts, nats.CustomInboxPrefix(inboxPrefix(o.Site)))
	}
	if o.TokenFile != "" && o.NKeyFile != "" {
		return nil, errors.New("bus: give a token file or an NKey file, not both")
	}
	if o.TokenFile != "" {
		token, err := secret(o.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("bus: token file: %w", err)
		}
		opts = append(opts, nats.Token(token))
	}
	if o.NKeyFile != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("bus: NKey file %s: %w", o.NKeyFile, err)
		}
		opts = append(opts, opt)
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("bus: CA file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("bus: CA file %s holds no PEM certificate", o.CAFile)
		}
		opts = append(opts, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}))
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	return opts, nil
}

// secret reads a one-line secret.
func secret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsAny(s, " \t\r\n") {
		return "", fmt.Errorf("%s: want one word", file)
	}
	return s, nil
}

// redact keeps a password in a URL out of messages.
func redact(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + "://" + rest
}

// Connected reports whether there is a connection now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// State returns what is known of the connection.
func (c *Conn) State() State {
	c.mu.Lock()
	s := c.state
	c.mu.Unlock()
	s.Faults, s.Dropped, s.Unsent = c.faults.Load(), c.dropped.Load(), c.unsent.Load()
	return s
}

// Close ends the connection and everything that reads from it.
func (c *Conn) Close() { c.nc.Close() }

// Flush returns when the server has seen all that was published before.
func (c *Conn) Flush(d time.Duration) error { return c.nc.FlushTimeout(d) }

func (c *Conn) link(up, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Connected != up {
		c.state.Connected, c.state.Since = up, time.Now()
	}
	if again {
		c.state.Reconnects++
	}
	if up {
		close(c.redial)
		c.redial = make(chan struct{})
	}
}

// reconnected returns a channel that closes at the next (re)connect.
func (c *Conn) reconnected() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.redial
}

func (c *Conn) fault(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	c.state.LastError = err.Error()
	c.mu.Unlock()
}

func (c *Conn) async(s *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && s != nil {
		if n, derr := s.Dropped(); derr == nil && n > 0 {
			c.dropped.Add(1)
		}
	}
	c.fault(err)
	c.once("async:"+err.Error(), "bus fault", "err", err)
}

// once logs a fault of one sort a single time: a peer of another version sends
// its message twice a second, and the counter has the rest.
func (c *Conn) once(sort, msg string, args ...any) {
	c.mu.Lock()
	seen := c.logged[sort]
	if !seen && len(c.logged) < 256 {
		c.logged[sort] = true
	}
	c.mu.Unlock()
	if !seen {
		c.log.Warn(msg, args...)
	}
}
