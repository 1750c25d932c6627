package loop

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Watch wakes those beside the loops that slow down while nothing comes in. Its zero
// value is ready; it is safe for concurrent use.
type Watch struct {
	armed atomic.Bool
	mu    sync.Mutex
	wake  []chan<- struct{}
}

// Sleep has a value sent to wake, which should have room for one, after the next turn of a
// loop that a descriptor began; tasks and timers wake nobody. Whoever sleeps looks
// once more, after Sleep, for what happened before: what a turn counted is seen then,
// or its end finds the sleeper.
func (w *Watch) Sleep(wake chan<- struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.wake, wake) { // who woke by itself is still there
		w.wake = append(w.wake, wake)
	}
	w.armed.Store(true)
}

// Armed tells whether anybody sleeps.
func (w *Watch) Armed() bool { return w.armed.Load() }

// stir wakes all who sleep.
func (w *Watch) stir() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed.Store(false)
	for i, c := range w.wake {
		select {
		case c <- struct{}{}:
		default: // it has not taken the one before
		}
		w.wake[i] = nil
	}
	w.wake = w.wake[:0]
}
