package world

import (
	"maps"
	"slices"
	"time"
)

// double tells two processes under one name from one that was started again: of
// the two, the one that started first goes on to report.
type double struct {
	epoch uint64 // the youngest process's start
	heard time.Time
	young time.Time // when that one was last heard
	n     int       // reports of older processes, without a long pause
	last  time.Time
}

const (
	// doubleReports of an older process are more than what was under way when it
	// was replaced, and doubleFor is how long the last of them tells.
	doubleReports = 3
	doubleFor     = 10 * time.Second
)

// once notes a report of a name's process that started at epoch.
func (w *World) once(name string, epoch uint64, at time.Time) {
	d := w.doubles[name]
	if d == nil {
		d = &double{epoch: epoch, young: at}
		w.doubles[name] = d
	}
	d.heard = at
	if epoch >= d.epoch {
		d.epoch, d.young = epoch, at
		return
	}
	if at.Sub(d.young) > doubleFor {
		// The younger one is gone: this one started after its clock had been set back.
		*d = double{epoch: epoch, heard: at, young: at}
		return
	}
	if at.Sub(d.last) > doubleFor {
		d.n = 0
	}
	d.n++
	d.last = at
}

// Doubles lists what runs twice under one name now, as "site NAME" and "node NAME".
func (w *World) Doubles(now time.Time) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(w.doubles)) {
		if d := w.doubles[name]; d.n >= doubleReports && now.Sub(d.last) <= doubleFor {
			out = append(out, name)
		}
	}
	return out
}
