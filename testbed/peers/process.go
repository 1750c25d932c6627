package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a started program and what it started itself: one process group.
type process struct {
	cmd    *exec.Cmd
	dir    string // removed on stop, when not empty
	stderr tail
	done   chan struct{}
}

// startProcess runs argv on the given CPUs, nil for all. The affinity is set on
// this thread before the fork, so the child never runs anywhere else.
func startProcess(argv []string, cpus []int) (*process, error) {
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	p.cmd.Stdout = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := onCPUs(cpus, p.cmd.Start); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its own words: stderr
		close(p.done)
	}()
	return p, nil
}

// onCPUs calls fn on a thread that is restricted to cpus.
func onCPUs(cpus []int, fn func() error) error {
	if cpus == nil {
		return fn()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPUs %v: %w", cpus, err)
	}
	return errors.Join(fn(), unix.SchedSetaffinity(0, &before))
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) said() string { return p.stderr.String() }

// stop ends the group: asked first, killed after three seconds.
func (p *process) stop() error {
	if !p.ended() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // gone is as good
		select {
		case <-p.done:
		case <-time.After(3 * time.Second):
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// usage is what a process group used so far and holds now.
type usage struct {
	cpu time.Duration
	// rss counts pages shared between its processes once for each; pss shares them out.
	rss, pss, anon int64 // bytes
}

// usage adds up the group's threads and processes. A group that lost a thread in
// between shows less CPU than before, which the caller must refuse.
func (p *process) usage() (usage, error) {
	var u usage
	members, err := groupMembers(p.cmd.Process.Pid)
	if err != nil {
		return u, err
	}
	if len(members) == 0 {
		return u, fmt.Errorf("%s has ended: %s", p.cmd.Path, p.said())
	}
	for _, pid := range members {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return u, err
		}
		if len(tasks) == 0 {
			return u, fmt.Errorf("/proc/%d/task/*/schedstat is missing: this kernel keeps no scheduler statistics (CONFIG_SCHED_INFO)", pid)
		}
		for _, task := range tasks {
			body, err := os.ReadFile(task)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // a thread ended meanwhile
			}
			if err != nil {
				return u, err
			}
			ns, _, _ := strings.Cut(string(body), " ")
			n, err := strconv.ParseInt(ns, 10, 64)
			if err != nil {
				return u, fmt.Errorf("%s: %w", task, err)
			}
			u.cpu += time.Duration(n)
		}
		rollup, err := readKiB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Rss:", "Pss:", "Anonymous:")
		if err != nil {
			return u, err
		}
		u.rss += rollup[0]
		u.pss += rollup[1]
		u.anon += rollup[2]
	}
	return u, nil
}

// groupMembers lists the processes whose group is pgid.
func groupMembers(pgid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range stats {
		body, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (comm) state ppid pgrp ...; comm may hold anything but ends with the last ')'.
		text := string(body)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 3 || fields[0] == "Z" || fields[2] != strconv.Itoa(pgid) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// readKiB reads "Key: N kB" lines of a /proc file, in bytes.
func readKiB(name string, keys ...string) ([]int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := make([]int64, len(keys))
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		for i, k := range keys {
			if len(fields) >= 2 && fields[0] == k {
				n, err := strconv.ParseInt(fields[1], 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				out[i] = n << 10
			}
		}
	}
	return out, nil
}

// tail keeps the last few KiB that a program said.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
