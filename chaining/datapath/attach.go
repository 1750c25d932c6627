package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A hook is where on a port a program runs.
type hook string

const (
	hookIngress hook = "ingress"
	hookGuard   hook = "guard" // on the way out
)

var hooks = []hook{hookIngress, hookGuard}

// attacher puts programs on ports so that they stay when the process ends.
type attacher interface {
	// attach puts the program on the port, or in the place of an older one of ours
	// there, between two packets.
	attach(h hook, ifindex int, p *ebpf.Program) error
	// detach takes ours off; it is no fault when there is none.
	detach(h hook, ifindex int) error
	// attached lists ports that have one of ours, also of those that are gone.
	attached(h hook) ([]int, error)
}

func newAttacher(how Attachment, pins string) (attacher, error) {
	switch how {
	case AttachAuto:
		if haveTCX() == nil {
			return newAttacher(AttachTCX, pins)
		}
		return newAttacher(AttachClsact, pins)
	case AttachTCX:
		folder := filepath.Join(pins, "links")
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("folder for links: %w", err)
		}
		return tcx{folder}, nil
	case AttachClsact:
		return clsact{}, nil
	}
	return nil, fmt.Errorf("attachment %q: expected %q or %q", how, AttachTCX, AttachClsact)
}

// tcx keeps one pinned link for each hook and port.
type tcx struct{ folder string }

func (a tcx) pin(h hook, ifindex int) string {
	return filepath.Join(a.folder, string(h)+"-"+strconv.Itoa(ifindex))
}

func (a tcx) attach(h hook, ifindex int, p *ebpf.Program) error {
	pin := a.pin(h, ifindex)
	old, err := link.LoadPinnedLink(pin, nil)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("pinned link %s: %w", pin, err)
	default:
		defer old.Close()
		info, err := old.Info()
		if err != nil {
			return fmt.Errorf("pinned link %s: %w", pin, err)
		}
		if t := info.TCX(); t != nil && int(t.Ifindex) == ifindex {
			if err := old.Update(p); err != nil {
				return fmt.Errorf("new program for %s: %w", pin, err)
			}
			return nil
		}
		// The port that it was on is gone, and its number has come back.
		if err := old.Unpin(); err != nil {
			return fmt.Errorf("remove %s: %w", pin, err)
		}
	}
	where := ebpf.AttachTCXIngress
	if h == hookGuard {
		where = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: where})
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", h, ifindex, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	return nil
}

func (a tcx) detach(h hook, ifindex int) error {
	err := os.Remove(a.pin(h, ifindex))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (a tcx) attached(h hook) ([]int, error) {
	files, err := os.ReadDir(a.folder)
	if err != nil {
		return nil, err
	}
	var ports []int
	for _, f := range files {
		name, found := strings.CutPrefix(f.Name(), string(h)+"-")
		if !found {
			continue
		}
		ifindex, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s is no pin of ours", filepath.Join(a.folder, f.Name()))
		}
		ports = append(ports, ifindex)
	}
	return ports, nil
}

// clsact keeps filters, which outlive their maker without a pin. They are known by
// their priority and name; two agents on one node would take each other's.
type clsact struct{}

const (
	clsactPriority = 0x4d
	clsactName     = "meridian-"
)

func (clsact) filter(h hook, ifindex int) *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if h == hookGuard {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: parent, Handle: 1,
			Protocol: unix.ETH_P_ALL, Priority: clsactPriority,
		},
		Name:         clsactName + string(h),
		DirectAction: true,
	}
}

func (a clsact) attach(h hook, ifindex int, p *ebpf.Program) error {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("clsact on interface %d: %w", ifindex, err)
	}
	f := a.filter(h, ifindex)
	f.Fd = p.FD()
	if err := netlink.FilterReplace(f); err != nil {
		return fmt.Errorf("filter %s on interface %d: %w", h, ifindex, err)
	}
	return nil
}

func (a clsact) detach(h hook, ifindex int) error {
	err := netlink.FilterDel(a.filter(h, ifindex))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (a clsact) attached(h hook) ([]int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	var ports []int
	for _, l := range links {
		filters, err := netlink.FilterList(l, a.filter(h, 0).Parent)
		if err != nil {
			continue // no clsact there
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, clsactName+string(h)) {
				ports = append(ports, l.Attrs().Index)
				break
			}
		}
	}
	return ports, nil
}
