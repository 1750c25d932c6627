// Package accesslog writes a line for each request without ever making a loop
// wait: loops copy what they know into rings of fixed size, a goroutine makes
// lines of it and writes them in batches. Where the reader of the log is slower
// than the requests, records are dropped and counted.
package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Stdout as a path is the standard output.
const Stdout = "stdout"

const (
	// gather is how long the writer lets records come together.
	gather = 10 * time.Millisecond
	// renameCheck is how often a file in use is looked for at its path.
	renameCheck = time.Second
	// batchBytes is how much is formatted before it is written.
	batchBytes = 64 << 10
	fileMode   = 0o640
)

// Config says where lines go and what they hold.
type Config struct {
	Path   string // a file, or [Stdout]
	Format *Format
	// Site and Node are shown by the operators of those names.
	Site, Node string
	Rings      int          // one for each loop
	Now        func() int64 // the loops' clock
	Log        *slog.Logger
	// Copy, where it is not nil, is given the lines too, whole ones and many at a time.
	Copy io.Writer
}

// Stats are cumulative.
type Stats struct {
	// Written counts lines, Dropped records that found no room in a ring, Failed
	// lines that the file did not take.
	Written, Dropped, Failed uint64
}

// Log is an access log. Reopen and Stats may be called from any goroutine.
type Log struct {
	*feed
	path       string
	site, node []byte
	now        func() int64
	log        *slog.Logger

	reopen  chan struct{}
	written atomic.Uint64
	failed  atomic.Uint64
	copy    io.Writer

	// Of the writer alone.
	file    *os.File
	taken   []byte
	lines   []byte
	small   []byte
	broken  bool // the last write failed
	checked time.Time
}

// Open opens the file.
func Open(c Config) (*Log, error) {
	l := &Log{
		feed: newFeed(c.Format, c.Rings, ringBytes),
		path: c.Path, site: []byte(c.Site), node: []byte(c.Node), now: c.Now, log: c.Log, copy: c.Copy,
		reopen: make(chan struct{}, 1),
		taken:  make([]byte, 0, ringBytes), lines: make([]byte, 0, 2*batchBytes),
	}
	var err error
	l.file, err = l.open()
	return l, err
}

func (l *Log) open() (*os.File, error) {
	if l.path == Stdout {
		return os.Stdout, nil
	}
	return os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, fileMode)
}

// Reopen has the file opened again at its path, which rotation has renamed.
func (l *Log) Reopen() {
	select {
	case l.reopen <- struct{}{}:
	default:
	}
}

// Stats sums up what became of the records.
func (l *Log) Stats() Stats {
	return Stats{Written: l.written.Load(), Failed: l.failed.Load(), Dropped: l.lost()}
}

// Run writes until ctx ends and then what is left, without waiting for a reader
// longer than one write takes.
func (l *Log) Run(ctx context.Context) {
	defer l.close()
	t := time.NewTimer(gather)
	defer t.Stop()
	for {
		if l.drain() {
			t.Reset(gather)
			select {
			case <-t.C:
			case <-l.reopen:
				l.openAgain()
			case <-ctx.Done():
				l.drain()
				return
			}
			continue
		}
		l.waiting.Store(true)
		if l.drain() { // a record that came before the flag was seen
			l.waiting.Store(false)
			continue
		}
		select {
		case <-l.wake:
		case <-l.reopen:
			l.openAgain()
		case <-ctx.Done():
			l.drain()
			return
		}
	}
}

// drain writes what the rings hold and reports whether there was anything.
func (l *Log) drain() bool {
	any := false
	for _, r := range l.rings {
		l.taken = r.take(l.taken[:0])
		if len(l.taken) == 0 {
			continue
		}
		if !any {
			any = true
			l.follow()
		}
		l.writeRecords(l.taken)
	}
	return any
}

// writeRecords turns records into lines and writes them in batches.
func (l *Log) writeRecords(records []byte) {
	var e record
	now, clock := time.Now(), l.now()
	l.lines = l.lines[:0]
	n := uint64(0)
	for len(records) > 0 {
		records = l.format.read(records, &e)
		l.lines = l.line(l.lines, &e, now, clock)
		n++
		if len(l.lines) >= batchBytes || len(records) == 0 {
			l.write(n)
			l.lines, n = l.lines[:0], 0
		}
	}
}

// write writes the lines at hand. A log that cannot be written costs its lines,
// never a request; people are told when that begins and when it ends.
func (l *Log) write(n uint64) {
	if l.copy != nil {
		_, _ = l.copy.Write(l.lines) // it keeps them in memory
	}
	_, err := l.file.Write(l.lines)
	if err != nil {
		l.failed.Add(n)
		if !l.broken {
			l.log.Error("access log cannot be written; its lines are lost until it can", "path", l.path, "err", err)
		}
	} else {
		l.written.Add(n)
		if l.broken {
			l.log.Info("access log is written again", "path", l.path)
		}
	}
	l.broken = err != nil
}

// follow opens the file again when its path names another one or none.
func (l *Log) follow() {
	if l.path == Stdout || time.Since(l.checked) < renameCheck {
		return
	}
	l.checked = time.Now()
	there, err := os.Stat(l.path)
	if err == nil {
		var ours os.FileInfo
		if ours, err = l.file.Stat(); err == nil && os.SameFile(there, ours) {
			return
		}
	}
	l.openAgain()
}

func (l *Log) openAgain() {
	f, err := l.open()
	if err != nil {
		l.log.Error("access log is not opened again; the old file is written on", "path", l.path, "err", err)
		return
	}
	l.close()
	l.file = f
}

func (l *Log) close() {
	if l.path == Stdout {
		return
	}
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.log.Error("access log", "path", l.path, "err", fmt.Errorf("close: %w", err))
	}
}
