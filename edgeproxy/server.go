package edgeproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/function/wasm"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/resolve"
	"github.com/meridian-mesh/meridian/edgeproxy/tap"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
	"github.com/meridian-mesh/meridian/internal/beat"
)

// Defaults of [Config].
const (
	DefaultMaxConnections         = 50_000
	DefaultMaxListenerConnections = 10_000
	DefaultWatermark              = 64 << 10
)

// rebindEvery is how often a listener is tried that could not be bound.
const rebindEvery = time.Second

// ErrStopped is the error of calls to a Server whose Run returned.
var ErrStopped = errors.New("the proxy has stopped")

// Server is the data plane of one process. Methods may be called from any goroutine.
type Server struct {
	cfg           Config
	deps          Deps
	registry      *upstream.Registry
	chains        *function.Registry
	authorization *authz.Registry
	shared        *worker.Shared
	tokens        loop.Tokens
	names         *resolve.Resolver
	certs         *tlsio.Store
	health        *health
	tap           *tap.Tap
	watch         *loop.Watch   // of all loops
	started       chan struct{} // closed when Run has begun
	stopped       chan struct{} // closed when the loops have ended

	resident, sockets atomic.Int64 // bytes, as last looked

	mu       sync.Mutex     // serialises Apply, Drain and what DNS changes
	snap     *mesh.Snapshot // in force
	draining bool
	state    atomic.Pointer[worker.State]
}

// New makes a Server; nothing is opened before Run and Apply but the loops' own
// descriptors, which Run closes.
func New(cfg Config, deps Deps) (*Server, error) {
	usable := loop.Processors()
	if cfg.Loops < 0 {
		return nil, fmt.Errorf("loops: %d is negative", cfg.Loops)
	}
	if cfg.Loops == 0 {
		cfg.Loops = loop.Default(usable)
	}
	if cfg.MemoryLimit != 0 && cfg.MemoryLimit < MinMemoryLimit {
		return nil, fmt.Errorf("memory limit: %d bytes are fewer than the %d that the proxy needs", cfg.MemoryLimit, MinMemoryLimit)
	}
	defaultTo(&cfg.MaxConnections, DefaultMaxConnections)
	defaultTo(&cfg.MaxListenerConnections, DefaultMaxListenerConnections)
	defaultTo(&cfg.Watermark, DefaultWatermark)
	if cfg.times == (worker.Times{}) {
		cfg.times = worker.DefaultTimes
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, deps: deps,
		registry:      upstream.NewRegistry(cfg.Loops),
		authorization: authz.NewRegistry(cfg.Loops),
		chains:        function.NewRegistry(cfg.Loops, &wasm.Loader{Log: deps.Log, Now: loop.Now}),
		tokens:        loop.NewTokens(usable - cfg.Loops),
		names:         resolve.New(cfg.Resolver),
		certs:         tlsio.NewStore(deps.Log, deps.Now),
		health:        newHealth(deps.Log),
		watch:         new(loop.Watch),
		started:       make(chan struct{}),
		stopped:       make(chan struct{}),
	}
	s.tap = tap.New(tap.Config{Loops: cfg.Loops, Now: loop.Now, Explain: s.explainEnded})
	s.shared = &worker.Shared{
		Watermark: cfg.Watermark, Times: cfg.times,
		MaxConnections: cfg.MaxConnections, MaxListenerConnections: cfg.MaxListenerConnections,
		ClientMaxAge: cfg.ClientMaxAge, ClientMaxRequests: cfg.ClientMaxRequests,
		Registry: s.registry, Unrouted: s.registry.Service(""), AccessLog: deps.AccessLog, Tap: s.tap, ConnectionIDs: datagram.NewIDs(),
		Handshakes: tlsio.NewHandshakes(s.tokens, tlsio.MostHandshakes),
	}
	for i := range cfg.Loops {
		w, err := worker.New(i, s.shared)
		if err != nil {
			return nil, err
		}
		w.Loop.Watch = s.watch
		s.shared.Workers = append(s.shared.Workers, w)
	}
	return s, nil
}

