package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// defaultInterval is the time between probes, and a probe's bound.
const defaultInterval = 100 * time.Millisecond

// streak turns probe results into a state: so many failures in a row take an
// instance out, so many successes bring it back.
type streak struct {
	failures, successes int // wanted
	down                bool
	row                 int // results in a row against the present state
}

// add notes a result and reports whether the state changed.
func (s *streak) add(good bool) bool {
	if good != s.down {
		s.row = 0
		return false
	}
	s.row++
	if s.down && s.row < s.successes || !s.down && s.row < s.failures {
		return false
	}
	s.down, s.row = !s.down, 0
	return true
}

// healthEvent is a change of an instance's state.
type healthEvent struct {
	instance string
	down     bool
	why      error // of the last failure
}

// probeTimes is how long instances take to answer probes, smoothed, by name. The zero
// value is ready; any goroutine may use it.
type probeTimes struct {
	mu sync.Mutex
	of map[string]time.Duration
}

// add notes an answer: an eighth of the difference counts, as of TCP's round trips
// (RFC 6298).
func (p *probeTimes) add(instance string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[string]time.Duration{}
	}
	if was, ok := p.of[instance]; ok {
		took = was + (took-was)/8
	}
	p.of[instance] = took
}

func (p *probeTimes) forget(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, instance)
}

func (p *probeTimes) all() map[string]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.of)
}

// watch probes an instance until ctx ends and reports changes.
func watch(ctx context.Context, h *mesh.FunctionHealth, in mesh.FunctionInstance, times *probeTimes, report func(healthEvent)) {
	if h.Probe == mesh.HealthPIDFD {
		watchProcess(ctx, in, report)
		return
	}
	interval := defaultInterval
	if h.Interval != nil {
		interval = h.Interval.D()
	}
	s := streak{failures: max(1, h.Failures), successes: max(1, h.Successes)}
	frames := frameProbe{left: in.Left, right: in.Right}
	defer frames.close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for seq := uint16(0); ; seq++ {
		// Half the interval is for the answer: then the second failure in a row is known
		// within two and a half intervals of the instance's end.
		asked := time.Now()
		var err error
		if h.Probe == mesh.HealthFrame {
			err = frames.probe(seq, interval/2)
		} else {
			err = probe(ctx, h, in, seq, interval/2)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			times.add(in.Name, time.Since(asked))
		}
		if s.add(err == nil) {
			report(healthEvent{instance: in.Name, down: s.down, why: err})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func probe(ctx context.Context, h *mesh.FunctionHealth, in mesh.FunctionInstance, seq uint16, limit time.Duration) error {
	switch h.Probe {
	case mesh.HealthTCP:
		d := net.Dialer{Timeout: limit}
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(in.Address, strconv.Itoa(h.Port)))
		if err != nil {
			return err
		}
		return c.Close()
	case mesh.HealthICMP:
		return echo(in.Address, seq, limit)
	case mesh.HealthNSH:
		return nshEcho(in.Address, uint32(seq), limit)
	}
	return fmt.Errorf("probe %q is unknown", h.Probe)
}

// echo asks by ICMP and waits for the answer (RFC 792, RFC 4443).
func echo(address string, seq uint16, limit time.Duration) error {
	network, ask, answer := "ip4:icmp", byte(8), byte(0)
	if strings.Contains(address, ":") {
		network, ask, answer = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.DialTimeout(network, address, limit)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	id := uint16(os.Getpid())
	m := []byte{ask, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum+sum>>16)) // of IPv6 the kernel's
	if _, err := c.Write(m); err != nil {
		return err
	}
	buf := make([]byte, 256)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("no echo from %s: %w", address, err)
		}
		b := buf[:n]
		if network == "ip4:icmp" && n >= 20 {
			b = b[min(n, int(b[0]&15)*4):] // raw sockets of IPv4 give the IP header too
		}
		if len(b) >= 8 && b[0] == answer && binary.BigEndian.Uint16(b[4:]) == id && binary.BigEndian.Uint16(b[6:]) == seq {
			return nil
		}
	}
}

// processPause is how long to wait for a process that is not there.
const processPause = 50 * time.Millisecond

// watchProcess follows the process whose number the file holds, and its successors.
// The end of one is known at once.
func watchProcess(ctx context.Context, in mesh.FunctionInstance, report func(healthEvent)) {
	down := false
	say := func(d bool, why error) {
		if d != down {
			down = d
			report(healthEvent{instance: in.Name, down: d, why: why})
		}
	}
	for ctx.Err() == nil {
		fd, err := openProcess(in.PIDFile)
		if err != nil {
			say(true, err)
			select {
			case <-ctx.Done():
			case <-time.After(processPause):
			}
			continue
		}
		say(false, nil)
		ended := waitEnd(ctx, fd)
		unix.Close(fd)
		if ended {
			say(true, errors.New("the process has ended"))
		}
	}
}

func openProcess(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return -1, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1, fmt.Errorf("%s holds no process number: %w", file, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("process %d: %w", pid, err)
	}
	return fd, nil
}

// waitEnd returns true when the process has ended, false when ctx has.
func waitEnd(ctx context.Context, fd int) bool {
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
		if n > 0 {
			return true
		}
	}
	return false
}
