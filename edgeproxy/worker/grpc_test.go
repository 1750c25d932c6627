package worker

import (
	"math"
	"testing"
	"time"
)

func TestCallTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1n": 1, "20u": 20 * time.Microsecond, "300m": 300 * time.Millisecond, "4S": 4 * time.Second, "5M": 5 * time.Minute,
		"6H": 6 * time.Hour, "0m": 0, "99999999H": math.MaxInt64,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "1.5S": -1, " 1S": -1, "123456789S": -1,
	} {
		got, ok := callTimeout([]byte(text))
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
