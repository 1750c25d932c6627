package datapath

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool commands (include/uapi/linux/ethtool.h).
const (
	ethtoolGetTxCsum = 0x16
	ethtoolGetTSO    = 0x1e
	ethtoolGetGSO    = 0x23
	ethtoolSetTxCsum = 0x17
	ethtoolSetTSO    = 0x1f
	ethtoolSetGSO    = 0x24
)

// SetSegmentation turns a device's segmentation offload (TSO and GSO) on or off.
// A port to a function that reads NSH straight from Ethernet needs it off where
// packets come out of a tunnel: the kernel drops such packets otherwise.
func SetSegmentation(device string, on bool) error {
	return setOffloads(device, on, ethtoolSetTSO, ethtoolSetGSO)
}

// SetOffload turns a device's segmentation and checksum offload on or off. A port to
// a process that reads packets from a socket needs both off: what is left for
// hardware to do, nobody would do.
func SetOffload(device string, on bool) error {
	return setOffloads(device, on, ethtoolSetTSO, ethtoolSetGSO, ethtoolSetTxCsum)
}

func setOffloads(device string, on bool, commands ...uint32) error {
	_, err := ethtool(device, on, commands...)
	return err
}

// offloads reports whether a device's segmentation and checksum offload are all on.
func offloads(device string) (bool, error) {
	return ethtool(device, false, ethtoolGetTSO, ethtoolGetGSO, ethtoolGetTxCsum)
}

// ethtool carries out commands, and reports whether all said on.
func ethtool(device string, on bool, commands ...uint32) (all bool, err error) {
	all = true
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	for _, cmd := range commands {
		value := struct{ cmd, data uint32 }{cmd: cmd}
		if on {
			value.data = 1
		}
		req, err := unix.NewIfreq(device)
		if err != nil {
			return false, fmt.Errorf("device %s: %w", device, err)
		}
		type ifreqData struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		raw := ifreqData{data: unsafe.Pointer(&value)}
		copy(raw.name[:], req.Name())
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&raw))); errno != 0 {
			return false, fmt.Errorf("offload of %s: %w", device, errno)
		}
		all = all && value.data != 0
	}
	return all, nil
}

// What a tunnel's headers take of a packet, in bytes: outer IP, UDP, VXLAN-GPE and
// an NSH of MD type 1. NSH straight on Ethernet takes EtherOverhead.
const (
	GPE4Overhead  = 20 + 8 + 8 + 24
	GPE6Overhead  = 40 + 8 + 8 + 24
	EtherOverhead = 24
)
