package datapath

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// A Redirection says which connections of a node's processes are made to its proxy
// instead. Control groups are paths below the root of cgroup v2, beginning with a slash.
type Redirection struct {
	// Groups are those of the processes, with all below them.
	Groups []string
	// Proxy is a control group of the proxy, which has to be there when it opens its
	// listener. Its connections go straight, unless it is Shared: then Users have to say
	// which are the proxy's.
	Proxy  string
	Shared bool
	// Proxy4 and Proxy6 are where it listens; one may be invalid, then connections of that
	// family go straight.
	Proxy4, Proxy6 netip.AddrPort
	// Wanted is what goes to the proxy, but for what is Spared.
	Wanted, Spared []Destination
	// Users and SparedGroups are those whose connections go straight.
	Users        []uint32
	SparedGroups []string
	// Closed has connections fail while the proxy does not listen; else they go straight.
	Closed bool
}

// A Destination is a network, at one port or, with 0, at all.
type Destination struct {
	Network netip.Prefix
	Port    uint16
}

// RedirectCounts are numbers of connections since the maps were made.
type RedirectCounts struct {
	Redirected uint64
	// Spared were excluded, Opened went straight because the proxy did not listen, Failed
	// because the kernel had no room to remember them.
	Spared, Opened, Failed uint64
}

// redirectLayout is the version of what is pinned, as [layout] is of chains.
const redirectLayout = "v1"

const redirectFolder = "redirect"

// A Redirector owns the programs of transparent redirection. What it has put in force
// stays so when the process ends. Its methods must not be called at the same time.
type Redirector struct {
	pins    string
	root    string // of cgroup v2
	coll    *ebpf.Collection
	applied *Redirection // by this process; nil before
}

// NewRedirector returns one that keeps its pins in a part of the folder, which is on a
// BPF file system. cgroups is where cgroup v2 is mounted; empty looks for it. It loads
// nothing before it is needed.
func NewRedirector(pins, cgroups string) *Redirector {
	return &Redirector{pins: filepath.Join(pins, redirectFolder), root: cgroups}
}

// Close lets go of programs and maps; what is pinned and attached stays.
func (r *Redirector) Close() {
	if r.coll != nil {
		r.coll.Close()
		r.coll, r.applied = nil, nil
	}
}

// Redirect makes the redirection the one in force; nil takes all of it away. Control
// groups that are not there are an error, but the rest is in force.
func (r *Redirector) Redirect(w *Redirection) error {
	if w == nil {
		r.Close()
		if err := errors.Join(r.prune(nil), os.RemoveAll(r.pins)); err != nil {
			return fmt.Errorf("redirection: %w", err)
		}
		return nil
	}
	if r.coll == nil {
		if err := r.load(); err != nil {
			return fmt.Errorf("redirection: %w", err)
		}
	}
	var missing []error
	id := func(group string) (id uint64, ok bool) {
		id, err := r.groupID(group)
		if err != nil {
			missing = append(missing, err)
		}
		return id, err == nil
	}
	spared := map[uint64]uint8{}
	proxy, proxied := id(w.Proxy)
	if proxied && !w.Shared {
		spared[proxy] = 1
	}
	for _, g := range w.SparedGroups {
		if n, ok := id(g); ok {
			spared[n] = 1
		}
	}
	users := map[uint32]uint8{}
	for _, u := range w.Users {
		users[u] = 1
	}
	settings, err := settingsOf(w)
	if err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	// What is excluded is known before anything is redirected.
	if err := errors.Join(
		syncMap(r.coll.Maps[redirectMapGroups], spared),
		r.coll.Maps[redirectMapSettings].Put(uint32(0), settings),
	); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	if !reflect.DeepEqual(w, r.applied) {
		if err := errors.Join(
			syncMap(r.coll.Maps[redirectMapUsers], users),
			syncMap(r.coll.Maps[redirectMapSpared], prefixes(w.Spared)),
			syncMap(r.coll.Maps[redirectMapWanted], prefixes(w.Wanted)),
		); err != nil {
			return fmt.Errorf("redirection: %w", err)
		}
	}
	links := map[string]wantedLink{}
	if proxied {
		// Before those of clients: a connection that the proxy cannot ask about is lost.
		for _, p := range []string{redirectProgOriginal, redirectProgHandover} {
			links[pinOf(p, proxy)] = wantedLink{p, w.Proxy}
		}
	}
	if err := r.attach(links); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	for _, g := range w.Groups {
		n, ok := id(g)
		if !ok || !proxied {
			continue
		}
		for _, p := range clientPrograms {
			links[pinOf(p, n)] = wantedLink{p, g}
		}
	}
	if err := errors.Join(r.attach(links), r.prune(links)); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	as := *w
	r.applied = &as
	return errors.Join(missing...)
}

