//go:build root

package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// controller starts a site's controller on the node and returns its data folder and
// the flags with which an agent asks it.
func (s *site) controller(binary string) (end func(), data string, flags []string) {
	s.t.Helper()
	data = filepath.Join(s.dir, "site")
	run := filepath.Join(data, "run.json")
	if err := os.Remove(run); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	cmd := exec.Command(binary, "--site", "edge-site", "--data", data, "--listen", "127.0.0.1:4222")
	log, err := os.OpenFile(filepath.Join(s.dir, "controller"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.node.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	end = func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended meanwhile
			_ = cmd.Wait()
		}
	}
	s.t.Cleanup(func() {
		end()
		if s.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			s.t.Logf("log of the controller:\n%s", text)
		}
	})
	var found struct{ Nats, TokenFile, TrustKey string }
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(run)
		if err == nil && json.Unmarshal(text, &found) == nil && found.Nats != "" {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the controller does not run: %v %s", err, text)
		}
	}
	return end, data, []string{
		"--config", found.Nats, "--site", "edge-site", "--nats-token-file", found.TokenFile, "--trust-key", found.TrustKey,
		"--state-dir", s.dir,
	}
}

// What is applied at the controller reaches the agent; what the agent cannot serve
// it refuses, and takes as soon as it can; without the controller it starts with
// what it had.
func TestRootController(t *testing.T) {
	s := newSite(t, 2)
	s.interval = "1s" // a busy machine must not look like a dead router
	meridian, sitecontroller := s.build("meridian"), s.build("sitecontroller")
	end, data, flags := s.controller(sitecontroller)
	s.launch(flags...)
	s.until("the agent waits for chains", func(st *Status) bool {
		return !st.Ready && st.Configuration != nil && st.Configuration.Connected != nil && *st.Configuration.Connected
	})
	apply := func(wait string) (string, error) {
		return s.node.Run(t.Context(), meridian, "chain", "apply", "-f", filepath.Join(s.dir, "chains.yaml"), "--data", data, "--agent", "http://127.0.0.1:15010", "--wait", wait)
	}
	s.write(1, []int{0})
	if out, err := apply("20s"); err != nil || !strings.Contains(out, "chain default/web is in force on node edge: 1 path, ok") {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	// The controller knows the agent, and what it says.
	said := func(want string) {
		t.Helper()
		var out string
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			out, _ = s.node.Run(t.Context(), meridian, "--data", data, "status")
			if strings.Contains(out, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("status does not say %q:\n%s", want, out)
			}
		}
	}
	said("node edge-site/chainagent edge: 1 chain with 2 paths, 1 of 1 instance up")
	stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 2*time.Millisecond)

	// One function more, whose port is not there yet.
	s.node.IP("link set f2r down")
	s.node.IP("link set f2r name later")
	s.write(1, []int{0}, []int{1})
	if out, err := apply("2s"); err == nil || !strings.Contains(err.Error(), "interface f2r") {
		t.Fatalf("apply of what cannot be served: %v\n%s", err, out)
	}
	s.until("the agent says why", func(st *Status) bool {
		return !st.Ready && strings.Contains(st.Configuration.Refused, "interface f2r") && len(st.Paths) > 0 && len(st.Paths[0].Stops) == 1
	})
	said("node edge-site/chainagent edge: refuses generation")
	s.node.IP("link set later name f2r")
	s.node.IP("addr replace 10.9.2.5/30 dev f2r")
	s.node.IP("link set f2r up")
	s.until("the agent serves it", func(st *Status) bool {
		return st.Ready && st.Configuration.Refused == "" && len(st.Paths[0].Stops) == 2
	})
	if out, err := s.node.Run(t.Context(), meridian, "chain", "top", "web", "--agent", "http://127.0.0.1:15010", "--interval", "300ms"); err != nil || !strings.Contains(out, "default/web") {
		t.Errorf("top: %v\n%s", err, out)
	} else {
		t.Log("\n" + out)
	}

	// Alone.
	end()
	s.end(syscall.SIGKILL)
	s.launch(flags...)
	s.until("the last good one is served", func(st *Status) bool {
		c := st.Configuration
		return st.Ready && c != nil && c.Restored && !*c.Connected && len(st.Paths[0].Stops) == 2
	})
	sent, lost, hops := stream.Stop()
	t.Logf("%d datagrams, %d lost, TTL at the server %v", sent, lost, hops)
	if lost != 0 || hops[63] == 0 || hops[62] == 0 || len(hops) != 2 {
		t.Errorf("%d of %d lost, TTL at the server %v", lost, sent, hops)
	}

	// Back again, with a change.
	s.controller(sitecontroller)
	s.write(1, []int{1})
	if out, err := apply("20s"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	s.until("the new generation is served", func(st *Status) bool {
		return st.Ready && !st.Configuration.Restored && len(st.Paths[0].Stops) == 1
	})
}
