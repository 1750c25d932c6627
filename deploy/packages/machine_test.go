//go:build install

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a fresh Debian whose systemd runs in a container, with no network but its
// own loopback.
type machine struct {
	t    *testing.T
	root string
	init string // process 1 as this machine sees it
}

// debian makes the root: this machine's release, no more in it than dpkg and systemd need.
func debian(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	release, err := exec.Command("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").Output()
	if err != nil {
		t.Fatal(err)
	}
	// Nobody keeps it: no waiting for the disk.
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=essential", "--include=passwd,systemd", "--dpkgopt=force-unsafe-io", strings.TrimSpace(string(release)), root)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v: %s", err, text)
	}
	return root
}

// boot starts the root's systemd and returns when it is up.
func boot(t *testing.T, root string) *machine {
	t.Helper()
	var console bytes.Buffer
	name := fmt.Sprintf("meridian-packages-%d", os.Getpid())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	cmd := exec.CommandContext(ctx, "systemd-nspawn", "--quiet", "--directory="+root, "--machine="+name, "--register=no", "--keep-unit",
		"--private-network", "--resolv-conf=off", "--timezone=off", "--console=pipe", "--boot")
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: root}
	t.Cleanup(func() {
		defer cancel()
		if m.init != "" {
			if text, err := m.try("systemctl --no-block poweroff"); err != nil {
				t.Logf("power off: %v: %s", err, text)
				cancel()
			}
		} else {
			cancel()
		}
		done := time.AfterFunc(30*time.Second, cancel)
		defer done.Stop()
		if err := cmd.Wait(); err != nil {
			t.Logf("container: %v", err)
		}
		if t.Failed() {
			t.Logf("console:\n%s", &console)
		}
	})
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	within(t, 2*time.Minute, "systemd of the container is up", func() bool {
		pids, err := os.ReadFile(children)
		if err != nil {
			return false
		}
		// Helpers of nspawn come and go before process 1 is there.
		m.init = ""
		for _, pid := range strings.Fields(string(pids)) {
			status, err := os.ReadFile("/proc/" + pid + "/status")
			if err == nil && strings.Contains(string(status), "\nNSpid:\t"+pid+"\t1\n") {
				m.init = pid
			}
		}
		if m.init == "" {
			return false
		}
		state, _ := m.try("systemctl is-system-running") // fails while it starts
		return strings.HasPrefix(state, "running") || strings.HasPrefix(state, "degraded")
	})
	return m
}

// try runs a script of bash in the container, as root.
func (m *machine) try(script string) (string, error) {
	cmd := exec.Command("nsenter", "--target", m.init, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
		"/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "bash", "-eu", "-o", "pipefail", "-c", "cd /srv; "+script)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// run is try that must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	text, err := m.try(script)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 60; systemctl --no-pager --failed")
		m.t.Fatalf("%v: %s\n%s\n%s", err, script, text, journal)
	}
	return strings.TrimSpace(text)
}

// get is a request from within the container, by this machine's curl.
func (m *machine) get(url string) (string, error) {
	text, err := exec.Command("nsenter", "--target", m.init, "--net", "curl", "-sS", "--fail", "--max-time", "10", url).CombinedOutput()
	return string(text), err
}

// property is one of a unit, as systemctl show has it.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return m.run("systemctl show --value -p " + name + " meridian-" + unit)
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}