func defaultTo(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

// Run starts the loops and returns when ctx is done and all of them ended, or
// when one of them failed. Connections still open are cut; see [Server.Drain].
// It may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer loop.Claim(s.cfg.Loops)()
	failed := make(chan error, s.cfg.Loops)
	var loops sync.WaitGroup
	for _, w := range s.shared.Workers {
		loops.Go(func() { failed <- w.Loop.Run() })
	}
	close(s.started)
	var tending sync.WaitGroup
	defer tending.Wait()
	tend, stopTending := context.WithCancel(ctx)
	defer stopTending()
	tending.Go(func() { s.tend(tend) })
	tending.Go(func() { s.certs.Run(tend) })
	tending.Go(func() { s.tap.Run(tend) })
	tending.Go(func() {
		tick := time.NewTicker(restFirst)
		defer tick.Stop()
		later := time.AfterFunc(restFirst*3/2, func() { tick.Reset(restEvery) })
		defer later.Stop()
		if err := s.giveBack(tend, tick.C); err != nil {
			s.deps.Log.Warn("memory at rest stays as it is", "err", err)
		}
	})
	go s.rebind()
	watched := make(chan error, 1)
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	if s.cfg.MemoryLimit > 0 {
		go func() { watched <- s.watchMemory(watching) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case err = <-watched:
	}
	for _, w := range s.shared.Workers {
		w.Loop.Post(loop.Func(w.Close))
		w.Loop.Stop()
	}
	loops.Wait()
	close(s.stopped) // before mu: who holds it may wait for a loop
	s.names.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chains.Close()
	if st := s.state.Load(); st != nil {
		for _, l := range st.Listeners {
			err = errors.Join(err, l.Listener.Close())
		}
	}
	return err
}

// Apply validates and builds a snapshot, binds new listeners, swaps every loop to
// it and drains what went away. It waits for Run and returns after all loops
// acknowledged; on an error the previous snapshot goes on serving. Names that are
// new get a second to be resolved. Calls are serialised.
func (s *Server) Apply(snap *mesh.Snapshot) error {
	select {
	case <-s.started:
	case <-s.stopped:
	}
	names := s.namesOf(snap)
	s.follow(names)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.install(snap, s.deps.Sharing); err != nil {
		return err
	}
	s.snap = snap
	s.names.Retain(names)
	return nil
}

// install builds a snapshot's view and serves it. It needs mu.
func (s *Server) install(snap *mesh.Snapshot, sharing upstream.Sharing) error {
	if err := s.tokens.Acquire(context.Background()); err != nil {
		return err
	}
	defer s.tokens.Release()
	s.certs.Begin()
	v, err := view.Build(snap, view.Deps{
		Certificates: s.certs, Functions: s.chains, Authorization: s.authorization,
		Site: s.site(snap), Registry: s.registry, Sharing: sharing, Loops: s.cfg.Loops, Names: s.targets,
	})
	if err != nil {
		return err
	}
	s.health.tick(s.Now(), v)
	next, opened, err := s.bind(v)
	if err == nil {
		s.adoptSessions(next.Listeners)
		err = s.force(next, opened)
		s.shared.Handed = nil
	}
	if err != nil {
		return fmt.Errorf("snapshot %s not applied: %w", snap.Generation, err)
	}
	s.registry.Retain(v.Endpoints())
	s.certs.Retain()
	s.chains.Retain()
	s.authorization.Retain(v.Policies)
	return nil
}

// force brings a state and its new listeners into force; on an error the previous
// one stays, and the listeners are closed.
func (s *Server) force(next *worker.State, opened []*worker.Listener) error {
	if err := s.swap(next); err != nil {
		err = errors.Join(err, s.swap(s.current()))
		for _, l := range opened {
			if !s.inherited(l.Listener) { // those are for the next try
				err = errors.Join(err, l.Listener.Close())
			}
		}
		return err
	}
	old := s.current()
	s.state.Store(next)
	if err := s.dropInherited(next.Listeners); err != nil {
		s.deps.Log.Error("close inherited listener", "err", err)
	}
	for _, l := range opened {
		socket := next.Sockets[l]
		s.deps.Log.Info("listening", "address", l.Listener.Addr(), "gateway", socket.Gateway, "protocol", socket.Protocol)
	}
	for _, l := range old.Listeners {
		if next.Sockets[l] == nil {
			s.deps.Log.Info("stopped listening", "address", l.Listener.Addr(), "gateway", old.Sockets[l].Gateway)
			if err := l.Listener.Close(); err != nil {
				s.deps.Log.Error("close listener", "address", l.Listener.Addr(), "err", err)
			}
		}
	}
	return nil
}

// rebind tries again, until the end, to bind what could not be bound: the one who
// held the address may be gone.
func (s *Server) rebind() {
	tick := beat.Every(rebindEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case <-tick.C:
			tick.Again()
		}
		if st := s.state.Load(); st == nil || len(st.Unbound) == 0 {
			continue
		}
		s.mu.Lock()
		if !s.draining {
			next, opened, err := s.bind(s.current().View)
			if err == nil && len(opened) > 0 {
				err = s.force(next, opened)
			}
			if err != nil && !errors.Is(err, ErrStopped) {
				s.deps.Log.Error("bind again", "err", err)
			}
		}
		s.mu.Unlock()
	}
}

