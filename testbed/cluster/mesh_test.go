//go:build cluster

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// site is a site's controller, which bridges the cluster, and its proxy, both as
// processes in the control plane's network.
type site struct {
	name string
	// gateway is the first address of its pool.
	gateway   string
	stopProxy func() error
}

func (c *cluster) startSite(t *testing.T, bin, name, kubeconfig string, number int, flags ...string) *site {
	t.Helper()
	data := t.TempDir()
	process := func(what string, args ...string) (stop func() error) {
		cmd := c.cmd("exec", args...)
		log := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		stop = owned(t, cmd)
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("%s of site %s: %v", what, name, err)
			}
			if t.Failed() {
				t.Logf("%s of site %s:\n%s", what, name, log)
			}
		})
		return stop
	}
	process("controller", append([]string{
		filepath.Join(bin, "sitecontroller"), "--site", name, "--data", data, "--kube=" + kubeconfig,
		"--listen", fmt.Sprintf("127.0.0.1:%d", 7500+10*number), "--api", fmt.Sprintf("127.0.0.1:%d", 7501+10*number),
		"--kube-addresses", fmt.Sprintf("10.98.%d.0/24", number),
	}, flags...)...)
	var run struct{ NATS, TokenFile string }
	eventually(t, "the controller's run file", func() error {
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &run)
	})
	stop := process("proxy", filepath.Join(bin, "edgeproxy"), "--config", run.NATS, "--site", name, "--nats-token-file", run.TokenFile,
		"--admin", "127.0.0.1:0", "--state-dir", t.TempDir())
	return &site{name: name, gateway: fmt.Sprintf("10.98.%d.1", number), stopProxy: stop}
}

// answer is what became of one request.
type answer struct {
	sent time.Time
	took time.Duration
	// pod is the address of the pod that answered, with status 200.
	pod string
	err error
}

// client asks the gateways.
type client struct{ http http.Client }

func (c *cluster) newClient() *client {
	return &client{http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: c.dial, MaxIdleConnsPerHost: 64}}}
}

// ask sends one request; an answer of a pod names its address first.
func (c *client) ask(ctx context.Context, url string) (a answer) {
	a.sent = time.Now()
	defer func() { a.took = time.Since(a.sent) }()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		a.err = err
		return a
	}
	resp, err := c.http.Do(r)
	if err != nil {
		a.err = err
		return a
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	switch {
	case err != nil:
		a.err = err
	case resp.StatusCode != http.StatusOK:
		a.err = fmt.Errorf("%s: %.100s", resp.Status, body)
	default:
		a.pod, _, _ = strings.Cut(string(body), ":")
	}
	return a
}

// load sends requests at a steady rate, each when it is due, whatever became of those
// before.
type load struct {
	stop func() []answer
}

func (c *cluster) load(t *testing.T, perSecond int, urls ...string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cl := c.newClient()
	var (
		group   sync.WaitGroup
		lock    sync.Mutex
		answers []answer
	)
	group.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			group.Go(func() {
				a := cl.ask(context.Background(), urls[i%len(urls)])
				lock.Lock()
				defer lock.Unlock()
				answers = append(answers, a)
			})
		}
	})
	l := &load{stop: sync.OnceValue(func() []answer {
		cancel()
		group.Wait()
		cl.http.CloseIdleConnections()
		return answers
	})}
	t.Cleanup(func() { l.stop() })
	return l
}

// failed are the answers that were none.
func failed(list []answer) (bad []answer) {
	for _, a := range list {
		if a.err != nil {
			bad = append(bad, a)
		}
	}
	return bad
}

func slowest(list []answer) (d time.Duration) {
	for _, a := range list {
		d = max(d, a.took)
	}
	return d
}

// none fails the test when a request of the list failed.
func none(t *testing.T, what string, list []answer) {
	t.Helper()
	bad := failed(list)
	t.Logf("%s: %d requests, %d failed, the slowest took %s", what, len(list), len(bad), slowest(list).Round(time.Millisecond))
	if len(list) == 0 {
		t.Errorf("%s: no requests", what)
	}
	for i, a := range bad {
		if i == 10 {
			break
		}
		t.Errorf("%s: sent %s, failed after %s: %v", what, a.sent.Format("15:04:05.000"), a.took, a.err)
	}
}

// pod is what the tests want to know of one.
type pod struct{ Name, IP, Node string }

