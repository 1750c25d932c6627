package controller

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/flows"
	"github.com/meridian-mesh/meridian/controller/history"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/controller/world"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/logring"
)

// Files of the data folder that others are told about.
const (
	nodeTokenFile  = "node.token"
	adminTokenFile = "admin.token"
	trustKeyFile   = "site.pub"
)

const (
	callTimeout = 2 * time.Second
	// firstLook is how long a starting leaf waits for its hub before it serves
	// what it has.
	firstLook = 700 * time.Millisecond
)

// Server is one site's controller.
type Server struct {
	cfg     Config
	log     *slog.Logger
	said    *logring.Ring // nil where nobody keeps it
	started time.Time

	folder *store.Folder
	key    ed25519.PrivateKey
	sealer mesh.Sealer   // loop only
	nats   *natsd.Server // nil with an external NATS
	// members and authority are the embedded hub's: who may connect, and its
	// certificates. joinAddr is where new sites ask (host:port).
	accounts  Accounts // nil without a cluster
	issuing   *issuing
	members   *join.Registry
	authority *natsd.Authority
	joinAddr  string
	conn      *bus.Conn
	own       *bus.Config // what this controller may write
	hub       *bus.Config // the hub's, for reading; nil where own is it or there is none
	snaps     *bus.Snapshots
	lease     *bus.Lease // with an external NATS: which controller runs the site
	runs      atomic.Pointer[runs]

	// What follows belongs to the loop.
	world     *world.World
	synced    bool
	revisions map[mesh.Key]uint64 // of own
	ledgers   map[string]*ledger  // by owner
	recorded  map[string]book     // what an earlier run had
	hold      string              // why the last snapshot stands, empty when it need not
	holdOwner string              // whose bucket is the reason
	snapshot  *mesh.Snapshot
	// snapshotAt is when it was made, by this run.
	snapshotAt time.Time
	published  mesh.Generation
	problem    string
	newest     mesh.Generation
	planners   map[mesh.ServiceKey]*plan.Planner
	budgets    budgets
	demand     history.Demand
	past       history.Past
	curves     price.Curves
	weights    *mesh.Weights
	sentAt     time.Time // weights
	sent       *mesh.Weights
	reportAt   time.Time
	reportSeq  uint64
	planSeq    uint64
	epoch      uint64 // of weights and reports, Unix ns
	talk       talk
	changelog  changelog

	events  chan event
	calls   chan func()
	stopped chan struct{} // closed when the loop ends
	toBus   chan publication
	fromBus chan outcome
	looks   chan struct{} // after each tick
	beat    atomic.Int64  // when the loop last ticked, Unix ns
	link    atomic.Pointer[linkState]
	count   counters
	audits  audits
	writing sync.Mutex // one apply or delete at a time
	// collecting is until when no snapshot is made, because many objects that belong
	// together are on their way. Loop only.
	collecting time.Time
	// brought are the clusters whose objects are kept here. Loop only.
	brought map[string]bool
	// certificates are those that matter, read at the start.
	certificates []siteapi.Certificate
	run          siteapi.RunFile
	runReady     chan struct{}
}

// event is a change of a configuration bucket.
type event struct {
	owner string
	entry bus.Entry
}

// linkState is the way to the other sites.
type linkState struct {
	up    bool
	since time.Time
	lag   string
}

// New checks the configuration. Nothing is opened before [Server.Run].
func New(cfg Config, deps Deps) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if _, err := mesh.ParseSources(cfg.Preload); err != nil {
		return nil, err
	}
	log := deps.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	owner := cfg.Site
	if cfg.Hub {
		owner = world.Hub
	}
	started := time.Now()
	return &Server{
		cfg: cfg, log: log, said: deps.Said, started: started, epoch: uint64(started.UnixNano()),
		world:     world.New(cfg.Site, owner),
		revisions: map[mesh.Key]uint64{},
		ledgers:   map[string]*ledger{},
		planners:  map[mesh.ServiceKey]*plan.Planner{},
		brought:   map[string]bool{},
		talk:      talk{here: flows.NewSite()},
		events:    make(chan event, 256),
		calls:     make(chan func()),
		stopped:   make(chan struct{}),
		toBus:     make(chan publication, 1),
		fromBus:   make(chan outcome, 4),
		runReady:  make(chan struct{}),
		looks:     make(chan struct{}, 1),
	}, nil
}

// Ready is closed when the controller serves; then [Server.RunFile] says where.
func (s *Server) Ready() <-chan struct{} { return s.runReady }

// RunFile says where a ready controller listens.
func (s *Server) RunFile() siteapi.RunFile { return s.run }

