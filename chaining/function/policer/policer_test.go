package policer

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
)

// TestRate: over ten seconds a sender at twice the rate gets the rate and one burst.
func TestRate(t *testing.T) {
	f, err := New(Config{BitsPerS: 1e6, Burst: 10_000, PerSource: true, Remark: -1})
	if err != nil {
		t.Fatal(err)
	}
	passed, other := 0, 0
	for i := range 2500 {
		now := time.Duration(i) * 4 * time.Millisecond // 1000 bytes each: 2 Mbit/s
		if f.Process(ft.UDP("10.0.0.1:1", "10.9.0.1:2", make([]byte, 972)), function.Forward, now).Drop == "" {
			passed += 1000
		}
		if i%20 == 0 && f.Process(ft.UDP("10.0.0.2:1", "10.9.0.1:2", make([]byte, 972)), function.Forward, now).Drop == "" {
			other++
		}
	}
	if want := 1_250_000 + 10_000; passed < want-2000 || passed > want+1000 {
		t.Errorf("%d bytes passed, want about %d", passed, want)
	}
	if other != 125 {
		t.Errorf("a slow sender beside it got %d of 125", other)
	}
}

func TestRemark(t *testing.T) {
	f, _ := New(Config{BitsPerS: 8, Burst: 1500, Remark: 10})
	for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
		to := "10.9.0.1:2"
		if from[0] == '[' {
			to = "[2001:db8::2]:2"
		}
		var r function.Result
		for range 2 {
			r = f.Process(ft.UDP(from, to, make([]byte, 1400)), function.Forward, 0)
		}
		dscp := r.Packet[1] >> 2
		if from[0] == '[' {
			dscp = (r.Packet[0]<<4 | r.Packet[1]>>4) >> 2
		}
		if r.Drop != "" || dscp != 10 || !ft.Sound(r.Packet) {
			t.Errorf("%s: drop %q, DSCP %d, sound %v", from, r.Drop, dscp, ft.Sound(r.Packet))
		}
	}
}
