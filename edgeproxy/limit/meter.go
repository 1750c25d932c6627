package limit

import "sync/atomic"

// Meter counts the bytes that go over a link and says when no more may begin. All
// methods may be called from several loops at once and allocate nothing. The zero value
// has no bound.
type Meter struct {
	carried atomic.Uint64
	most    atomic.Uint64 // one more than the bound; 0 for none
}

// Add counts bytes that went either way.
func (m *Meter) Add(n int) { m.carried.Add(uint64(n)) }

// Carried is the count since the process started.
func (m *Meter) Carried() uint64 { return m.carried.Load() }

// Bound sets the count from which nothing more may begin.
func (m *Meter) Bound(most uint64) { m.most.Store(most + 1) }

// Most is the bound, false where there is none.
func (m *Meter) Most() (uint64, bool) {
	most := m.most.Load()
	return max(most, 1) - 1, most > 0
}

// Unbound takes the bound away.
func (m *Meter) Unbound() { m.most.Store(0) }

// Spent reports whether the bound is reached. A nil meter never is.
func (m *Meter) Spent() bool {
	if m == nil {
		return false
	}
	most := m.most.Load()
	return most > 0 && m.carried.Load() >= most-1
}
