package l4

import "golang.org/x/sys/unix"

const (
	// pipeBytes is how much a pipe is asked to hold; the kernel may grant less.
	pipeBytes = 512 << 10
	// maxPipes bounds a loop's pipes; connections past it are copied.
	maxPipes = 64
	// restPipes is how many unused ones are kept.
	restPipes = 8
)

// pipe is where spliced bytes stay between two sockets.
type pipe struct{ r, w, size int }

// pipes are one loop's.
type pipes struct {
	rest []pipe
	out  int
}

// take returns an empty pipe, false when there is none to be had.
func (p *pipes) take() (pipe, bool) {
	if n := len(p.rest); n > 0 {
		k := p.rest[n-1]
		p.rest = p.rest[:n-1]
		p.out++
		return k, true
	}
	if p.out >= maxPipes {
		return pipe{}, false
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return pipe{}, false // copying needs no descriptors
	}
	k := pipe{fds[0], fds[1], pipeBytes}
	if n, err := unix.FcntlInt(uintptr(k.w), unix.F_SETPIPE_SZ, pipeBytes); err == nil {
		k.size = n
	} else if n, err := unix.FcntlInt(uintptr(k.w), unix.F_GETPIPE_SZ, 0); err == nil {
		k.size = n // a limit of the user's
	}
	p.out++
	return k, true
}

// give takes a pipe back; one that still holds bytes is closed.
func (p *pipes) give(k pipe, empty bool) {
	p.out--
	if empty && len(p.rest) < restPipes {
		p.rest = append(p.rest, k)
		return
	}
	_ = unix.Close(k.r)
	_ = unix.Close(k.w)
}

func (p *pipes) close() {
	for _, k := range p.rest {
		_ = unix.Close(k.r)
		_ = unix.Close(k.w)
	}
	p.rest = nil
}
