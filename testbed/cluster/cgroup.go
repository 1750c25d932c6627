package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one tree of cgroups: version 2 has one, version 1 one for each
// controller.
type hierarchy struct {
	dir string
	v2  bool
}

// hierarchies reads which of them are mounted.
func hierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []hierarchy
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(f) > 4 && len(kind) > 0 && (kind[0] == "cgroup" || kind[0] == "cgroup2") {
			list = append(list, hierarchy{f[4], kind[0] == "cgroup2"})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no cgroups are mounted below /sys/fs/cgroup: the kubelet needs them")
	}
	return list, nil
}

// makeCgroups makes a folder for the cluster and each node in every hierarchy: with
// one for all, kubelets would remove each other's pods.
func (p *place) makeCgroups(list []node) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		parent := h.dir
		for _, name := range append([]string{p.cgroup()[1:]}, namesOf(list)...) {
			dir := filepath.Join(h.dir, p.cgroup()[1:], name)
			if parent == h.dir {
				dir = filepath.Join(h.dir, name)
			}
			if h.v2 {
				if err := delegate(parent); err != nil {
					return err
				}
			}
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make a cgroup: %w", err)
			}
			if err := inheritCPUSet(parent, dir); err != nil {
				return err
			}
			parent = filepath.Join(h.dir, p.cgroup()[1:])
		}
	}
	return nil
}

func namesOf(list []node) []string {
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names
}

// delegate lets what is below dir have dir's controllers (version 2).
func delegate(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// inheritCPUSet fills in what a new cgroup of version 1 does not take over.
func inheritCPUSet(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(b))) == 0 {
			continue // version 2: nothing said is the parent's
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups waits for the last processes to be gone.
func (p *place) removeCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.dir, p.cgroup()[1:])
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := removeCgroup(dir)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
				return fmt.Errorf("remove the cluster's cgroups: %w", err)
			}
		}
	}
	return nil
}

// removeCgroup removes dir and those below: of cgroups only folders can be removed.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
