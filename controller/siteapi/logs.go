package siteapi

import (
	"context"
	"errors"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// PathLogs is the path of the HTTP API for the ends of logs, VerbLogs the verb on the
// bus, which only the hub may send to other sites.
const (
	PathLogs = "/api/v1/logs"
	VerbLogs = "logs"
)

// LogsRequest asks for the end of a log of one site's controller or of its proxies.
type LogsRequest struct {
	mesh.LogQuery
	// Site is empty for the controller's own.
	Site string `json:"site,omitempty"`
	// Controller asks for the controller's log in place of the proxies'.
	Controller bool `json:"controller,omitempty"`
	// Node is one proxy of the site; empty is all that are not dead.
	Node string `json:"node,omitempty"`
	// After is that of the last answer, by proxy; it stands in place of the query's.
	After map[string]uint64 `json:"afterEach,omitempty"`
}

// Check says what is wrong with the request and fills in the defaults.
func (r *LogsRequest) Check() error {
	err := r.LogQuery.Check()
	if r.Controller && r.Node != "" {
		err = errors.Join(err, errors.New("the controller or a proxy, not both"))
	}
	if r.Controller && r.Log == mesh.LogAccess {
		err = errors.Join(err, errors.New("a controller has no access log: ask the proxies"))
	}
	return err
}

// Logs answers a [LogsRequest]. Writers are keyed by proxy, a controller by "".
type Logs struct {
	// Lines are in the order of their times.
	Lines []mesh.LogLine `json:"lines"`
	// After goes into the next request.
	After map[string]uint64 `json:"after"`
	// Missed counts bytes that were forgotten before they could be asked for.
	Missed map[string]uint64 `json:"missed,omitempty"`
	Silent map[string]string `json:"silent,omitempty"`
	More   bool              `json:"more,omitempty"`
}

// Logs asks for the end of a log.
func (c *Client) Logs(ctx context.Context, r LogsRequest) (*Logs, error) {
	out := new(Logs)
	return out, c.post(ctx, PathLogs, r, out)
}
