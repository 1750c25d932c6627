package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// handoverEnv describes what a process inherits from the one it takes over from.
const handoverEnv = "MERIDIAN_HANDOVER"

// handover is the value of handoverEnv. Numbers are descriptors.
type handover struct {
	// Report is the pipe on which the new process says how it went: handoverReady,
	// or why not.
	Report    int              `json:"report"`
	Admin     int              `json:"admin,omitempty"` // 0: none
	Listeners []handedListener `json:"listeners"`
	// Sessions is a file with the UDP sessions, 0 for none; their descriptors are
	// inherited too.
	Sessions int `json:"sessions,omitempty"`
}

type handedListener struct {
	FD   int    `json:"fd"`
	Name string `json:"name,omitempty"` // as in edgeproxy.Socket
}

const handoverReady = "ready"

// inheritance is what this process got when it was started.
type inheritance struct {
	report  *os.File // nil unless another process waits
	admin   *os.File // nil for none
	sockets []edgeproxy.Socket
	// sessions are UDP's.
	sessions []edgeproxy.Session
}

// inherit reads what was passed: by a process that this one takes over from, or
// by a supervisor (sd_listen_fds(3)). The variables are removed, so that what
// this process starts inherits nothing by mistake.
func inherit() (in *inheritance, err error) {
	in = &inheritance{}
	value := os.Getenv(handoverEnv)
	passed, forPID := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID")
	for _, name := range []string{handoverEnv, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return in, err
		}
	}
	switch {
	case value != "":
		var h handover
		if err := json.Unmarshal([]byte(value), &h); err != nil {
			return in, fmt.Errorf("%s: %w", handoverEnv, err)
		}
		return in, in.take(&h)
	case passed != "" && forPID == strconv.Itoa(os.Getpid()):
		n, err := strconv.Atoi(passed)
		if err != nil {
			return in, fmt.Errorf("LISTEN_FDS: %w", err)
		}
		const first = 3
		for fd := first; fd < first+n; fd++ {
			l, err := loop.Inherit(fd)
			if err != nil {
				return in, fmt.Errorf("socket of the supervisor: %w", err)
			}
			in.sockets = append(in.sockets, edgeproxy.Socket{Listener: l})
		}
	}
	return in, nil
}

func (in *inheritance) take(h *handover) (err error) {
	unix.CloseOnExec(h.Report)
	in.report = os.NewFile(uintptr(h.Report), "handover")
	if h.Admin != 0 {
		unix.CloseOnExec(h.Admin)
		in.admin = os.NewFile(uintptr(h.Admin), "admin")
	}
	for _, l := range h.Listeners {
		ln, lerr := loop.Inherit(l.FD)
		if lerr != nil {
			err = errors.Join(err, lerr)
			continue
		}
		in.sockets = append(in.sockets, edgeproxy.Socket{Name: l.Name, Listener: ln})
	}
	if err == nil && h.Sessions != 0 {
		err = in.takeSessions(h.Sessions)
	}
	return err
}

func (in *inheritance) takeSessions(fd int) error {
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "sessions")
	err := json.NewDecoder(file).Decode(&in.sessions)
	for _, s := range in.sessions {
		unix.CloseOnExec(s.FD)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("sessions of the process before: %w", err)
	}
	return nil
}

// tell says how taking over went to the process that waits, if one does. A
// failure to do so is that process's end, and then there is nobody to tell.
func (in *inheritance) tell(how string) error {
	if in.report == nil {
		return nil
	}
	_, err := in.report.WriteString(how)
	err = errors.Join(err, in.report.Close())
	in.report = nil
	if errors.Is(err, syscall.EPIPE) {
		return errors.New("the process to take over from has gone, or gave this one up")
	}
	return err
}
