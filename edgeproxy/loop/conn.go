package loop

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the owner of a connection. Its methods run on the loop; they never
// nest inside each other for one connection.
type Peer interface {
	// Input takes plaintext from the front of in and returns how much it took;
	// the rest comes again before what is read next. in is borrowed.
	Input(in []byte) int
	// Connected follows a successful Dial.
	Connected()
	// Written follows each flush that sent something or could not send all.
	Written(n, left int)
	// Failed says that nothing more will be read: io.EOF when the other side has
	// sent all it will, which an owner may answer, else the error. The owner calls
	// Close, after io.EOF also later.
	Failed(err error)
	// Recycle follows Close when no call of this connection is running any more.
	Recycle()
}

// ErrLeft is the failure of a connection whose owner left more bytes untaken
// than a loop keeps.
var ErrLeft = errors.New("more bytes left untaken than the limit")

// Conn is a stream socket on a loop. Writes are gathered and sent once at the
// end of the turn. A Conn at rest holds no buffer.
type Conn struct {
	Out List // plaintext to send; call Dirty after adding to it

	loop       *Loop
	peer       Peer
	fd         int
	handle     uint32
	waits      uint32 // registered events, 0 when not registered
	t          Transport
	raw        Raw
	rest       List
	most       int // bounds one read, 0 for the loop's bound
	paused     bool
	starved    bool // not read for want of room
	dead       bool // closed in an earlier turn, while starved
	dialing    bool
	broken     bool // a write failed; what was received is still read
	ended      bool // nothing more will be read
	watchReset bool
	readable   bool // the socket may have more; events come only with news
	hungUp     bool // the other side's end, or worse, is there or on its way
	failed     bool // ... worse
	ending     bool // nothing is sent after what is queued
	over       bool // the transport has ended, once what it gave is taken
	secure     bool // the transport is not raw
	dirty      bool
	inResumed  bool

	nextDirty, nextResumed, nextDead, nextStarved *Conn
}

// Open starts using a connected non-blocking socket. With watchReset a reset is a
// failure at once, even while paused; the end of the other side's stream is one
// only when all before it was read.
func (c *Conn) Open(l *Loop, fd int, p Peer, watchReset bool) error {
	c.start(l, fd, p, watchReset)
	c.waits = c.wanted()
	h, err := l.Add(fd, c.waits, c)
	if err != nil {
		c.abandon()
		return err
	}
	c.handle = h
	return nil
}

// Dial starts a connection whose packets carry a code point, from 0 to 63; Connected or
// Failed follows.
func (c *Conn) Dial(l *Loop, to netip.AddrPort, codePoint uint8, p Peer) error {
	fd, err := l.connect(to, codePoint)
	if err != nil {
		return err
	}
	c.start(l, fd, p, false)
	c.dialing = true
	c.waits = unix.EPOLLOUT
	if c.handle, err = l.Add(fd, c.waits, c); err != nil {
		c.abandon()
	}
	return err
}

func (c *Conn) start(l *Loop, fd int, p Peer, watchReset bool) {
	*c = Conn{loop: l, fd: fd, peer: p, watchReset: watchReset}
	c.t = &c.raw
}

func (c *Conn) abandon() {
	_ = unix.Close(c.fd)
	c.fd = -1
}

// Closed reports whether Close was called (or Open never).
func (c *Conn) Closed() bool { return c.loop == nil || c.fd < 0 }

// Close ends the connection, sending nothing more. Recycle follows later.
func (c *Conn) Close() {
	if c.Closed() {
		return
	}
	l := c.loop
	c.lastWords()
	l.calls += 2
	if c.waits != 0 {
		l.Del(c.fd, c.handle)
	}
	c.waits = 0
	_ = unix.Close(c.fd)
	c.fd = -1
	c.Out.Free(&l.Slabs)
	c.t.Wire().Free(&l.Slabs)
	c.rest.Free(&l.Slabs)
	c.t.Release()
	c.t = &c.raw // the memory of a session is not kept with the connection's
	c.nextDead = l.dead
	l.dead = c
}

// Reset closes so that the other side sees a failure, not an end.
func (c *Conn) Reset() {
	if !c.Closed() {
		c.loop.calls++
		c.broken = true // no last words: the end must not look like one
		// Without it the other side sees an ordinary end: no worse than Close.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.Close()
	}
}

