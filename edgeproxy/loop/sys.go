package loop

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These go around the Go scheduler: none of them may block, except epollRaw for
// the short while its caller chose.

func sysRead(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func sysWrite(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// sysRecv and sysSend are read and write for sockets without the way through the
// file layer.
func sysRecv(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func sysSend(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func sysWritev(fd int, v []unix.Iovec) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func sysAccept(fd int, sa *unix.RawSockaddrAny) (int, syscall.Errno) {
	for {
		l := uint32(unix.SizeofSockaddrAny)
		n, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(unsafe.Pointer(&l)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// siocOutQNSD is SIOCOUTQNSD, bytes of a TCP socket that were not sent yet;
// TIOCOUTQ also counts those that were not acknowledged (tcp(7)).
const siocOutQNSD = 0x894b

// sysOutput asks how full a socket's output is; 0 where it does not say.
func sysOutput(fd, what int) int {
	var n int32
	_, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), uintptr(what), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return 0
	}
	return int(n)
}

func epollRaw(ep int, ev []unix.EpollEvent, ms int) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(ev))), uintptr(len(ev)), uintptr(ms), 0, 0)
	return int(n), e
}

func epollBlock(ep int, ev []unix.EpollEvent, ms int) (int, syscall.Errno) {
	n, _, e := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(ev))), uintptr(len(ev)), uintptr(ms), 0, 0)
	return int(n), e
}

// base is the origin of every loop's clock.
var base = time.Now()

// Now is the loops' clock: monotonic nanoseconds.
func Now() int64 { return int64(time.Since(base)) }

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }
