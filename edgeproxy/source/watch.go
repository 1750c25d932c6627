package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/manifest"
)

// watched is what matters in each folder: names of its entries, or all of them
// where the set has anyName.
type watched map[string]map[string]bool

const anyName = "*"

func (w watched) add(dir, name string) {
	if w[dir] == nil {
		w[dir] = map[string]bool{}
	}
	w[dir][name] = true
}

// maxLinks is the kernel's own bound on symbolic links in one path.
const maxLinks = 40

// watchSet says which entries of which folders decide what path holds. A file is
// watched through its folder, because editors and Kubernetes replace it instead
// of writing it, and every symbolic link on the way is an entry that somebody may
// swap (a ConfigMap's ..data).
func watchSet(path string) (watched, error) {
	w := watched{}
	if err := w.follow(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return w, ignoreMissing(err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return w, ignoreMissing(err)
	}
	w.add(real, anyName)
	names, err := manifest.Files(path)
	if err != nil && !errors.Is(err, manifest.ErrNone) {
		return w, ignoreMissing(err)
	}
	for _, name := range names {
		if err := w.follow(name); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// follow adds path's own entry and that of every symbolic link on its way.
func (w watched) follow(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for range maxLinks {
		w.add(filepath.Dir(path), filepath.Base(path))
		link, rest := firstLink(path)
		if link == "" {
			return nil
		}
		w.add(filepath.Dir(link), filepath.Base(link))
		target, err := os.Readlink(link)
		if err != nil {
			return ignoreMissing(err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, rest)
	}
	return fmt.Errorf("%s: more than %d symbolic links", path, maxLinks)
}

// firstLink returns the shortest prefix of path that is a symbolic link, and
// what follows it; "" when there is none.
func firstLink(path string) (link, rest string) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err != nil {
			return "", ""
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return path[:i], strings.TrimPrefix(path[i:], string(filepath.Separator))
		}
	}
	return "", ""
}

// watcher tells on changed that something in its set may have changed.
type watcher struct {
	changed chan struct{}
	file    *os.File
	done    chan struct{}

	mu      sync.Mutex
	set     watched
	folders map[int32]string // inotify watch descriptor -> folder
}

const (
	watchMask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM |
		unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	selfMask = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW
)

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{
		changed: make(chan struct{}, 1),
		file:    os.NewFile(uintptr(fd), "inotify"), // non-blocking: Close ends Read
		done:    make(chan struct{}),
		folders: map[int32]string{},
	}
	go w.read()
	return w, nil
}

// Close ends the watcher and waits for its goroutine.
func (w *watcher) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}

// watch replaces what is watched. It reports whether folders were added, in
// which case a change may have come before the watch, and an error when some
// folder cannot be watched now.
func (w *watcher) watch(set watched) (grew bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := w.file.SyscallConn()
	if err != nil {
		return false, err
	}
	kept := map[int32]string{}
	var errs []error
	cerr := raw.Control(func(fd uintptr) {
		for _, dir := range slices.Sorted(maps.Keys(set)) {
			wd, err := unix.InotifyAddWatch(int(fd), dir, watchMask)
			if err != nil {
				errs = append(errs, fmt.Errorf("watch %s: %w", dir, err))
				continue
			}
			if _, ok := w.folders[int32(wd)]; !ok {
				grew = true
			}
			kept[int32(wd)] = dir
		}
		for wd := range w.folders {
			if _, ok := kept[wd]; !ok {
				// EINVAL: the folder is gone and its watch with it.
				if _, err := unix.InotifyRmWatch(int(fd), uint32(wd)); err != nil && !errors.Is(err, unix.EINVAL) {
					errs = append(errs, fmt.Errorf("unwatch: %w", err))
				}
			}
		}
	})
	w.folders, w.set = kept, set
	return grew, errors.Join(append(errs, cerr)...)
}

func (w *watcher) read() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return // closed
		}
		if w.matters(buf[:n]) {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// matters reads inotify(7) events: wd, mask, cookie, len (32 bits each), then
// len bytes of name padded with NUL.
func (w *watcher) matters(events []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if size > len(events) {
			return true
		}
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00")
		events = events[size:]
		if mask&selfMask != 0 {
			return true
		}
		names := w.set[w.folders[wd]]
		if names[name] || names[anyName] {
			return true
		}
	}
	return false
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