// pods are those of a label that are ready and do not end.
func (c *cluster) pods(t *testing.T, app string) []pod {
	t.Helper()
	ready, _ := c.allPods(t, app)
	return ready
}

// gone waits until those that were to end have.
func (c *cluster) gone(t *testing.T, app string) {
	t.Helper()
	eventually(t, "the end of pods of "+app, func() error {
		if _, ending := c.allPods(t, app); ending > 0 {
			return fmt.Errorf("%d still end", ending)
		}
		return nil
	})
}

func (c *cluster) allPods(t *testing.T, app string) (ready []pod, ending int) {
	t.Helper()
	var o struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *string
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIP      string
				Conditions []struct{ Type, Status string }
			}
		}
	}
	c.get(t, objectPath("v1", "Pod", ""), &o, "labelSelector", "app="+app)
	for _, p := range o.Items {
		if p.Metadata.DeletionTimestamp != nil {
			ending++
			continue
		}
		for _, x := range p.Status.Conditions {
			if x.Type == "Ready" && x.Status == "True" {
				ready = append(ready, pod{p.Metadata.Name, p.Status.PodIP, p.Spec.NodeName})
			}
		}
	}
	return ready, ending
}

// ready waits until that many pods are, and no more.
func (c *cluster) ready(t *testing.T, app string, n int) (list []pod) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d pods of %s", n, app), func() error {
		if list = c.pods(t, app); len(list) != n {
			return fmt.Errorf("%d are ready", len(list))
		}
		return nil
	})
	return list
}

func addresses(list []pod) map[string]bool {
	set := map[string]bool{}
	for _, p := range list {
		set[p.IP] = true
	}
	return set
}

func on(list []pod, node string) (some []pod) {
	for _, p := range list {
		if p.Node == node {
			some = append(some, p)
		}
	}
	return some
}

// answeredBy waits until requests are answered by those pods, all of them, and by
// no others.
func (c *cluster) answeredBy(t *testing.T, url string, list []pod) {
	t.Helper()
	want, cl := addresses(list), c.newClient()
	defer cl.http.CloseIdleConnections()
	eventually(t, url, func() error {
		seen := map[string]bool{}
		for range 20 * len(list) {
			a := cl.ask(t.Context(), url)
			if a.err != nil {
				return a.err
			}
			seen[a.pod] = true
		}
		if !maps.Equal(seen, want) {
			return fmt.Errorf("answered by %v, want %v", slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(want)))
		}
		return nil
	})
}

// condition says how an object's condition differs from what it should be. It must be
// of the object's generation; routes have conditions for each parent.
func (c *cluster) condition(t *testing.T, at, typ, status, reason string) error {
	t.Helper()
	type conditions []struct {
		Type, Status, Reason string
		ObservedGeneration   int64
	}
	var o struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			Conditions conditions
			Parents    []struct{ Conditions conditions }
		}
	}
	c.get(t, at, &o)
	all := o.Status.Conditions
	for _, p := range o.Status.Parents {
		all = append(all, p.Conditions...)
	}
	for _, x := range all {
		if x.Type == typ && x.Status == status && x.Reason == reason && x.ObservedGeneration == o.Metadata.Generation {
			return nil
		}
	}
	return fmt.Errorf("want %s=%s/%s, have %+v", typ, status, reason, all)
}

// version changes with each write to an object.
func (c *cluster) version(t *testing.T, at string) string {
	t.Helper()
	var o struct {
		Metadata struct{ ResourceVersion string }
	}
	c.get(t, at, &o)
	return o.Metadata.ResourceVersion
}

// statusWrites is how many requests to write a status of the Gateway API's objects
// the API server has answered.
func (c *cluster) statusWrites(t *testing.T) (n int) {
	t.Helper()
	b, err := c.api.Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, "apiserver_request_total{") || !strings.Contains(series, `group="gateway.networking.k8s.io"`) || !strings.Contains(series, `subresource="status"`) {
			continue
		}
		count, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		n += int(count)
	}
	return n
}

// nodeReady says whether the control plane believes a node is.
func (c *cluster) nodeReady(t *testing.T, name string) bool {
	t.Helper()
	var o struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	c.get(t, objectPath("v1", "Node", name), &o)
	for _, x := range o.Status.Conditions {
		if x.Type == "Ready" {
			return x.Status == "True"
		}
	}
	return false
}

var errNotYet = errors.New("not yet")
