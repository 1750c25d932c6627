package ports

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// tunName is the device by which packets that belong to no chain go back to the
// kernel. It goes when its process does.
const tunName = "meridian-pass"

func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("TUN device, by which packets of no chain go on (CAP_NET_ADMIN, CONFIG_TUN): %w", err)
	}
	if err := setUpTUN(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("TUN device %s: %w", tunName, err)
	}
	return fd, nil
}

func setUpTUN(fd int) error {
	req, err := unix.NewIfreq(tunName)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return errors.New("it is in use: another agent forwards this node's chains")
		}
		return err
	}
	// Sources that belong behind other ports come in here.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+tunName+"/rp_filter", []byte("0"), 0); err != nil {
		return err
	}
	all, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter")
	if err != nil {
		return err
	}
	if v := strings.TrimSpace(string(all)); v == "1" {
		return errors.New("net.ipv4.conf.all.rp_filter is 1, with which the kernel drops packets that belong to no chain; set it to 0, or to 2")
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if req, err = unix.NewIfreq(tunName); err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_NOARP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// listenGPE opens the socket for VXLAN-GPE to one of the node's addresses. Datagrams
// are not cut (as chaining/soft's frames say), and need no checksum (RFC 6935).
func listenGPE(a netip.Addr) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		set := func(fd uintptr, level, name, value int, what string) {
			if err := unix.SetsockoptInt(int(fd), level, name, value); err != nil && serr == nil {
				serr = fmt.Errorf("%s: %w", what, err)
			}
		}
		err := c.Control(func(fd uintptr) {
			set(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20, "SO_RCVBUFFORCE")
			set(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20, "SO_SNDBUFFORCE")
			if a.Is4() {
				set(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1, "SO_NO_CHECK")
				set(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, "IP_MTU_DISCOVER")
				return
			}
			set(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, "IPV6_MTU_DISCOVER")
			set(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1, "UDP_NO_CHECK6_TX")
			set(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1, "UDP_NO_CHECK6_RX")
		})
		return errors.Join(err, serr)
	}}
	network := "udp4"
	if a.Is6() {
		network = "udp6"
	}
	c, err := lc.ListenPacket(context.Background(), network, netip.AddrPortFrom(a, nsh.GPEPort).String())
	if err != nil {
		return nil, fmt.Errorf("VXLAN-GPE at %v: %w", a, err)
	}
	return c.(*net.UDPConn), nil
}

// rawKey is a raw socket that the kernel routes by: of a family, through one device
// or, for "", any.
type rawKey struct {
	device string
	six    bool
}

// route sends an IP packet as the kernel's routes and neighbours say, through device
// where one is given.
func (f *Forwarder) route(device string, frame []byte) {
	dst, ok := destination(frame)
	if !ok {
		f.lost[lostRefused]++
		return
	}
	k := rawKey{device, dst.Is6()}
	fd, ok := f.raw[k]
	if !ok {
		var err error
		if fd, err = openRaw(k); err != nil {
			f.cfg.Log.Error("packets at the end of paths cannot be sent", "port", device, "err", err)
			f.lost[lostRefused]++
			return
		}
		f.raw[k] = fd
	}
	var to unix.Sockaddr
	if k.six {
		to = &unix.SockaddrInet6{Addr: dst.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	}
	f.refused(unix.Sendto(fd, frame[14:], unix.MSG_DONTWAIT, to))
}

func openRaw(k rawKey) (int, error) {
	family := unix.AF_INET
	if k.six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("raw socket (CAP_NET_RAW): %w", err)
	}
	if k.six {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
	}
	if err == nil && k.device != "" {
		err = unix.BindToDevice(fd, k.device)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	return fd, nil
}
