package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// statusWriters is how many statuses are written at a time.
	statusWriters = 8
	statusTimeout = 5 * time.Second
)

// writing is what is to be written to the cluster.
type writing struct {
	statuses  []kube.Status
	redirects []kube.Redirect
	stale     []kube.Meta
}

// statusWriter writes the newest statuses there are, and EndpointSlices, while it holds
// the lease.
type statusWriter struct {
	bridge     *Bridge
	lease      *elector
	next       chan writing
	redirected map[string]redirected // by namespace/name

	mu sync.Mutex
	// written are the versions of objects for which a status was written: until the
	// watch brings what became of it there is nothing to say.
	written map[mesh.Key]string
}

// hand gives the writer what is to be written; what still waits there is older.
func (w *statusWriter) hand(list writing) {
	select {
	case <-w.next:
	default:
	}
	w.next <- list
}

func (w *statusWriter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case list := <-w.next:
			if w.lease.leads() {
				err := w.redirects(ctx, list.redirects, list.stale)
				w.bridge.say("EndpointSlices", err)
				if err != nil && ctx.Err() == nil {
					time.AfterFunc(retryAfter, w.bridge.poke)
				}
				w.bridge.say("status", w.write(ctx, list.statuses))
			}
		}
	}
}

// write writes a list, or the beginning of it if a newer one comes.
func (w *statusWriter) write(ctx context.Context, list []kube.Status) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var first error
	slots := make(chan struct{}, statusWriters)
	w.forget(list)
	for _, s := range list {
		if ctx.Err() != nil || len(w.next) > 0 || !w.lease.leads() {
			break
		}
		key := mesh.Key{Kind: s.Kind, Namespace: s.Meta.Namespace, Name: s.Meta.Name}
		w.mu.Lock()
		done := w.written[key] == s.Meta.Version
		w.mu.Unlock()
		if done {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := w.one(ctx, key, s); err != nil {
				mu.Lock()
				first = cmp.Or(first, err)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if first != nil && ctx.Err() == nil {
		time.AfterFunc(retryAfter, w.bridge.poke)
	}
	return first
}

// forget drops what is known of objects whose status is as it is to be.
func (w *statusWriter) forget(list []kube.Status) {
	open := map[mesh.Key]bool{}
	for _, s := range list {
		open[mesh.Key{Kind: s.Kind, Namespace: s.Meta.Namespace, Name: s.Meta.Name}] = true
	}
	w.mu.Lock()
	maps.DeleteFunc(w.written, func(k mesh.Key, _ string) bool { return !open[k] })
	w.mu.Unlock()
}

func (w *statusWriter) one(ctx context.Context, key mesh.Key, s kube.Status) error {
	ctx, done := context.WithTimeout(ctx, statusTimeout)
	defer done()
	err := w.bridge.c.patchStatus(ctx, w.bridge.kinds[s.Kind], s.Meta, s.Want)
	switch {
	case apierrors.IsNotFound(err):
		return nil // it went meanwhile
	case apierrors.IsConflict(err):
		return nil // it changed meanwhile: the watch brings it, and another status is made
	case err != nil:
		return fmt.Errorf("status of %s: %w", key, err)
	}
	w.mu.Lock()
	w.written[key] = s.Meta.Version
	w.mu.Unlock()
	return nil
}
