package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// callTimeout bounds one request to JetStream.
	callTimeout = 2 * time.Second
	// lookEvery is how often a reader compares the bucket with what it has: a
	// watch that a server restart ended without a word costs this much, not more.
	lookEvery = 10 * time.Second
	// retryMin and retryMax bound the wait between attempts to set a watch.
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
)

// Snapshots is the bucket that a site's controller writes its snapshots to.
type Snapshots struct {
	kv   jetstream.KeyValue
	conn *Conn
	site string

	mu     sync.Mutex
	fenced bool
	known  uint64 // the newest revision that was read or written
}

// Fence makes [Snapshots.Put] refuse to replace what was not seen before.
func (s *Snapshots) Fence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fenced = true
}

// OpenSnapshots makes the site's snapshot bucket if it is not there. It is kept
// on disk, so that a node's watch survives a restart of the server.
func (c *Conn) OpenSnapshots(ctx context.Context, site string) (*Snapshots, error) {
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: SnapshotBucket(site), History: 1, Storage: jetstream.FileStorage, Replicas: c.replicas,
		Description: "what the nodes of the site serve from",
	})
	if err != nil {
		return nil, fmt.Errorf("bus: open bucket %s: %w", SnapshotBucket(site), err)
	}
	return &Snapshots{kv: kv, conn: c, site: site}, nil
}

// Put makes s the snapshot of its site. The caller orders generations. See also
// [Snapshots.Fence].
func (s *Snapshots) Put(ctx context.Context, snap *mesh.Snapshot) error {
	b, err := mesh.EncodeSnapshot(snap)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	if most := s.conn.nc.MaxPayload(); most > 0 && int64(len(b)) > most {
		return fmt.Errorf("bus: snapshot of site %s has %d bytes, the NATS server takes %d: raise its max_payload or split the configuration", s.site, len(b), most)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var rev uint64
	if s.fenced {
		rev, err = s.kv.Update(ctx, Token(s.site), b, s.known)
	} else {
		rev, err = s.kv.Put(ctx, Token(s.site), b)
	}
	if err != nil {
		return fenced("put snapshot of site "+s.site, err)
	}
	s.known = rev
	return nil
}

// Get returns the snapshot in the bucket, nil when there is none.
func (s *Snapshots) Get(ctx context.Context) (*mesh.Snapshot, error) {
	e, err := s.kv.Get(ctx, Token(s.site))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bus: get snapshot of site %s: %w", s.site, err)
	}
	s.mu.Lock()
	s.known = e.Revision()
	s.mu.Unlock()
	return mesh.DecodeSnapshot(e.Value())
}

// watchKey calls take with the newest entry of a bucket's key and with each that
// follows, one at a time, until ctx ends. It outlives reconnects, restarts of the
// server, and a bucket that does not exist yet. Values may come more than once.
func (c *Conn) watchKey(ctx context.Context, bucket, key string, take func([]byte)) {
	wait := retryMin
	var seen uint64
	for ctx.Err() == nil {
		again := c.reconnected()
		progress, err := c.watchOnce(ctx, bucket, key, &seen, again, take)
		if progress {
			wait = retryMin
		}
		if err != nil && c.Connected() && !errors.Is(err, jetstream.ErrBucketNotFound) && ctx.Err() == nil {
			c.fault(err)
			c.once("watch:"+bucket, "watch set again", "bucket", bucket, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-time.After(wait):
			wait = min(2*wait, retryMax)
		}
	}
}

func (c *Conn) watchOnce(ctx context.Context, bucket, key string, seen *uint64, again <-chan struct{}, take func([]byte)) (bool, error) {
	call, done := context.WithTimeout(ctx, callTimeout)
	kv, err := c.js.KeyValue(call, bucket)
	done()
	if err != nil {
		return false, err
	}
	// The subscription lives as long as its context, so the deadline for setting
	// it is a timer that is stopped once it is set.
	watch, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.AfterFunc(callTimeout, stop)
	w, err := kv.Watch(watch, key, jetstream.IgnoreDeletes())
	timer.Stop()
	if err != nil {
		return false, err
	}
	defer func() { _ = w.Stop() }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	progress := false
	for {
		select {
		case <-ctx.Done():
			return progress, nil
		case <-again:
			return progress, nil
		case e, ok := <-w.Updates():
			if !ok {
				return progress, errors.New("bus: watch ended")
			}
			progress = true
			if e == nil {
				continue
			}
			*seen = e.Revision()
			take(e.Value())
		case <-look.C:
			call, done := context.WithTimeout(ctx, callTimeout)
			e, err := kv.Get(call, key)
			done()
			if err == nil && e.Revision() != *seen {
				return progress, fmt.Errorf("bus: watch of %s stands at revision %d, the bucket at %d", bucket, *seen, e.Revision())
			}
		}
	}
}
