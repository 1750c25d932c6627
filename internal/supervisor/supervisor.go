// Package supervisor tells the process that supervises this one, such as systemd,
// how it stands: the messages of sd_notify(3). Where none asks (NOTIFY_SOCKET is not
// set) nothing is told.
package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// States that [Tell] takes; others are in sd_notify(3).
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	watchdog = "WATCHDOG=1"
)

// Tell sends a state. What keeps it from the supervisor is logged: there is nothing
// else that the process could do about it.
func Tell(log *slog.Logger, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		log.Warn("the supervisor is not told", "socket", path, "state", state, "err", err)
	}
}

// TellReloading says that a reload has begun, at the time which the supervisor
// compares with its own; [Ready] ends it.
func TellReloading(log *slog.Logger) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		log.Warn("the supervisor is not told of a reload", "err", err)
		return
	}
	Tell(log, "RELOADING=1\nMONOTONIC_USEC="+strconv.FormatInt(ts.Nano()/1000, 10))
}

// FeedWatchdog calls alive at twice the rate that the supervisor asks for and tells
// it each time that alive returns nil in time, until ctx ends. It returns at once
// where nobody watches, and an error when WATCHDOG_USEC cannot be read.
func FeedWatchdog(ctx context.Context, log *slog.Logger, alive func(context.Context) error) error {
	value := os.Getenv("WATCHDOG_USEC")
	if value == "" || os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil // meant for a process before this one
	}
	us, err := strconv.ParseInt(value, 10, 64)
	if err != nil || us <= 0 {
		return fmt.Errorf("WATCHDOG_USEC %q: want a number of microseconds", value)
	}
	every := time.Duration(us) * time.Microsecond / 2
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, every)
		err := alive(asked)
		cancel()
		if err == nil {
			Tell(log, watchdog)
		} else if ctx.Err() == nil {
			log.Error("the watchdog is not fed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
