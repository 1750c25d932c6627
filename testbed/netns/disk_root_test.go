//go:build root

package netns

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a small file system of its own that can be filled, and that can lose
// power: what was not synced is gone then, as it would be outside.
type disk struct {
	t            *testing.T
	image, point string
	ballast      string
}

// mountDisk puts an empty ext4 of some MiB at a folder.
func mountDisk(t *testing.T, point string, mib int64) *disk {
	t.Helper()
	d := &disk{t: t, image: point + ".img", point: point, ballast: filepath.Join(point, "ballast")}
	f, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close())
	}
	if err == nil {
		err = os.MkdirAll(point, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", d.image)
	d.run("mount", "-o", "loop", d.image, point)
	t.Cleanup(func() { d.run("umount", "-l", point) })
	return d
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// fill takes all the room there is.
func (d *disk) fill() {
	f, err := os.Create(d.ballast)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); err != nil {
			size /= 2
		}
	}
	_ = f.Sync()
}

func (d *disk) clear() {
	if err := os.Remove(d.ballast); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
}

// cutPower stops the file system without writing what it still holds in memory:
// neither data nor journal (the flag NOLOGFLUSH).
func (d *disk) cutPower() {
	const (
		shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN, as XFS_IOC_GOINGDOWN
		noLogFlush = 2
	)
	f, err := os.Open(d.point)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		d.t.Fatalf("cut the power of %s: %v", d.point, errno)
	}
}

// boot mounts the file system again. Nothing may have it open. A power cut also
// takes back that the ballast was removed, if that was not on the disk yet.
func (d *disk) boot() {
	d.run("umount", d.point)
	d.run("mount", "-o", "loop", d.image, d.point)
	d.clear()
}

// TestRootDisk shows that the power cut does what it is for.
func TestRootDisk(t *testing.T) {
	d := mountDisk(t, filepath.Join(t.TempDir(), "disk"), 16)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(d.point, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if sync {
			dir, err := os.Open(d.point)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := errors.Join(f.Sync(), dir.Sync()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("synced", true)
	write("unsynced", false)
	d.cutPower()
	d.boot()
	if data, err := os.ReadFile(filepath.Join(d.point, "synced")); string(data) != "synced" {
		t.Errorf("what was synced: %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(d.point, "unsynced")); err == nil && len(data) > 0 {
		t.Errorf("what was not synced survived: %q", data)
	}
	d.fill()
	if err := os.WriteFile(filepath.Join(d.point, "more"), make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk takes more: %v", err)
	}
	d.clear()
	write("again", true)
}