// Secure has what comes and goes from now on pass t. Nothing may wait to be sent.
func (c *Conn) Secure(t Transport) {
	c.t, c.secure = t, true
}

// Transport is what the bytes pass.
func (c *Conn) Transport() Transport { return c.t }

// Secured reports whether that is not the raw one.
func (c *Conn) Secured() bool { return c.secure }

// Arrived has the transport take bytes that were read before it could; there may be
// none, where it has kept some itself. It must not run inside a call of the owner.
func (c *Conn) Arrived(in []byte) {
	if c.Closed() {
		return
	}
	k := c.rest.CopyTo(c.loop.in)
	n := copy(c.loop.in[k:], in)
	c.received(k, n)
	if c.fd >= 0 {
		c.readable = true // what is not is found out
		if !c.paused {
			c.Again()
		}
	}
}

// Precede has what somebody else read from the socket come before what is read next.
func (c *Conn) Precede(read *List) {
	c.rest.Move(read)
	if c.rest.Len() > 0 {
		c.Again()
	}
}

// FD is the socket, negative once it is closed.
func (c *Conn) FD() int { return c.fd }

// lastWords sends, where the socket takes it at once, what the transport has to say
// before the end.
func (c *Conn) lastWords() {
	if !c.secure || c.broken || c.dialing || c.Out.Len() > 0 {
		return // what is cut short must not look whole
	}
	wire := c.t.Wire()
	if wire.Len() == 0 {
		c.t.Finish()
	}
	if wire.Len() > 0 {
		// Where it fails or takes a part the other side sees an early end, as it is.
		_, _, _ = c.write(wire)
	}
}

// ShutdownWrite tells the other side that nothing more will come.
func (c *Conn) ShutdownWrite() {
	if c.lastWords(); c.secure {
		c.t.Wire().Free(&c.loop.Slabs)
	}
	c.loop.calls++
	// Fails where the other side is gone, which reading finds out.
	_ = unix.Shutdown(c.fd, unix.SHUT_WR)
}

// HalfClosable makes a reset wait its turn, too: while paused an end of both
// directions looks like one.
func (c *Conn) HalfClosable() { c.watchReset = false }

// CloseWrite tells the other side, after what is queued, that nothing more comes.
func (c *Conn) CloseWrite() {
	c.ending = true
	c.Dirty()
}

// Left is how many received bytes the owner has not taken.
func (c *Conn) Left() int { return c.rest.Len() }

// Unsent is how many bytes wait for the socket.
func (c *Conn) Unsent() int { return c.Out.Len() + c.t.Wire().Len() }

// Bound has one read take at most n bytes, 0 as many as the loop allows.
func (c *Conn) Bound(n int) { c.most = n }

// Takes is how many more bytes the socket takes without being full, by the bound
// of [Listener.BoundUnsent]; its buffer may be full before that.
func (c *Conn) Takes() int {
	c.loop.calls++
	return max(0, MaxUnsent-sysOutput(c.fd, siocOutQNSD))
}

// Untaken is how many bytes were sent that the other side has not acknowledged.
func (c *Conn) Untaken() int {
	c.loop.calls++
	return c.Unsent() + sysOutput(c.fd, unix.TIOCOUTQ)
}

// Dirty has the connection flushed at the end of the turn.
func (c *Conn) Dirty() {
	if !c.dirty && c.fd >= 0 {
		c.dirty = true
		c.nextDirty = c.loop.dirty
		c.loop.dirty = c
	}
}

// Pause stops Input until Resume.
func (c *Conn) Pause() { c.paused = true }

// Paused reports whether Input is stopped.
func (c *Conn) Paused() bool { return c.paused }

// Resume lets Input run again, later in this turn for bytes that were left.
func (c *Conn) Resume() {
	c.paused = false
	if c.fd >= 0 && (c.readable || c.rest.Len() > 0) {
		c.Again()
	}
}

// Again has Input called with what is left at the end of the turn.
func (c *Conn) Again() {
	if c.inResumed {
		return
	}
	c.inResumed = true
	l := c.loop
	if l.resumed == nil {
		l.resumed = c
	} else {
		l.lastResumed.nextResumed = c
	}
	l.lastResumed = c
}

