package siteapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/controller/history"
)

// RunFileName is the run file's name in a data folder.
const RunFileName = "run.json"

// maxAnswer bounds what a client reads.
const maxAnswer = 64 << 20

// ReadRunFile reads the run file in a controller's data folder.
func ReadRunFile(dir string) (RunFile, error) {
	path := filepath.Join(dir, RunFileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return RunFile{}, fmt.Errorf("no sitecontroller runs on %s: there is no %s", dir, RunFileName)
	}
	if err != nil {
		return RunFile{}, err
	}
	var r RunFile
	if err := json.Unmarshal(data, &r); err != nil {
		return RunFile{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Client asks one controller. It is safe for concurrent use.
type Client struct {
	base string
	name string
	http http.Client
}

// Dial returns a client for http://host:port or unix:/path. Nothing is connected yet.
func Dial(server string) (*Client, error) {
	c := &Client{base: strings.TrimSuffix(server, "/"), name: server}
	t := &http.Transport{ResponseHeaderTimeout: 20 * time.Second, MaxIdleConnsPerHost: 1}
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		c.base = "http://localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	} else if u, err := url.Parse(server); err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("server %q: want http://host:port or unix:/path", server)
	}
	c.http.Transport = t
	return c, nil
}

// UnreachableError says that no controller answered.
type UnreachableError struct {
	Server string
	Err    error
}

// Error names the server.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no sitecontroller answers at %s: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Status asks how the mesh looks from the site.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	out := new(Status)
	return out, c.get(ctx, PathStatus, nil, out)
}

// Weights asks for the matrix of plans.
func (c *Client) Weights(ctx context.Context) (*Weights, error) {
	out := new(Weights)
	return out, c.get(ctx, PathWeights, nil, out)
}

// History asks for the demand of the last hour.
func (c *Client) History(ctx context.Context) (*History, error) {
	out := new(History)
	return out, c.get(ctx, PathHistory, nil, out)
}

// Past asks when the mesh was looked at, and PastAt how it looked at a time.
func (c *Client) Past(ctx context.Context) (*Past, error) {
	out := new(Past)
	return out, c.get(ctx, PathPast, nil, out)
}

// PastAt returns the last moment that is not after a time, or else the first there is.
func (c *Client) PastAt(ctx context.Context, at time.Time) (*history.Moment, error) {
	out := new(history.Moment)
	return out, c.get(ctx, PathPast, url.Values{"at": {at.Format(time.RFC3339Nano)}}, out)
}

// Traffic asks who talks to whom.
func (c *Client) Traffic(ctx context.Context) (*Traffic, error) {
	out := new(Traffic)
	return out, c.get(ctx, PathFlows, nil, out)
}

// Get asks for objects.
func (c *Client) Get(ctx context.Context, r GetRequest) (*Objects, error) {
	q := url.Values{}
	for k, v := range map[string]string{"kind": r.Kind, "namespace": r.Namespace, "name": r.Name} {
		if v != "" {
			q.Set(k, v)
		}
	}
	out := new(Objects)
	return out, c.get(ctx, PathObjects, q, out)
}

// Apply sets objects. A result with faults is no error.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (*Result, error) {
	out := new(Result)
	return out, c.post(ctx, PathApply, r, out)
}

// Delete removes objects. A result with faults is no error.
func (c *Client) Delete(ctx context.Context, r DeleteRequest) (*Result, error) {
	out := new(Result)
	return out, c.post(ctx, PathDelete, r, out)
}

// CreateToken asks a hub for a token.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (*Token, error) {
	out := new(Token)
	return out, c.post(ctx, PathToken, r, out)
}

// RemoveSite takes a site out of the mesh, at its hub.
func (c *Client) RemoveSite(ctx context.Context, r RemoveRequest) (*Removed, error) {
	out := new(Removed)
	return out, c.post(ctx, PathRemove, r, out)
}

// SetTraffic says what a site is to take. A result with faults is no error.
func (c *Client) SetTraffic(ctx context.Context, r TrafficRequest) (*TrafficResult, error) {
	out := new(TrafficResult)
	return out, c.post(ctx, PathTraffic, r, out)
}

// Explain asks where a request would go.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (*Explained, error) {
	out := new(Explained)
	return out, c.post(ctx, PathExplain, r, out)
}

// Check asks for all that is wrong.
func (c *Client) Check(ctx context.Context) (*Checked, error) {
	out := new(Checked)
	return out, c.get(ctx, PathCheck, nil, out)
}

// Rotate replaces a root or an issuer.
func (c *Client) Rotate(ctx context.Context, r RotateRequest) (*Rotated, error) {
	out := new(Rotated)
	return out, c.post(ctx, PathRotate, r, out)
}

// Pin fixes or frees shares. A result with faults is no error.
func (c *Client) Pin(ctx context.Context, r PinRequest) (*Result, error) {
	out := new(Result)
	return out, c.post(ctx, PathPin, r, out)
}

func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	u := c.base + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req, out)
}

func (c *Client) do(req *http.Request, out any) error {
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return &UnreachableError{c.name, err}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.name, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusUnprocessableEntity:
		if err := json.Unmarshal(data, out); err != nil {
			return fmt.Errorf("%s answers something else than a sitecontroller does: %w", c.name, err)
		}
		return nil
	}
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(data, &e) == nil && e.Error != "" {
		return errors.New(e.Error)
	}
	return fmt.Errorf("%s answers %s: is it a sitecontroller?", c.name, resp.Status)
}
