package siteapi

import (
	"context"
	"encoding/json"
	"net/url"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/journal"
)

// Paths of the configuration's history.
const (
	PathChanges  = "/api/v1/changes"
	PathRollback = "/api/v1/rollback"
	PathConfig   = "/api/v1/config"
)

// ChangesRequest asks for changes of the configuration; an empty field matches all.
type ChangesRequest struct {
	Owner string
	Key   mesh.Key
}

// OwnerChanges is how far the changes of one owner are known.
type OwnerChanges struct {
	Owner string `json:"owner"`
	// Floor is the oldest revision whose state is known, Revision the newest.
	Floor    uint64 `json:"floor"`
	Revision uint64 `json:"revision"`
}

// Changes answers a [ChangesRequest].
type Changes struct {
	Site string `json:"site"`
	// Owner is whose configuration this controller can roll back.
	Owner   string           `json:"owner"`
	Owners  []OwnerChanges   `json:"owners"`
	Changes []journal.Change `json:"changes"`
}

// Config is what the nodes of a site are to serve.
type Config struct {
	Site string `json:"site"`
	// Origin is who made the snapshot, Generation its number (nil where nothing was ever
	// configured), Published whether the site's nodes can have it. Problem says why it is
	// not what the objects would give.
	Origin     string           `json:"origin,omitempty"`
	Generation *mesh.Generation `json:"generation,omitempty"`
	Published  bool             `json:"published"`
	Problem    string           `json:"problem,omitempty"`
	// Objects are those of the snapshot, Left those that are known here and not in it.
	Objects []Served `json:"objects"`
	Left    []Served `json:"left,omitempty"`
}

// Served is an object, where it comes from and when it was changed last.
type Served struct {
	Key   mesh.Key `json:"key"`
	Owner string   `json:"owner"`
	// Revision is that of the owner's bucket; 0 and a zero At where it is not there any more.
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at"`
	Who      string    `json:"who,omitempty"`
	// Cluster is the Kubernetes cluster that it is brought from.
	Cluster string `json:"cluster,omitempty"`
	// Object is as the nodes get it: of a service that other sites cannot use, with the
	// endpoints here.
	Object json.RawMessage `json:"object,omitempty"`
	// Why says why an object is not served here.
	Why string `json:"why,omitempty"`
}

// RollbackRequest has the objects that the asked controller owns be as they were at a
// revision.
type RollbackRequest struct {
	Revision uint64 `json:"revision"`
	DryRun   bool   `json:"dryRun,omitempty"`
	// At, when not 0, is the newest revision that the caller knows of: when there was
	// another change since, nothing is done.
	At uint64 `json:"at,omitempty"`
}

// RolledBack answers a [RollbackRequest].
type RolledBack struct {
	Result
	// Revision is that of the owner's bucket now.
	Revision uint64 `json:"revision"`
	Owner    string `json:"owner"`
	// Objects are those that change, as they are and as they become.
	Objects []RolledObject `json:"objects"`
	// Skipped are those that changed since but stay as they are.
	Skipped []SkippedObject `json:"skipped,omitempty"`
}

// RolledObject is one object; nil where there is none.
type RolledObject struct {
	Key    mesh.Key        `json:"key"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// SkippedObject is one that a rollback does not touch, and why.
type SkippedObject struct {
	Key mesh.Key `json:"key"`
	Why string   `json:"why"`
}

// Config asks for what the site's nodes are to serve.
func (c *Client) Config(ctx context.Context) (*Config, error) {
	out := new(Config)
	return out, c.get(ctx, PathConfig, nil, out)
}

// Changes asks for the changes of the configuration that are remembered.
func (c *Client) Changes(ctx context.Context, r ChangesRequest) (*Changes, error) {
	q := url.Values{}
	for k, v := range map[string]string{"owner": r.Owner, "kind": r.Key.Kind, "namespace": r.Key.Namespace, "name": r.Key.Name} {
		if v != "" {
			q.Set(k, v)
		}
	}
	out := new(Changes)
	return out, c.get(ctx, PathChanges, q, out)
}

// Rollback goes back to a revision. A result with faults is no error.
func (c *Client) Rollback(ctx context.Context, r RollbackRequest) (*RolledBack, error) {
	out := new(RolledBack)
	return out, c.post(ctx, PathRollback, r, out)
}
