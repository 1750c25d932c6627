package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bareRelay names the peer of requests that is no proxy: it waits, reads and writes, and
// looks at nothing. A request costs it two of each, the least that a proxy which keeps
// its connections can do; what that takes is the kernel's, and bounds what is left to gain.
const bareRelay = "bare-relay"

func bareProxy(o options, name string) (proxy, error) {
	exe, err := os.Executable()
	return proxy{
		name: name, conf: o.confFile("bare.conf"), version: "bare system calls",
		command: func(confFile, _ string) []string { return []string{exe, roleBare, name, confFile} },
	}, err
}

// serveBare is either of the two bare peers, until its process is ended.
func serveBare(name, confFile string) error {
	conf, err := os.ReadFile(confFile)
	if err != nil {
		return err
	}
	listen, backend, ok := strings.Cut(strings.TrimSpace(string(conf)), " ")
	if !ok {
		return fmt.Errorf("%s: two addresses are due: where to listen and where to send to", confFile)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	r := &relay{backend: backend, to: map[int32]int{}}
	if name == bareRelay {
		if err := r.start(); err != nil {
			return err
		}
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if name == bareRelay {
			err = r.join(c.(*net.TCPConn))
		} else {
			err = passBare(c.(*net.TCPConn), backend)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "a connection failed:", err) // also one that only tried whether this answers
		}
	}
}

// relay passes bytes between pairs of sockets on one thread.
type relay struct {
	backend string
	epoll   int
	added   chan [2]int
	to      map[int32]int // the other socket of each
}

func (r *relay) start() (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	r.added = make(chan [2]int, 1)
	go r.run()
	return nil
}

// join gives a client a connection of its own to the backend.
func (r *relay) join(client *net.TCPConn) error {
	defer client.Close()
	c, err := net.Dial("tcp", r.backend)
	if err != nil {
		return err
	}
	defer c.Close()
	var pair [2]int
	for i, c := range []*net.TCPConn{client, c.(*net.TCPConn)} {
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var dup error
		if err := raw.Control(func(fd uintptr) { pair[i], dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dup != nil {
			return errors.Join(err, dup)
		}
	}
	r.added <- pair
	for _, fd := range pair {
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	return nil
}

func (r *relay) run() {
	runtime.LockOSThread()
	var events [64]unix.EpollEvent
	buf := make([]byte, 64<<10)
	for {
		n, _, _ := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 5, 0, 0)
		if int(n) <= 0 { // lets the others of this program run, too
			n2, err := unix.EpollWait(r.epoll, events[:], -1)
			if err != nil {
				continue
			}
			n = uintptr(n2)
		}
		for _, e := range events[:n] {
			r.pass(e.Fd, buf)
		}
	}
}

func (r *relay) pass(from int32, buf []byte) {
	for len(r.added) > 0 {
		pair := <-r.added
		r.to[int32(pair[0])], r.to[int32(pair[1])] = pair[1], pair[0]
	}
	to, known := r.to[from]
	if !known {
		return // told again, for the pair is on its way
	}
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(from), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno == 0 && n > 0 {
		var k uintptr
		if k, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(to), uintptr(unsafe.Pointer(&buf[0])), n); errno == 0 && k == n {
			return
		}
	}
	// The end, or what a relay of small messages does not meet.
	delete(r.to, from)
	delete(r.to, int32(to))
	_ = unix.Close(int(from))
	_ = unix.Close(to)
}
