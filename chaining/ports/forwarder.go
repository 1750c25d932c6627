package ports

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// Config is how a Forwarder runs.
type Config struct {
	// Flows is how many flows are remembered, at most; 0 is soft's default.
	Flows int
	// Integrity protects headers at a site's border; nil drops them there.
	Integrity *soft.Integrity
	// TakeOver, when not nil, ends whatever else forwards on the node; it is called
	// once, when the kernel has stopped to.
	TakeOver func() error
	Log      *slog.Logger
}

// Forwarder is a node's forwarder in userspace. Its methods may be called by any
// goroutine; one turn at a time forwards.
type Forwarder struct {
	cfg Config

	mu        sync.Mutex
	forwarder *soft.Forwarder // nil before the first Apply
	packet    map[string]*port
	udp       map[netip.Addr]*tunnelEnd
	own       map[netip.Addr]bool // the node's addresses: what is sent to them is the kernel's
	tun       int                 // -1 before the first Apply
	raw       map[rawKey]int
	out       []byte // of one frame that goes out
	segment   []byte // of one that came in
	lost      [lostCount]uint64
	dirty     []*packetSocket // with frames queued
	wg        sync.WaitGroup
}

// port is a packet socket and who reads it.
type port struct {
	*packetSocket
	index int
	mac   [6]byte
	ended atomic.Bool
}

// tunnelEnd is where VXLAN-GPE for one of the node's addresses comes in.
type tunnelEnd struct {
	conn *net.UDPConn
	port string // the interface that the table has it at
}

// Reasons why a frame that Forward has made did not leave.
const (
	lostNoRoute = iota // no route or neighbour at the path's end
	lostTooBig
	lostRefused // by a port's queue, or a port that is down
	lostCount
)

var lostReasons = [lostCount]path.Reason{lostNoRoute: datapath.ReasonNoRoute, lostTooBig: path.ReasonTooBig, lostRefused: datapath.ReasonHelper}

// New returns a forwarder, which does nothing before Apply.
func New(cfg Config) *Forwarder {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Forwarder{
		cfg: cfg, packet: map[string]*port{}, udp: map[netip.Addr]*tunnelEnd{}, raw: map[rawKey]int{}, tun: -1,
		out: make([]byte, frameRoom+soft.Headroom), segment: make([]byte, frameRoom),
	}
}

// AnswersEchoes says that echo requests (RFC 9516) need nobody else.
func (f *Forwarder) AnswersEchoes() {}

// Apply makes the table the one in force. The kernel stops to forward what comes in
// on a port before somebody else does, so nothing passes unclassified.
func (f *Forwarder) Apply(t *path.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tun < 0 {
		tun, err := openTUN()
		if err != nil {
			return err
		}
		f.tun = tun
	}
	own, err := ownAddresses()
	if err != nil {
		return err
	}
	wanted, diverted := map[string]uint16{}, []string{}
	for i := range t.Ports {
		p := &t.Ports[i]
		switch p.Role {
		case path.RoleIngress, path.RolePlain:
			wanted[p.Interface] = packetAll
			diverted = append(diverted, p.Interface)
		case path.RoleAware:
			if _, there := wanted[p.Interface]; !there {
				wanted[p.Interface] = packetNSH
			}
		}
	}
	if err := datapath.Divert(diverted); err != nil {
		return err
	}
	if f.cfg.TakeOver != nil {
		if err := f.cfg.TakeOver(); err != nil {
			return err
		}
		f.cfg.TakeOver = nil
	}
	if err := f.openPorts(wanted); err != nil {
		return err
	}
	if err := f.openTunnels(t); err != nil {
		return err
	}
	f.own = own
	if f.forwarder == nil {
		f.forwarder = soft.New(t, soft.Limits{Flows: f.cfg.Flows, Returns: f.cfg.Flows}, f.cfg.Integrity)
		return nil
	}
	f.forwarder.Swap(t)
	return nil
}

func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("the node's addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own, nil
}

func (f *Forwarder) openPorts(wanted map[string]uint16) error {
	for name, p := range f.packet {
		if _, there := wanted[name]; !there {
			p.ended.Store(true)
			delete(f.packet, name)
		}
	}
	for name, protocol := range wanted {
		ifc, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
		if p := f.packet[name]; p != nil {
			if p.index == ifc.Index {
				copy(p.mac[:], ifc.HardwareAddr)
				continue
			}
			p.ended.Store(true) // another interface of the same name
			delete(f.packet, name)
		}
		s, err := openPacket(name, protocol)
		if err != nil {
			return err
		}
		p := &port{packetSocket: s, index: ifc.Index}
		copy(p.mac[:], ifc.HardwareAddr)
		f.packet[name] = p
		f.wg.Go(func() {
			defer p.close()
			f.serve(name, p)
		})
	}
	return nil
}

