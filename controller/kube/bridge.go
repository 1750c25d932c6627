package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
)

// Mesh is the controller that the cluster's objects go to.
type Mesh interface {
	// Bring makes the objects of a cluster those in force, and takes back what it
	// brought before and is not among them. Faults are objects that are not taken.
	Bring(ctx context.Context, cluster string, objects *mesh.Objects) ([]mesh.Fault, error)
	// Sites are the names of the sites that the mesh knows.
	Sites(ctx context.Context) ([]string, error)
}

// Config says which cluster is bridged and how.
type Config struct {
	// Kubeconfig is a file; empty is the pod's service account or what kubectl would
	// use. Context is one of its contexts, the current one where it is empty.
	Kubeconfig, Context string
	// Cluster is the cluster's name in the mesh, the site's where it is empty.
	Cluster, Site string
	// Pool are the addresses that Gateways get; see [kube.Input].
	Pool []netip.Prefix
	// Certificates is a folder for the certificates of Secrets, which this process
	// writes and the proxies read; empty leaves Secrets alone.
	Certificates string
	// Domain is the cluster's DNS domain; see [kube.Input].
	Domain string
}

const (
	// gather is how long changes are collected before they are translated.
	gather = 20 * time.Millisecond
	// lazily is how long a pod that comes, goes or changes may wait: the endpoints that it
	// has come apart. A cluster of many short jobs has its mesh told once in that time.
	lazily = 2 * time.Second
	// lookAgain is how often the rest is looked at: the mesh's sites, kinds that were
	// installed since, what could not be written.
	lookAgain = 10 * time.Second
	// retryAfter is when to try again what the mesh or the API server refused.
	retryAfter = time.Second
)

// Bridge watches one cluster. Make it with [New].
type Bridge struct {
	cfg  Config
	mesh Mesh
	log  *slog.Logger
	c    *client

	kinds map[string]resource
	poked chan struct{}
	later atomic.Bool

	given map[string]netip.Addr // addresses of Gateways, by the last pass; its alone

	mu       sync.Mutex
	watches  map[string]*watching // by kind
	problems map[string]string    // what was logged last, by subject
}

// watching is one kind that is watched.
type watching struct {
	cache.SharedIndexInformer
	resource
}

// New finds the cluster, without asking it yet.
func New(cfg Config, m Mesh, log *slog.Logger) (*Bridge, error) {
	cfg.Cluster = cmp.Or(cfg.Cluster, cfg.Site)
	c, err := connect(cfg.Kubeconfig, cfg.Context)
	if err != nil {
		return nil, err
	}
	b := &Bridge{
		cfg: cfg, mesh: m, log: log, c: c,
		kinds: map[string]resource{}, poked: make(chan struct{}, 1),
		watches: map[string]*watching{}, problems: map[string]string{},
	}
	for _, r := range resources(cfg.Certificates != "") {
		b.kinds[r.kind] = r
	}
	if cfg.Certificates != "" {
		if err := os.MkdirAll(cfg.Certificates, 0o700); err != nil {
			return nil, fmt.Errorf("kube: folder for certificates: %w", err)
		}
	}
	return b, nil
}

// Server is the address of the API server.
func (b *Bridge) Server() string { return b.c.base.Host }

