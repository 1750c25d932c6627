package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Cluster asks one API server. It is safe for concurrent use.
type Cluster struct {
	base  string
	token string
	// user and password are those of HTTP's basic authentication.
	user, password string
	http           *http.Client
	// Name is the cluster's in the kubeconfig.
	Name string
}

// requestTimeout bounds one request.
const requestTimeout = 30 * time.Second

// kubeconfig is the part of a kubeconfig that is understood.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string        `json:"name"`
		Cluster clusterConfig `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string     `json:"name"`
		User userConfig `json:"user"`
	} `json:"users"`
}

type clusterConfig struct {
	Server        string `json:"server"`
	CAFile        string `json:"certificate-authority"`
	CAData        string `json:"certificate-authority-data"`
	TLSServerName string `json:"tls-server-name"`
	Insecure      bool   `json:"insecure-skip-tls-verify"`
	ProxyURL      string `json:"proxy-url"`
}

type userConfig struct {
	Token           string          `json:"token"`
	TokenFile       string          `json:"tokenFile"`
	CertificateFile string          `json:"client-certificate"`
	CertificateData string          `json:"client-certificate-data"`
	KeyFile         string          `json:"client-key"`
	KeyData         string          `json:"client-key-data"`
	Username        string          `json:"username"`
	Password        string          `json:"password"`
	Exec            json.RawMessage `json:"exec"`
	AuthProvider    json.RawMessage `json:"auth-provider"`
	As              string          `json:"as"`
}

// Open makes a client of a kubeconfig in JSON, whose relative paths are from dir. An
// empty name is the current context. Nothing is asked yet.
func Open(config []byte, dir, context string) (*Cluster, error) {
	var k kubeconfig
	if err := json.Unmarshal(config, &k); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	context = cmp.Or(context, k.CurrentContext)
	if context == "" {
		return nil, errors.New("kubeconfig: it has no current context: name one")
	}
	var names []string
	for _, c := range k.Contexts {
		if names = append(names, c.Name); c.Name != context {
			continue
		}
		for _, x := range k.Clusters {
			for _, u := range k.Users {
				if x.Name == c.Context.Cluster && u.Name == c.Context.User {
					return open(x.Name, x.Cluster, u.Name, u.User, dir)
				}
			}
		}
		return nil, fmt.Errorf("kubeconfig: context %s: its cluster %q or user %q is not there", context, c.Context.Cluster, c.Context.User)
	}
	return nil, fmt.Errorf("kubeconfig: there is no context %s; there are: %s", context, strings.Join(names, ", "))
}

func open(name string, c clusterConfig, userName string, u userConfig, dir string) (*Cluster, error) {
	to, err := url.Parse(c.Server)
	if err != nil || to.Scheme != "https" || to.Host == "" {
		return nil, fmt.Errorf("kubeconfig: cluster %s: server %q: want https://host:port", name, c.Server)
	}
	for what, set := range map[string]bool{"exec": len(u.Exec) > 0 && string(u.Exec) != "null", "auth-provider": len(u.AuthProvider) > 0 && string(u.AuthProvider) != "null", "as": u.As != ""} {
		if set {
			return nil, fmt.Errorf("kubeconfig: user %s: %s is not supported: give a user with a token (kubectl create token) or a client certificate", userName, what)
		}
	}
	if c.ProxyURL != "" {
		return nil, fmt.Errorf("kubeconfig: cluster %s: proxy-url is not supported: set HTTPS_PROXY", name)
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, InsecureSkipVerify: c.Insecure} //nolint:gosec // as the kubeconfig says
	ca, err := either(c.CAData, c.CAFile, dir)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: cluster %s: certificate-authority: %w", name, err)
	}
	if ca != nil {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("kubeconfig: cluster %s: certificate-authority holds no PEM certificate", name)
		}
	}
	certificate, err := either(u.CertificateData, u.CertificateFile, dir)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: user %s: client-certificate: %w", userName, err)
	}
	key, err := either(u.KeyData, u.KeyFile, dir)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: user %s: client-key: %w", userName, err)
	}
	if certificate != nil || key != nil {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig: user %s: client certificate: %w", userName, err)
		}
		tc.Certificates = []tls.Certificate{pair}
	}
	token := u.Token
	if u.TokenFile != "" {
		data, err := os.ReadFile(within(dir, u.TokenFile))
		if err != nil {
			return nil, fmt.Errorf("kubeconfig: user %s: tokenFile: %w", userName, err)
		}
		token = strings.TrimSpace(string(data))
	}
	return &Cluster{
		Name: name, base: strings.TrimSuffix(c.Server, "/"), token: token, user: u.Username, password: u.Password,
		http: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tc, ForceAttemptHTTP2: true}},
	}, nil
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// either is what stands in a kubeconfig itself in base64, else a file's content; nil
// for none.
func either(data, file, dir string) ([]byte, error) {
	switch {
	case data != "":
		return base64.StdEncoding.DecodeString(data)
	case file != "":
		return os.ReadFile(within(dir, file))
	}
	return nil, nil
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
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "meridian")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case c.token != "":
		req.Header.Set("Authorization", "Bearer "+c.token)
	case c.user != "":
		req.SetBasicAuth(c.user, c.password)
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
