//go:build root

package netns

import (
	"errors"
	"math"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/link"
)

// socket opens a UDP socket at a place.
func socket(t *testing.T, p *Place) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := p.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: p.Addr.AsSlice(), Port: 7})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// trip is a packet as it was heard.
type trip struct {
	number int
	delay  time.Duration
}

// rounds tells the packets of one call of send from those of another.
var rounds byte

// send sends n packets from a to b, one each gap, and returns those that came, in
// the order in which they came.
func send(t *testing.T, a, b *net.UDPConn, n int, gap time.Duration, size int) []trip {
	t.Helper()
	rounds++
	round := rounds
	sent := make([]time.Time, n)
	var out []trip
	done := make(chan error, 1)
	if err := b.SetReadDeadline(time.Now().Add(time.Duration(n)*gap + 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			k, err := b.Read(buf)
			now := time.Now()
			if err != nil {
				done <- err
				return
			}
			if k < 4 || buf[3] != round {
				continue // of an earlier round
			}
			i := int(buf[0])<<16 | int(buf[1])<<8 | int(buf[2])
			if i >= n {
				done <- nil
				return
			}
			out = append(out, trip{i, now.Sub(sent[i])})
		}
	}()
	to := b.LocalAddr().(*net.UDPAddr)
	begin := time.Now()
	packet := make([]byte, size)
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * gap)))
		packet[0], packet[1], packet[2], packet[3] = byte(i>>16), byte(i>>8), byte(i), round
		sent[i] = time.Now()
		if _, err := a.WriteToUDP(packet, to); err != nil {
			t.Fatal(err)
		}
	}
	// The end is told again and again: it may be lost too.
	packet[0], packet[1], packet[2] = 0xff, 0xff, 0xff
	for range 400 {
		time.Sleep(10 * time.Millisecond)
		_, _ = a.WriteToUDP(packet[:4], to)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return out
		default:
		}
	}
	if err := b.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return out
}

func quantile(d []trip, q float64) time.Duration {
	var x []time.Duration
	for _, v := range d {
		x = append(x, v.delay)
	}
	slices.Sort(x)
	return x[int(q*float64(len(x)-1))]
}

// TestRootLine measures what a line does against what it was told.
func TestRootLine(t *testing.T) {
	n := New(t, 1, link.Shape{}, "a", "b")
	a, b := n.Places[0], n.Places[1]
	x, y := socket(t, a), socket(t, b)
	line := func(s link.Shape) { n.Wan.Shape(a.Addr, b.Addr, s) }

	// Delay: by the median, because this machine is shared.
	line(link.Shape{Delay: 20 * time.Millisecond})
	got := send(t, x, y, 500, 2*time.Millisecond, 100)
	p50, p90 := quantile(got, 0.5), quantile(got, 0.9)
	t.Logf("delay 20ms: p10 %s p50 %s p90 %s p99 %s", quantile(got, 0.1), p50, p90, quantile(got, 0.99))
	if len(got) != 500 || quantile(got, 0) < 20*time.Millisecond || p50 > 21*time.Millisecond {
		t.Errorf("delay 20ms: %d packets, least %s, p50 %s", len(got), quantile(got, 0), p50)
	}
	// Jitter: half the distance between the 16th and the 84th percentile.
	line(link.Shape{Delay: 30 * time.Millisecond, Jitter: 4 * time.Millisecond})
	got = send(t, x, y, 300, 15*time.Millisecond, 100)
	sd := (quantile(got, 0.8413) - quantile(got, 0.1587)) / 2
	t.Logf("jitter 4ms: %s about %s", sd, quantile(got, 0.5))
	if len(got) != 300 || sd < 3*time.Millisecond || sd > 5500*time.Microsecond {
		t.Errorf("jitter 4ms: %d packets, deviation %s", len(got), sd)
	}
	for i := range got {
		if got[i].number != i {
			t.Errorf("packet %d came as number %d: jitter alone does not reorder", got[i].number, i)
			break
		}
	}
	// Loss, within four deviations of the binomial.
	line(link.Shape{Delay: time.Millisecond, Loss: 0.1})
	got = send(t, x, y, 3000, 200*time.Microsecond, 100)
	lost := 3000 - len(got)
	t.Logf("loss 10%%: %d of 3000", lost)
	if math.Abs(float64(lost)-300) > 4*math.Sqrt(3000*0.1*0.9) {
		t.Errorf("loss 10%%: %d of 3000 lost", lost)
	}
	// Rate: 400 packets of 1028 bytes at 4 Mbit/s take 0.822 s.
	line(link.Shape{Rate: 4e6, Queue: 1 << 20})
	got = send(t, x, y, 400, 0, 1000)
	took := got[len(got)-1].delay
	t.Logf("rate 4 Mbit/s: the last of %d packets after %s", len(got), took)
	if len(got) != 400 || took < 800*time.Millisecond || took > 920*time.Millisecond {
		t.Errorf("rate 4 Mbit/s: %d packets, the last after %s, want 822ms", len(got), took)
	}
	// Reordering.
	line(link.Shape{Delay: 20 * time.Millisecond, Reorder: 0.2})
	got = send(t, x, y, 400, 2*time.Millisecond, 100)
	overtook := 0
	for i := range got[1:] {
		if got[i+1].number < got[i].number {
			overtook++
		}
	}
	t.Logf("reorder 20%%: %d of 400 out of order", overtook)
	if len(got) != 400 || overtook < 40 || overtook > 120 {
		t.Errorf("reorder 20%%: %d packets, %d out of order", len(got), overtook)
	}
	// A cut in one direction leaves the other alone.
	line(link.Shape{})
	a.CutTo(b, true)
	if got := send(t, x, y, 20, time.Millisecond, 100); len(got) != 0 {
		t.Errorf("%d packets crossed the cut", len(got))
	}
	if got := send(t, y, x, 20, time.Millisecond, 100); len(got) != 20 {
		t.Errorf("%d of 20 packets came the other way", len(got))
	}
	a.Partition(true)
	if got := send(t, y, x, 20, time.Millisecond, 100); len(got) != 0 {
		t.Errorf("%d packets crossed the partition", len(got))
	}
	a.Partition(false)
	if got := send(t, x, y, 20, time.Millisecond, 100); len(got) != 20 {
		t.Errorf("%d of 20 packets came after the heal", len(got))
	}
}
