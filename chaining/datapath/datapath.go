package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// layout is the version of what is pinned: names, keys and values of maps, and what
// they mean. Programs of one layout may take over each other's maps.
const layout = "v2"

// Config says where the datapath keeps its state and how it marks packets.
type Config struct {
	// Pins is a folder on a BPF file system. What is pinned there goes on forwarding
	// when the process ends, and is taken over by the next one.
	Pins string
	// Mark, within Mask, is set on packets that a chain handles, so that the guard
	// knows them. Other bits are left alone.
	Mark, Mask uint32
	// Attach is how programs get to their ports.
	Attach Attachment
	// Flows is how many flows are remembered, at most; the least recently used goes
	// first and is classified again. 0 means 131072. It takes effect when maps are
	// made, not when they are taken over.
	Flows int
}

// An Attachment is a way to put a program on a port.
type Attachment string

const (
	// AttachAuto takes TCX where the kernel has it, else clsact.
	AttachAuto Attachment = ""
	// AttachTCX needs Linux 6.6.
	AttachTCX Attachment = "tcx"
	// AttachClsact works from Linux 5.17, which the programs need for bpf_loop.
	AttachClsact Attachment = "clsact"
)

// DefaultMark and DefaultMask leave the lower bits to the node's other users.
const (
	DefaultMark = 0x4d000000
	DefaultMask = 0xff000000
)

// A Datapath is the kernel's part of a node's chains. Its methods must not be
// called at the same time.
type Datapath struct {
	cfg      Config
	chain    *ebpf.Collection
	guard    *ebpf.Collection
	attacher attacher
	cells    *cells
	flipped  time.Time // of the last flip, when this process made it
}

// Open loads the programs and takes over pinned maps of the same layout. Nothing
// that forwards changes before Apply: a fault here leaves the last state in force.
func Open(cfg Config) (*Datapath, error) {
	if cfg.Mask == 0 {
		cfg.Mark, cfg.Mask = DefaultMark, DefaultMask
	}
	if cfg.Mark&^cfg.Mask != 0 || cfg.Mark == 0 {
		return nil, fmt.Errorf("mark %#x must lie within mask %#x and not be 0", cfg.Mark, cfg.Mask)
	}
	if err := onBPFFS(cfg.Pins); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("memory limit for BPF: %w", err)
	}
	d := &Datapath{cfg: cfg}
	if err := d.load(); err != nil {
		d.Close()
		return nil, err
	}
	var err error
	if d.attacher, err = newAttacher(cfg.Attach, cfg.Pins); err != nil {
		d.Close()
		return nil, err
	}
	if d.cells, err = knownCells(d.chain.Maps[chainMapHops], d.chain.Maps[chainMapCells]); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Datapath) load() error {
	chain, err := loadChain()
	if err != nil {
		return fmt.Errorf("chain programs: %w", err)
	}
	if d.cfg.Flows > 0 {
		chain.Maps[chainMapFlows].MaxEntries = uint32(d.cfg.Flows)
		chain.Maps[chainMapHeld].MaxEntries = uint32(d.cfg.Flows)
	}
	if d.chain, err = load(chain, d.mapFolder(chainFolder)); err != nil {
		return fmt.Errorf("chain programs: %w", err)
	}
	guard, err := loadGuard()
	if err != nil {
		return fmt.Errorf("guard program: %w", err)
	}
	if d.guard, err = load(guard, d.mapFolder(guardFolder)); err != nil {
		return fmt.Errorf("guard program: %w", err)
	}
	return nil
}

// load pins every map in folder, or takes over what is pinned there. Of a map
// whose size was configured otherwise, the pinned one counts.
func load(spec *ebpf.CollectionSpec, folder string) (*ebpf.Collection, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("folder for pins: %w", err)
	}
	for name, m := range spec.Maps {
		m.Pinning = ebpf.PinByName
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(folder, name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pinned map %s: %w", name, err)
		}
		m.MaxEntries = pinned.MaxEntries()
		pinned.Close()
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: folder}})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return nil, fmt.Errorf("pinned maps in %s are of another build with the same layout %s; 'chainagent --detach' removes them: %w", folder, layout, err)
	}
	return coll, err
}

const (
	chainFolder = "chain"
	guardFolder = "guard"
)

func (d *Datapath) mapFolder(which string) string {
	return filepath.Join(d.cfg.Pins, layout, which)
}

// onBPFFS says whether pins can be made below the path: bpffs knows no other files.
func onBPFFS(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("pin folder %q is not an absolute path", path)
	}
	at := path
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(at, &fs)
		switch {
		case err == nil && fs.Type == unix.BPF_FS_MAGIC:
			return nil
		case err == nil:
			return fmt.Errorf("pin folder %s is not on a BPF file system: mount -t bpf bpf %s", path, at)
		case !errors.Is(err, unix.ENOENT) || at == "/":
			return fmt.Errorf("pin folder %s: %w", at, err)
		}
		at = filepath.Dir(at)
	}
}

// Close lets go of the programs and maps; what is pinned and attached stays.
func (d *Datapath) Close() {
	if d.chain != nil {
		d.chain.Close()
	}
	if d.guard != nil {
		d.guard.Close()
	}
}