func (f *Forwarder) openTunnels(t *path.Table) error {
	wanted := map[netip.Addr]string{}
	for i := range t.Ports {
		p := &t.Ports[i]
		if p.Role != path.RoleUnderlay && p.Role != path.RoleAware {
			continue
		}
		for _, a := range []netip.Addr{p.Address, p.Address6} {
			if _, there := wanted[a]; a.IsValid() && (!there || p.Role == path.RoleUnderlay) {
				wanted[a] = p.Interface
			}
		}
	}
	for a, e := range f.udp {
		if _, there := wanted[a]; !there {
			e.conn.Close()
			delete(f.udp, a)
		}
	}
	for a, name := range wanted {
		if e := f.udp[a]; e != nil {
			e.port = name
			continue
		}
		conn, err := listenGPE(a)
		if err != nil {
			return err
		}
		e := &tunnelEnd{conn, name}
		f.udp[a] = e
		f.wg.Go(func() { f.serveTunnel(a, e) })
	}
	return nil
}

// serve forwards what comes in on a port until the port has ended.
func (f *Forwarder) serve(name string, p *port) {
	failed := false
	for !p.ended.Load() {
		n, err := p.receive()
		if err != nil {
			if !errors.Is(err, errQuiet) && !failed {
				failed = true // once: Apply opens the port again when it is another
				f.cfg.Log.Error("port cannot be read", "port", name, "err", err)
			}
			if failed {
				time.Sleep(100 * time.Millisecond)
			}
			continue
		}
		failed = false
		f.mu.Lock()
		if f.forwarder != nil && f.packet[name] == p {
			if index, ok := f.forwarder.Table().PortByName(name); ok {
				for i := range n {
					frame, u, ok := p.frame(i)
					if !ok || !f.ours(p, frame) {
						continue
					}
					if err := soft.Finish(frame, u, f.segment, func(b []byte) { f.forward(index, b) }); err != nil {
						f.lost[lostRefused]++
					}
				}
				f.flush()
			}
		}
		f.mu.Unlock()
	}
}

// ours reports whether a frame is for the node to forward: addressed to the port, and
// not to one of the node's own addresses.
func (f *Forwarder) ours(p *port, frame []byte) bool {
	if len(frame) < 14 || [6]byte(frame) != p.mac {
		return false
	}
	dst, ok := destination(frame)
	return !ok || !f.own[dst]
}

// destination is an IP frame's.
func destination(frame []byte) (netip.Addr, bool) {
	switch ip := frame[14:]; {
	case frame[12] == 0x08 && frame[13] == 0 && len(ip) >= 20:
		return netip.AddrFrom4([4]byte(ip[16:])), true
	case frame[12] == 0x86 && frame[13] == 0xdd && len(ip) >= 40:
		return netip.AddrFrom16([16]byte(ip[24:])), true
	}
	return netip.Addr{}, false
}

// serveTunnel forwards what comes in on an address until its socket is closed.
func (f *Forwarder) serveTunnel(a netip.Addr, e *tunnelEnd) {
	buf := make([]byte, soft.OuterRoom+frameRoom)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf[soft.OuterRoom:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Of a datagram sent before, which could not be delivered; should it be more
			// than that, the pause keeps the processor free.
			time.Sleep(time.Millisecond)
			continue
		}
		f.mu.Lock()
		if f.forwarder != nil {
			if index, ok := f.tunnelPort(e.port, a); ok {
				f.forward(index, soft.Enframe(buf[:soft.OuterRoom+n], from, a))
				f.flush()
			}
		}
		f.mu.Unlock()
	}
}

// tunnelPort is the table's port of an interface that ends tunnels at an address: an
// interface may be another port, too.
func (f *Forwarder) tunnelPort(name string, a netip.Addr) (uint16, bool) {
	i := slices.IndexFunc(f.forwarder.Table().Ports, func(p path.Port) bool {
		return p.Interface == name && (p.Role == path.RoleUnderlay || p.Role == path.RoleAware) && (p.Address == a || p.Address6 == a)
	})
	return uint16(i), i >= 0
}

