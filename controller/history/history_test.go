package history

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const shop, cart mesh.ServiceKey = "default/shop", "default/cart"

// feed notes a rate twice a second for so long from a time on.
func feed(d *Demand, from, length time.Duration, perS map[mesh.ServiceKey]float64) {
	for at := from; at < from+length; at += 500 * time.Millisecond {
		d.Note(at, perS)
	}
}

func TestDemand(t *testing.T) {
	var d Demand
	if s := d.Series(); s != nil {
		t.Fatalf("before anything: %v", s)
	}
	feed(&d, 0, Step, map[mesh.ServiceKey]float64{shop: 100})
	feed(&d, Step, Step/2, map[mesh.ServiceKey]float64{shop: 50, cart: 10})
	feed(&d, Step+Step/2, Step/2, map[mesh.ServiceKey]float64{shop: 150, cart: 10})
	d.Note(2*Step, map[mesh.ServiceKey]float64{cart: 20})
	d.Note(0, map[mesh.ServiceKey]float64{cart: 1e9}) // the past stays as it was
	got := d.Series()
	if len(got) != 2 || got[0].Service != cart || !slices.Equal(got[0].PerS, []float64{0, 10, 20}) ||
		got[1].Service != shop || !slices.Equal(got[1].PerS, []float64{100, 100, 0}) {
		t.Fatalf("series %+v", got)
	}
	// Nobody looked for two steps: nothing is known of them, and nothing is made up.
	d.Note(5*Step, map[mesh.ServiceKey]float64{shop: 7})
	if got = d.Series(); !slices.Equal(got[1].PerS, []float64{100, 100, 0, 0, 0, 7}) || !slices.Equal(got[0].PerS, []float64{0, 10, 20, 0, 0, 0}) {
		t.Fatalf("after a gap: %+v", got)
	}
}

// An hour is kept, and a service that is gone for an hour is forgotten.
func TestDemandKeepsAnHour(t *testing.T) {
	var d Demand
	for k := range 3 * Steps {
		perS := map[mesh.ServiceKey]float64{shop: float64(k)}
		if k < Steps {
			perS[cart] = 1
		}
		d.Note(time.Duration(k)*Step, perS)
	}
	got := d.Series()
	if len(got) != 1 || got[0].Service != shop || len(got[0].PerS) != Steps {
		t.Fatalf("%d services, %d steps", len(got), len(got[0].PerS))
	}
	for i, x := range got[0].PerS {
		if want := float64(2*Steps + i); x != want {
			t.Fatalf("step %d: %v, want %v", i, x, want)
		}
	}
	// A day in which nobody looked leaves nothing.
	d.Note(3000*Step, nil)
	if got = d.Series(); len(got) != 0 {
		t.Fatalf("after a day: %+v", got)
	}
}

func TestDemandIsBounded(t *testing.T) {
	var d Demand
	perS := map[mesh.ServiceKey]float64{}
	for i := range MaxServices + 10 {
		perS[mesh.ServiceKey(fmt.Sprintf("default/s%d", i))] = 1
	}
	for k := range 4 {
		d.Note(time.Duration(k)*Step, perS)
	}
	if n := len(d.Series()); n != MaxServices || d.Missed() != 10 {
		t.Errorf("%d services kept and %d missed, want %d and 10", n, d.Missed(), MaxServices)
	}
	if x := d.Series()[0].PerS[3]; math.Abs(x-1) > 1e-6 {
		t.Errorf("the present step is %v", x)
	}
}
