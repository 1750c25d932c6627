package edgeproxy

import (
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNoStreamStepIsLong has one loop carry more bulk than it can both ways: no
// turn takes more than 5 ms of processor time, and nobody is left out.
func TestNoStreamStepIsLong(t *testing.T) { stepsAreShort(t, floodedByStreams) }

func floodedByStreams(t *testing.T) *stepMeter {
	p := startProxy(t, Config{Loops: 1}, Deps{}, tcpTo(tcpBackend(t, echoTCP)))
	l := p.shared.Workers[0].Loop
	m := &stepMeter{loop: l, done: make(chan struct{})}
	l.Post(m)
	var clients sync.WaitGroup
	var over atomic.Bool
	received := make([]atomic.Int64, 40)
	for i := range received {
		c := p.stream("tcp")
		clients.Go(func() {
			buf := make([]byte, 256<<10)
			for {
				n, err := c.Read(buf)
				received[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		clients.Go(func() {
			defer c.CloseWrite()
			piece := make([]byte, 256<<10)
			for !over.Load() {
				if _, err := c.Write(piece); err != nil {
					return
				}
			}
		})
	}
	reached := func() bool {
		for i := range received {
			if received[i].Load() < 1<<20 {
				return false
			}
		}
		return true
	}
	for range 1000 {
		if reached() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !reached() {
		t.Error("some connections were left out")
	}
	over.Store(true)
	clients.Wait()
	m.stop.Store(true)
	<-m.done
	return m
}

// TestStreamAllocatesNothing carries many small messages over one connection.
func TestStreamAllocatesNothing(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, tcpTo(tcpBackend(t, func(c *net.TCPConn) {
		buf := make([]byte, 1024)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			c.Write(buf[:n])
		}
	})))
	c := p.stream("tcp")
	buf := make([]byte, 1024)
	const messages = 5000
	send := func() {
		for range messages {
			if _, err := c.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	send() // past the copying, pipes are open
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send()
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; !raceEnabled && n > 400 {
		t.Errorf("%d allocations in %d messages", n, messages)
	}
}
