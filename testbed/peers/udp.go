package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// udpBytes is a datagram of the mode udp: of the order of a DNS answer or a packet
	// of speech in a GTP-U tunnel.
	udpBytes = 200
	// udpWindow is how many a client has under way.
	udpWindow = 2
	// udpLost is when a datagram is taken for lost.
	udpLost = 200 * time.Millisecond
)

// echoed is what a client of datagrams got back in one run.
type echoed struct {
	Answers int64         `json:"answers"`
	Lost    int64         `json:"lost"`
	Took    time.Duration `json:"took"`
	Why     string        `json:"why,omitempty"`
}

// serveUDPEcho sends every datagram back until its standard input ends.
func serveUDPEcho(in io.Reader, out io.Writer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // at most what the system allows
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	fmt.Fprintln(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port)))
	go func() {
		var from unix.RawSockaddrInet4
		buf := make([]byte, 64<<10)
		wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(wait, -1); err != nil && err != unix.EINTR {
				return
			}
			for {
				size := uint32(unsafe.Sizeof(from))
				n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
				if errno != 0 {
					break
				}
				// One that is lost is counted by its client.
				_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), n, 0, uintptr(unsafe.Pointer(&from)), uintptr(size))
			}
		}
	}()
	_, err = io.Copy(io.Discard, in)
	return err
}

// serveUDPLoad keeps a window of datagrams of each client under way when it is asked to.
func serveUDPLoad(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleUDPLoad, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	clients := fs.Int("connections", 1, "clients")
	if err := fs.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*addr)
	if err != nil {
		return err
	}
	wait := make([]unix.PollFd, *clients)
	for i := range wait {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			return os.NewSyscallError("connect", err)
		}
		wait[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	answers := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		e, err := exchange(wait, o.Duration)
		if err != nil {
			e.Why = err.Error()
		}
		if err := answers.Encode(e); err != nil {
			return err
		}
	}
}

func exchange(wait []unix.PollFd, d time.Duration) (e echoed, err error) {
	buf := make([]byte, 2048)
	write := func(i, n int) {
		for range n {
			_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(wait[i].Fd), uintptr(unsafe.Pointer(&buf[0])), udpBytes, 0, 0, 0) // one that is lost is missed
		}
	}
	heard := make([]time.Time, len(wait))
	owed := make([]int, len(wait))
	began := time.Now()
	for i := range wait {
		write(i, udpWindow)
		heard[i], owed[i] = began, udpWindow
	}
	for now := began; now.Sub(began) < d; now = time.Now() {
		if _, err := unix.Poll(wait, 50); err != nil && err != unix.EINTR {
			return e, os.NewSyscallError("poll", err)
		}
		now = time.Now()
		for i := range wait {
			if wait[i].Revents&unix.POLLERR != 0 {
				return e, errors.New("a datagram was refused")
			}
			got := 0
			for wait[i].Revents&unix.POLLIN != 0 && got < udpWindow {
				n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(wait[i].Fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
				if errno != 0 {
					break
				}
				if n != udpBytes {
					return e, fmt.Errorf("a datagram of %d bytes came back with %d", udpBytes, n)
				}
				got++
			}
			switch {
			case got > 0:
				heard[i] = now
				write(i, got)
			case now.Sub(heard[i]) > udpLost:
				e.Lost += int64(owed[i])
				heard[i] = now
				write(i, owed[i])
			}
			e.Answers += int64(got)
		}
	}
	e.Took = time.Since(began)
	// What is still under way is not of the next run.
	for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
		if n, _ := unix.Poll(wait, 20); n == 0 {
			break
		}
		for i := range wait {
			_, _, _ = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(wait[i].Fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		}
	}
	return e, nil
}

// measureUDP passes datagrams on, there and back. CPU and Rate are of such rounds.
func measureUDP(ctx context.Context, o options, at placement, r *running) (_ sample, err error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	load, err := startChild(at.restCPUs, roleUDPLoad, "--addr", r.addr, "--connections", fmt.Sprint(o.conns))
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	run := func(d time.Duration) (e echoed, err error) {
		if err := load.ask(order{Duration: d}, &e); err != nil {
			return e, err
		}
		if e.Why != "" {
			return e, errors.New(e.Why)
		}
		return e, nil
	}
	if o.warmup > 0 {
		if _, err := run(o.warmup); err != nil {
			return sample{}, err
		}
	}
	before, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	got, err := run(o.duration)
	if err != nil {
		return sample{}, err
	}
	after, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	cpu := after.cpu - before.cpu
	if cpu <= 0 {
		return sample{}, errors.New("a thread of the proxy ended during the run: its CPU is unknown")
	}
	if got.Answers == 0 || got.Lost > got.Answers/100 {
		return sample{}, fmt.Errorf("%d datagrams came back and %d were lost: not a run to count", got.Answers, got.Lost)
	}
	return sample{
		CPU: cpu.Seconds() * 1e6 / float64(got.Answers), Rate: float64(got.Answers) / got.Took.Seconds(),
		RSS: float64(after.rss) / mb, PSS: float64(after.pss) / mb, Requests: int(got.Answers),
	}, nil
}