// offerAgain runs connections that were resumed until now, the longest wait
// first; the others, and what these resume, run in the next turn, so that a turn
// ends.
func (l *Loop) offerAgain() {
	last := l.lastResumed
	for range turnEvents {
		c := l.resumed
		if c == nil {
			return
		}
		l.resumed = c.nextResumed
		c.nextResumed, c.inResumed = nil, false
		if c.fd >= 0 && !c.paused && c.rest.Len() > 0 {
			c.offerLeft()
		}
		c.goOn()
		if c == last {
			return
		}
	}
}

func (c *Conn) offerLeft() {
	k := c.rest.CopyTo(c.loop.in)
	c.rest.Free(&c.loop.Slabs)
	c.offer(c.loop.in[:k])
}

// wanted is the registration: for what arrives once and for all, for room only
// while something waits for it. Edges, because the kernel looks at every socket
// twice that it reports by level: when it does and in the next wait.
func (c *Conn) wanted() uint32 {
	if c.dialing {
		return unix.EPOLLOUT
	}
	if c.t.Wire().Len() > 0 && !c.broken {
		return incoming | unix.EPOLLOUT
	}
	return incoming
}

const incoming = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// update brings the registration in line with what is wanted.
func (c *Conn) update() {
	w := c.wanted()
	if w == c.waits {
		return
	}
	c.waits = w
	if err := c.loop.Mod(c.fd, w, c.handle); err != nil {
		c.peer.Failed(err)
	}
}

// Ready handles the socket's events.
func (c *Conn) Ready(ev uint32) {
	if c.dialing {
		c.dialed()
		return
	}
	const failure = unix.EPOLLHUP | unix.EPOLLERR
	c.failed = c.failed || ev&failure != 0
	if ev&failure != 0 || ev&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 && !c.ended {
		c.readable = true
		c.hungUp = c.hungUp || ev&(unix.EPOLLRDHUP|failure) != 0
	}
	if ev&unix.EPOLLOUT != 0 && c.t.Wire().Len() > 0 {
		c.flush()
	}
	c.goOn()
}

// goOn takes what the socket has.
func (c *Conn) goOn() {
	switch {
	case c.fd < 0 || !c.readable || c.starved:
	case !c.paused:
		c.read()
	case c.failed && c.watchReset:
		c.peer.Failed(syscall.ECONNRESET)
	}
}

func (c *Conn) dialed() {
	err := c.loop.SocketError(c.fd)
	if err != nil {
		c.peer.Failed(err)
		return
	}
	c.dialing = false
	c.update()
	if c.fd >= 0 {
		c.peer.Connected()
	}
}

func (c *Conn) read() {
	l := c.loop
	if c.inResumed {
		return // what is left comes first, in its turn
	}
	if c.over {
		c.readable, c.ended = false, true
		c.peer.Failed(c.t.End())
		return
	}
	if c.rest.Len() > leftBytes {
		c.Again() // no room to read more before some of it is taken
		return
	}
	most := l.Room()
	if most == 0 {
		l.starve(c)
		return
	}
	if c.most > 0 {
		most = min(most, c.most)
	}
	if c.secure {
		most = min(most, secureBytes)
	}
	k := c.rest.CopyTo(l.in)
	l.calls++
	n, e := sysRecv(c.fd, l.in[k:k+most])
	switch {
	case e == syscall.EAGAIN:
		c.readable = false
		return
	case e != 0:
		c.readable = false
		c.peer.Failed(e)
		return
	case n == 0:
		c.readable, c.ended = false, true
		c.peer.Failed(c.t.End())
		return
	case n < most && !c.hungUp:
		c.readable = false // the next byte comes with an event of its own
	}
	c.received(k, n)
	switch {
	case c.fd < 0 || !c.readable:
	case !c.paused && c.most > 0 && !c.over:
		c.nextTurn() // what was read is to be sent first: the owner bounds what lies here
	case !c.paused || c.failed && c.watchReset:
		c.Again()
	}
}

// nextTurn has the socket's event come again.
func (c *Conn) nextTurn() {
	c.readable = false
	if err := c.loop.Mod(c.fd, c.waits, c.handle); err != nil {
		c.peer.Failed(err)
	}
}

