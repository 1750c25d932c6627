package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

// gathered are the files of a bug report; what could not be had is said in it.
type gathered struct {
	names  []string
	files  map[string][]byte
	absent []string
}

func (r *gathered) add(name string, data []byte) {
	r.names = append(r.names, name)
	r.files[name] = redact(data)
}

// take adds a value as JSON, or why it is not there.
func (r *gathered) take(name string, v any, err error) {
	if err == nil {
		var data []byte
		if data, err = json.MarshalIndent(v, "", "  "); err == nil {
			r.add(name, data)
			return
		}
	}
	r.absent = append(r.absent, name+": "+err.Error())
}

func bugReportCommand(e *env, version string) *cobra.Command {
	var file string
	var proxies []string
	cmd := &cobra.Command{
		Use:   "bug-report -o FILE.tar.gz",
		Short: "Put all that helps to find a fault into one archive, without secrets",
		Long: `Bug-report asks the controller for the status of the mesh, plans, objects and findings
(check), and each --proxy for its state, and writes one archive. Tokens, passwords,
keys, credentials in addresses and values of headers that routes set are taken out.
What could not be had is named in it, so a controller that does not answer is no
reason not to make one. Look at it before you hand it over.`,
		Example: `  meridian --data ./hub bug-report -o report.tar.gz --proxy 127.0.0.1:15000`,
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errUsage{errors.New("into which file? Give -o FILE.tar.gz")}
			}
			r := &gathered{files: map[string][]byte{}}
			r.take("version.json", map[string]string{"meridian": version, "go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH, "taken": time.Now().UTC().Format(time.RFC3339)}, nil)
			r.controller(cmd, e)
			for _, p := range proxies {
				r.proxy(cmd.Context(), p)
			}
			data, err := r.archive()
			if err != nil {
				return err
			}
			if err := store.WriteFile(file, data, 0o600); err != nil {
				return err
			}
			for _, a := range r.absent {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: not in it: %s\n", a)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", file, count(len(r.names), "file"))
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the archive, a `file`")
	cmd.Flags().StringArrayVar(&proxies, "proxy", nil, "admin `address` of a proxy whose state belongs in it; may be given again")
	return cmd
}

func (r *gathered) controller(cmd *cobra.Command, e *env) {
	status, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
	r.take("status.json", status, err)
	weights, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Weights, error) { return c.Weights(ctx) })
	r.take("weights.json", weights, err)
	objects, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
		return c.Get(ctx, siteapi.GetRequest{})
	})
	r.take("objects.json", objects, err)
	checked, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Checked, error) { return c.Check(ctx) })
	r.take("check.json", checked, err)
}

// proxyPaths are what a proxy is asked for.
var proxyPaths = []string{"/readyz?verbose", "/metrics", "/config", "/upstreams", "/weights", "/connections"}

func (r *gathered) proxy(ctx context.Context, address string) {
	folder := "proxy-" + strings.NewReplacer("/", "_", ":", "_").Replace(strings.TrimPrefix(address, "http://")) + "/"
	for _, path := range proxyPaths {
		name := folder + strings.Trim(strings.Map(func(c rune) rune {
			if c == '?' || c == '/' {
				return -1
			}
			return c
		}, path), ".") + ".txt"
		body, err := fetchProxy(ctx, address, path)
		if err != nil {
			r.absent = append(r.absent, name+": "+err.Error())
			continue
		}
		r.add(name, body)
	}
}

// fetchProxy gets a page of a proxy's admin server, whatever its status.
func fetchProxy(ctx context.Context, address, path string) ([]byte, error) {
	client, base := proxyClient(address)
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 16<<20))
}

// archive writes the files, and what is absent, as a compressed tape.
func (r *gathered) archive() ([]byte, error) {
	if len(r.absent) > 0 {
		r.add("absent.txt", []byte(strings.Join(r.absent, "\n")+"\n"))
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for _, name := range r.names {
		data := r.files[name]
		if err := t.WriteHeader(&tar.Header{Name: "meridian-report/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Now()}); err != nil {
			return nil, err
		}
		if _, err := t.Write(data); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

const redacted = "[redacted]"

var (
	// credentials in addresses: scheme://user:password@host.
	inAddress = regexp.MustCompile(`([a-z][a-z0-9+.-]*://)[^/\s"@]+@`)
	// members whose names say that their values are secret, in JSON and in text.
	secretMember = regexp.MustCompile(`(?i)("[^"]*(?:token|secret|password|passwd|credential|authorization|api-?key|private-?key|cookie)[^"]*"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	// header modifiers: {"name": "...", "value": "..."}, whose values may be anything.
	headerValue = regexp.MustCompile(`("name"\s*:\s*"[^"]*"\s*,\s*"value"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	pemBlock    = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----`)
	// seeds of NKeys.
	nkeySeed = regexp.MustCompile(`\bS[ACNOPUX][A-Z2-7]{50,60}\b`)
)

// redact takes secrets out of what goes into a report.
func redact(data []byte) []byte {
	data = inAddress.ReplaceAll(data, []byte("${1}"+redacted+"@"))
	data = secretMember.ReplaceAll(data, []byte(`${1}"`+redacted+`"`))
	data = headerValue.ReplaceAll(data, []byte(`${1}"`+redacted+`"`))
	data = pemBlock.ReplaceAll(data, []byte(redacted))
	return nkeySeed.ReplaceAll(data, []byte(redacted))
}
