package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrFenced refuses a write of a controller that somebody took over from: what it
// wants to replace is no longer what it knows.
var ErrFenced = errors.New("bus: another controller of this site has written since")

// Tenure is who runs a site, where several controllers could.
type Tenure struct {
	// Holder is one process, unique.
	Holder string `json:"holder"`
	// Incarnation is that of all generations it makes, and higher than all before.
	Incarnation uint64 `json:"incarnation"`
	// Beat grows with each renewal. Nobody's clock is in it: who waits counts the
	// time in which it does not change by his own.
	Beat uint64 `json:"beat"`
}

// Lease is the one entry by which the controllers of a site agree who runs it. Every
// change replaces a known revision, so of two that try one wins.
type Lease struct {
	kv   jetstream.KeyValue
	site string
}

// OpenLease opens a site's lease and makes it when it is not there.
func (c *Conn) OpenLease(ctx context.Context, site string) (*Lease, error) {
	bucket := "lease_" + Token(site)
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucket, Description: "which controller runs the site", History: 1, Storage: jetstream.MemoryStorage, Replicas: c.replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("bus: open bucket %s: %w", bucket, err)
	}
	return &Lease{kv, site}, nil
}

// Read returns who holds the lease and the revision that says so; zero for nobody.
func (l *Lease) Read(ctx context.Context) (Tenure, uint64, error) {
	e, err := l.kv.Get(ctx, Token(l.site))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Tenure{}, 0, nil
	}
	if err != nil {
		return Tenure{}, 0, fmt.Errorf("bus: read the lease of site %s: %w", l.site, err)
	}
	var t Tenure
	if err := json.Unmarshal(e.Value(), &t); err != nil {
		return Tenure{}, 0, fmt.Errorf("bus: read the lease of site %s: %w", l.site, err)
	}
	return t, e.Revision(), nil
}

// Write replaces what a revision says (0: nothing), or fails with [ErrFenced] when
// that is no longer the newest.
func (l *Lease) Write(ctx context.Context, t Tenure, revision uint64) (uint64, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return 0, fmt.Errorf("bus: %w", err)
	}
	rev, err := l.kv.Update(ctx, Token(l.site), data, revision)
	return rev, fenced("write the lease of site "+l.site, err)
}

// fenced names a lost race.
func fenced(what string, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return fmt.Errorf("%w: %s", ErrFenced, what)
	}
	return fmt.Errorf("bus: %s: %w", what, err)
}
