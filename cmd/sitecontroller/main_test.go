package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// TestMain lets the test binary be the program itself: a real process that can
// be killed.
func TestMain(m *testing.M) {
	if os.Getenv("SITECONTROLLER_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

type process struct {
	t   *testing.T
	cmd *exec.Cmd
	err *bytes.Buffer
	run siteapi.RunFile
	api *siteapi.Client

	once sync.Once
	end  error
}

func command(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe, args...), err: &bytes.Buffer{}}
	p.cmd.Env = append(os.Environ(), "SITECONTROLLER_MAIN=1")
	p.cmd.Stderr = p.err
	return p
}

// launch starts a controller and returns when its run file is there.
func launch(t *testing.T, data string, args ...string) *process {
	t.Helper()
	p := command(t, append([]string{"--data", data}, args...)...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.signal(syscall.SIGKILL) })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if r, err := siteapi.ReadRunFile(data); err == nil && r.PID == p.cmd.Process.Pid {
			p.run = r
			break
		}
		if time.Now().After(end) {
			p.signal(syscall.SIGKILL)
			t.Fatalf("no run file:\n%s", p.err)
		}
	}
	var err error
	if p.api, err = siteapi.Dial(p.run.API); err != nil {
		t.Fatal(err)
	}
	return p
}

// signal sends a signal and returns how the process ended.
func (p *process) signal(s syscall.Signal) error {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(s)
		p.end = p.cmd.Wait()
	})
	return p.end
}

func (p *process) status() *siteapi.Status {
	p.t.Helper()
	ctx, done := context.WithTimeout(p.t.Context(), 5*time.Second)
	defer done()
	st, err := p.api.Status(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(d)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

const config = `apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: north}
spec: {location: {type: Point, coordinates: [0, 0]}}
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKilledAndStartedAgain(t *testing.T) {
	data := t.TempDir()
	p := launch(t, data, "--site", "north", "--config", write(t, config))
	within(t, 5*time.Second, "publication", func() bool { return p.status().Self.Published })
	before := p.status().Self
	node, err := bus.DialNode(bus.Options{URL: p.run.NATS, TokenFile: p.run.TokenFile}, "north")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	snaps := make(chan mesh.Generation, 64)
	_ = node.WatchSnapshots(t.Context(), "north", func(s *mesh.Snapshot, err error) {
		if err == nil {
			snaps <- s.Generation
		}
	})
	// Killed while it stores one change after the other.
	ctx, stop := context.WithCancel(t.Context())
	stored := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			doc := strings.Replace(config, "[0, 0]", "["+string(rune('1'+n%8))+", 0]", 1)
			r, err := p.api.Apply(ctx, siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "x", YAML: doc}}})
			if err != nil || len(r.Faults) > 0 {
				break
			}
		}
		stored <- n
	}()
	time.Sleep(300 * time.Millisecond)
	if err := p.signal(syscall.SIGKILL); err == nil {
		t.Fatal("a killed process ended well")
	}
	stop()
	n := <-stored
	if n == 0 {
		t.Fatal("no change was stored before the kill")
	}
	var high mesh.Generation
	for len(snaps) > 0 {
		if g := <-snaps; g.Compare(high) > 0 {
			high = g
		}
	}
	begin := time.Now()
	p = launch(t, data, "--site", "north", "--listen", strings.TrimPrefix(p.run.NATS, "nats://"))
	t.Logf("serves again %s after the start, %d changes stored", time.Since(begin), n)
	within(t, 5*time.Second, "publication", func() bool { return p.status().Self.Published })
	st := p.status().Self
	if st.Generation.Incarnation != before.Generation.Incarnation || st.Generation.Compare(high) < 0 || st.Objects != 1 {
		t.Errorf("generation %s with %d objects, a node had seen %s", st.Generation, st.Objects, high)
	}
	within(t, 5*time.Second, "the node to have it", func() bool {
		for len(snaps) > 0 {
			if <-snaps == *st.Generation {
				return true
			}
		}
		return high == *st.Generation
	})
}

func TestStopsInOrder(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		data := t.TempDir()
		p := launch(t, data, "--site", "north", "--hub")
		if p.run.Leaf == "" || p.run.HubCA == "" {
			t.Errorf("run file of a hub: %+v", p.run)
		}
		if err := p.signal(sig); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, p.err)
		}
		if _, err := os.Stat(filepath.Join(data, siteapi.RunFileName)); !os.IsNotExist(err) {
			t.Errorf("%v: the run file stays: %v", sig, err)
		}
		for line := range strings.Lines(p.err.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("log line is no JSON: %s", line)
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"help", []string{"--help"}, 0, "Examples:"},
		{"version", []string{"--version"}, 0, "sitecontroller dev"},
		{"nothing", nil, 2, "--data is needed"},
		{"unknown flag", []string{"--bogus"}, 2, "bogus"},
		{"stray word", []string{"--site", "a", "--data", "x", "word"}, 2, `"word" is not a flag`},
		{"bad name", []string{"--site", "Bad", "--data", "x"}, 2, "not a name"},
		{"leaf without files", []string{"--site", "a", "--data", "x", "--hub-url", "tls://h:1"}, 2, "join with a token"},
		{"no site", []string{"--data", "x"}, 2, "meridian join"},
		{"leaf listen", []string{"--site", "a", "--data", "x", "--leaf-listen", ":1"}, 2, "are for --hub"},
		{"kube flag alone", []string{"--site", "a", "--data", "x", "--kube-cluster", "c"}, 2, "are for --kube"},
		{"bad pool", []string{"--site", "a", "--data", "x", "--kube", "--kube-addresses", "10.0.0.0/99"}, 2, "neither an address nor a network"},
		{"bad cluster", []string{"--site", "a", "--data", "x", "--kube", "--kube-cluster", "C 1"}, 2, "not a name"},
		{"bad domain", []string{"--site", "a", "--data", "x", "--kube", "--kube-domain", "cluster.local."}, 2, "is not a domain"},
		{"missing kubeconfig", []string{"--site", "a", "--data", t.TempDir(), "--kube=/nonexistent.kubeconfig"}, 1, "/nonexistent.kubeconfig"},
		{"log format", []string{"--site", "a", "--data", "x", "--log-format", "xml"}, 2, "want auto, text or json"},
		{"missing config", []string{"--site", "a", "--data", "x", "--config", "/nonexistent.yaml"}, 1, "/nonexistent.yaml"},
		{"broken config", []string{"--site", "a", "--data", "x", "--config", write(t, "kind: Sitee\n")}, 1, "mesh.yaml:1:"},
		{"hub's own domain", []string{"--site", "hub", "--data", t.TempDir()}, 1, "another name"},
		{"missing CA", []string{"--site", "a", "--data", t.TempDir(), "--hub-url", "tls://h:1", "--hub-ca", "/none", "--hub-key", "/none"}, 1, "hub's CA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, err bytes.Buffer
			if got := run(c.args, strings.NewReader(""), &out, &err); got != c.code {
				t.Errorf("exit code %d, want %d\n%s%s", got, c.code, &out, &err)
			}
			if text := out.String() + err.String(); !strings.Contains(text, c.want) {
				t.Errorf("want %q in\n%s", c.want, text)
			}
			if c.code != 0 && out.Len() > 0 {
				t.Errorf("an error on standard output: %s", &out)
			}
		})
	}
}
