package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keep starts a cluster, says that it is ready, keeps it until ctx ends, and takes
// away all that it left. What it starts are the first process of a process namespace
// and its descendants: when keep dies, however it dies, the kernel ends them all, and
// with them go their mounts and networks. Only files and cgroups then remain, until
// the next keep or sweep.
func (p *place) keep(ctx context.Context, count int, ready func(*state)) (err error) {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.sweep(); err != nil {
		return err
	}
	defer func() {
		// What failed is to be read in the logs; they go with the next start.
		if err != nil {
			err = fmt.Errorf("%w (logs: %s)", err, p.file("logs"))
			err = errors.Join(err, p.removeCgroups(), os.Remove(p.file("state.json")))
		} else {
			err = p.sweep()
		}
	}()
	list := nodes(count)
	api, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = api.Close() }()
	socket, err := api.File()
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	port := api.Addr().(*net.TCPAddr).Port
	if err := p.writePKI(time.Now(), port, list); err != nil {
		return err
	}
	if err := p.writeConfig(list); err != nil {
		return err
	}
	if err := p.makeCgroups(list); err != nil {
		return err
	}
	s := &state{
		Name: p.name, Kubeconfig: p.file("kubeconfig"), Nodes: list, Addresses: freeCIDR,
		Scheduler: p.file("scheduler"), Logs: p.file("logs"),
	}
	said, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = said.Close() }()
	log, err := os.Create(p.file("logs", "control.log"))
	if err != nil {
		_ = say.Close()
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := p.self("first", strconv.Itoa(count), strconv.Itoa(port))
	cmd.ExtraFiles = []*os.File{socket, say}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	// The signal comes at the death of the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = say.Close()
	if err != nil {
		return fmt.Errorf("make namespaces: %w: this needs root", err)
	}
	s.Init = cmd.Process.Pid
	ended := make(chan struct{})
	var how error // once ended is closed
	go func() {
		defer close(ended)
		how = cmd.Wait()
	}()
	defer func() {
		// The first process of a namespace takes all others with it.
		_ = cmd.Process.Kill()
		<-ended
	}()
	up := make(chan error, 1)
	go func() { up <- p.publish(said, s) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-up:
			if err != nil {
				return p.explain(fmt.Errorf("the cluster did not start: %w", err))
			}
			ready(s)
			up = nil
		case <-ended:
			return p.explain(fmt.Errorf("the cluster ended by itself: %w", how))
		}
	}
}

// publish waits for the cluster's word that it is ready and writes the state file.
func (p *place) publish(said io.Reader, s *state) error {
	line, err := bufio.NewReader(said).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("its first process ended (%w)", err)
	}
	var processes []int
	if err := json.Unmarshal(line, &processes); err != nil {
		return fmt.Errorf("it said %q: %w", line, err)
	}
	if len(processes) != len(s.Nodes) {
		return fmt.Errorf("it has %d nodes, not %d", len(processes), len(s.Nodes))
	}
	for i := range s.Nodes {
		s.Nodes[i].Process = processes[i]
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// Whoever sees the file sees all of it.
	if err := os.WriteFile(p.file("state.json.new"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(p.file("state.json.new"), p.file("state.json"))
}

// explain adds the last words of the control plane to an error.
func (p *place) explain(err error) error {
	b, readErr := os.ReadFile(p.file("logs", "control.log"))
	if readErr != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return fmt.Errorf("%w\n%s", err, strings.Join(lines[max(0, len(lines)-5):], "\n"))
}

// self is this program in another role of the same cluster.
func (p *place) self(role string, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{role, "--name", p.name, "--source", p.root}, args...)...)
}

// lock makes sure that there is one keeper of a cluster. Its file holds the keeper's
// process.
func (p *place) lock() (unlock func(), err error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.file("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := io.ReadAll(f)
		_ = f.Close()
		return nil, fmt.Errorf("cluster %q runs already (process %s): end it with down, or give this one another --name", p.name, pid)
	} else if err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := f.WriteString(strconv.Itoa(os.Getpid())); err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// sweep removes the files and cgroups of a cluster that does not run. The caller
// holds the lock, whose file stays.
func (p *place) sweep() error {
	if err := p.removeCgroups(); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			if err := os.RemoveAll(p.file(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// down ends a cluster, or removes what a killed one left. It returns when all is gone.
func (p *place) down() error {
	if _, err := os.Stat(p.dir); errors.Is(err, fs.ErrNotExist) {
		return p.removeCgroups()
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		unlock, err := p.lock()
		if err == nil {
			err = errors.Join(p.sweep(), os.RemoveAll(p.dir), os.RemoveAll(p.dir+".log"))
			unlock()
			return err
		}
		b, readErr := os.ReadFile(p.file("lock"))
		if readErr != nil {
			return readErr
		}
		if pid, convErr := strconv.Atoi(string(b)); convErr == nil {
			if killErr := unix.Kill(pid, unix.SIGTERM); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
				return killErr
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("after a minute still: %w", err)
		}
	}
}
