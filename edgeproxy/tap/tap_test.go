package tap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// running is a tap of one loop on a clock that the test moves.
type running struct {
	*Tap
	t         *testing.T
	clock     atomic.Int64
	explained atomic.Int64
}

func start(t *testing.T) *running {
	r := &running{t: t}
	r.clock.Store(int64(time.Hour))
	r.Tap = New(Config{Loops: 1, Now: r.clock.Load, Explain: func(e *mesh.EndedRequest) (*mesh.Explanation, error) {
		r.explained.Add(1)
		if e.Service == "default/broken" {
			return nil, errors.New("nothing is known")
		}
		return &mesh.Explanation{Rule: e.Rule}, nil
	}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return r
}

// request ends one as a worker does.
func (r *running) request(change func(*accesslog.Entry)) (wanted bool) {
	e := accesslog.Entry{
		Start: r.clock.Load(), Duration: 2e6, FirstByte: 1e6, Status: 200, Attempts: 1, Protocol: "HTTP/1.1",
		Client: netip.MustParseAddrPort("192.0.2.7:5555"), Upstream: netip.MustParseAddrPort("10.0.0.1:80"),
		Method: []byte("GET"), Authority: []byte("shop.example:8080"), Path: []byte("/cart/1"), Route: "default/shop/0", Service: "default/shop",
		Request: []stream.Field{{Name: []byte("X-Request-ID"), Value: []byte("abc")}},
	}
	if change != nil {
		change(&e)
	}
	l := r.Loop(0)
	took := time.Duration(e.Duration)
	if !l.Wants(e.Status, e.Flag != "", took) {
		return false
	}
	l.Add(&e, e.Flag != "" || e.Status >= 500 || took >= Slow)
	return true
}

func (r *running) ask(q mesh.TapQuery) *mesh.TapAnswer {
	r.t.Helper()
	a, err := r.Ask(&q)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// until asks until the tap has seen n requests or lost them.
func (r *running) until(q mesh.TapQuery, n int) *mesh.TapAnswer {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a := r.ask(q)
		if len(a.Requests) >= n {
			return a
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d requests, want %d", len(a.Requests), n)
		}
	}
}

func TestFilter(t *testing.T) {
	for _, tt := range []struct {
		filter mesh.TapFilter
		change func(*accesslog.Entry)
		want   bool
	}{
		{mesh.TapFilter{}, nil, true},
		{mesh.TapFilter{Host: "SHOP.example"}, nil, true},
		{mesh.TapFilter{Host: "shop"}, nil, false},
		{mesh.TapFilter{Host: "[2001:db8::1]"}, func(e *accesslog.Entry) { e.Authority = []byte("[2001:db8::1]") }, true},
		{mesh.TapFilter{PathPrefix: "/cart"}, nil, true},
		{mesh.TapFilter{PathPrefix: "/x"}, nil, false},
		{mesh.TapFilter{Method: "GET"}, nil, true},
		{mesh.TapFilter{Method: "POST"}, nil, false},
		{mesh.TapFilter{Status: "2xx"}, nil, true},
		{mesh.TapFilter{Status: "201"}, nil, false},
		{mesh.TapFilter{Status: "5xx"}, func(e *accesslog.Entry) { e.Status = 503 }, true},
		{mesh.TapFilter{Flags: []string{"UF"}}, func(e *accesslog.Entry) { e.Flag = "UF" }, true},
		{mesh.TapFilter{Flags: []string{"UF"}}, func(e *accesslog.Entry) { e.Flag = "UT" }, false},
		{mesh.TapFilter{Flags: []string{mesh.FlaggedAny}}, func(e *accesslog.Entry) { e.Flag = "UT" }, true},
		{mesh.TapFilter{Flags: []string{mesh.FlaggedAny}}, nil, false},
		{mesh.TapFilter{MinMS: 1.9}, nil, true},
		{mesh.TapFilter{MinMS: 2.1}, nil, false},
		{mesh.TapFilter{Service: "default/shop"}, nil, true},
		{mesh.TapFilter{Service: "default/other"}, nil, false},
		{mesh.TapFilter{ID: "abc"}, nil, true},
		{mesh.TapFilter{ID: "ab"}, nil, false},
	} {
		s := newSession(&mesh.TapQuery{Filter: tt.filter})
		e := accesslog.Entry{
			Duration: 2e6, Status: 200, Method: []byte("GET"), Authority: []byte("shop.example:8080"), Path: []byte("/cart/1"), Service: "default/shop",
			Request: []stream.Field{{Name: []byte("X-Request-ID"), Value: []byte("abc")}},
		}
		if tt.change != nil {
			tt.change(&e)
		}
		if got := s.matches(&e); got != tt.want {
			t.Errorf("%+v: %v", tt.filter, got)
		}
		words := mesh.EndedRequest{ID: "abc", Method: "GET", Authority: string(e.Authority), Path: "/cart/1", Status: e.Status, Flag: e.Flag, Service: "default/shop", DurationMS: 2}
		if tt.filter.Host == "[2001:db8::1]" {
			continue // net/netip writes what is asked for otherwise
		}
		if got := selects(&mesh.FailedQuery{Filter: tt.filter}, &words); got != tt.want {
			t.Errorf("in words, %+v: %v", tt.filter, got)
		}
	}
}

// Nobody is told of what went well before a tap is on and after it is off.
func TestOff(t *testing.T) {
	r := start(t)
	if r.request(nil) {
		t.Error("wanted with no tap on")
	}
	q := mesh.TapQuery{Session: "a"}
	r.ask(q)
	if !r.request(nil) {
		t.Error("not wanted with a tap on")
	}
	a := r.until(q, 1)
	if got := a.Requests[0]; got.ID != "abc" || got.Rule != "default/shop/0" || got.Endpoint != "10.0.0.1:80" || got.DurationMS != 2 || *got.FirstByteMS != 1 {
		t.Errorf("%+v", got)
	}
	q.After = a.Seq
	if a := r.ask(q); len(a.Requests) != 0 || a.Seq != 1 {
		t.Errorf("what arrived comes again: %+v", a)
	}
	q.End = true
	r.ask(q)
	if r.request(nil) {
		t.Error("wanted with the tap off")
	}
}

// A tap that nobody asks goes off.
func TestLease(t *testing.T) {
	r := start(t)
	r.lease = 50 * time.Millisecond
	r.ask(mesh.TapQuery{Session: "a"})
	for end := time.Now().Add(20 * time.Second); r.request(nil); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the tap is still on")
		}
	}
}