func (s *Server) site(snap *mesh.Snapshot) string {
	if snap.Site != "" {
		return snap.Site
	}
	return s.cfg.Site
}

// current is the state in force, an empty one before the first.
func (s *Server) current() *worker.State {
	if st := s.state.Load(); st != nil {
		return st
	}
	return &worker.State{View: &view.View{}}
}

// bind finds the listener of each socket: the one that listens already, else a
// new one. A socket that cannot be bound costs its share; only where none can be
// the error says why.
func (s *Server) bind(v *view.View) (next *worker.State, opened []*worker.Listener, err error) {
	have := map[view.SocketKey]*worker.Listener{}
	if old := s.state.Load(); old != nil {
		for _, l := range old.Listeners {
			have[l.Key] = l
		}
	}
	var leaving []*loop.Listener
	for key, l := range have {
		if !slices.ContainsFunc(v.Sockets, func(socket *view.Socket) bool { return socket.Key == key }) {
			leaving = append(leaving, l.Listener)
		}
	}
	next = &worker.State{View: v, Sockets: map[*worker.Listener]*view.Socket{}}
	for _, socket := range v.Sockets {
		l := have[socket.Key]
		if l == nil {
			ln, listenErr := s.listen(socket.Key, leaving...)
			if listenErr != nil {
				listenErr = fmt.Errorf("listeners %v of Gateway/%s: %w", socket.Listeners, socket.Gateway, listenErr)
				next.Unbound = append(next.Unbound, listenErr.Error()+"; it is tried again every second")
				err = errors.Join(err, listenErr)
				continue
			}
			l = &worker.Listener{Key: socket.Key, Listener: ln, Port: strconv.AppendUint(nil, uint64(ln.Addr().Port()), 10)}
			opened = append(opened, l)
		}
		next.Listeners = append(next.Listeners, l)
		next.Sockets[l] = socket
	}
	if len(next.Listeners) > 0 {
		err = nil
	}
	return next, opened, err
}

// swap gives every loop the new state and waits until all have it.
func (s *Server) swap(next *worker.State) error {
	if !s.each(func(w *worker.Worker) { w.Serve(next) }) {
		return ErrStopped
	}
	accepted := make(chan error, len(s.shared.Workers))
	if !s.each(func(w *worker.Worker) { accepted <- w.Accept() }) {
		return ErrStopped
	}
	close(accepted)
	var err error
	for e := range accepted {
		err = errors.Join(err, e)
	}
	return err
}

// Drain stops accepting, closes idle connections, says Connection: close on the
// others' next response, and returns when none is left or ctx is done.
func (s *Server) Drain(ctx context.Context) error {
	if err := s.refuse(); err != nil {
		return err
	}
	return s.ended(ctx)
}

// ended returns when no client connection is left or ctx is done.
func (s *Server) ended(ctx context.Context) error {
	for {
		done := make(chan int, 1)
		// Asked on a loop, so that connections accepted before the drain are counted.
		s.shared.Workers[0].Loop.Post(loop.Func(func() { done <- int(s.shared.Connections.Load()) }))
		select {
		case n := <-done:
			if n == 0 {
				return nil
			}
		case <-s.stopped:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d connections left: %w", s.shared.Connections.Load(), ctx.Err())
		}
		if err := pause(ctx, s.stopped); err != nil {
			return fmt.Errorf("%d connections left: %w", s.shared.Connections.Load(), err)
		}
	}
}

