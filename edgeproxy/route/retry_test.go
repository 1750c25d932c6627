package route

import (
	"math"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestRetryWait(t *testing.T) {
	second := mesh.Duration(time.Second)
	r := compileRetry(&mesh.RouteRetry{Backoff: &second})
	for n, seconds := range map[int]int{1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 6: 10, 1000: 10} {
		least := time.Duration(seconds) * time.Second
		if got := r.Wait(n, 0); got != least {
			t.Errorf("retry %d comes after %v at the earliest, want %v", n, got, least)
		}
		if got := r.Wait(n, math.MaxUint64); got != least+least/2 {
			t.Errorf("retry %d comes after %v at the latest, want %v", n, got, least+least/2)
		}
	}
	if got := compileRetry(&mesh.RouteRetry{}).Wait(1, 0); got != defaultBackoff {
		t.Errorf("the default wait is %v", got)
	}
	zero := mesh.Duration(0)
	if got := compileRetry(&mesh.RouteRetry{Backoff: &zero}).Wait(9, math.MaxUint64); got != 0 {
		t.Errorf("no wait is %v", got)
	}
}

func TestRetryOn(t *testing.T) {
	r := compileRetry(&mesh.RouteRetry{Codes: []int{400, 463, 464, 503, 599}})
	for status := range 1000 {
		want := status == 400 || status == 463 || status == 464 || status == 503 || status == 599
		if got := r.On(status); got != want {
			t.Errorf("status %d: %v", status, got)
		}
	}
	if compileRetry(nil) != nil || r.Attempts != -1 {
		t.Error("a rule that says nothing says something")
	}
}
