package link

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLine(t *testing.T) {
	const n = 20000
	l := NewLine(Shape{Delay: 20 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.1, Reorder: 0.05}, 1)
	lost, early := 0, 0
	var sum, squares float64
	last := time.Duration(0)
	for i := range n {
		now := time.Duration(i) * 50 * time.Millisecond // far apart: nothing waits for another
		at, ok := l.Send(now, 100)
		switch d := (at - now).Seconds() * 1e3; {
		case !ok:
			lost++
		case d == 10:
			early++
		default:
			sum, squares = sum+d, squares+d*d
			if at < last {
				t.Fatal("overtaken without being reordered")
			}
			last = at
		}
	}
	rest := float64(n - lost - early)
	mean := sum / rest
	sd := math.Sqrt(squares/rest - mean*mean)
	if math.Abs(mean-20) > 0.1 || math.Abs(sd-2) > 0.1 {
		t.Errorf("delay %.2f ms, deviation %.2f, want 20 and 2", mean, sd)
	}
	if math.Abs(float64(lost)/n-0.1) > 0.01 || math.Abs(float64(early)/n/0.9-0.05) > 0.008 {
		t.Errorf("%d lost, %d early of %d", lost, early, n)
	}
}

func TestLine_rate(t *testing.T) {
	l := NewLine(Shape{Delay: 5 * time.Millisecond, Rate: 8e6, Queue: 50_000}, 1) // a byte a microsecond
	sent := 0
	var at time.Duration
	for {
		x, ok := l.Send(0, 1000)
		if !ok {
			break
		}
		at = x
		sent++
	}
	if sent != 50 || at != 55*time.Millisecond {
		t.Errorf("%d packets queued, the last arrives after %s", sent, at)
	}
	// A millisecond later one fits again, behind the others.
	if x, ok := l.Send(time.Millisecond, 1000); !ok || x != 56*time.Millisecond {
		t.Errorf("%s, %v", x, ok)
	}
	if x, ok := l.Send(time.Second, 1000); !ok || x != time.Second+6*time.Millisecond {
		t.Errorf("idle line: %s, %v", x, ok)
	}
	l.Cut = true
	if _, ok := l.Send(2*time.Second, 1); ok {
		t.Error("a cut line delivers")
	}
}

func TestLine_anyShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Shape{
			Delay:  time.Duration(rapid.IntRange(0, 1e9).Draw(t, "delay")),
			Jitter: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "jitter")),
			Loss:   rapid.Float64Range(0, 1).Draw(t, "loss"), Reorder: rapid.Float64Range(0, 1).Draw(t, "reorder"),
			Rate: rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(1e3, 1e9)).Draw(t, "rate"), Queue: rapid.IntRange(0, 1e6).Draw(t, "queue"),
		}
		a, b := NewLine(s, 7), NewLine(s, 7)
		now := time.Duration(0)
		for range 50 {
			now += time.Duration(rapid.IntRange(0, 1e8).Draw(t, "gap"))
			at, ok := a.Send(now, 1500)
			if again, okAgain := b.Send(now, 1500); again != at || okAgain != ok {
				t.Fatal("the same seed decides otherwise")
			}
			if ok && at < now {
				t.Fatalf("arrives %s before it was sent", now-at)
			}
		}
	})
}