// Run bridges until ctx ends. While the API server is away the mesh keeps what it was
// told last. It may be called once.
func (b *Bridge) Run(ctx context.Context) error {
	klog.SetSlogLogger(slog.New(quieter{b.log.Handler()}))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("kube: name for the lease: %w", err)
	}
	writer := &statusWriter{bridge: b, next: make(chan writing, 1), written: map[mesh.Key]string{}, redirected: map[string]redirected{}}
	writer.lease = &elector{
		c: b.c, namespace: b.c.namespace, identity: fmt.Sprintf("%s_%s_%d", host, b.cfg.Site, os.Getpid()),
		won: func() {
			b.log.Info("writes status for the cluster", "cluster", b.cfg.Cluster)
			b.poke()
		},
		report: func(err error) { b.say("lease "+b.c.namespace+"/"+leaseName, err) },
	}
	tasks.Go(func() { writer.lease.run(ctx) })
	tasks.Go(func() { writer.run(ctx) })
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	b.poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-b.poked:
		}
		if !wait(ctx, gather) {
			return nil
		}
		b.drain()
		began := time.Now()
		missing := b.watch(ctx, tasks.Go)
		b.say("kinds", missing)
		if !b.synced() {
			continue
		}
		if err := b.pass(ctx, writer); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			b.say("mesh", err)
			time.AfterFunc(retryAfter, b.poke)
		} else {
			b.say("mesh", nil)
		}
		// Half of the time at most goes into this, however much changes.
		if !wait(ctx, time.Since(began)-gather) {
			return nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// poke has the cluster looked at soon.
func (b *Bridge) poke() {
	select {
	case b.poked <- struct{}{}:
	default:
	}
}

// pokeLater has it looked at within lazily: what changes meanwhile is one change.
func (b *Bridge) pokeLater() {
	if b.later.CompareAndSwap(false, true) {
		time.AfterFunc(lazily, func() {
			b.later.Store(false)
			b.poke()
		})
	}
}

func (b *Bridge) drain() {
	select {
	case <-b.poked:
	default:
	}
}

// say logs what is wrong with a subject when that changes.
func (b *Bridge) say(subject string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	b.mu.Lock()
	was := b.problems[subject]
	b.problems[subject] = text
	b.mu.Unlock()
	switch {
	case text == was:
	case text == "":
		b.log.Info("cluster: in order again", "what", subject)
	default:
		b.log.Warn("cluster", "what", subject, "err", text)
	}
}

// watch starts to watch the kinds that the server has and that are not watched yet. The
// error says which are missing.
func (b *Bridge) watch(ctx context.Context, spawn func(func())) error {
	has := map[schema.GroupVersion]map[string]bool{}
	var missing []string
	for _, r := range resources(b.cfg.Certificates != "") {
		b.mu.Lock()
		known := b.watches[r.kind] != nil
		b.mu.Unlock()
		if known {
			continue
		}
		if r.optional {
			if _, asked := has[r.gv()]; !asked {
				call, done := context.WithTimeout(ctx, retryAfter*5)
				served, err := b.c.served(call, r.gv())
				done()
				if err != nil {
					time.AfterFunc(retryAfter, b.poke)
					return fmt.Errorf("ask %s which kinds it has: %w", b.Server(), err)
				}
				has[r.gv()] = served
			}
			if !has[r.gv()][r.plural] {
				missing = append(missing, r.String())
				continue
			}
		}
		if err := b.start(ctx, r, spawn); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the cluster has no %s: install the CRDs of the Gateway API v1.6 and deploy/crds; they are looked for every %s", strings.Join(missing, ", "), lookAgain)
	}
	return nil
}

func (b *Bridge) start(ctx context.Context, r resource, spawn func(func())) error {
	client, err := b.c.group(r.gv())
	if err != nil {
		return err
	}
	w := &watching{cache.NewSharedIndexInformerWithOptions(source(client, r), &object{}, cache.SharedIndexInformerOptions{ObjectDescription: r.String()}), r}
	if err := w.SetTransform(func(v any) (any, error) { return b.keep(r.kind, v), nil }); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	subject := "watch " + r.String()
	if err := w.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { b.say(subject, err) }); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	poke := func() {
		b.say(subject, nil)
		b.poke()
	}
	changed := poke
	if r.lazy {
		changed = func() {
			b.say(subject, nil)
			b.pokeLater()
		}
	}
	_, err = w.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, DeleteFunc: func(any) { changed() },
		UpdateFunc: func(was, is any) {
			if was.(*object).ResourceVersion != is.(*object).ResourceVersion {
				changed()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	b.mu.Lock()
	b.watches[r.kind] = w
	b.mu.Unlock()
	spawn(func() { w.RunWithContext(ctx) })
	spawn(func() {
		cache.WaitForCacheSync(ctx.Done(), w.HasSynced)
		poke()
	})
	return nil
}

// keep is what stays of an object in memory.
func (b *Bridge) keep(kind string, v any) any {
	o, ok := v.(*object)
	if !ok || o.raw == nil {
		return v
	}
	doc, err := kube.Decode(kind, o.raw)
	if err != nil {
		b.log.Error("object of the cluster is left out", "err", err)
		doc = nil
	}
	if s, ok := doc.(*kube.Secret); ok {
		if _, err := tls.X509KeyPair(s.Certificate, s.Key); err != nil {
			s.Problem = "is no certificate with its key: " + err.Error()
		}
	}
	o.raw, o.Annotations, o.doc = nil, nil, doc
	return o
}

// synced reports whether every kind that is watched is known whole.
func (b *Bridge) synced() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.watches) == 0 {
		return false
	}
	for _, w := range b.watches {
		if !w.HasSynced() {
			return false
		}
	}
	return true
}

// pass translates the cluster as it is known, and hands the result on: files, then
// objects, then status, which so never says what is not so yet.
func (b *Bridge) pass(ctx context.Context, to *statusWriter) error {
	in := kube.Input{Cluster: b.cfg.Cluster, Site: b.cfg.Site, Pool: b.cfg.Pool, Given: b.given, Certificates: b.cfg.Certificates, Domain: b.cfg.Domain}
	var err error
	if in.Sites, err = b.mesh.Sites(ctx); err != nil {
		return err
	}
	b.collect(&in)
	out := kube.Translate(&in, time.Now())
	b.given = out.Given
	if err := b.writeFiles(out.Files); err != nil {
		return err
	}
	faults, err := b.mesh.Bring(ctx, b.cfg.Cluster, &out.Objects)
	if err != nil {
		return err
	}
	var texts []error
	for _, f := range faults {
		texts = append(texts, errors.New(f.String()))
	}
	for _, n := range out.Notices {
		texts = append(texts, errors.New(n))
	}
	b.say("objects", errors.Join(texts...))
	b.sweepFiles(out.Files)
	to.hand(writing{
		slices.DeleteFunc(out.Statuses, func(s kube.Status) bool { return !s.Changed }),
		slices.DeleteFunc(out.Redirects, func(r kube.Redirect) bool { return !r.Changed }), out.Stale,
	})
	return nil
}

// collect fills in the objects that are known.
func (b *Bridge) collect(in *kube.Input) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.watches {
		for _, v := range w.GetStore().List() {
			o, ok := v.(*object)
			if !ok {
				continue
			}
			switch d := o.doc.(type) {
			case *kube.Namespace:
				in.Namespaces = append(in.Namespaces, d)
			case *kube.Node:
				in.Nodes = append(in.Nodes, d)
			case *kube.Pod:
				in.Pods = append(in.Pods, d)
			case *kube.Secret:
				in.Secrets = append(in.Secrets, d)
			case *kube.Service:
				in.Services = append(in.Services, d)
			case *kube.EndpointSlice:
				in.Slices = append(in.Slices, d)
			case *kube.GatewayClass:
				in.Classes = append(in.Classes, d)
			case *kube.Gateway:
				in.Gateways = append(in.Gateways, d)
			case *kube.Route:
				in.Routes = append(in.Routes, d)
			case *kube.Grant:
				in.Grants = append(in.Grants, d)
			case *kube.Own:
				in.Own = append(in.Own, d)
			}
		}
	}
}
