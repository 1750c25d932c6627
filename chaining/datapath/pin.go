package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What lies in the pin folder:
//
//	links/ingress-IFINDEX, links/guard-IFINDEX   one link for each port
//	v2/chain/MAP, v2/guard/MAP                   maps, by layout
//	redirect/                                    a Redirector's, of its own
//
// Links belong to no layout: a new program takes the place of an old one in the
// same link, with maps that were filled before. Then the old maps go.

// removeOtherLayouts takes away maps that no program of ours uses any more.
func (d *Datapath) removeOtherLayouts() error {
	entries, err := os.ReadDir(d.cfg.Pins)
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, e := range entries {
		if e.Name() == layout || !strings.HasPrefix(e.Name(), "v") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.cfg.Pins, e.Name())); err != nil {
			return fmt.Errorf("maps of layout %s: %w", e.Name(), err)
		}
	}
	return nil
}

// Detach takes everything away that Open and Apply put into the kernel, whoever
// did it: programs off their ports, the guard last, and the pinned maps. From then
// on traffic takes the node's own routes. It needs nothing to be loaded. What a
// Redirector has pinned stays.
func Detach(cfg Config) error {
	if err := onBPFFS(cfg.Pins); err != nil {
		return err
	}
	var faults []error
	for _, how := range []Attachment{AttachTCX, AttachClsact} {
		a, err := newAttacher(how, cfg.Pins)
		if err != nil {
			return err
		}
		for _, h := range hooks {
			ports, err := a.attached(h)
			if err != nil {
				faults = append(faults, err)
			}
			for _, ifindex := range ports {
				faults = append(faults, a.detach(h, ifindex))
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	entries, err := os.ReadDir(cfg.Pins)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach: %w", err)
	}
	for _, e := range entries {
		if e.Name() != redirectFolder {
			faults = append(faults, os.RemoveAll(filepath.Join(cfg.Pins, e.Name())))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	// What redirection has pinned stays, and the folder with it.
	if err := os.Remove(cfg.Pins); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// MountPins makes a folder and mounts a BPF file system on it, unless one is there.
func MountPins(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("folder for pins: %w", err)
	}
	if onBPFFS(folder) == nil {
		return nil
	}
	if err := unix.Mount("bpf", folder, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system on %s: %w", folder, err)
	}
	return nil
}
