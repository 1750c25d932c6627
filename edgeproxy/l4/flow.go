package l4

import (
	"syscall"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

const (
	// spliceAfter is how much of one direction is copied before it is spliced.
	spliceAfter = 64 << 10
	// leastCopy is what is read at one time for a side that takes little: it fits the
	// smaller buffer.
	leastCopy = 4 << 10
	// spliceLeast is what has to come at one time for that: for less the calls for
	// the pipe cost more than the copy.
	spliceLeast = 4 << 10
)

// end is one of a connection's two sockets. It is registered once, edge-triggered,
// and remembers what it was told.
type end struct {
	s                  *Session
	fd                 int // -1 when closed
	handle             uint32
	readable, writable bool
	closing            bool // the other side's end, or worse, is on its way
}

// flow is one direction of a connection.
type flow struct {
	from, to *end
	held     loop.List // read, not yet written
	pipe     pipe
	piped    int // bytes in pipe
	hasPipe  bool
	ended    bool // from's end was read
	done     bool // ... and passed on
	moved    uint64
	last     int // bytes that came at one time
	most     int // bounds a copy after one that the other side did not take whole
}

// move passes on what it can within the budget of the turn. again says that the
// budget stopped it; broken is the end that failed.
func (f *flow) move(e *Engine) (again bool, broken *end) {
	l := e.loop
	defer f.release(e)
	for {
		if f.drain(e) != 0 {
			return false, f.to
		}
		switch {
		case f.held.Len() > 0 || f.piped > 0 || f.done:
			return false, nil
		case f.ended:
			f.done = true
			l.Shutdown(f.to.fd)
			return false, nil
		case !f.from.readable:
			return false, nil
		case e.budget <= 0:
			return true, nil
		}
		var n int
		var err syscall.Errno
		if f.moved >= spliceAfter && f.last >= spliceLeast && f.pipeReady(e) {
			n, err = l.Splice(f.from.fd, f.pipe.w, f.pipe.size)
			if err == 0 {
				f.piped = n
			}
		} else {
			n, err = f.copy(e)
		}
		switch {
		case err == syscall.EAGAIN:
			f.from.readable = false
			return false, nil
		case err != 0:
			return false, f.from
		case n == 0:
			f.ended = true
		}
		e.budget -= n
		f.last = n
	}
}

// copy reads once and writes at once what the other side takes. Its error is the
// reader's: a writer that failed fails again when the rest is drained.
func (f *flow) copy(e *Engine) (int, syscall.Errno) {
	l := e.loop
	if f.most == 0 {
		f.most = copyBytes
	}
	most := min(f.most, l.Room())
	if most == 0 {
		e.starve(f.from.s)
		return 0, syscall.EAGAIN
	}
	buf := l.Buffer()[:most]
	n, err := l.Read(f.from.fd, buf)
	if err != 0 || n == 0 {
		return n, err
	}
	if n < len(buf) && !f.from.closing {
		f.from.readable = false // the next byte comes with an event of its own
	}
	p := buf[:n]
	if f.to.writable {
		switch k, err := l.Write(f.to.fd, p); err {
		case 0:
			f.moved += uint64(k)
			p = p[k:]
		case syscall.EAGAIN:
			f.to.writable = false
		}
	}
	if len(p) > 0 {
		f.most = max(leastCopy, f.most/2)
	} else {
		f.most = min(2*f.most, copyBytes)
	}
	f.held.Append(&l.Slabs, p)
	return n, 0
}

// drain writes what was read before.
func (f *flow) drain(e *Engine) syscall.Errno {
	l := e.loop
	for f.to.writable && (f.held.Len() > 0 || f.piped > 0) {
		var n int
		var err syscall.Errno
		if p := f.held.Front(); len(p) > 0 {
			if n, err = l.Write(f.to.fd, p); err == 0 {
				f.held.Drop(&l.Slabs, n)
			}
		} else if n, err = l.Splice(f.pipe.r, f.to.fd, f.piped); err == 0 {
			f.piped -= n
		}
		switch err {
		case 0:
			f.moved += uint64(n)
		case syscall.EAGAIN:
			f.to.writable = false
		default:
			return err
		}
	}
	return 0
}

func (f *flow) pipeReady(e *Engine) bool {
	if !f.hasPipe {
		f.pipe, f.hasPipe = e.pipes.take()
	}
	return f.hasPipe
}

// release gives the pipe back when nothing is in it.
func (f *flow) release(e *Engine) {
	if f.hasPipe && f.piped == 0 {
		e.pipes.give(f.pipe, true)
		f.hasPipe = false
	}
}

// free gives back all memory and the pipe.
func (f *flow) free(e *Engine) {
	f.held.Free(&e.loop.Slabs)
	if f.hasPipe {
		e.pipes.give(f.pipe, f.piped == 0)
		f.hasPipe, f.piped = false, 0
	}
}
