package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
)

// KindChange is the kind with which Handle is called after a change of the
// scenario; policies schedule their own from KindFirst on.
const (
	KindChange uint8 = iota
	KindFirst
)

// NowNS is the clock, of any origin above zero.
func (m *Mesh) NowNS() int64 { return m.nowNS }

// NowS is seconds since the start.
func (m *Mesh) NowS() float64 { return float64(m.nowNS-startNS) / 1e9 }

// After has Handle called in delayNS.
func (m *Mesh) After(delayNS int64, kind uint8, a, b int32) {
	m.events.push(m.nowNS+max(0, delayNS), evPolicy+kind, a, b)
}

// Rand is for the policy's own draws. It does not change arrivals.
func (m *Mesh) Rand() *rand.Rand { return m.rnd }

// Scenario is what is run. It must not be changed.
func (m *Mesh) Scenario() *Scenario { return m.sc }

// Len is the number of sites.
func (m *Mesh) Len() int { return len(m.sites) }

// Nearest are the sites that site i may send to, the nearest first.
func (m *Mesh) Nearest(i int) []int { return m.order[i] }

// RTTMS is a round trip in ms.
func (m *Mesh) RTTMS(i, j int) float64 { return m.sc.Network.RTTMS[i][j] }

// HalfNS is the time of one way.
func (m *Mesh) HalfNS(i, j int) int64 { return m.halfNS(i, j) }

// Request is a request by its number, until it is answered. It must not be changed.
func (m *Mesh) Request(r int32) *Request { return &m.requests[r] }

// Dropped tells whether the site gave the request up because its deadline passed
// while it waited.
func (r *Request) Dropped() bool { return r.dropped }

// Counters are what a site's proxy counted so far. They must not be changed.
func (m *Mesh) Counters(i int) *share.Counters { return &m.sites[i].count }

// Levels are the site's completions by how many were in flight when they came. They
// must not be changed.
func (m *Mesh) Levels(i int) *[price.Levels]price.Level { return &m.sites[i].levels }

// Site is a site as it was at the start.
func (m *Mesh) Site(i int) *Site { return &m.sites[i].Site }

// Truth is what nobody in the mesh can know at once: a site's real demand and mean
// service time now.
func (m *Mesh) Truth(i int) (demandPerS, serviceMS float64) {
	s := &m.sites[i]
	return s.demand, s.ServiceMS * s.service
}

// Cut tells whether messages from i to j are lost now.
func (m *Mesh) Cut(i, j int) bool { return len(m.cut) > 0 && m.cut[Pair{i, j}] }

// BusDown tells whether the bus loses everything now.
func (m *Mesh) BusDown() bool { return m.busDown }

func sortBy(xs []int, key func(int) float64) {
	slices.SortStableFunc(xs, func(a, b int) int { return cmp.Compare(key(a), key(b)) })
}
