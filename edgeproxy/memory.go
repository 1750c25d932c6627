package edgeproxy

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// MinMemoryLimit is the least limit under which a proxy can serve at all: the
// program itself takes half of it.
const MinMemoryLimit = 24 << 20

const (
	// Shares of the limit, in percent, at which the pressure begins, and below
	// which what is not in use stays warm.
	tightPercent = 95
	fullPercent  = 98
	calmPercent  = 75
	// budgetPercent is what loops may fill with what they read: what they do not
	// count, such as stacks and the collector's own, has the rest.
	budgetPercent = 95
	// How often the figures are taken, far from the limit and near it.
	watchFar  = 100 * time.Millisecond
	watchNear = 10 * time.Millisecond
	// collectEvery bounds how often a collection is forced, which costs processor time.
	collectEvery = 500 * time.Millisecond
	// leastHeap is the least that the collector is told to keep to; less would have
	// it run all the time.
	leastHeap = 6 << 20
)

// Memory is what the process takes of its limit.
type Memory struct {
	Limit int64 // 0: none is set, and nothing else is known
	// Resident is what the kernel counts, slabs, heap and program; Sockets is an
	// estimate of what it keeps of sockets.
	Resident, Sockets int64
	// ShedIdle and ShedSlow count connections that were given up to stay within the
	// limit, RefusedConnections and RefusedRequests what was turned away.
	ShedIdle, ShedSlow, RefusedConnections, RefusedRequests uint64
}

// Memory returns the figures of the last look, a tenth of a second old at most.
func (s *Server) Memory() Memory {
	m := &s.shared.Memory
	return Memory{
		Limit: s.cfg.MemoryLimit, Resident: s.resident.Load(), Sockets: s.sockets.Load(),
		ShedIdle: m.Idle.Load(), ShedSlow: m.Slow.Load(),
		RefusedConnections: m.Connections.Load(), RefusedRequests: m.Requests.Load(),
	}
}

// watchMemory keeps the process within its limit until ctx ends: near it, it has
// the loops give up what they can.
func (s *Server) watchMemory(ctx context.Context) error {
	statm, err := os.Open("/proc/self/statm")
	if err != nil {
		return fmt.Errorf("memory limit: %w", err)
	}
	defer statm.Close()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	t := time.NewTimer(0)
	defer t.Stop()
	limit := s.cfg.MemoryLimit
	heapLimit, collected := int64(math.MaxInt64), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		// What the loops say of themselves first: what they take from now on is then
		// in both figures, not in none.
		var slabs, sockets int64
		taken := make([]int64, len(s.shared.Workers))
		for i, w := range s.shared.Workers {
			warm := int64(w.Loop.Stats.Warm.Load())
			slabs += warm
			taken[i] = warm + w.Loop.Spent()
			sockets += w.Counters.Open.Load() * worker.SocketBytes
		}
		resident, program, err := residentBytes(statm)
		if err != nil {
			return fmt.Errorf("memory limit: %w", err)
		}
		s.resident.Store(resident)
		s.sockets.Store(sockets)
		used := resident + sockets
		// What is neither heap nor slab is the program; slabs may be used whole.
		if h := max(leastHeap, limit/100*tightPercent-program-min(slabs, limit/2)-sockets); h < heapLimit-limit/32 || h > heapLimit+limit/32 {
			heapLimit = h
			debug.SetMemoryLimit(h)
		}
		p := pressure(used, limit)
		s.shared.Memory.Set(p)
		for i, w := range s.shared.Workers {
			w.Loop.SetBudget(max(1, taken[i]+(limit/100*budgetPercent-used)/int64(len(taken))))
		}
		if p > worker.Relaxed {
			collect := time.Since(collected) > collectEvery
			if !s.each(func(w *worker.Worker) { w.Relieve(p, collect) }) {
				return nil
			}
			if collect {
				debug.FreeOSMemory()
				collected = time.Now()
			}
		}
		if used > limit/100*calmPercent {
			t.Reset(watchNear)
		} else {
			t.Reset(watchFar)
		}
	}
}

func pressure(used, limit int64) worker.Pressure {
	switch {
	case used >= limit/100*fullPercent:
		return worker.Full
	case used >= limit/100*tightPercent:
		return worker.Tight
	}
	return worker.Relaxed
}

var pageBytes = int64(os.Getpagesize())

// residentBytes reads /proc/self/statm (proc(5)): what is resident, and what of
// that are pages of files, which is the program.
func residentBytes(statm *os.File) (resident, program int64, err error) {
	var buf [128]byte
	n, err := statm.ReadAt(buf[:], 0)
	if n == 0 {
		return 0, 0, err
	}
	rest := buf[:n]
	var pages [3]int64 // size, resident, shared
	for i := range pages {
		field, after, _ := bytes.Cut(rest, []byte(" "))
		if pages[i], err = strconv.ParseInt(string(field), 10, 64); err != nil {
			return 0, 0, err
		}
		rest = after
	}
	return pages[1] * pageBytes, pages[2] * pageBytes, nil
}
