package inband

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func sample() Report {
	return Report{
		Site: []byte("melb-3"), Reporter: []byte("edge-a"), Service: []byte("default/echo"),
		Epoch: 0x5f2ab, Seq: 1041, Slots: 4.5, ServiceMS: 10.25, ArrivalsPerS: 312.5,
		FromYouPerS: 88.125, Spillers: 2, InFlight: 17,
	}
}

const sampleValue = "1;s=melb-3;r=edge-a;e=5f2ab;q=1041;v=default/echo;c=4.5;t=10.25;l=312.5;f=88.125;p=2;n=17"

func encode(t testing.TB, r Report) []byte {
	t.Helper()
	prefix, err := r.AppendPrefix(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Append(nil, prefix, r.InFlight)
}

func TestReport_golden(t *testing.T) {
	want := sample()
	if got := string(encode(t, want)); got != sampleValue {
		t.Errorf("written\n%s\nwant\n%s", got, sampleValue)
	}
	var got Report
	if err := got.Parse([]byte(sampleValue)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
}

func TestReport_tolerant(t *testing.T) {
	var got Report
	value := "1;zz=9;n=17;x=;p=2;f=88.125;l=312.5;t=10.25;c=4.5;v=default/echo;q=1041;e=5f2ab;r=edge-a;s=melb-3;~=;k=a=b"
	want := sample()
	if err := got.Parse([]byte(value)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
	if err := got.Parse([]byte("1;s=a;r=b;v=c/d;n=0")); err != nil || got.Slots != 0 || got.ServiceMS != 0 {
		t.Errorf("a site of unknown capacity: %+v, %v", got, err)
	}
}

// TestReport_learned: what is learned travels as a key of its own, which a reader that
// does not know it skips, and whose later words say nothing to this one.
func TestReport_learned(t *testing.T) {
	for word, learned := range map[string]mesh.SlotsLearned{"l": mesh.SlotsLowerBound, "s": mesh.SlotsSettled} {
		r := sample()
		r.Learned = learned
		value := string(encode(t, r))
		if want := strings.Replace(sampleValue, ";n=", ";u="+word+";n=", 1); value != want {
			t.Errorf("written\n%s\nwant\n%s", value, want)
		}
		var got Report
		if err := got.Parse([]byte(value)); err != nil || got.ServiceReport("me").Learned != learned {
			t.Errorf("%s: read %+v, %v", value, got, err)
		}
	}
	var got Report
	for _, value := range []string{"1;s=a;r=b;v=c/d;u=guessed;n=0", "1;s=a;r=b;v=c/d;u=;n=0", "1;s=a;r=b;v=c/d;n=0"} {
		if err := got.Parse([]byte(value)); err != nil || got.Learned != mesh.SlotsDeclared {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
}

func TestReport_refuses(t *testing.T) {
	var r Report
	for _, v := range []string{"2;s=a;r=b;v=c/d;n=0", "11;s=a;r=b;v=c/d;n=0", "0;n=1"} {
		if err := r.Parse([]byte(v)); !errors.Is(err, ErrVersion) {
			t.Errorf("%q: %v, want ErrVersion", v, err)
		}
	}
	for _, v := range []string{
		"", "1", ";", "1;", "x;s=a;r=b;v=c/d;n=0", "1;s=a;r=b;v=c/d", "1;s=;r=b;v=c/d;n=0", "1;r=b;v=c/d;n=0",
		"1;s=a;r=b;v=c/d;n=-1", "1;s=a;r=b;v=c/d;n=1e3", "1;s=a;r=b;v=c/d;n=99999999999", "1;s=a;r=b;v=c/d;n=",
		"1;s=a;r=b;v=c/d;c=NaN;n=0", "1;s=a;r=b;v=c/d;c=1.;n=0", "1;s=a;r=b;v=c/d;c=.5;n=0", "1;s=a;r=b;v=c/d;c=-1;n=0",
		"1;s=a;r=b;v=c/d;c=1e9;n=0", "1;s=a;r=b;v=c/d;e=g;n=0", "1;s=a;r=b;v=c/d;e=:;n=0", "1;s=a;r=b;v=c/d;q=18446744073709551616;n=0",
		"1;s=a b;r=b;v=c/d;n=0", "1;s=\xc3;r=b;v=c/d;n=0", "1;s=a;;n=0", "1;=a;n=0", "1;s=a;r=b;v=c/d;n=0;",
		"1;s=" + strings.Repeat("a", 254) + ";r=b;v=c/d;n=0", "1;s=a;r=b;v=c/d;n=0;zz=" + strings.Repeat("a", MaxValue),
	} {
		if err := r.Parse([]byte(v)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v, want ErrMalformed", v, err)
		}
	}
	for what, spoil := range map[string]func(*Report){
		"empty site":        func(r *Report) { r.Site = nil },
		"newline":           func(r *Report) { r.Reporter = []byte("a\r\nb") },
		"semicolon":         func(r *Report) { r.Service = []byte("a;b") },
		"not a number":      func(r *Report) { r.Slots = math.NaN() },
		"infinite":          func(r *Report) { r.ServiceMS = math.Inf(1) },
		"negative arrivals": func(r *Report) { r.ArrivalsPerS = -1 },
		"negative spillers": func(r *Report) { r.Spillers = -1 },
	} {
		r := sample()
		spoil(&r)
		if _, err := r.AppendPrefix(nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s written: %v", what, err)
		}
	}
}

func TestReport_ServiceReport(t *testing.T) {
	r := sample()
	got := r.ServiceReport("me")
	want := mesh.ServiceReport{
		Service: "default/echo", Slots: 4.5, ServiceTimeMS: 10.25, InFlight: 17, Arrivals: 312.5,
		From: map[string]float64{"me": 88.125}, Spillers: 2,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReport_noAllocs(t *testing.T) {
	r := sample()
	prefix, _ := r.AppendPrefix(nil)
	value, buf := []byte(sampleValue), make([]byte, 0, MaxValue)
	var got Report
	if n := testing.AllocsPerRun(1000, func() {
		buf = Append(buf[:0], prefix, 123456)
		if got.Parse(value) != nil {
			t.Fatal("not read")
		}
	}); n != 0 {
		t.Errorf("%v allocations per header written and read, want 0", n)
	}
}

func FuzzReport(f *testing.F) {
	for _, seed := range []string{sampleValue, "1;s=a;r=b;v=c/d;n=0", "1;zz=9;n=1;s=a;r=b;v=c/d;c=0.0004;t=999999999.999", "2;s=a", "1;s=a;c=1..2;n=3", ";=;="} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var r, again Report
		if r.Parse(value) != nil {
			return
		}
		for _, v := range []float64{r.Slots, r.ServiceMS, r.ArrivalsPerS, r.FromYouPerS} {
			if !(v >= 0 && v <= maxNumber+1) {
				t.Fatalf("read %v out of range", v)
			}
		}
		prefix, err := r.AppendPrefix(nil)
		if err != nil {
			if max(r.Slots, r.ServiceMS, r.ArrivalsPerS, r.FromYouPerS) > maxNumber {
				return
			}
			t.Fatalf("read but not writable: %v", err)
		}
		written := Append(nil, prefix, r.InFlight)
		if err := again.Parse(written); err != nil {
			t.Fatalf("%q written from %q is not readable: %v", written, value, err)
		}
		// Writing rounds to a thousandth once and for all.
		prefix, err = again.AppendPrefix(nil)
		if err != nil || !bytes.Equal(Append(nil, prefix, again.InFlight), written) {
			t.Fatalf("%q written again as %q, %v", written, prefix, err)
		}
	})
}

func BenchmarkReport_Parse(b *testing.B) {
	value := []byte(sampleValue)
	var r Report
	for b.Loop() {
		if r.Parse(value) != nil {
			b.Fatal("not read")
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	r := sample()
	prefix, _ := r.AppendPrefix(nil)
	buf := make([]byte, 0, MaxValue)
	for b.Loop() {
		buf = Append(buf[:0], prefix, 17)
	}
}
