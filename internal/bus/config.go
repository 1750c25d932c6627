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

// ErrReadOnly is returned for a write through a mirror: it would go to the hub
// over a link that may be down, and come back seconds later or never.
var ErrReadOnly = errors.New("bus: this bucket is a mirror of the hub's: write at the hub")

// ErrHubBehind says that the hub's bucket is older than the mirror: the hub lost
// its data or is another one. The mirror stands, because following would delete
// what the site serves from; which of the two is right is a person's decision.
var ErrHubBehind = errors.New("bus: the hub has lost configuration that this site has: restore the hub's data folder, or stop this site and remove KV_" + HubBucket + " below nats/ and hub-ahead.json in its data folder to follow the hub as it is")

// Entry is one object of a configuration bucket, or that it is gone.
type Entry struct {
	Key mesh.Key
	// Value is nil when the object was deleted.
	Value []byte
	// Revision orders the entries of one bucket. A mirror keeps its origin's.
	Revision uint64
	// At is when it was written, by the clock of the bucket's server.
	At time.Time
}

// Incarnation is the kind of the one entry of a bucket that is no object: a bucket
// that was restored from a backup has it as its last, with the first revision that
// the restored content has. What is older and was not written again is gone.
const Incarnation = "Incarnation"

// IncarnationKey is where that entry is.
var IncarnationKey = mesh.Key{Kind: Incarnation, Namespace: mesh.DefaultNamespace, Name: "bucket"}

// revisionGap is what a restored bucket's revisions are rounded up to, so that they
// are above whatever was written after the backup: two restores and a million
// changes apart. A mirror books each revision that it skips, so more would cost it.
const revisionGap = 1 << 20

// NextRevisions is the first revision of a bucket that is restored from a backup
// taken at a revision.
func NextRevisions(high uint64) uint64 { return (high/revisionGap + 1) * revisionGap }

// Config is a bucket of configuration. Its methods are safe for concurrent use.
type Config struct {
	conn   *Conn
	kv     jetstream.KeyValue
	bucket string
	mirror bool

	mu   sync.Mutex
	seen map[mesh.Key]uint64
	take func(Entry)
	// high is the highest revision seen.
	high uint64
}

// OpenHubConfig opens the hub's bucket for its one writer, the hub, and makes it
// if it is not there.
func (c *Conn) OpenHubConfig(ctx context.Context) (*Config, error) {
	return c.openOwn(ctx, HubBucket, "configuration owned by the hub")
}

// OpenSiteConfig opens the bucket of what the site itself owns, and makes it if
// it is not there.
func (c *Conn) OpenSiteConfig(ctx context.Context, site string) (*Config, error) {
	return c.openOwn(ctx, SiteBucket(site), "configuration owned by site "+site)
}

func (c *Conn) openOwn(ctx context.Context, bucket, why string) (*Config, error) {
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucket, Description: why, History: 1, Storage: jetstream.FileStorage, Replicas: c.replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("bus: open bucket %s: %w", bucket, err)
	}
	return &Config{conn: c, kv: kv, bucket: bucket, seen: map[mesh.Key]uint64{}}, nil
}

// RestoreConfig makes a bucket anew that the hub (or else the site) lost, with
// revisions from first on, and opens it. A bucket that is there already is left as
// it is.
func (c *Conn) RestoreConfig(ctx context.Context, site string, hub bool, first uint64) error {
	bucket := SiteBucket(site)
	if hub {
		bucket = HubBucket
	}
	if _, err := c.js.Stream(ctx, "KV_"+bucket); err == nil {
		return nil
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("bus: restore bucket %s: %w", bucket, err)
	}
	// As the client makes a bucket, but for the first revision, which it cannot say.
	_, err := c.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, FirstSeq: first,
		MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage, Replicas: c.replicas, Discard: jetstream.DiscardNew,
		Duplicates: 2 * time.Minute, AllowRollup: true, DenyDelete: true, AllowDirect: true, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
	})
	if err != nil {
		return fmt.Errorf("bus: restore bucket %s: %w", bucket, err)
	}
	return nil
}

// ReadHubConfig opens the hub's bucket for reading where hub and site share one
// JetStream (external NATS). It fails until the hub has made it.
func (c *Conn) ReadHubConfig(ctx context.Context) (*Config, error) {
	kv, err := c.js.KeyValue(ctx, HubBucket)
	if err != nil {
		return nil, fmt.Errorf("bus: open bucket %s: %w", HubBucket, err)
	}
	return &Config{conn: c, kv: kv, bucket: HubBucket, mirror: true, seen: map[mesh.Key]uint64{}}, nil
}

