package edgeproxy

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// stepMeter measures the processor time of a loop's turns, one after the other:
// it posts itself again in each. A wall clock would count the time in which a
// busy machine ran something else.
type stepMeter struct {
	loop    *loop.Loop
	last    time.Duration
	longest atomic.Int64
	turns   int
	stop    atomic.Bool
	done    chan struct{}
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

func (m *stepMeter) Run() {
	now := threadTime()
	if m.last > 0 {
		m.longest.Store(max(m.longest.Load(), int64(now-m.last)))
	}
	m.last = now
	m.turns++
	if m.stop.Load() {
		close(m.done)
		return
	}
	m.loop.Post(m)
}

// TestNoStepIsLong loads one loop with what is worst for the others on it: long
// pipelines, large bodies, many connections at once, and reloads. No turn may
// take more than 5 ms of processor time.
func TestNoStepIsLong(t *testing.T) { stepsAreShort(t, floodedByRequests) }

// stepsAreShort measures at most three times: a processor's interrupts are charged
// to the thread that they hit, so one long turn proves nothing; a step that is too
// long is so each time.
func stepsAreShort(t *testing.T, measure func(*testing.T) *stepMeter) {
	for try := 1; ; try++ {
		m := measure(t)
		longest := time.Duration(m.longest.Load())
		t.Logf("longest of %d turns: %v", m.turns, longest)
		if raceEnabled || longest <= time.Duration(loop.SlowTurn) {
			return // the race detector makes every step several times as long
		}
		if try == 3 {
			t.Fatalf("a turn took %v of processor time, want at most 5 ms", longest)
		}
	}
}

func floodedByRequests(t *testing.T) *stepMeter {
	p := startProxy(t, Config{Loops: 1}, Deps{}, hotObjects(fixedBackend(t)))
	addr := p.addr("http").String()
	l := p.shared.Workers[0].Loop
	m := &stepMeter{loop: l, done: make(chan struct{})}
	l.Post(m)
	var clients sync.WaitGroup
	flood := func(send []byte, times int) {
		clients.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			go func() {
				for range times {
					if _, err := c.Write(send); err != nil {
						return
					}
				}
				c.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(io.Discard, c)
		})
	}
	notFound := bytes.Repeat([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 5000)
	pipeline := bytes.Repeat(hotRequest(), 500)
	upload := []byte("POST /api/v1 HTTP/1.1\r\nHost: h1.example.com\r\nContent-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3_000_000))
	for range 8 {
		flood(notFound, 4)
		flood(pipeline, 2)
		flood(upload, 1)
	}
	for range 100 {
		flood(hotRequest(), 20)
	}
	for range 20 {
		p.apply(hotObjects("127.0.0.1:1"))
		time.Sleep(5 * time.Millisecond)
	}
	clients.Wait()
	m.stop.Store(true)
	<-m.done
	runtime.KeepAlive(p)
	return m
}
