package demo

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ, 100 on every Linux of today.
const clockTick = 10 * time.Millisecond

// cpuTime is what the living children and this process have used so far.
func (f *family) cpuTime() (time.Duration, error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	sum := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for _, c := range f.living() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		if err != nil {
			continue // ended this moment
		}
		used, err := statTime(b)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		sum += used
	}
	return sum, nil
}

// statTime reads utime and stime, the 14th and 15th field of proc_pid_stat(5).
// The second, the program's name, may hold spaces and brackets.
func statTime(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc stat has %d fields after the name", len(fields))
	}
	ticks := uint64(0)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
