package emu

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

func site(t *testing.T, cfg Config) *Site {
	t.Helper()
	loop, err := reactor.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	s, err := Start(loop, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, addr netip.AddrPort, work float64) time.Duration {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+addr.String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(wire.WorkHeader, fmt.Sprint(work))
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get(wire.ServedByHeader) != "north" {
		t.Errorf("status %d, served by %q", resp.StatusCode, resp.Header.Get(wire.ServedByHeader))
	}
	return time.Since(start)
}

func TestSlotsAreSharedOut(t *testing.T) {
	c := Config{Site: "a", Endpoints: 3, Slots: 8, ServiceTime: 1}
	if got := []int{c.SlotsOf(0), c.SlotsOf(1), c.SlotsOf(2)}; got[0] != 3 || got[1] != 3 || got[2] != 2 {
		t.Errorf("slots %v", got)
	}
	for _, bad := range []Config{{}, {Site: "a"}, {Site: "a", Endpoints: 2, Slots: 1, ServiceTime: 1}, {Site: "a", Endpoints: 1, Slots: 1}} {
		if _, err := Start(nil, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestWorkersAndQueueTakeTheirTime(t *testing.T) {
	s := site(t, Config{Site: "north", Endpoints: 2, Slots: 4, ServiceTime: 30 * time.Millisecond})
	addr := s.Addrs()[0] // two workers
	if took := get(t, addr, 0.5); took < 15*time.Millisecond {
		t.Errorf("half the mean's work took %v", took)
	}
	var wg sync.WaitGroup
	start := time.Now()
	for range 6 {
		wg.Go(func() { get(t, addr, 1) })
	}
	wg.Wait()
	if took := time.Since(start); took < 90*time.Millisecond {
		t.Errorf("six requests on two workers of 30 ms took %v", took)
	}
	s.SetFactor(3)
	if took := get(t, addr, 1); took < 90*time.Millisecond {
		t.Errorf("a request at three times the service time took %v", took)
	}
	if n := s.Stats(); n.Served != 8 || n.Busy != 0 || n.Waiting != 0 || n.Dropped != 0 {
		t.Errorf("%+v", n)
	}
}

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	s := site(t, Config{Site: "north", Endpoints: 1, Slots: 1, ServiceTime: 20 * time.Millisecond})
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			get(t, s.Addrs()[0], 1)
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		})
		waitFor(t, s, func(n Stats) bool { return n.Busy+n.Waiting+n.Served >= i+1 })
	}
	wg.Wait()
	for i, v := range order {
		if i != v {
			t.Fatalf("served in order %v", order)
		}
	}
}

func TestAClientThatWentAwayLeavesTheQueue(t *testing.T) {
	s := site(t, Config{Site: "north", Endpoints: 1, Slots: 1, ServiceTime: 150 * time.Millisecond})
	var wg sync.WaitGroup
	wg.Go(func() { get(t, s.Addrs()[0], 1) })
	waitFor(t, s, func(n Stats) bool { return n.Busy == 1 })
	for range 3 {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\n%s: 1\r\n\r\n", wire.WorkHeader)
		defer c.Close()
		waitFor(t, s, func(n Stats) bool { return n.Waiting == 1 })
		c.Close()
		waitFor(t, s, func(n Stats) bool { return n.Waiting == 0 })
	}
	wg.Wait()
	waitFor(t, s, func(n Stats) bool { return n == Stats{Served: 1, Dropped: 3} })
	if took := get(t, s.Addrs()[0], 0.1); took > 140*time.Millisecond {
		t.Errorf("a request behind dropped ones took %v", took)
	}
}

func TestPipelinedRequestsAndBodies(t *testing.T) {
	s := site(t, Config{Site: "north", Endpoints: 1, Slots: 2, ServiceTime: time.Millisecond})
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := strings.Repeat("x", 20_000)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%sGET / HTTP/1.1\r\nConnection: close\r\n\r\n", len(body), body)
	r := bufio.NewReader(c)
	for i := range 2 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "{\"site\":\"north\"}\n" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after Connection: close: %v", err)
	}
	bad, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	fmt.Fprint(bad, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(bad), nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("%v, %v", resp, err)
	}
}

func waitFor(t *testing.T, s *Site, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok(s.Stats()) {
			return
		}
	}
	t.Fatalf("waited 10 s; stats %+v", s.Stats())
}
