package mesh

import (
	"fmt"
	"strings"
	"time"
)

// Logs that a process keeps the latest lines of.
const (
	// LogDaemon is what the process says of itself.
	LogDaemon = "daemon"
	// LogAccess has a line for each request.
	LogAccess = "access"
)

// Bounds of a [LogQuery].
const (
	DefaultLogLines = 100
	MaxLogLines     = 1000
)

// LogQuery asks a process for the latest lines of one of its logs.
type LogQuery struct {
	// Log is [LogDaemon] or [LogAccess].
	Log string `json:"log,omitempty"`
	// After is the [LogAnswer.Next] of the answer before: only later lines come. 0 asks
	// for the last Most lines.
	After uint64 `json:"after,omitempty"`
	// WithinMS leaves out what is older, in ms; 0 does not.
	WithinMS float64 `json:"withinMs,omitempty"`
	// Match is a text that a line has; empty takes all.
	Match string `json:"match,omitempty"`
	// Level is the least level of a daemon's lines: debug, info, warn, error.
	Level string `json:"level,omitempty"`
	// Most bounds the lines of an answer.
	Most int `json:"most,omitempty"`
}

// logLevels are in order, as log/slog writes them.
var logLevels = []string{"DEBUG", "INFO", "WARN", "ERROR"}

// LevelOf is a level's place in their order, false for a word that is none.
func LevelOf(word string) (int, bool) {
	for i, l := range logLevels {
		if strings.EqualFold(word, l) {
			return i, true
		}
	}
	return 0, false
}

// Check says what is wrong with the query and fills in the defaults.
func (q *LogQuery) Check() error {
	if q.Log == "" {
		q.Log = LogDaemon
	}
	if q.Most == 0 {
		q.Most = DefaultLogLines
	}
	_, known := LevelOf(q.Level)
	switch {
	case q.Log != LogDaemon && q.Log != LogAccess:
		return fmt.Errorf("log %q: want %s or %s", q.Log, LogDaemon, LogAccess)
	case q.Most < 1 || q.Most > MaxLogLines:
		return fmt.Errorf("%d lines: want 1 to %d", q.Most, MaxLogLines)
	case q.WithinMS < 0:
		return fmt.Errorf("the last %g ms: want a time over 0", q.WithinMS)
	case q.Level != "" && !known:
		return fmt.Errorf("level %q: want debug, info, warn or error", q.Level)
	case q.Level != "" && q.Log == LogAccess:
		return fmt.Errorf("level %s: lines of requests have none", q.Level)
	}
	return nil
}

// LogLine is one line.
type LogLine struct {
	// Time is when it was written, to a tenth of a second.
	Time time.Time `json:"time"`
	Site string    `json:"site,omitempty"`
	// Node is the proxy that wrote it, empty for a controller.
	Node string `json:"node,omitempty"`
	Text string `json:"text"`
}

// LogAnswer holds lines in the order in which they were written.
type LogAnswer struct {
	Lines []LogLine `json:"lines"`
	// Next goes into the next query.
	Next uint64 `json:"next"`
	// Missed counts bytes that were forgotten before they could be asked for.
	Missed uint64 `json:"missed,omitempty"`
	// More says that more wait than an answer holds.
	More bool `json:"more,omitempty"`
}
