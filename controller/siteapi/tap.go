package siteapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Paths of the HTTP API for requests as they end, and verbs on the bus. Only the hub
// may send [VerbTap] and [VerbFailed] to other sites, since what is said there of
// users' requests is the site's own; [VerbRequest] any site may send, for a request
// whose ID it knows.
const (
	PathTap    = "/api/v1/tap"
	PathFailed = "/api/v1/failed"

	VerbTap     = "tap"
	VerbFailed  = "failed"
	VerbRequest = "request"
)

// MinRequestID is how long an ID is at least by which another site is asked: shorter
// ones could be guessed.
const MinRequestID = 16

// Where says which proxies are asked.
type Where struct {
	// Site is one site; empty is the controller's own.
	Site string `json:"site,omitempty"`
	// All asks every site that can be reached.
	All bool `json:"all,omitempty"`
	// Node is one proxy of the site; empty is all that are not dead.
	Node string `json:"node,omitempty"`
}

// Check says what cannot be meant.
func (w *Where) Check() error {
	if w.All && (w.Site != "" || w.Node != "") {
		return errors.New("all sites, or one site or proxy, not both")
	}
	return nil
}

// TapRequest asks the proxies of one or of all sites for the requests of a tap. It
// goes on as long as it is asked again within [mesh.TapLease].
type TapRequest struct {
	mesh.TapQuery
	Where
	// After is that of the last answer; it stands in place of the query's.
	After map[string]uint64 `json:"afterEach,omitempty"`
}

// Check says what is wrong with the request and fills in the defaults.
func (r *TapRequest) Check() error { return errors.Join(r.TapQuery.Check(), r.Where.Check()) }

// Tapped answers a [TapRequest]. Proxies are keyed "site/node", silent sites "site".
type Tapped struct {
	Requests []mesh.EndedRequest `json:"requests"`
	// After goes into the next request. Proxies that are named in it are tapped.
	After map[string]uint64 `json:"after"`
	// Dropped counts for each proxy what was over the rate, since the tap is on.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	// Silent says who did not answer, and why.
	Silent map[string]string `json:"silent,omitempty"`
	More   bool              `json:"more,omitempty"`
}

// Add takes in what another site answered.
func (t *Tapped) Add(o *Tapped) {
	t.Requests, t.More = append(t.Requests, o.Requests...), t.More || o.More
	for k, v := range o.After {
		t.After[k] = v
	}
	for k, v := range o.Dropped {
		if t.Dropped == nil {
			t.Dropped = map[string]uint64{}
		}
		t.Dropped[k] = v
	}
	for k, v := range o.Silent {
		if t.Silent == nil {
			t.Silent = map[string]string{}
		}
		t.Silent[k] = v
	}
}

// Sort brings the requests into the order in which they ended, as far as the sites'
// clocks agree.
func (t *Tapped) Sort() {
	ended := func(e *mesh.EndedRequest) time.Time {
		return e.Time.Add(time.Duration(e.DurationMS * float64(time.Millisecond)))
	}
	slices.SortStableFunc(t.Requests, func(a, b mesh.EndedRequest) int { return ended(&a).Compare(ended(&b)) })
}

// FailedRequest asks for requests that failed or took long.
type FailedRequest struct {
	mesh.FailedQuery
	Where
}

// Check says what is wrong with the request and fills in the defaults.
func (r *FailedRequest) Check() error { return errors.Join(r.FailedQuery.Check(), r.Where.Check()) }

// Failed answers a [FailedRequest], by proxy.
type Failed struct {
	Nodes  []mesh.FailedAnswer `json:"nodes"`
	Silent map[string]string   `json:"silent,omitempty"`
}

// RequestQuery is the body of [VerbRequest]: one of the two, and its ID.
type RequestQuery struct {
	Tap    *TapRequest    `json:"tap,omitempty"`
	Failed *FailedRequest `json:"failed,omitempty"`
}

// Check says why another site may not ask this.
func (q *RequestQuery) Check() error {
	var id string
	switch {
	case q.Tap != nil && q.Failed == nil:
		id = q.Tap.Filter.ID
	case q.Failed != nil && q.Tap == nil:
		id = q.Failed.ID
	}
	if len(id) < MinRequestID {
		return fmt.Errorf("another site may ask for a request by its ID alone, of %d bytes or more; only the hub may ask for others", MinRequestID)
	}
	return nil
}

// Tap asks for the requests of a tap.
func (c *Client) Tap(ctx context.Context, r TapRequest) (*Tapped, error) {
	out := new(Tapped)
	return out, c.post(ctx, PathTap, r, out)
}

// Failed asks for requests that failed or took long.
func (c *Client) Failed(ctx context.Context, r FailedRequest) (*Failed, error) {
	out := new(Failed)
	return out, c.post(ctx, PathFailed, r, out)
}
