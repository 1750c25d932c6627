package link

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// Wan joins places (network namespaces) by lines in userspace: each place has a TUN
// device, and what it sends to another's address arrives there as the [Line] between
// them says, each direction by itself. Unlike a [Relay] it carries every protocol,
// and TCP feels loss, reordering and rate as it would outside.
//
// Its methods are safe from any goroutine but its loop's own.
type Wan struct {
	loop  *reactor.Loop
	seed  uint64
	ports map[netip.Addr]*port
	lines map[[2]netip.Addr]*Line
	queue flight
	timer *reactor.Timer
	count WanCounters
	order uint64
	buf   [1 << 16]byte
}

// WanCounters are totals of packets.
type WanCounters struct{ Sent, Delivered, Lost, Strange atomic.Uint64 }

type port struct {
	wan  *Wan
	addr netip.Addr
	fd   int
}

// packet is on its way.
type packet struct {
	at    time.Duration
	order uint64
	to    *port
	data  []byte
}

// NewWan returns a network without places. The loop must be running or be about to.
func NewWan(loop *reactor.Loop, seed uint64) *Wan {
	w := &Wan{loop: loop, seed: seed, ports: map[netip.Addr]*port{}, lines: map[[2]netip.Addr]*Line{}}
	loop.Call(func() { w.timer = loop.NewTimer(w.deliver) })
	return w
}

// OpenTUN makes a TUN device in the calling thread's network namespace and returns
// its descriptor, which works from everywhere.
func OpenTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("make TUN device %s: %w", name, err)
	}
	return fd, nil
}

// Attach adds a place with an IPv4 address, whose device is fd.
func (w *Wan) Attach(addr netip.Addr, fd int) error {
	err := errors.New("wan: the loop has ended")
	w.loop.Call(func() {
		p := &port{w, addr, fd}
		if err = w.loop.Register(fd, reactor.Readable, p); err == nil {
			w.ports[addr] = p
		}
	})
	return err
}

// Shape sets the line from one place to another, in that direction.
func (w *Wan) Shape(from, to netip.Addr, s Shape) {
	w.loop.Call(func() { w.line(from, to).Shape = s })
}

// Change changes the line from one place to another, in that direction.
func (w *Wan) Change(from, to netip.Addr, f func(*Shape)) {
	w.loop.Call(func() { f(&w.line(from, to).Shape) })
}

// Counters are the totals so far.
func (w *Wan) Counters() *WanCounters { return &w.count }

// Close forgets all places and closes their devices.
func (w *Wan) Close() {
	w.loop.Call(func() {
		for addr, p := range w.ports {
			w.loop.Unregister(p.fd)
			_ = unix.Close(p.fd)
			delete(w.ports, addr)
		}
		w.queue = nil
	})
}

func (w *Wan) line(from, to netip.Addr) *Line {
	key := [2]netip.Addr{from, to}
	l := w.lines[key]
	if l == nil {
		a, b := from.As4(), to.As4()
		l = NewLine(Shape{}, w.seed^uint64(binary.BigEndian.Uint32(a[:]))<<32^uint64(binary.BigEndian.Uint32(b[:])))
		w.lines[key] = l
	}
	return l
}

// Ready reads what a place sends.
func (p *port) Ready(uint32) {
	w := p.wan
	for {
		n, err := unix.Read(p.fd, w.buf[:])
		if err != nil || n <= 0 {
			return // EAGAIN: all is read
		}
		w.count.Sent.Add(1)
		if n < 20 || w.buf[0]>>4 != 4 {
			w.count.Strange.Add(1) // IPv6 neighbours are looked for by every interface
			continue
		}
		to := w.ports[netip.AddrFrom4([4]byte(w.buf[16:20]))]
		if to == nil {
			w.count.Strange.Add(1)
			continue
		}
		at, ok := w.line(p.addr, to.addr).Send(w.loop.Elapsed(), n)
		if !ok {
			w.count.Lost.Add(1)
			continue
		}
		w.order++
		heap.Push(&w.queue, packet{at, w.order, to, append([]byte(nil), w.buf[:n]...)})
		w.timer.Set(w.queue[0].at)
	}
}

// deliver hands over what has arrived.
func (w *Wan) deliver() {
	now := w.loop.Elapsed()
	for len(w.queue) > 0 && w.queue[0].at <= now {
		p := heap.Pop(&w.queue).(packet)
		if w.ports[p.to.addr] != p.to {
			continue
		}
		if _, err := unix.Write(p.to.fd, p.data); err != nil {
			w.count.Lost.Add(1) // the device is down, or its queue full
			continue
		}
		w.count.Delivered.Add(1)
	}
	if len(w.queue) > 0 {
		w.timer.Set(w.queue[0].at)
	}
}

// flight is a heap of packets by arrival.
type flight []packet

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	return f[i].at < f[j].at || f[i].at == f[j].at && f[i].order < f[j].order
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight) Push(x any)   { *f = append(*f, x.(packet)) }
func (f *flight) Pop() any {
	old := *f
	x := old[len(old)-1]
	*f = old[:len(old)-1]
	return x
}