// forward does one frame's turn.
func (f *Forwarder) forward(in uint16, frame []byte) {
	t, now := f.forwarder.Table(), time.Now()
	r := f.forwarder.Forward(in, frame, f.out, now)
	switch r.Verdict {
	case path.VerdictPass:
		if _, isIP := destination(r.Frame); isIP && t.Ports[in].Role != path.RoleUnderlay {
			if _, err := unix.Write(f.tun, r.Frame[14:]); err != nil {
				f.lost[lostRefused]++
			}
		}
	case path.VerdictPlain, path.VerdictEther, path.VerdictAnswer:
		f.send(&t.Ports[r.Port], r.Frame)
	case path.VerdictEnd:
		next := t.Hops[r.Hop]
		if r.Port != path.NoPort && next.DstMAC != (path.MAC{}) {
			f.send(&t.Ports[r.Port], r.Frame)
			return
		}
		device := ""
		if r.Port != path.NoPort {
			device = t.Ports[r.Port].Interface
		}
		f.route(device, r.Frame)
	case path.VerdictNode, path.VerdictGPE:
		next := t.Hops[r.Hop]
		f.datagram(next.Local, netip.AddrPortFrom(next.Remote, nsh.GPEPort), soft.Datagram(r.Frame))
	case path.VerdictPunt:
		e, ok := f.forwarder.Echo(soft.Datagram(r.Frame), now)
		if !ok {
			return
		}
		if e.To.Port() == 0 {
			e.To = netip.AddrPortFrom(e.To.Addr(), nsh.GPEPort)
		}
		local := t.Ports[in].Address
		if !e.To.Addr().Unmap().Is4() {
			local = t.Ports[in].Address6
		}
		f.datagram(local, e.To, e.Payload)
	}
}

func (f *Forwarder) send(p *path.Port, frame []byte) {
	to := f.packet[p.Interface]
	if to == nil {
		f.lost[lostRefused]++
		return
	}
	if to.queued == 0 {
		f.dirty = append(f.dirty, to.packetSocket)
	}
	f.lost[lostRefused] += uint64(to.queue(frame))
}

func (f *Forwarder) flush() {
	for _, s := range f.dirty {
		f.lost[lostRefused] += uint64(s.flush())
	}
	f.dirty = f.dirty[:0]
}

func (f *Forwarder) datagram(local netip.Addr, to netip.AddrPort, b []byte) {
	e := f.udp[local]
	if e == nil || b == nil {
		f.lost[lostRefused]++
		return
	}
	_, err := e.conn.WriteToUDPAddrPort(b, to)
	f.refused(err)
}

func (f *Forwarder) refused(err error) {
	switch {
	case err == nil:
	case errors.Is(err, unix.EMSGSIZE):
		f.lost[lostTooBig]++
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		f.lost[lostNoRoute]++
	default:
		f.lost[lostRefused]++
	}
}

// Counts implements agent.Forwarder.
func (f *Forwarder) Counts() (map[uint32]datapath.Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[uint32]datapath.Count{}
	if f.forwarder == nil {
		return all, nil
	}
	for hop := range f.forwarder.Table().Hops {
		all[hop.SPI<<8|uint32(hop.SI)] = datapath.Count{}
	}
	for hop, n := range f.forwarder.Counters().Hops {
		all[hop.SPI<<8|uint32(hop.SI)] = datapath.Count{Packets: n.Packets - n.Drops, Bytes: n.Bytes, Drops: n.Drops}
	}
	return all, nil
}

// Drops implements agent.Forwarder.
func (f *Forwarder) Drops() (map[path.Reason]uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[path.Reason]uint64{}
	if f.forwarder != nil {
		for r, n := range f.forwarder.Counters().Reasons {
			if path.Reason(r) != path.ReasonNone {
				all[path.Reason(r)] = n
			}
		}
	}
	for i, n := range f.lost {
		all[lostReasons[i]] += n
	}
	return all, nil
}

// Close ends forwarding. The kernel goes on to forward nothing that comes in on the
// ports: only datapath.Divert gives them back.
func (f *Forwarder) Close() {
	f.mu.Lock()
	for _, p := range f.packet {
		p.ended.Store(true)
	}
	for _, e := range f.udp {
		e.conn.Close()
	}
	f.packet, f.udp = map[string]*port{}, map[netip.Addr]*tunnelEnd{}
	f.mu.Unlock()
	f.wg.Wait()
	for fd := range maps.Values(f.raw) {
		unix.Close(fd)
	}
	if f.tun >= 0 {
		unix.Close(f.tun)
	}
}