// MirrorHubConfig opens this site's own copy of the hub's bucket: it can be read
// while the hub is away, and follows by itself.
func (c *Conn) MirrorHubConfig(ctx context.Context) (*Config, error) {
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: HubBucket, Description: "mirror of the hub's configuration", History: 1, Storage: jetstream.FileStorage,
		// Without an explicit start, a copy that had nothing yet when it was cut
		// off asks for what came after its last attempt and misses the rest for ever.
		Mirror: &jetstream.StreamSource{Name: HubBucket, Domain: HubDomain, OptStartSeq: 1},
	})
	if err != nil {
		return nil, fmt.Errorf("bus: mirror bucket %s: %w", HubBucket, err)
	}
	return &Config{conn: c, kv: kv, bucket: HubBucket, mirror: true, seen: map[mesh.Key]uint64{}}, nil
}

// PurgeSite deletes the buckets of a site, where all sites share one JetStream, and
// returns the names of those that were there.
func (c *Conn) PurgeSite(ctx context.Context, site string) ([]string, error) {
	var purged []string
	for _, bucket := range []string{SiteBucket(site), SnapshotBucket(site)} {
		switch err := c.js.DeleteKeyValue(ctx, bucket); {
		case err == nil:
			purged = append(purged, bucket)
		case !errors.Is(err, jetstream.ErrBucketNotFound):
			return purged, fmt.Errorf("bus: delete bucket %s: %w", bucket, err)
		}
	}
	return purged, nil
}

// Revision is what a writer believes to be the newest of an object; 0 that there
// never was one.
type Revision int64

// AnyRevision is for a bucket's only writer.
const AnyRevision Revision = -1

// Put stores an object in place of what known says, else it fails with
// [ErrFenced], and returns its revision.
func (b *Config) Put(ctx context.Context, key mesh.Key, value []byte, known Revision) (rev uint64, err error) {
	if b.mirror {
		return 0, ErrReadOnly
	}
	if known == AnyRevision {
		rev, err = b.kv.Put(ctx, objectKey(key), value)
	} else {
		rev, err = b.kv.Update(ctx, objectKey(key), value, uint64(known))
	}
	return rev, fenced(fmt.Sprintf("put %s in %s", key, b.bucket), err)
}

// Delete removes an object, as [Config.Put] replaces it, and returns the revision
// that says so. One that is not there is no error.
func (b *Config) Delete(ctx context.Context, key mesh.Key, known Revision) (uint64, error) {
	if b.mirror {
		return 0, ErrReadOnly
	}
	var opts []jetstream.KVDeleteOpt
	if known != AnyRevision {
		opts = append(opts, jetstream.LastRevision(uint64(known)))
	}
	if err := b.kv.Delete(ctx, objectKey(key), opts...); err != nil {
		return 0, fenced(fmt.Sprintf("delete %s from %s", key, b.bucket), err)
	}
	// The client does not tell the marker's revision; there is one writer, so the
	// bucket's last one is it or later.
	last, err := b.last(ctx, b.conn.js)
	if err != nil {
		return 0, fmt.Errorf("bus: delete %s from %s: %w", key, b.bucket, err)
	}
	return last, nil
}

// Watch calls take with each object of the bucket and then with each change,
// one at a time, until ctx ends. It returns when all that the bucket held was
// taken, or with the reason why that could not be done before ctx ended.
func (b *Config) Watch(ctx context.Context, take func(Entry)) error {
	b.mu.Lock()
	b.take = take
	b.mu.Unlock()
	ready := make(chan struct{})
	go b.follow(ctx, ready)
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Config) follow(ctx context.Context, ready chan struct{}) {
	wait := retryMin
	for ctx.Err() == nil {
		again := b.conn.reconnected()
		progress, err := b.followOnce(ctx, ready, again)
		if progress {
			wait = retryMin
		}
		if err != nil && b.conn.Connected() && ctx.Err() == nil {
			b.conn.fault(err)
			b.conn.once("watch:"+b.bucket, "watch set again", "bucket", b.bucket, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-time.After(wait):
			wait = min(2*wait, retryMax)
		}
	}
}

func (b *Config) followOnce(ctx context.Context, ready chan struct{}, again <-chan struct{}) (bool, error) {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.AfterFunc(callTimeout, stop)
	w, err := b.kv.WatchAll(watch)
	timer.Stop()
	if err != nil {
		return false, err
	}
	defer func() { _ = w.Stop() }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var high uint64 // of this watch
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
				select {
				case <-ready:
				default:
					close(ready)
				}
				continue
			}
			high = max(high, e.Revision())
			b.offer(e)
		case <-look.C:
			call, done := context.WithTimeout(ctx, callTimeout)
			last, err := b.last(call, b.conn.js)
			done()
			if err == nil && last > high {
				return progress, fmt.Errorf("bus: watch of %s stands at revision %d, the bucket at %d", b.bucket, high, last)
			}
		}
	}
}

