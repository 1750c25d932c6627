package siteapi

import (
	"context"
	"errors"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// PathTrace is the path of the HTTP API for requests that are sent, VerbTrace the verb
// on the bus, which only the hub may send to other sites.
const (
	PathTrace = "/api/v1/trace"
	VerbTrace = "trace"
)

// TraceRequest has one proxy send a request.
type TraceRequest struct {
	mesh.TraceQuery
	// Site is empty for the controller's own.
	Site string `json:"site,omitempty"`
	Node string `json:"node"`
}

// Check says what is wrong with the request and fills in the defaults.
func (r *TraceRequest) Check() error {
	if r.Node == "" {
		return errors.New("which proxy is to send it?")
	}
	return r.TraceQuery.Check()
}

// Trace has a proxy send a request.
func (c *Client) Trace(ctx context.Context, r TraceRequest) (*mesh.Traced, error) {
	out := new(mesh.Traced)
	return out, c.post(ctx, PathTrace, r, out)
}
