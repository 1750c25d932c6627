package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// notify tells the supervisor of this process how it stands (sd_notify(3)); it
// does nothing where none asks.
func (n *node) notify(state string) {
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
		n.log.Warn("the supervisor is not told", "socket", path, "state", state, "err", err)
	}
}

// notifyReloading says that a reload has begun, at the time which the supervisor
// compares with its own.
func (n *node) notifyReloading() {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		n.log.Warn("the supervisor is not told of a reload", "err", err)
		return
	}
	n.notify("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/1000, 10))
}

// feedWatchdog tells the supervisor, at twice the rate that it asks for, that all
// loops turn, until ctx ends.
func (n *node) feedWatchdog(ctx context.Context) error {
	value := os.Getenv("WATCHDOG_USEC")
	if value == "" || os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil
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
		err := n.proxy.Alive(asked)
		cancel()
		if err == nil {
			n.notify("WATCHDOG=1")
		} else if ctx.Err() == nil {
			n.log.Error("an event loop does not turn", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