// offer hands an entry on unless a newer one of its key was already taken:
// the mirror and a [Config.Refresh] tell the same story at their own pace.
func (b *Config) offer(e jetstream.KeyValueEntry) (Entry, bool) {
	key, err := keyObject(e.Key())
	if err != nil {
		b.conn.faults.Add(1)
		b.conn.once("key:"+e.Key(), "configuration entry refused", "bucket", b.bucket, "err", err)
		return Entry{}, false
	}
	out := Entry{Key: key, Revision: e.Revision(), At: e.Created()}
	if e.Operation() == jetstream.KeyValuePut {
		out.Value = e.Value()
	}
	b.tell(out)
	return out, true
}

func (b *Config) tell(e Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.take == nil { // nobody watches yet: who does will hear it, also from Refresh
		return
	}
	b.high = max(b.high, e.Revision)
	if e.Revision <= b.seen[e.Key] {
		return
	}
	b.seen[e.Key] = e.Revision
	b.take(e)
}

func (b *Config) last(ctx context.Context, js jetstream.JetStream) (uint64, error) {
	s, err := js.Stream(ctx, "KV_"+b.bucket)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}

// Refresh reads the hub's bucket itself and hands what is newer than the mirror
// to the watcher, so that a site is up to date as soon as its link is, while the
// mirror backs off (40 s and more after a cut of a minute). It returns what the
// mirror has not got yet, which a restart would miss. With full it reads all, be
// the mirror's revision what it may. ctx must have a deadline:
// without a link nobody answers. See [ErrHubBehind].
func (b *Config) Refresh(ctx context.Context, full bool) (ahead []Entry, err error) {
	js, err := jetstream.NewWithDomain(b.conn.nc, HubDomain)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	last, err := b.last(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("bus: ask the hub for %s: %w", b.bucket, err)
	}
	have := b.High()
	if last < have {
		return nil, fmt.Errorf("%w: it is at revision %d, this site's copy at %d", ErrHubBehind, last, have)
	}
	mirrored, err := b.last(ctx, b.conn.js)
	if err != nil {
		return nil, fmt.Errorf("bus: state of bucket %s: %w", b.bucket, err)
	}
	if last == have && last <= mirrored && !full {
		return nil, nil
	}
	kv, err := js.KeyValue(ctx, b.bucket)
	if err != nil {
		return nil, fmt.Errorf("bus: open the hub's %s: %w", b.bucket, err)
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("bus: read the hub's %s: %w", b.bucket, err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return nil, fmt.Errorf("bus: the hub's %s ended while it was read", b.bucket)
			}
			if e == nil {
				return ahead, nil
			}
			if out, ok := b.offer(e); ok && out.Revision > mirrored {
				ahead = append(ahead, out)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("bus: read the hub's %s: %w", b.bucket, ctx.Err())
		}
	}
}

// Recall hands entries that an earlier run got from [Config.Refresh] to the
// watcher; what is known to be newer stands.
func (b *Config) Recall(entries []Entry) {
	for _, e := range entries {
		b.tell(e)
	}
}

// High is the highest revision that was seen of the bucket.
func (b *Config) High() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.high
}

// MirrorState says how the mirror stands to the hub's bucket.
type MirrorState struct {
	// Lag is how many revisions the mirror knows that it misses; Active is how
	// long ago it last heard from the hub, negative when never.
	Lag    uint64
	Active time.Duration
}

// Mirror returns how a mirror stands; zero for a bucket that is none.
func (b *Config) Mirror(ctx context.Context) (MirrorState, error) {
	s, err := b.conn.js.Stream(ctx, "KV_"+b.bucket)
	if err != nil {
		return MirrorState{}, fmt.Errorf("bus: state of bucket %s: %w", b.bucket, err)
	}
	m := s.CachedInfo().Mirror
	if m == nil {
		return MirrorState{}, nil
	}
	return MirrorState{Lag: m.Lag, Active: m.Active}, nil
}