// clientPrograms are those of redirected processes, in the order in which they are
// attached: what hands over is there before anything has to be.
var clientPrograms = []string{redirectProgHandover, redirectProgGetpeername4, redirectProgGetpeername6, redirectProgConnect4, redirectProgConnect6}

// redirectHooks are where the programs run.
var redirectHooks = map[string]ebpf.AttachType{
	redirectProgConnect4:     ebpf.AttachCGroupInet4Connect,
	redirectProgConnect6:     ebpf.AttachCGroupInet6Connect,
	redirectProgGetpeername4: ebpf.AttachCgroupInet4GetPeername,
	redirectProgGetpeername6: ebpf.AttachCgroupInet6GetPeername,
	redirectProgHandover:     ebpf.AttachCGroupSockOps,
	redirectProgOriginal:     ebpf.AttachCGroupGetsockopt,
}

type wantedLink struct{ program, group string }

// pinOf is the name of a link's pin. A group that is made anew has another id, so that its
// pin is another, too.
func pinOf(program string, group uint64) string { return program + "-" + strconv.FormatUint(group, 10) }

// place is a pin's in the order of clientPrograms, before which the proxy's come.
func place(pin string) int {
	program, _, _ := strings.Cut(pin, "-")
	return slices.Index(clientPrograms, program)
}

func (r *Redirector) links() string { return filepath.Join(r.pins, "links") }

// attach has every program run at its group, in the place of an older one there.
func (r *Redirector) attach(wanted map[string]wantedLink) error {
	names := make([]string, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(place(a)-place(b), strings.Compare(a, b))
	})
	for _, name := range names {
		if err := r.attachOne(name, wanted[name]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Redirector) attachOne(name string, w wantedLink) error {
	pin := filepath.Join(r.links(), name)
	program := r.coll.Programs[w.program]
	old, err := link.LoadPinnedLink(pin, nil)
	switch {
	case err == nil:
		defer old.Close()
		if r.applied != nil {
			return nil // this process's own program
		}
		if err := old.Update(program); err != nil {
			return fmt.Errorf("new program for %s: %w", pin, err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("pinned link %s: %w", pin, err)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: filepath.Join(r.root, w.group), Attach: redirectHooks[w.program], Program: program})
	if err != nil {
		return fmt.Errorf("attach %s to control group %s: %w", w.program, w.group, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	return nil
}

// prune takes away the links of groups that are not redirected any more, or gone: first
// those that redirect, since what they have begun still needs the others.
func (r *Redirector) prune(wanted map[string]wantedLink) error {
	files, err := os.ReadDir(r.links())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	slices.SortStableFunc(files, func(a, b fs.DirEntry) int { return place(b.Name()) - place(a.Name()) })
	var faults []error
	for _, f := range files {
		if _, ok := wanted[f.Name()]; !ok {
			faults = append(faults, detachLink(filepath.Join(r.links(), f.Name())))
		}
	}
	return errors.Join(faults...)
}

// detachLink takes a link off at once: a pin alone that is removed takes its link along
// some time later.
func detachLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("pinned link %s: %w", pin, err)
	}
	defer l.Close()
	// Of a group that is gone the kernel has detached it.
	if err := l.Detach(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("detach %s: %w", pin, err)
	}
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("remove %s: %w", pin, err)
	}
	return nil
}

// load loads the programs, with the maps of the process before this one.
func (r *Redirector) load() error {
	if r.root == "" {
		root, err := cgroupRoot()
		if err != nil {
			return err
		}
		r.root = root
	}
	if err := onBPFFS(r.pins); err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("memory limit for BPF: %w", err)
	}
	spec, err := loadRedirect()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.links(), 0o700); err != nil {
		return fmt.Errorf("folder for links: %w", err)
	}
	r.coll, err = load(spec, filepath.Join(r.pins, redirectLayout))
	return err
}

