package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/internal/supervisor"
)

const (
	// upgradeTimeout bounds the time that a new process takes to be ready.
	upgradeTimeout = time.Minute
	// restLimit is how long a connection of a client rests before the process that
	// was replaced closes it, at most; see rest.
	restLimit = 10 * time.Second
)

// programPath is the path of this program for the next of its kind, with links kept:
// what is installed there later is what an upgrade starts. It is found at the
// start, before a change of folder or of the file.
func programPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return os.Executable()
	}
	return path, nil
}

// successor is a process that was started to take over.
type successor struct {
	pid    int
	report *os.File // until the new process has said how it went
	ended  chan error
}

// startSuccessor starts the program with this process's listening sockets.
func (n *node) startSuccessor() (_ *successor, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer func() { err = errors.Join(err, unix.Close(pipe[1])) }()
	s := &successor{report: os.NewFile(uintptr(pipe[0]), "handover"), ended: make(chan error, 1)}
	files := []uintptr{0, 1, 2}
	pass := func(fd int) int { files = append(files, uintptr(fd)); return len(files) - 1 }
	h := handover{Report: pass(pipe[1]), Listeners: []handedListener{}}
	if n.admin != nil {
		fd, err := n.admin.Socket()
		if err != nil {
			return nil, errors.Join(err, s.report.Close())
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		h.Admin = pass(fd)
	}
	for _, socket := range n.proxy.Sockets() {
		for _, fd := range socket.Listener.FDs() {
			h.Listeners = append(h.Listeners, handedListener{FD: pass(fd), Name: socket.Name})
		}
	}
	sessions := n.proxy.Sessions()
	defer func() {
		for _, x := range sessions {
			err = errors.Join(err, unix.Close(x.FD))
		}
	}()
	if len(sessions) > 0 {
		file, ferr := passSessions(sessions, pass)
		if ferr != nil {
			return nil, errors.Join(ferr, s.report.Close())
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		h.Sessions = pass(int(file.Fd()))
	}
	value, err := json.Marshal(h)
	if err != nil {
		return nil, errors.Join(err, s.report.Close())
	}
	// WATCHDOG_PID names this process; the next one is watched from its turn on.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") })
	// Not by os/exec: that takes files, and handing a socket to one makes it
	// blocking, for the loops of this process too.
	s.pid, err = syscall.ForkExec(n.program, append([]string{n.program}, os.Args[1:]...), &syscall.ProcAttr{
		Env: append(env, handoverEnv+"="+string(value)), Files: files,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", n.program, err), s.report.Close())
	}
	go func() { s.ended <- wait(s.pid) }()
	return s, nil
}

// passSessions writes the sessions, with the numbers that their descriptors get, to a
// file in memory.
func passSessions(sessions []edgeproxy.Session, pass func(fd int) int) (*os.File, error) {
	fd, err := unix.MemfdCreate("sessions", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "sessions")
	passed := slices.Clone(sessions)
	for i := range passed {
		passed[i].FD = pass(sessions[i].FD)
	}
	err = json.NewEncoder(file).Encode(passed)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sessions: %w", err), file.Close())
	}
	return file, nil
}

// wait returns how a child ended.
func wait(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	return errors.New(state.String())
}

// ready returns nil when the new process has taken over; else that process is gone.
func (s *successor) ready(ctx context.Context) error {
	said := make(chan string, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(s.report, 64<<10))
		if err != nil {
			text = append(text, err.Error()...)
		}
		said <- string(text)
	}()
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	defer s.report.Close()
	select {
	case text := <-said:
		if text == handoverReady {
			return nil
		}
		return errors.Join(errors.New(strings.TrimSpace(text)), s.end())
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("the new process was not ready: %w", ctx.Err()), s.end())
	}
}

// end makes sure that the new process is gone and says how it ended.
func (s *successor) end() error {
	select {
	case err := <-s.ended:
		return fmt.Errorf("new process: %w", err)
	case <-time.After(2 * time.Second): // it is ending by itself
	}
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	return fmt.Errorf("new process: %w", <-s.ended)
}

// upgrade starts the program anew and has it take over. It reports whether it
// did; when not, this process serves on.
func (n *node) upgrade(ctx context.Context) bool {
	n.taking.Lock() // the sockets that are handed over stay those in use
	defer n.taking.Unlock()
	n.log.Info("upgrading", "program", n.program)
	s, err := n.startSuccessor()
	if err == nil {
		err = s.ready(ctx)
	}
	if err == nil {
		n.log.Info("another process has taken over", "pid", s.pid)
		n.handedOver.Store(true)
		supervisor.Tell(n.log, "MAINPID="+fmt.Sprint(s.pid))
		return true
	}
	n.log.Error("upgrade failed; this process serves on", "program", n.program, "err", err)
	// The new process may have written its own before it failed.
	if err := n.writeRunFile(); err != nil {
		n.log.Error("run.json is not written", "err", err)
	}
	return false
}

// leave drains after another process took over.
func (n *node) leave(ctx context.Context) error {
	if n.admin != nil {
		answered, done := context.WithTimeout(ctx, time.Second)
		defer done()
		if err := n.admin.Leave(answered); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("admin: %w", err)
		}
	}
	return n.proxy.Leave(ctx, min(restLimit, n.opts.drainTimeout/2+time.Millisecond))
}