// Each of several taps gets its own requests, within its rate; the rest is counted.
func TestRate(t *testing.T) {
	r := start(t)
	all, some := mesh.TapQuery{Session: "all", PerSecond: 50}, mesh.TapQuery{Session: "some", Filter: mesh.TapFilter{PathPrefix: "/b"}}
	r.ask(all)
	r.ask(some)
	for i := range 80 {
		r.request(func(e *accesslog.Entry) { e.Duration, e.Path = 0, fmt.Appendf(nil, "/%c", 'a'+i%4) })
	}
	if a := r.until(all, 50); len(a.Requests) != 50 || a.Dropped != 30 {
		t.Errorf("%d requests, %d dropped", len(a.Requests), a.Dropped)
	}
	a := r.until(some, 20)
	if len(a.Requests) != 20 || a.Dropped != 0 {
		t.Errorf("%d requests, %d dropped", len(a.Requests), a.Dropped)
	}
	for _, e := range a.Requests {
		if e.Path != "/b" {
			t.Errorf("%+v", e)
		}
	}
	r.clock.Add(int64(time.Second))
	r.request(nil)
	r.until(all, 51)
}

// There are so many taps and no more.
func TestMost(t *testing.T) {
	r := start(t)
	for i := range mesh.MaxTaps {
		r.ask(mesh.TapQuery{Session: fmt.Sprint(i)})
	}
	if _, err := r.Ask(&mesh.TapQuery{Session: "one more"}); err == nil {
		t.Error("one more tap than there may be")
	}
	for _, q := range []mesh.TapQuery{{}, {Session: "a", PerSecond: mesh.MaxTapRate + 1}, {Session: "a", Filter: mesh.TapFilter{Status: "6xx"}}} {
		if _, err := r.Ask(&q); err == nil {
			t.Errorf("%+v is taken", q)
		}
	}
}

