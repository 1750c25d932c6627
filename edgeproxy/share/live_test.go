package share

import "testing"

const silence = 310 * ms // 250 ms + 4 * (5 + 10) ms of someplan's remotes

func TestLive_silence(t *testing.T) {
	var l Live
	now := int64(10e9)
	l.Start(now)
	l.Answer(now, -1)
	now += 60e9 // a long idle time is no silence
	for range 3 {
		l.Start(now)
	}
	if v := l.admits(now+silence, silence, 100); v != yes {
		t.Fatalf("within the silence allowed: %v", v)
	}
	now += silence + 1
	if v := l.admits(now, silence, 100); v != no || l.Suspect(now) == "" {
		t.Fatalf("silent with 3 outstanding: %v, %q", v, l.Suspect(now))
	}
	// One request tests it after 2, 4, 8, 16, 16 s.
	for _, wait := range []int64{2, 4, 8, 16, 16} {
		now += wait*1e9 - 1
		if v := l.admits(now, silence, 100); v != no {
			t.Fatalf("%d s: %v before the test is due", wait, v)
		}
		now++
		if v := l.admits(now, silence, 100); v != test || l.Suspect(now) != "" || !l.claimTest(now) {
			t.Fatalf("%d s: %v, want a test", wait, v)
		}
		if v := l.admits(now, silence, 100); v != no || l.claimTest(now) {
			t.Fatalf("%d s: %v after the test was claimed", wait, v)
		}
		l.Start(now)
		l.Fail(now, true)
	}
	l.Start(now)
	l.Answer(now, 4)
	if v := l.admits(now, silence, 100); v != yes || l.Suspect(now) != "" {
		t.Fatalf("after an answer: %v, %q", v, l.Suspect(now))
	}
	if l.Outstanding() != 3 {
		t.Fatalf("%d outstanding, want the 3 lost ones", l.Outstanding())
	}
	for range 3 {
		l.Cancel()
	}
	if l.Outstanding() != 0 {
		t.Fatalf("%d outstanding after cancelling all", l.Outstanding())
	}
}

func TestLive_twoAreNoSilence(t *testing.T) {
	var l Live
	l.Start(1e9)
	l.Start(1e9)
	if v := l.admits(100e9, silence, 100); v != yes {
		t.Errorf("2 outstanding: %v, a slow request is no dead site", v)
	}
}

func TestLive_failures(t *testing.T) {
	now := int64(5e9)
	var refused Live
	refused.Start(now)
	refused.Fail(now, true)
	if refused.admits(now, silence, 100) != no {
		t.Error("a refused connection leaves the site trusted")
	}
	refused.Heard(now+ms, 2)
	if refused.admits(now+ms, silence, 100) != yes {
		t.Error("a fresh report leaves the site suspect")
	}

	var l Live
	for i := range 3 {
		if l.admits(now, silence, 100) != yes {
			t.Errorf("suspect after %d broken requests", i)
		}
		l.Start(now)
		if i == 0 {
			l.Answer(now, 0) // an answer forgives
			l.Start(now)
		}
		l.Fail(now, false)
	}
	if l.admits(now, silence, 100) != no {
		t.Error("trusted after 3 broken requests in a row")
	}
}

func TestLive_news(t *testing.T) {
	var l Live
	got := []bool{l.News(7, 1), l.News(7, 1), l.News(7, 2), l.News(8, 2), l.News(8, 2)}
	for i, want := range []bool{true, false, true, true, false} {
		if got[i] != want {
			t.Errorf("report %d: news %v, want %v", i, got[i], want)
		}
	}
}
