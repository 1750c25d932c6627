// Package logring keeps the latest lines of a log in memory, so that they can be asked
// for where nobody can read the file: a circle of bytes of fixed size, whose places
// are counted from the first byte ever written.
package logring

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// Bytes is how much of a log is kept unless something else is said.
	Bytes = 256 << 10
	// maxLine bounds one line of an answer and maxText all of them.
	maxLine = 8 << 10
	maxText = 256 << 10
	// step is how exactly it is known when a line was written.
	step = 100 * time.Millisecond
)

// Ring keeps the end of one log. It is safe for concurrent use.
type Ring struct {
	now func() time.Time

	mu    sync.Mutex
	buf   []byte
	end   uint64 // bytes ever written
	marks []mark
}

// mark says when the bytes from one place on were written.
type mark struct {
	from uint64
	at   time.Time
}

// New makes a ring of a number of bytes.
func New(size int) *Ring { return &Ring{now: time.Now, buf: make([]byte, size)} }

// Write takes whole lines, each with its end. It never fails.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if n := len(r.marks); n == 0 || now.Sub(r.marks[n-1].at) >= step {
		r.marks = append(r.marks, mark{r.end, now})
	}
	rest := p
	if skip := len(p) - len(r.buf); skip > 0 {
		rest, r.end = p[skip:], r.end+uint64(skip)
	}
	n := copy(r.buf[r.end%uint64(len(r.buf)):], rest)
	copy(r.buf, rest[n:])
	r.end += uint64(len(rest))
	// Of the marks before what is kept the last is needed.
	first := r.first()
	i, found := slices.BinarySearchFunc(r.marks, first, func(m mark, at uint64) int { return compare(m.from, at) })
	if !found {
		i--
	}
	r.marks = slices.Delete(r.marks, 0, max(0, i))
	return len(p), nil
}

var _ io.Writer = (*Ring)(nil)

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *Ring) first() uint64 {
	if r.end > uint64(len(r.buf)) {
		return r.end - uint64(len(r.buf))
	}
	return 0
}

// Query answers which lines there are.
func (r *Ring) Query(q *mesh.LogQuery) (*mesh.LogAnswer, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.After > r.end { // this process has not written that much: it has been started again
		q.After = 0
	}
	out := &mesh.LogAnswer{Lines: []mesh.LogLine{}, Next: r.end}
	first := r.first()
	whole := first == 0
	at := max(first, q.After)
	if q.After > 0 && q.After >= first {
		whole = true // a line begins there
	} else if q.After > 0 {
		out.Missed = first - q.After
	}
	text := r.from(at)
	if !whole { // the first line has lost its beginning
		cut := bytes.IndexByte(text, '\n') + 1
		text, at = text[cut:], at+uint64(cut)
	}
	since := time.Time{}
	if q.WithinMS > 0 {
		since = r.now().Add(-time.Duration(q.WithinMS * float64(time.Millisecond)))
	}
	r.lines(out, q, text, at, since)
	return out, nil
}

// lines takes what the query selects of text, which begins at a place. The last lines
// are taken where nothing was asked before, else the first.
func (r *Ring) lines(out *mesh.LogAnswer, q *mesh.LogQuery, text []byte, at uint64, since time.Time) {
	size, m := 0, 0
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		for m+1 < len(r.marks) && r.marks[m+1].from <= at {
			m++
		}
		if when := r.marks[m].at; !when.Before(since) && bytes.Contains(line, []byte(q.Match)) && levelled(line, q.Level) {
			shown := string(line[:min(len(line), maxLine)])
			if q.After > 0 && (len(out.Lines) == q.Most || size+len(shown) > maxText) {
				out.Next, out.More = at, true
				return
			}
			size += len(shown)
			out.Lines = append(out.Lines, mesh.LogLine{Time: when, Text: shown})
			for len(out.Lines) > q.Most || size > maxText && len(out.Lines) > 1 {
				size -= len(out.Lines[0].Text)
				out.Lines = out.Lines[1:]
			}
		}
		text, at = rest, at+uint64(len(line))+1
	}
}

// from copies the bytes from a place on.
func (r *Ring) from(at uint64) []byte {
	out := make([]byte, 0, r.end-at)
	i := int(at % uint64(len(r.buf)))
	n := int(r.end - at)
	head := min(n, len(r.buf)-i)
	out = append(out, r.buf[i:i+head]...)
	return append(out, r.buf[:n-head]...)
}

// levelled reports whether a line of log/slog, as text or JSON, has at least a level.
// One that says none is shown: a lost fault is worse than a line too many.
func levelled(line []byte, least string) bool {
	want, ok := mesh.LevelOf(least)
	if !ok {
		return true
	}
	for _, key := range []string{"level=", `"level":"`} {
		if _, after, found := strings.Cut(string(line[:min(len(line), 256)]), key); found {
			word := after[:len(after)-len(strings.TrimLeft(after, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))]
			has, ok := mesh.LevelOf(word)
			return !ok || has >= want
		}
	}
	return true
}
