package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster asks one API server. It is safe for concurrent use.
type Cluster struct {
	base *url.URL
	http *http.Client
	// Name is the cluster's in the kubeconfig.
	Name string
}

// requestTimeout bounds one request.
const requestTimeout = 30 * time.Second

// ErrNoKubeconfig says that nothing names a cluster.
var ErrNoKubeconfig = errors.New("none names a cluster")

// Open finds the API server as kubectl does: by the kubeconfig that is named, else by
// those of KUBECONFIG or ~/.kube/config, else by the service account of the pod that
// this runs in. An empty context is the current one. Nothing is asked yet; a credential
// plugin runs with the first request.
func Open(kubeconfig, kubecontext string) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	// What it would print of a file of KUBECONFIG that is not there goes into the error.
	var missing []string
	rules.Warner = func(err error) { missing = append(missing, err.Error()) }
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubecontext})
	raw, err := loaded.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	c := &Cluster{}
	if kubecontext == "" {
		kubecontext = raw.CurrentContext
	}
	if x := raw.Contexts[kubecontext]; x != nil {
		// client-go would ask as nobody, or say that there is no configuration.
		switch c.Name = x.Cluster; {
		case raw.Clusters[x.Cluster] == nil:
			return nil, fmt.Errorf("kubeconfig: context %s: its cluster %q is not there", kubecontext, x.Cluster)
		case x.AuthInfo != "" && raw.AuthInfos[x.AuthInfo] == nil:
			return nil, fmt.Errorf("kubeconfig: context %s: its user %q is not there", kubecontext, x.AuthInfo)
		}
	}
	cfg, err := loaded.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = ErrNoKubeconfig
		if len(missing) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(missing, "; "))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if c.Name == "" {
		c.Name = cfg.Host
	}
	cfg.UserAgent, cfg.Timeout = "meridian", requestTimeout
	if c.base, _, err = rest.DefaultServerUrlFor(cfg); err != nil {
		return nil, fmt.Errorf("kubeconfig: cluster %s: server: %w", c.Name, err)
	}
	if c.http, err = rest.HTTPClientFor(cfg); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return c, nil
}

// StatusError is an answer of the API server that is no success.
type StatusError struct {
	Code    int
	Message string
}

// Error says the server's own words.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the API server answers %d: %s", e.Code, e.Message)
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

func (c *Cluster) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("cluster %s: %s: %w", c.Name, path, err)
	}
	if res.StatusCode >= 300 {
		var s struct {
			Message string `json:"message"`
			Details struct {
				Causes []struct {
					Message string `json:"message"`
				} `json:"causes"`
			} `json:"details"`
		}
		if json.Unmarshal(data, &s) != nil || s.Message == "" {
			s.Message = http.StatusText(res.StatusCode)
		}
		for _, x := range s.Details.Causes {
			s.Message += "; " + x.Message
		}
		return &StatusError{res.StatusCode, s.Message}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("cluster %s: %s: %w", c.Name, path, err)
	}
	return nil
}