// refuse has every loop stop accepting, and then the kernel refuse: a connection
// that waited in the backlog of a stopping proxy would never be served.
func (s *Server) refuse() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if !s.each((*worker.Worker).Drain) {
		return nil
	}
	var err error
	if st := s.state.Load(); st != nil {
		for _, l := range st.Listeners {
			err = errors.Join(err, l.Listener.Refuse())
		}
	}
	return err
}

// each runs f on every loop and waits; false when the loops have ended.
func (s *Server) each(f func(*worker.Worker)) bool {
	acks := make(chan struct{}, len(s.shared.Workers))
	for _, w := range s.shared.Workers {
		w.Loop.Post(loop.Func(func() { f(w); acks <- struct{}{} }))
	}
	for range s.shared.Workers {
		select {
		case <-acks:
		case <-s.stopped:
			return false
		}
	}
	return true
}

// Listeners returns what is bound now.
func (s *Server) Listeners() []Listener {
	st := s.state.Load()
	if st == nil {
		return nil
	}
	var out []Listener
	for _, l := range st.Listeners {
		socket := st.Sockets[l]
		for _, name := range socket.Listeners {
			out = append(out, Listener{Gateway: socket.Gateway, Name: name, Protocol: socket.Protocol, Addr: l.Listener.Addr()})
		}
	}
	return out
}

// Problems are the semantic faults of the snapshot in force: the share of
// requests they hit gets error responses, the rest is served.
func (s *Server) Problems() []string {
	if st := s.state.Load(); st != nil {
		return slices.Concat(st.View.Problems, st.Unbound, s.names.Stale(), s.certs.Problems())
	}
	return nil
}

// Generation is the snapshot in force, false before the first.
func (s *Server) Generation() (mesh.Generation, bool) {
	if st := s.state.Load(); st != nil {
		return st.View.Generation, true
	}
	return mesh.Generation{}, false
}

// Now is the clock that gates and loops share: monotonic nanoseconds.
func (s *Server) Now() int64 { return loop.Now() }

// Acquire takes one of the few tokens for CPU-bound work (view builds, scrapes,
// handshakes) so that loops never wait behind it; release gives it back.
func (s *Server) Acquire(ctx context.Context) (release func(), err error) {
	if err := s.tokens.Acquire(ctx); err != nil {
		return nil, err
	}
	return s.tokens.Release, nil
}

// LookAtCertificates reads the files of certificates that changed now; else it takes
// a second.
func (s *Server) LookAtCertificates() { s.certs.Look() }

// SetIdentity says who this proxy is among those of its mesh.
func (s *Server) SetIdentity(c tls.Certificate) error { return s.certs.SetIdentity(c) }

// ActAsWorkload has other sites see the workload that this proxy is beside, or nobody
// before [Server.SetWorkload]. It is called before Run.
func (s *Server) ActAsWorkload() { s.certs.ActAsWorkload() }

// SetWorkload says who that workload is among those of its mesh.
func (s *Server) SetWorkload(c tls.Certificate) error { return s.certs.SetWorkload(c) }

// Workload is who it is, by its certificate; nil where it is nobody.
func (s *Server) Workload() *x509.Certificate { return s.certs.Workload() }

// Identity is who this proxy is among those of its mesh, by its certificate; nil before
// it is anybody.
func (s *Server) Identity() *x509.Certificate { return s.certs.Identity() }

// TrustDomain is that of the mesh, empty where nothing between proxies is encrypted.
func (s *Server) TrustDomain() string { return s.current().View.TrustDomain }

// Secure implements [Ways].
func (s *Server) Secure(ctx context.Context, site string, conn net.Conn) (net.Conn, error) {
	client := s.current().View.Peers[site]
	if client == nil {
		return conn, nil
	}
	c, err := client.Session()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// Without a token of those that handshakes take: there is one for each site in an
	// hour, and most of its time is waiting.
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

// Certificates is the state of the certificates in use.
func (s *Server) Certificates() []tlsio.Held { return s.certs.Held() }

// Handshakes counts those of TLS.
func (s *Server) Handshakes() []tlsio.Count { return s.shared.Handshakes.Counts() }

// ListenerAddr is the bound address of a gateway's listener.
func (s *Server) ListenerAddr(gateway, name string) (netip.AddrPort, bool) {
	for _, l := range s.Listeners() {
		if l.Gateway == gateway && l.Name == name {
			return l.Addr, true
		}
	}
	return netip.AddrPort{}, false
}