// received hands on n bytes that were read behind k that were left.
func (c *Conn) received(k, n int) {
	l := c.loop
	in := l.in[k : k+n]
	plain, err := c.t.Feed(in)
	if err != nil {
		c.over, c.readable = true, true // told when what is left is taken
		if wire := c.t.Wire(); c.secure && err != io.EOF && wire.Len() > 0 {
			// The alert that says why, before the owner resets the connection.
			_, _, _ = c.write(wire)
			wire.Free(&l.Slabs)
		}
	}
	if c.t.Wire().Len() > 0 {
		c.Dirty()
	}
	if len(plain) == 0 {
		return
	}
	if k > 0 {
		c.rest.Free(&l.Slabs)
		if unsafe.SliceData(plain) != unsafe.SliceData(in) {
			if k+len(plain) > len(l.in) {
				c.peer.Failed(ErrLeft)
				return
			}
			copy(l.in[k:], plain)
		}
		plain = l.in[:k+len(plain)]
	}
	c.offer(plain)
}

func (c *Conn) offer(in []byte) {
	used := c.peer.Input(in)
	if c.fd < 0 || used == len(in) {
		return
	}
	if len(in)-used > leftBytes && !c.paused {
		c.peer.Failed(ErrLeft)
		return
	}
	c.rest.Append(&c.loop.Slabs, in[used:])
}

func (c *Conn) flush() {
	if c.fd < 0 || c.dialing {
		return
	}
	if err := c.t.Send(&c.Out); err != nil {
		c.breaks()
		return
	}
	wire := c.t.Wire()
	if wire.Len() == 0 {
		wire.Free(&c.loop.Slabs) // an end of no bytes may have taken a slab
		if c.Out.Len() == 0 {
			c.Out.Free(&c.loop.Slabs) // also where the transport leaves it
		}
		c.end()
		return
	}
	if c.broken {
		c.breaks()
		return
	}
	sent := 0
	for c.more(wire) {
		n, whole, e := c.write(wire)
		if e != 0 && e != syscall.EAGAIN {
			c.breaks()
			return
		}
		if e == 0 {
			sent += n
			wire.Drop(&c.loop.Slabs, n)
		}
		if !whole {
			break // an event says when there is room
		}
	}
	c.update()
	if c.fd >= 0 {
		c.end()
		c.peer.Written(sent, c.Out.Len()+wire.Len())
	}
}

// more reports whether something is to be written, after having the transport go on
// with what it would not take before there was room.
func (c *Conn) more(wire *List) bool {
	if wire.Len() == 0 && c.Out.Len() > 0 {
		if err := c.t.Send(&c.Out); err != nil {
			return false // the transport ended, of which reading tells
		}
	}
	return wire.Len() > 0
}

// breaks gives up sending. An answer sent before the other side closed may still
// be there to read, so the reading side finds the end.
func (c *Conn) breaks() {
	c.t.Wire().Free(&c.loop.Slabs)
	c.Out.Free(&c.loop.Slabs)
	c.broken, c.readable, c.hungUp, c.failed = true, true, true, true
	c.Again()
}

func (c *Conn) end() {
	if c.ending && c.Unsent() == 0 {
		c.ending = false
		c.ShutdownWrite()
	}
}

// write offers the socket what one call can; whole says that it took all of that.
func (c *Conn) write(wire *List) (n int, whole bool, e syscall.Errno) {
	c.loop.calls++
	front := wire.Front()
	if len(front) == wire.Len() {
		n, e = sysSend(c.fd, front)
		return n, e == 0 && n == len(front), e
	}
	v, size := c.loop.iovecs[:0], 0
	for k := wire.head; k != nil && len(v) < cap(v); k = k.next {
		if k.r < k.w {
			io := unix.Iovec{Base: &k.b[k.r]}
			io.SetLen(k.w - k.r)
			v = append(v, io)
			size += k.w - k.r
		}
	}
	n, e = sysWritev(c.fd, v)
	return n, e == 0 && n == size, e
}

// sockaddr is an address in the form of a system call, in memory of the loop's
// own: x/sys writes to what it is given.
func (l *Loop) sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		l.to4 = unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
		return &l.to4, unix.AF_INET
	}
	l.to6 = unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}
	return &l.to6, unix.AF_INET6
}
