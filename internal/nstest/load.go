package nstest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is datagrams at a steady pace from client to server and back, each with a
// number; the server notes how many routers each has passed.
type Stream struct {
	t            testing.TB
	cancel       context.CancelFunc
	wg, sender   sync.WaitGroup
	sent         atomic.Uint64
	back         atomic.Uint64
	reordered    atomic.Uint64
	gap          atomic.Int64 // longest time without an answer, ns
	mu           sync.Mutex
	hops         map[int]uint64 // by TTL at the server
	client, echo *net.UDPConn
	err          error
}

// StartStream sends a datagram each pause until stop is called.
func StartStream(t testing.TB, client, server *Namespace, addr string, pause time.Duration) *Stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &Stream{t: t, cancel: cancel, hops: map[int]uint64{}}
	if err := server.Do(func() error {
		a, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return err
		}
		if s.echo, err = net.ListenUDP("udp", a); err != nil {
			return err
		}
		raw, err := s.echo.SyscallConn()
		if err != nil {
			return err
		}
		var serr error
		err = raw.Control(func(fd uintptr) {
			serr = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1), s.echo.SetReadBuffer(4<<20))
		})
		return errors.Join(err, serr)
	}); err != nil {
		t.Fatal(err)
	}
	if err := client.Do(func() (err error) {
		s.client, err = net.DialUDP("udp", nil, s.echo.LocalAddr().(*net.UDPAddr))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.client.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	s.wg.Go(s.serve)
	s.wg.Go(s.receive)
	s.sender.Go(func() { s.send(ctx, pause) })
	return s
}

func (s *Stream) serve() {
	buf, oob := make([]byte, 64), make([]byte, 64)
	for {
		n, on, _, from, err := s.echo.ReadMsgUDP(buf, oob)
		if err != nil {
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil || len(msgs) == 0 {
			continue
		}
		s.mu.Lock()
		s.hops[int(msgs[0].Data[0])]++
		s.mu.Unlock()
		if _, err := s.echo.WriteToUDP(buf[:n], from); err != nil {
			return
		}
	}
}

func (s *Stream) receive() {
	buf := make([]byte, 64)
	var last uint64
	var heard time.Time
	for {
		n, err := s.client.Read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if n != 8 {
			continue
		}
		at := binary.BigEndian.Uint64(buf)
		if at < last {
			s.reordered.Add(1)
		}
		last = at
		now := time.Now()
		if !heard.IsZero() {
			s.gap.Store(max(s.gap.Load(), int64(now.Sub(heard))))
		}
		heard = now
		s.back.Add(1)
	}
}

func (s *Stream) send(ctx context.Context, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var b [8]byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			binary.BigEndian.PutUint64(b[:], s.sent.Load()+1)
			if _, err := s.client.Write(b[:]); err != nil {
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
				continue
			}
			s.sent.Add(1)
		}
	}
}

// Stop ends the stream and waits until what is under way has come back. hops are
// datagrams by their TTL at the server.
func (s *Stream) Stop() (sent, lost uint64, hops map[int]uint64) {
	s.t.Helper()
	s.cancel()
	s.sender.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for s.back.Load() < s.sent.Load() && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	s.client.Close()
	s.echo.Close()
	s.wg.Wait()
	if s.err != nil {
		s.t.Logf("stream: %v", s.err)
	}
	return s.sent.Load(), s.sent.Load() - s.back.Load(), s.hops
}

// Requests makes one TCP connection after another, each one question and answer,
// and long ones that ask again and again.
type Requests struct {
	t             testing.TB
	cancel        context.CancelFunc
	wg, workers   sync.WaitGroup
	listener      net.Listener
	done, failed  atomic.Uint64
	asked, broken atomic.Uint64 // on long connections
}

// StartRequests keeps so many workers and so many long connections busy until Stop.
func StartRequests(t testing.TB, client, server *Namespace, addr string, workers, long int) *Requests {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &Requests{t: t, cancel: cancel}
	if err := server.Do(func() (err error) {
		r.listener, err = net.Listen("tcp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(func() {
		for {
			c, err := r.listener.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() {
				defer c.Close()
				buf := make([]byte, 1024)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	dial := func() (c net.Conn, err error) {
		err = client.Do(func() error {
			c, err = net.DialTimeout("tcp", r.listener.Addr().String(), 10*time.Second)
			return err
		})
		return c, err
	}
	ask := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 512)
		if _, err := c.Write(buf); err != nil {
			return err
		}
		for n := 0; n < len(buf); {
			m, err := c.Read(buf[n:])
			if err != nil {
				return err
			}
			n += m
		}
		return nil
	}
	for range workers {
		r.workers.Go(func() {
			for ctx.Err() == nil {
				c, err := dial()
				if err == nil {
					err = ask(c)
					c.Close()
				}
				if err != nil {
					r.failed.Add(1)
					t.Log("request:", err)
				} else {
					r.done.Add(1)
				}
			}
		})
	}
	var ready sync.WaitGroup
	for range long {
		ready.Add(1)
		r.workers.Go(func() {
			c, err := dial()
			if err == nil {
				err = ask(c)
			}
			ready.Done()
			if err != nil {
				r.broken.Add(1)
				t.Log("long connection:", err)
				return
			}
			defer c.Close()
			for ctx.Err() == nil {
				if err := ask(c); err != nil {
					r.broken.Add(1)
					t.Log("long connection:", err)
					return
				}
				r.asked.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	ready.Wait()
	return r
}

// Stop ends them; whatever failed fails the test.
func (r *Requests) Stop() {
	r.t.Helper()
	r.cancel()
	r.workers.Wait()
	r.listener.Close()
	r.wg.Wait()
	if r.done.Load() == 0 {
		r.t.Error("no request was made: nothing was tested")
	}
	if r.failed.Load() > 0 || r.broken.Load() > 0 {
		r.t.Errorf("%d requests failed, %d long connections broke", r.failed.Load(), r.broken.Load())
	}
}

// String says how much was asked.
func (r *Requests) String() string {
	return fmt.Sprintf("%d requests on their own connections, %d on long ones", r.done.Load(), r.asked.Load())
}

// Sent is how many datagrams have gone out.
func (s *Stream) Sent() uint64 { return s.sent.Load() }

// Answered is how many datagrams have come back.
func (s *Stream) Answered() uint64 { return s.back.Load() }

// Gap is the longest time between two answers so far.
func (s *Stream) Gap() time.Duration { return time.Duration(s.gap.Load()) }

// Hops are datagrams by their TTL at the server, so far.
func (s *Stream) Hops() map[int]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.hops)
}

// Halt ends the stream without waiting for what may never come back.
func (s *Stream) Halt() map[int]uint64 {
	s.cancel()
	s.sender.Wait()
	time.Sleep(50 * time.Millisecond)
	s.client.Close()
	s.echo.Close()
	s.wg.Wait()
	return s.hops
}
