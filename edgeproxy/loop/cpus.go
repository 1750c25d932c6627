package loop

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Processors is how many processors this process may use: its affinity mask,
// lowered by the CPU quota of its control group.
func Processors() int {
	n := runtime.NumCPU() // heeds affinity at start
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil && set.Count() > 0 {
		n = set.Count()
	}
	if q, ok := quota("/sys/fs/cgroup", "/proc/self/cgroup"); ok {
		n = min(n, q)
	}
	return max(1, n)
}

// Default is the number of loops for a number of processors.
func Default(processors int) int { return max(1, processors/2) }

// quota reads the least cpu.max on the way from the process' control group (v2)
// to the root, rounded up to whole processors.
func quota(root, self string) (int, bool) {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0, false
	}
	group := ""
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			group = rest
		}
	}
	least, found := 0, false
	for {
		if b, err := os.ReadFile(root + group + "/cpu.max"); err == nil {
			if n, ok := parseQuota(string(b)); ok && (!found || n < least) {
				least, found = n, true
			}
		}
		i := strings.LastIndexByte(group, '/')
		if i < 0 {
			return least, found
		}
		group = group[:i]
	}
}

func parseQuota(s string) (int, bool) {
	f := strings.Fields(s)
	if len(f) != 2 || f[0] == "max" {
		return 0, false
	}
	q, err1 := strconv.Atoi(f[0])
	p, err2 := strconv.Atoi(f[1])
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0, false
	}
	return (q + p - 1) / p, true
}

var processors struct {
	sync.Mutex
	loops, before int
}

// Claim raises GOMAXPROCS so that n more running loops leave one processor to
// everything else; release undoes it. Processes with several sets of loops are tests.
func Claim(n int) (release func()) {
	change := func(d int) {
		processors.Lock()
		defer processors.Unlock()
		if processors.loops == 0 {
			processors.before = runtime.GOMAXPROCS(0)
		}
		processors.loops += d
		if processors.loops == 0 {
			runtime.GOMAXPROCS(processors.before)
			return
		}
		runtime.GOMAXPROCS(processors.loops + 1)
	}
	change(n)
	return func() { change(-n) }
}

// Tokens bounds the goroutines that compute at one time beside the loops.
type Tokens chan struct{}

// NewTokens makes n tokens, at least one.
func NewTokens(n int) Tokens { return make(Tokens, max(1, n)) }

// Acquire waits for a token; the holder gives it back with Release, also while
// it only waits for something.
func (t Tokens) Acquire(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives a token back.
func (t Tokens) Release() { <-t }
