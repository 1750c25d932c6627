package logring

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func ask(t *testing.T, r *Ring, q mesh.LogQuery) (texts []string, a *mesh.LogAnswer) {
	t.Helper()
	a, err := r.Query(&q)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range a.Lines {
		texts = append(texts, l.Text)
	}
	return texts, a
}

func wants(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQuery(t *testing.T) {
	r := New(Bytes)
	now := time.Unix(1000, 0)
	r.now = func() time.Time { return now }
	fmt.Fprint(r, "time=1 level=INFO msg=a\n")
	now = now.Add(time.Minute)
	fmt.Fprint(r, "time=2 level=WARN msg=b\ntime=3 level=DEBUG msg=c\n")
	got, a := ask(t, r, mesh.LogQuery{})
	wants(t, got, "time=1 level=INFO msg=a", "time=2 level=WARN msg=b", "time=3 level=DEBUG msg=c")
	if !a.Lines[0].Time.Equal(time.Unix(1000, 0)) || !a.Lines[2].Time.Equal(now) {
		t.Errorf("%+v", a.Lines)
	}
	got, _ = ask(t, r, mesh.LogQuery{Level: "warn"})
	wants(t, got, "time=2 level=WARN msg=b")
	got, _ = ask(t, r, mesh.LogQuery{WithinMS: 30_000})
	wants(t, got, "time=2 level=WARN msg=b", "time=3 level=DEBUG msg=c")
	got, _ = ask(t, r, mesh.LogQuery{Match: "msg=c"})
	wants(t, got, "time=3 level=DEBUG msg=c")
	got, _ = ask(t, r, mesh.LogQuery{Most: 1})
	wants(t, got, "time=3 level=DEBUG msg=c")

	// What comes later, and no more than is asked for.
	fmt.Fprint(r, "d\n{\"level\":\"ERROR\",\"msg\":\"e\"}\nf\n")
	got, b := ask(t, r, mesh.LogQuery{After: a.Next, Most: 2})
	wants(t, got, "d", `{"level":"ERROR","msg":"e"}`)
	if !b.More {
		t.Error("no more")
	}
	got, b = ask(t, r, mesh.LogQuery{After: b.Next, Most: 2})
	wants(t, got, "f")
	if got, b = ask(t, r, mesh.LogQuery{After: b.Next}); len(got) > 0 || b.More || b.Missed > 0 {
		t.Errorf("%q %+v", got, b)
	}
	if got, _ = ask(t, r, mesh.LogQuery{After: 1 << 40}); len(got) != 6 {
		t.Errorf("of a process that was started again: %q", got)
	}
	for _, q := range []mesh.LogQuery{{Log: "x"}, {Most: -1}, {Most: 5000}, {Level: "loud"}, {Log: mesh.LogAccess, Level: "warn"}} {
		if _, err := r.Query(&q); err == nil {
			t.Errorf("%+v is taken", q)
		}
	}
}

// Compared with a list of all lines, at random sizes: what is kept are its last ones,
// whole and in order, and who follows misses what it is told that it missed.
func TestQuery_forgets(t *testing.T) {
	const size = 1000
	r := New(size)
	var all []string
	total, next, seen := uint64(0), uint64(0), uint64(0)
	for i := range 2000 {
		line := fmt.Sprintf("%d %s", i, strings.Repeat("x", i*7%90))
		if i == 1500 {
			line = strings.Repeat("y", 3*size) // longer than all that is kept
		}
		fmt.Fprintln(r, line)
		all, total = append(all, line), total+uint64(len(line))+1
		if i%37 != 0 {
			continue
		}
		got, _ := ask(t, r, mesh.LogQuery{})
		for k, g := range got {
			if want := all[len(all)-len(got)+k]; g != want {
				t.Fatalf("after %d: %q, want %q", i, g, want)
			}
		}
		if kept := len(strings.Join(got, "\n")) + 1; i > 100 && i != 1500 && kept < size/2 && i < 1500 {
			t.Fatalf("after %d only %d bytes", i, kept)
		}
		got, a := ask(t, r, mesh.LogQuery{After: next, Most: mesh.MaxLogLines})
		for _, g := range got {
			seen += uint64(len(g)) + 1
		}
		if next > 0 {
			seen += a.Missed
		}
		if next = a.Next; next != total {
			t.Fatalf("after %d: next %d, written %d", i, next, total)
		}
		if len(r.marks) > size {
			t.Fatalf("%d marks", len(r.marks))
		}
	}
	if seen > total {
		t.Errorf("saw and missed %d bytes of %d", seen, total)
	}
}
