package admin

import (
	"bytes"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
)

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for what /proc shows on
// every architecture we build for (proc(5)).
const ticksPerSecond = 100

// Fields of /proc/self/stat after the command's closing parenthesis (proc(5),
// whose field 3 is the first of them).
const (
	statUser    = 14 - 3
	statSystem  = 15 - 3
	statThreads = 20 - 3
	statStart   = 22 - 3
	statVirtual = 23 - 3
	statRSS     = 24 - 3
)

func writeProcess(t *Text) error {
	stat, err := processStat()
	if err != nil {
		return err
	}
	boot, err := bootTime()
	if err != nil {
		return err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	t.Family("process_cpu_seconds_total", counter, "User and system CPU time of the process.")
	t.Value(float64(stat[statUser]+stat[statSystem]) / ticksPerSecond)
	t.Family("process_resident_memory_bytes", gauge, "Resident memory of the process.")
	t.Count(stat[statRSS] * uint64(os.Getpagesize()))
	t.Family("process_virtual_memory_bytes", gauge, "Virtual memory of the process.")
	t.Count(stat[statVirtual])
	t.Family("process_threads", gauge, "Threads of the process.")
	t.Count(stat[statThreads])
	t.Family("process_open_fds", gauge, "Open file descriptors of the process.")
	t.Count(uint64(len(fds)) - 1) // less the one that read the folder
	t.Family("process_start_time_seconds", gauge, "When the process started, Unix time.")
	t.Value(float64(boot) + float64(stat[statStart])/ticksPerSecond)

	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	t.Family("go_goroutines", gauge, "Goroutines that exist.")
	t.Count(samples[0].Value.Uint64())
	t.Family("go_heap_objects_bytes", gauge, "Heap memory of live objects and of dead ones not yet freed.")
	t.Count(samples[1].Value.Uint64())
	t.Family("go_heap_allocs_total", counter, "Heap objects allocated.")
	t.Count(samples[2].Value.Uint64())
	t.Family("go_gc_cycles_total", counter, "Garbage collections completed.")
	t.Count(samples[3].Value.Uint64())
	return nil
}

// processStat returns the numbers of /proc/self/stat after the command; what is
// not a whole number is 0.
func processStat() ([]uint64, error) {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil, err
	}
	// The command is in parentheses and may hold any byte, these too.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) <= statRSS {
		return nil, fmt.Errorf("/proc/self/stat: %d fields, want more than %d", len(fields), statRSS)
	}
	stat := make([]uint64, len(fields))
	for i, f := range fields {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			stat[i] = n
		}
	}
	return stat, nil
}

// bootTime is when the machine started, Unix time.
func bootTime() (uint64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "btime "); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/stat has no btime")
}