// What waits too long for who asks is lost and counted, and an answer is bounded.
func TestWaiting(t *testing.T) {
	s := newSession(&mesh.TapQuery{})
	e := mesh.EndedRequest{Path: string(make([]byte, 512))}
	for range maxWaiting + 10 {
		s.add(e)
	}
	seen, after := 0, uint64(0)
	for {
		a := s.answer(after)
		seen += len(a.Requests)
		if seen == 0 || len(a.Requests) > maxAnswer/sizeOf(&e) || a.Dropped != 10 {
			t.Fatalf("%d requests in an answer, %d dropped", len(a.Requests), a.Dropped)
		}
		if after = a.Seq; !a.More {
			break
		}
	}
	if seen != maxWaiting || after != maxWaiting+10 {
		t.Errorf("%d seen, the last is %d", seen, after)
	}
}

func (r *running) failed(id string, n int) *mesh.FailedAnswer {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a, err := r.Failed(&mesh.FailedQuery{ID: id, Most: mesh.MaxFailed})
		if err != nil {
			r.t.Fatal(err)
		}
		if a.Kept >= n {
			return a
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d are kept, want %d", a.Kept, n)
		}
	}
}

// What failed or took long is kept and explained, without any tap.
func TestFailed(t *testing.T) {
	r := start(t)
	r.request(func(e *accesslog.Entry) { e.Status, e.Flag = 503, "UF" })
	r.request(func(e *accesslog.Entry) { e.Duration = int64(Slow) })
	r.request(func(e *accesslog.Entry) { e.Flag, e.Service = "UT", "default/broken" })
	r.request(func(e *accesslog.Entry) { e.Status, e.Flag, e.Method = 400, "DPE", nil })
	r.failed("", 4)
	got := r.failed("abc", 4).Requests
	if len(got) != 4 {
		t.Fatalf("%d requests", len(got))
	}
	if got[0].Explanation != nil || got[0].Unexplained == "" || got[1].Unexplained != "nothing is known" {
		t.Errorf("%+v\n%+v", got[0], got[1])
	}
	if x := got[3]; x.Flag != "UF" || x.Explanation == nil || x.Explanation.Rule != "default/shop/0" {
		t.Errorf("%+v", x)
	}
	if n := r.explained.Load(); n != 2 {
		t.Errorf("%d explanations for what has two rules", n)
	}
	if a := r.failed("nothing", 4); len(a.Requests) != 0 || a.Since == nil {
		t.Errorf("%+v", a)
	}
}

// A flood of failures is bounded: in what is kept, in what is explained, in memory.
func TestFailed_flood(t *testing.T) {
	r := start(t)
	for i := range 1000 {
		r.request(func(e *accesslog.Entry) {
			e.Duration, e.Status, e.Flag, e.Service, e.Path = 0, 404, "NR", "", fmt.Appendf(nil, "/%d", i)
		})
	}
	a := r.failed("", keepRate)
	if a.Kept != keepRate || a.NotKept != 1000-keepRate {
		t.Errorf("%d kept, %d not", a.Kept, a.NotKept)
	}
	if n := r.explained.Load(); n != explainRate {
		t.Errorf("%d explained", n)
	}
	for range 10 {
		r.clock.Add(int64(time.Second))
		for range keepRate / 2 {
			r.request(func(e *accesslog.Entry) { e.Duration, e.Flag = 0, "UF" })
		}
		time.Sleep(15 * time.Millisecond) // the ring is smaller than all of them
	}
	if a := r.failed("", maxKept); a.Kept != maxKept || len(a.Requests) != mesh.MaxFailed {
		t.Errorf("%d kept, %d in the answer", a.Kept, len(a.Requests))
	}
}

func TestAdd_doesNotAllocate(t *testing.T) {
	tp := New(Config{Loops: 1, Now: func() int64 { return 0 }})
	if _, err := tp.Ask(&mesh.TapQuery{Session: "a", Filter: mesh.TapFilter{Host: "shop.example", ID: "abc"}, PerSecond: mesh.MaxTapRate}); err != nil {
		t.Fatal(err)
	}
	e := accesslog.Entry{Status: 503, Flag: "UF", Authority: []byte("Shop.example"), Request: []stream.Field{{Name: []byte("x-request-id"), Value: []byte("abc")}}}
	if n := testing.AllocsPerRun(500, func() {
		if tp.Loop(0).Wants(503, true, 0) {
			tp.Loop(0).Add(&e, true)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
