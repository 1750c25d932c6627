package accesslog

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

const (
	// ringBytes holds a busy loop's records for some tens of milliseconds, longer
	// than the writer sleeps.
	ringBytes = 1 << 20
	// maxText bounds one value, so that hostile heads do not fill the log.
	maxText   = 4 << 10
	maxFields = 32
)

// Entry is what a finished request leaves behind. Everything it points to is
// borrowed during [Ring.Add]. Times are nanoseconds on the loops' clock.
type Entry struct {
	Start, Duration int64
	// FirstByte is from Start to the first byte of the backend's response, -1
	// when there was none.
	FirstByte int64
	Status    int // 0: no response was sent
	Flag      string
	Attempts  int
	// Received and Sent are bytes of bodies.
	Received, Sent int64
	// Client is who asked, Peer who is at the other end of the connection: a proxy in
	// front of this one may be between them.
	Client, Peer, Upstream  netip.AddrPort
	Protocol                string
	Method, Authority, Path []byte
	Service, Route, Gateway string
	// Details says in a word or some why the response is as it is.
	Details string
	// Site is the other site that served it, empty at home.
	Site string
	// Identity is who the client is by its certificate's URI, empty without one.
	Identity string
	// Request are the fields sent on; Response are the values that
	// [Ring.Capture] kept, by the format's order, absent ones nil.
	Request  []stream.Field
	Response [][]byte
	// Mark is handed to the reader of a [Reader] as it is.
	Mark uint8
}

// Ring takes the records of one loop. Only that loop may call Add and Capture;
// they neither allocate nor wait.
type Ring struct {
	of      *feed
	scratch []byte
	buf     []byte
	_       [64]byte
	head    atomic.Uint64 // bytes ever written
	dropped atomic.Uint64
	_       [64]byte
	tail    atomic.Uint64 // bytes ever read
	_       [64]byte
}

// feed is the way of records from the loops' rings to one reader.
type feed struct {
	format  *Format
	rings   []*Ring
	waiting atomic.Bool // the reader sleeps until a record comes
	wake    chan struct{}
}

func newFeed(f *Format, rings, size int) *feed {
	out := &feed{format: f, wake: make(chan struct{}, 1)}
	for range rings {
		out.rings = append(out.rings, &Ring{of: out, scratch: make([]byte, 0, 8<<10), buf: make([]byte, size)})
	}
	return out
}

// Ring is loop i's way in.
func (f *feed) Ring(i int) *Ring { return f.rings[i] }

