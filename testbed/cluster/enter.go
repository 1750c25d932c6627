package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// enter replaces this process by another program in the network of the control
// plane, or in network, mounts and host name of a node. It does not return but with
// an error. The program is no part of the cluster: whoever started it ends it.
func (p *place) enter(nodeName string, argv []string) error {
	s, err := p.read()
	if err != nil {
		return err
	}
	proc := fmt.Sprintf("/proc/%d", s.Init)
	kinds := map[string]int{"net": unix.CLONE_NEWNET}
	if nodeName != "" {
		i := slices.IndexFunc(s.Nodes, func(n node) bool { return n.Name == nodeName })
		if i < 0 {
			return fmt.Errorf("no node %q: there are %s", nodeName, strings.Join(namesOf(s.Nodes), ", "))
		}
		// Processes of the cluster have their numbers in its own /proc.
		proc = filepath.Join(proc, "root", "proc", strconv.Itoa(s.Nodes[i].Process))
		kinds["mnt"], kinds["uts"] = unix.CLONE_NEWNS, unix.CLONE_NEWUTS
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	// Namespaces are a thread's, and the thread that calls exec is the one that stays.
	runtime.LockOSThread()
	opened := map[int]int{}
	for name, kind := range kinds {
		fd, err := unix.Open(proc+"/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cluster %q: its namespaces are not there (%w): did its keeper die? down removes what is left", p.name, err)
		}
		opened[fd] = kind
	}
	if nodeName != "" {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
	}
	for fd, kind := range opened {
		if err := unix.Setns(fd, kind); err != nil {
			return fmt.Errorf("enter the namespaces of cluster %q: %w: this needs root", p.name, err)
		}
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, unix.Exec(path, argv, os.Environ()))
}
