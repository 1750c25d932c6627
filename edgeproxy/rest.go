package edgeproxy

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

const (
	// restEvery is how often the process looks what it holds and does not need.
	restEvery = 5 * time.Second
	// restFirst is when it looks first: what starting needed is known not to be needed
	// then.
	restFirst = 500 * time.Millisecond
	// restGrowth is how many bytes the heap may have grown since the last time
	// before it is collected and its free pages go back: the collector alone lets
	// it double, or reach 4 MiB, and keeps the pages for a while.
	restGrowth = 512 << 10
	// restProgram is how many bytes of the program a proxy at rest may keep mapped.
	restProgram = 3 << 20
	// restRequests is how many requests in restEvery a proxy at rest serves at most.
	restRequests = 50
)

// giveBack gives memory back to the kernel that starting, a new configuration or
// connections that are gone needed, looking at each tick until ctx ends. The program's own pages go
// too while there is little to do: most of what was read of the file to start is
// not wanted again, and what is costs a fault without a read.
func (s *Server) giveBack(ctx context.Context, tick <-chan time.Time) error {
	statm, err := os.Open("/proc/self/statm")
	if err != nil {
		return err
	}
	defer statm.Close()
	heap := newHeapMeter()
	var after, served uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		var dropped atomic.Bool
		if !s.each(func(w *worker.Worker) {
			if w.DropSpares() {
				dropped.Store(true)
			}
		}) {
			return nil
		}
		was := served
		served = s.requests()
		if dropped.Load() || heap.bytes() >= after+restGrowth {
			if s.tokens.Acquire(ctx) != nil {
				return nil
			}
			debug.FreeOSMemory()
			s.tokens.Release()
			after = heap.bytes()
		}
		if served-was > restRequests {
			continue
		}
		_, program, err := residentBytes(statm)
		if err == nil && program > restProgram {
			err = releaseProgram()
		}
		if err != nil {
			return err
		}
	}
}

// requests counts what all loops served.
func (s *Server) requests() (n uint64) {
	for _, e := range s.registry.Services() {
		for i := range e.Cells {
			n += e.Cells[i].Demand.Load() + e.Cells[i].Arrivals.Load()
		}
	}
	return n
}

// heapMeter reads how much the heap takes of what the kernel gave.
type heapMeter []metrics.Sample

func newHeapMeter() heapMeter {
	return heapMeter{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
}

func (m heapMeter) bytes() (n uint64) {
	metrics.Read(m)
	for i := range m {
		if m[i].Value.Kind() == metrics.KindUint64 {
			n += m[i].Value.Uint64()
		}
	}
	return n
}

// releaseProgram takes the pages of this program's file out of the process: they
// stay in the page cache and come back when they are touched. Nothing else is
// mapped from the file, and what is written to has been copied long since.
func releaseProgram() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no proc file system: nothing is known, nothing is given back
	}
	if err != nil {
		return err
	}
	// proc(5): first-last perms offset device inode path; the program's text is
	// the first mapping.
	var program []byte
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 6 {
			continue
		}
		if program == nil {
			program = f[5]
		}
		if !bytes.Equal(f[5], program) || f[1][0] != 'r' || f[1][1] != '-' {
			continue
		}
		first, last, _ := bytes.Cut(f[0], []byte("-"))
		from, err1 := strconv.ParseUint(string(first), 16, 64)
		to, err2 := strconv.ParseUint(string(last), 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if _, _, e := syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED); e != 0 {
			return os.NewSyscallError("madvise", e)
		}
	}
	return nil
}
