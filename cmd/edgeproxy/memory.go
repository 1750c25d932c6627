package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// limitMemory sets the collector's soft limit to three quarters of what this
// process may use (its control group's limit or the machine), unless GOMEMLIMIT
// says otherwise: without it the heap may double past the limit before a
// collection, and the kernel ends the process. The rest is for buffers outside
// the heap and for socket memory.
func limitMemory() error {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("sysinfo: %w", err)
	}
	total := info.Totalram * uint64(info.Unit)
	group, err := groupLimit("/proc/self/cgroup", "/sys/fs/cgroup")
	if group > 0 {
		total = min(total, group)
	}
	debug.SetMemoryLimit(int64(total / 4 * 3))
	return err
}

// groupLimit is the memory limit of the process's control group or of one above
// it, 0 when there is none.
func groupLimit(membership, root string) (uint64, error) {
	data, err := os.ReadFile(membership)
	if err != nil {
		return 0, err
	}
	limit := uint64(0)
	for line := range strings.Lines(string(data)) {
		// cgroups(7): hierarchy:controllers:path, "0::path" for version 2.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" {
			continue
		}
		for path := parts[2]; ; path = filepath.Dir(path) {
			v, err := os.ReadFile(filepath.Join(root, path, "memory.max"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return limit, err
			}
			if n, err := strconv.ParseUint(strings.TrimSpace(string(v)), 10, 64); err == nil && (limit == 0 || n < limit) {
				limit = n
			}
			if path == "/" || path == "." {
				break
			}
		}
	}
	return limit, nil
}