// Counts reads the counters of connections.
func (r *Redirector) Counts() (c RedirectCounts, err error) {
	if r.coll == nil {
		return c, nil
	}
	for i, n := range []*uint64{&c.Redirected, &c.Spared, &c.Opened, &c.Failed} {
		var each []uint64
		if err := r.coll.Maps[redirectMapCounts].Lookup(uint32(i), &each); err != nil {
			return c, fmt.Errorf("counters of redirection: %w", err)
		}
		for _, v := range each {
			*n += v
		}
	}
	return c, nil
}

// groupID is the id of a control group, which the kernel's helpers know it by.
func (r *Redirector) groupID(group string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(r.root, group), &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, fmt.Errorf("control group %s is not there: start what runs in it, or name a slice that stays", group)
	case err != nil:
		return 0, fmt.Errorf("control group %s: %w", group, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return 0, fmt.Errorf("control group %s is not a folder of %s", group, r.root)
	}
	return st.Ino, nil
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot() (string, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", errors.New("cgroup v2 is mounted nowhere: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// settingsOf is what the programs are told of the proxy. Its namespace is this process's.
func settingsOf(w *Redirection) (s redirectSettings, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	defer unix.Close(fd)
	if s.Netns, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		return s, fmt.Errorf("cookie of the network namespace (Linux 5.14): %w", err)
	}
	if w.Closed {
		s.Closed = 1
	}
	for i, at := range []netip.AddrPort{w.Proxy4, w.Proxy6} {
		if !at.IsValid() {
			continue
		}
		p := &s.Proxy[i]
		p.At.Addr, p.At.Port = words(at.Addr()), networkOrder(at.Port())
		p.Flags = proxyThere
		listens, err := listening(at)
		if err != nil {
			return s, err
		}
		if listens {
			p.Flags |= proxyListens
		}
	}
	return s, nil
}

// Flags of struct proxy.
const (
	proxyThere   = 1
	proxyListens = 2
)

func networkOrder(port uint16) uint16 { return port>>8 | port<<8 }

func prefixes(list []Destination) map[redirectPrefix]uint8 {
	out := map[redirectPrefix]uint8{}
	for _, d := range list {
		bits := d.Network.Bits()
		if d.Network.Addr().Is4() {
			bits += 96
		}
		out[redirectPrefix{Bits: 32 + uint32(bits), Port: networkOrder(d.Port), Addr: words(d.Network.Masked().Addr())}] = 1
	}
	return out
}

// syncMap makes a map's keys those that are wanted.
func syncMap[K comparable](m *ebpf.Map, wanted map[K]uint8) error {
	var key K
	var value uint8
	var gone []K
	have := map[K]bool{}
	it := m.Iterate()
	for it.Next(&key, &value) {
		have[key] = true
		if wanted[key] == 0 {
			gone = append(gone, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %v: %w", m, err)
	}
	for k, v := range wanted {
		if have[k] {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("%v: %w", m, err)
		}
	}
	for _, k := range gone {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("%v: %w", m, err)
		}
	}
	return nil
}