// Run serves until ctx ends, then stops in order. It may be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if s.folder, err = store.Open(s.cfg.Data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.folder.Close()) }()
	// One that was killed left its run file, which would lead others astray.
	if err := os.Remove(s.folder.Path(siteapi.RunFileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("controller: remove old run file: %w", err)
	}
	if err := s.openStore(); err != nil {
		return err
	}
	if err := s.openBus(); err != nil {
		return err
	}
	defer s.closeBus()
	if err := s.openBuckets(ctx); err != nil {
		return err
	}
	if s.certificates, err = s.readCertificates(); err != nil {
		return err
	}
	if err := s.openIssuing(time.Now()); err != nil {
		return err
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop(nil)
	reports, err := s.conn.Reports(ctx, 1024)
	if err != nil {
		return err
	}
	nodes, err := s.conn.NodeReports(ctx, s.cfg.Site, 1024)
	if err != nil {
		return err
	}
	told, err := s.conn.Traffic(ctx, 1024)
	if err != nil {
		return err
	}
	flowing, err := s.conn.NodeTraffic(ctx, s.cfg.Site, 1024)
	if err != nil {
		return err
	}
	tasks.Go(func() { s.loop(ctx, heard{reports, nodes, told, flowing}) })
	tasks.Go(func() { s.publish(ctx) })
	tasks.Go(func() { s.keepJournal(ctx) })
	tasks.Go(func() { s.watchLink(ctx, stop) })
	if err := s.sync(ctx); err != nil {
		return err
	}
	if s.lease != nil {
		s.snaps.Fence()
		settled := make(chan struct{})
		tasks.Go(func() { s.holdLease(ctx, settled) })
		<-settled
	} else if err := s.serveBusAPI(ctx); err != nil {
		return err
	}
	if err := s.serveIssuing(ctx, tasks.Go); err != nil {
		return err
	}
	api, err := s.serveHTTP(stop)
	if err != nil {
		return err
	}
	defer api.close()
	if s.members != nil {
		door, err := s.serveJoin(stop)
		if err != nil {
			return err
		}
		defer door.close()
	}
	requirements := ""
	if s.cfg.SFC.Listen != "" {
		sfc, err := s.serveSFC(stop)
		if err != nil {
			return err
		}
		defer sfc.close()
		requirements = sfc.url
	}
	page := ""
	if s.cfg.Page.Listen != "" {
		p, err := s.servePage(stop)
		if err != nil {
			return err
		}
		defer p.close()
		page = p.url
	}
	if err := s.writeRunFile(api.url, requirements, page); err != nil {
		return err
	}
	defer func() { _ = os.Remove(s.folder.Path(siteapi.RunFileName)) }()
	s.exporting(ctx, tasks.Go)
	close(s.runReady)
	s.log.Info("serving", "site", s.cfg.Site, "role", s.cfg.role(), "nats", s.run.NATS, "api", s.run.API, "leaf", s.run.Leaf)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	s.log.Info("stopping")
	return nil
}

// openStore reads what a former run left in the data folder.
func (s *Server) openStore() (err error) {
	if s.key, err = s.folder.Key(); err != nil {
		return err
	}
	s.newest, err = s.folder.Generation()
	if errors.Is(err, store.ErrDamaged) {
		s.log.Error("the record of used generations is lost: a new incarnation begins", "err", err)
		s.newest, err = mesh.Generation{}, nil
	}
	if err != nil {
		return err
	}
	last, err := s.folder.Snapshot()
	if err != nil {
		s.log.Error("last snapshot", "err", err)
	}
	if last != nil && last.Site == s.cfg.Site {
		s.snapshot = last
		if last.Generation.Compare(s.newest) > 0 {
			s.newest = last.Generation
		}
	}
	if err := errors.Join(s.recall(), s.recallBudgets(), s.recallJournal()); err != nil {
		return err
	}
	if s.newest.Incarnation == 0 {
		// The clock only has to be later than at the start that a lost folder had.
		s.newest = mesh.Generation{Incarnation: uint64(s.started.UnixNano())}
	}
	return nil
}

func (s *Server) openBus() error {
	if s.cfg.NATSURL != "" {
		conn, err := bus.Connect(bus.Options{
			URL: s.cfg.NATSURL, Name: "sitecontroller " + s.cfg.Site, Site: s.cfg.Site, CAFile: s.cfg.NATSCA,
			Replicas: s.cfg.NATSReplicas, TokenFile: s.cfg.NATSTokenFile, NKeyFile: s.cfg.NATSNKeyFile, Log: s.log,
		})
		s.conn = conn
		return err
	}
	cfg := natsd.Config{
		Site: s.cfg.Site, StoreDir: s.folder.Path("nats"), Listen: s.cfg.Listen, Log: s.log,
		Hub: s.cfg.Hub, LeafListen: s.cfg.LeafListen,
		HubURLs: s.cfg.HubURLs, HubCA: s.cfg.HubCA, HubKey: s.cfg.HubKey,
	}
	var err error
	if cfg.NodeToken, err = s.folder.Secret(nodeTokenFile); err != nil {
		return err
	}
	if cfg.AdminToken, err = s.folder.Secret(adminTokenFile); err != nil {
		return err
	}
	if cfg.Hub {
		if s.authority, err = natsd.OpenAuthority(s.folder, time.Now()); err != nil {
			return err
		}
		if s.members, err = join.OpenRegistry(s.folder); err != nil {
			return err
		}
		cfg.Authority, cfg.SiteOf = s.authority, s.members.SiteOf
	}
	if !loopback(s.cfg.Listen) {
		s.log.Warn("nodes connect beyond loopback without TLS: their token can be read on the way", "listen", s.cfg.Listen)
	}
	if s.nats, err = natsd.Start(cfg); err != nil {
		return err
	}
	s.conn, err = bus.Connect(bus.Options{
		Name: "sitecontroller " + s.cfg.Site, Site: s.cfg.Site, InProcess: s.nats, TokenFile: s.folder.Path(adminTokenFile), Log: s.log,
	})
	if err != nil {
		s.nats.Stop()
	}
	return err
}

func (s *Server) closeBus() {
	s.conn.Close()
	if s.nats != nil {
		s.nats.Stop()
	}
}

// openBuckets opens what is durable. An embedded server answers at once; an
// external one is waited for.
func (s *Server) openBuckets(ctx context.Context) error {
	for told := false; ; told = true {
		err := s.tryBuckets(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if s.nats != nil {
			return err
		}
		if !told {
			s.log.Warn("waiting for the external NATS", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (s *Server) tryBuckets(ctx context.Context) (err error) {
	ctx, done := context.WithTimeout(ctx, 4*callTimeout)
	defer done()
	if err := s.finishRestore(ctx); err != nil {
		return err
	}
	if err := s.openOwn(ctx); err != nil {
		return err
	}
	switch s.cfg.role() {
	case "leaf":
		s.hub, err = s.conn.MirrorHubConfig(ctx)
	case "external":
		if !s.cfg.Hub {
			s.hub, err = s.conn.ReadHubConfig(ctx)
		}
	}
	if err != nil {
		return err
	}
	if s.snaps, err = s.conn.OpenSnapshots(ctx, s.cfg.Site); err != nil || s.nats != nil {
		return err
	}
	s.lease, err = s.conn.OpenLease(ctx, s.cfg.Site)
	return err
}

// sync returns when the loop has seen all configuration there is, the hub's as
// far as it could be reached, and the preloaded one.
func (s *Server) sync(ctx context.Context) error {
	if err := s.watchConfig(ctx, s.own, s.world.Owner()); err != nil {
		return err
	}
	if s.hub != nil {
		if err := s.watchConfig(ctx, s.hub, world.Hub); err != nil {
			return err
		}
		if s.cfg.role() == "leaf" {
			if err := s.recallAhead(); err != nil {
				return err
			}
			s.lookAtHub(ctx)
		}
	}
	// What the watches brought may still be queued behind this call.
	err := s.do(ctx, func() {
		s.drain()
		s.compare()
		s.follow()
	})
	if err != nil {
		return err
	}
	// The bucket may know of a newer generation than a folder that was restored.
	call, done := context.WithTimeout(ctx, callTimeout)
	known, err := s.snaps.Get(call)
	done()
	if err != nil {
		s.log.Warn("snapshot in the bucket is not used", "err", err)
	}
	if len(s.cfg.Preload) > 0 && s.lease == nil {
		if err := s.preload(ctx); err != nil {
			return err
		}
	}
	return s.do(ctx, func() {
		if known != nil && known.Generation.Compare(s.newest) > 0 {
			s.newest = known.Generation
		}
		s.synced = true
		s.compile()
	})
}

func (s *Server) watchConfig(ctx context.Context, b *bus.Config, owner string) error {
	return b.Watch(ctx, func(e bus.Entry) {
		select {
		case s.events <- event{owner, e}:
		case <-ctx.Done():
		}
	})
}

// lookAtHub gives a leaf that just started the chance to hear what changed while
// it was down, before it serves.
func (s *Server) lookAtHub(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, firstLook)
	defer done()
	for ctx.Err() == nil {
		if s.nats.Links() > 0 && s.refresh(ctx) == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.log.Warn("the hub does not answer: serving with the last known configuration")
}

func (s *Server) writeRunFile(api, requirements, page string) error {
	s.run = siteapi.RunFile{
		Site: s.cfg.Site, PID: os.Getpid(), Version: s.cfg.Version, API: api, SFC: requirements, Page: page,
		NATS: s.cfg.NATSURL, TrustKey: s.folder.Path(trustKeyFile),
	}
	if s.nats != nil {
		s.run.NATS, s.run.TokenFile = s.nats.ClientURL(), s.folder.Path(nodeTokenFile)
		if s.cfg.Hub {
			s.run.Leaf = "tls://" + s.nats.LeafAddr()
			s.run.Join, s.run.HubCA = "https://"+s.joinAddr, s.authority.CAFile
		}
	}
	data, err := json.MarshalIndent(s.run, "", "  ")
	if err != nil {
		return err
	}
	if err := store.WriteFile(s.folder.Path(siteapi.RunFileName), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("controller: write run file: %w", err)
	}
	return nil
}