func (f *feed) wakeUp() {
	if f.waiting.Load() && f.waiting.Swap(false) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// lost counts the records that found no room.
func (f *feed) lost() (n uint64) {
	for _, r := range f.rings {
		n += r.dropped.Load()
	}
	return n
}

// Capture copies the values of the response fields that the format shows, with
// keep, into dst; it returns dst.
func (r *Ring) Capture(dst [][]byte, fields []stream.Field, keep func([]byte) []byte) [][]byte {
	for _, name := range r.of.format.response {
		var v []byte
		for i := range fields {
			if len(fields[i].Name) == len(name) && fields[i].Is(name) {
				v = keep(fields[i].Value)
				break
			}
		}
		dst = append(dst, v)
	}
	return dst
}

// Captures reports whether the format shows fields of responses.
func (r *Ring) Captures() bool { return len(r.of.format.response) > 0 }

// Add hands a record to the writer, or drops and counts it where the ring is full.
func (r *Ring) Add(e *Entry) {
	b := r.scratch[:4]
	for _, v := range [...]int64{e.Start, e.Duration, e.FirstByte, e.Received, e.Sent} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(e.Status))
	b = append(b, uint8(min(e.Attempts, 255)), e.Mark)
	b = appendAddr(b, e.Client)
	b = appendAddr(b, e.Peer)
	b = appendAddr(b, e.Upstream)
	for _, s := range [...]string{e.Flag, e.Details, e.Protocol, e.Service, e.Route, e.Gateway, e.Site, e.Identity} {
		b = binary.LittleEndian.AppendUint16(b, uint16(min(len(s), maxText)))
		b = append(b, s[:min(len(s), maxText)]...)
	}
	b = appendText(b, e.Method)
	b = appendText(b, e.Authority)
	b = appendText(b, e.Path)
	for _, name := range r.of.format.request {
		var v []byte
		for i := range e.Request {
			if f := &e.Request[i]; len(f.Name) == len(name) && f.Is(name) {
				v = f.Value
				break
			}
		}
		b = appendText(b, v)
	}
	for i := range r.of.format.response {
		var v []byte
		if i < len(e.Response) {
			v = e.Response[i]
		}
		b = appendText(b, v)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	r.scratch = b[:0]

	head, size := r.head.Load(), uint64(len(r.buf))
	if uint64(len(b)) > size-(head-r.tail.Load()) {
		r.dropped.Add(1)
		return
	}
	at := int(head % size)
	n := copy(r.buf[at:], b)
	copy(r.buf, b[n:])
	r.head.Store(head + uint64(len(b)))
	r.of.wakeUp()
}

func appendText(b, v []byte) []byte {
	v = v[:min(len(v), maxText)]
	b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, 0)
	}
	ip := a.Addr().Unmap()
	if ip.Is4() {
		v := ip.As4()
		b = append(append(b, 4), v[:]...)
	} else {
		v := ip.As16()
		b = append(append(b, 16), v[:]...)
	}
	return binary.LittleEndian.AppendUint16(b, a.Port())
}

// take appends the bytes that wait to dst, which has room for a whole ring.
func (r *Ring) take(dst []byte) []byte {
	tail, head := r.tail.Load(), r.head.Load()
	if head == tail {
		return dst
	}
	at, n := int(tail%uint64(len(r.buf))), int(head-tail)
	first := min(n, len(r.buf)-at)
	dst = append(dst, r.buf[at:at+first]...)
	dst = append(dst, r.buf[:n-first]...)
	r.tail.Store(head)
	return dst
}

// record is a record read back; its texts point into the bytes it was read from.
type record struct {
	start, duration, firstByte, received, sent int64
	status                                     int
	attempts                                   int
	mark                                       uint8
	client, peer, upstream                     netip.AddrPort
	details                                    []byte
	flag, protocol, service, route, gateway    []byte
	site, identity, method, authority, path    []byte
	request, response                          [maxFields][]byte
}

// read takes the first record off b, which holds whole records.
func (f *Format) read(b []byte, e *record) (rest []byte) {
	n := binary.LittleEndian.Uint32(b)
	rest, b = b[n:], b[4:n]
	for _, v := range [...]*int64{&e.start, &e.duration, &e.firstByte, &e.received, &e.sent} {
		*v, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	}
	e.status, e.attempts, e.mark, b = int(binary.LittleEndian.Uint16(b)), int(b[2]), b[3], b[4:]
	e.client, b = readAddr(b)
	e.peer, b = readAddr(b)
	e.upstream, b = readAddr(b)
	for _, t := range [...]*[]byte{&e.flag, &e.details, &e.protocol, &e.service, &e.route, &e.gateway, &e.site, &e.identity, &e.method, &e.authority, &e.path} {
		*t, b = readText(b)
	}
	for i := range f.request {
		e.request[i], b = readText(b)
	}
	for i := range f.response {
		e.response[i], b = readText(b)
	}
	return rest
}

func readText(b []byte) (text, rest []byte) {
	n := 2 + int(binary.LittleEndian.Uint16(b))
	return b[2:n], b[n:]
}

func readAddr(b []byte) (netip.AddrPort, []byte) {
	n := int(b[0])
	if n == 0 {
		return netip.AddrPort{}, b[1:]
	}
	ip, _ := netip.AddrFromSlice(b[1 : 1+n])
	return netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(b[1+n:])), b[3+n:]
}
