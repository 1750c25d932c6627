package share

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
)

const (
	// suspectOutstanding unanswered requests make silence suspicious, and as many
	// broken ones in a row make a site suspect without silence.
	suspectOutstanding = 3
	silentBaseNS       = 250e6
	// firstTestNS is after how long a suspect site is tested with one request;
	// each failed test doubles it, maxBackoff times.
	firstTestNS = 2e9
	maxBackoff  = 3
	// paceNS is how much a link's greatest rate may be run ahead of; maxGapNS is an
	// hour, below which no rate goes.
	paceNS   = 100e6
	maxGapNS = 3600e9
)

// Why a site is suspect, as kept in Live.
const (
	trusted int32 = iota
	silent
	unreachable
	broken
)

// Live is what is known at this moment of the requests that this node sent to one
// site for one service. All methods are safe for concurrent use and none
// allocates. Each Start is followed by exactly one Answer, Fail or Cancel.
type Live struct {
	_           [64]byte // Neighbours in memory are written by other loops.
	outstanding atomic.Int64
	opened      atomic.Int64 // sessions since the last plan
	waitingNS   atomic.Int64 // when outstanding last rose from 0
	answeredNS  atomic.Int64 // last response or report over the link
	inFlight    atomic.Int64 // there, by the last report over the link
	heardNS     atomic.Int64 // when inFlight was said
	testNS      atomic.Int64 // when a suspect site is next tested; 0 while trusted
	report      atomic.Uint64
	gapNS       atomic.Int64 // between two requests at the link's greatest rate; 0 for none
	dueNS       atomic.Int64 // when the next request is due at that rate
	why         atomic.Int32
	broken      atomic.Int32
	backoff     atomic.Int32
	meter       *limit.Meter // of the link, shared by all services
	_           [64]byte
}

// Start notes that a request is sent.
func (l *Live) Start(nowNS int64) {
	if l.outstanding.Add(1) == 1 {
		l.waitingNS.Store(nowNS)
	}
	l.opened.Add(1)
	if gap := l.gapNS.Load(); gap > 0 {
		for {
			due := l.dueNS.Load()
			if l.dueNS.CompareAndSwap(due, max(due, nowNS)+gap) {
				break
			}
		}
	}
}

// pace sets the greatest rate of requests, 0 for none.
func (l *Live) pace(perS float64) {
	gap := int64(0)
	if perS > 0 {
		gap = int64(math.Min(1e9/perS, maxGapNS))
	}
	l.gapNS.Store(gap)
}

// early tells whether one more request now would go beyond the greatest rate: the
// generic cell rate algorithm (ITU-T I.371) with a tolerance of paceNS.
func (l *Live) early(nowNS int64) bool {
	return l.gapNS.Load() > 0 && l.dueNS.Load()-nowNS > paceNS
}

// Spent reports whether the link's budget lets nothing more begin.
func (l *Live) Spent() bool { return l.meter.Spent() }

// Answer notes the head of a response, whatever its status: the site lives.
// inFlight is the number in flight that its load report says, negative when it
// carries none.
func (l *Live) Answer(nowNS int64, inFlight int) {
	l.outstanding.Add(-1)
	l.backoff.Store(0)
	l.Heard(nowNS, inFlight)
}

// Heard notes a report that came over the link without a request of a user (a
// probe's answer). It ends a suspicion.
func (l *Live) Heard(nowNS int64, inFlight int) {
	l.answeredNS.Store(nowNS)
	l.broken.Store(0)
	if l.testNS.Load() != 0 {
		l.testNS.Store(0)
		l.why.Store(trusted)
	}
	if inFlight >= 0 {
		l.inFlight.Store(int64(inFlight))
		l.heardNS.Store(nowNS)
	}
}

// Fail notes a request that ended without a response. connect says that not even
// a connection came about: that makes the site suspect at once, other failures
// the third time in a row.
func (l *Live) Fail(nowNS int64, connect bool) {
	l.outstanding.Add(-1)
	switch {
	case connect:
		l.suspect(nowNS, unreachable)
	case l.broken.Add(1) >= suspectOutstanding:
		l.suspect(nowNS, broken)
	}
}

// Cancel notes a request given up for a reason that says nothing of the site,
// such as a client that went away.
func (l *Live) Cancel() { l.outstanding.Add(-1) }

// Outstanding is the number of requests without a response.
func (l *Live) Outstanding() int { return int(l.outstanding.Load()) }

// News tells whether a report is another one than that of the last call, so that
// loops hand each report on once although every response repeats it.
func (l *Live) News(epoch, seq uint64) bool {
	id := epoch*0x9e3779b97f4a7c15 ^ seq
	return l.report.Load() != id && l.report.Swap(id) != id
}

// Suspect says why nothing is sent there now, empty when it may be: while the
// site is trusted, and when a test is due.
func (l *Live) Suspect(nowNS int64) string {
	if at := l.testNS.Load(); at == 0 || nowNS >= at {
		return ""
	}
	switch l.why.Load() {
	case unreachable:
		return "suspect: no connection"
	case broken:
		return fmt.Sprintf("suspect: %d requests broke off in a row", l.broken.Load())
	default:
		return fmt.Sprintf("suspect: silent with %d requests outstanding", l.outstanding.Load())
	}
}

func (l *Live) suspect(nowNS int64, why int32) {
	if l.testNS.Load() == 0 && l.testNS.CompareAndSwap(0, nowNS+l.nextTest()) {
		l.why.Store(why)
	}
}

func (l *Live) nextTest() int64 {
	n := l.backoff.Load()
	if n < maxBackoff {
		l.backoff.CompareAndSwap(n, n+1)
	}
	return firstTestNS << n
}

// check makes the site suspect if it has been silent for too long.
func (l *Live) check(nowNS, silentNS int64) {
	if l.outstanding.Load() >= suspectOutstanding &&
		nowNS-max(l.answeredNS.Load(), l.waitingNS.Load()) > silentNS {
		l.suspect(nowNS, silent)
	}
}

type verdict int8

const (
	no verdict = iota
	yes
	test // suspect, and due for one request that tries it
)

// admits says whether one more request may go there.
func (l *Live) admits(nowNS, silentNS, limit int64) verdict {
	if at := l.testNS.Load(); at != 0 {
		if nowNS < at {
			return no
		}
		return test
	}
	out := l.outstanding.Load()
	if out >= limit {
		return no
	}
	if out >= suspectOutstanding {
		if l.check(nowNS, silentNS); l.testNS.Load() != 0 {
			return no
		}
	}
	return yes
}

// claimTest makes the caller's request the one that tests a suspect site.
func (l *Live) claimTest(nowNS int64) bool {
	at := l.testNS.Load()
	return at != 0 && nowNS >= at && l.testNS.CompareAndSwap(at, nowNS+l.nextTest())
}

// Ledger holds the live state of every service and site that a node sends to. It
// outlives plans. The zero value is ready.
type Ledger struct {
	mu       sync.Mutex
	services map[mesh.ServiceKey]*account
	meters   map[string]*limit.Meter
}

type account struct {
	turn  atomic.Uint64 // of the round-robin policies
	sites map[string]*Live
}

// Meter returns what counts the bytes that go over the link to a site, always the same.
func (b *Ledger) Meter(site string) *limit.Meter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.meter(site)
}

// meter needs mu.
func (b *Ledger) meter(site string) *limit.Meter {
	m := b.meters[site]
	if m == nil {
		if b.meters == nil {
			b.meters = map[string]*limit.Meter{}
		}
		m = new(limit.Meter)
		b.meters[site] = m
	}
	return m
}

// Live returns the live state of one service at one site, always the same.
func (b *Ledger) Live(service mesh.ServiceKey, site string) *Live {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live(b.account(service), site)
}

func (b *Ledger) open(service mesh.ServiceKey, sites []string) (*account, []*Live) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(service)
	lives := make([]*Live, len(sites))
	for i, s := range sites {
		lives[i] = b.live(a, s)
	}
	return a, lives
}

// account is a service's; the caller holds mu.
func (b *Ledger) account(service mesh.ServiceKey) *account {
	a := b.services[service]
	if a == nil {
		if b.services == nil {
			b.services = map[mesh.ServiceKey]*account{}
		}
		a = &account{sites: map[string]*Live{}}
		b.services[service] = a
	}
	return a
}

// live needs mu.
func (b *Ledger) live(a *account, site string) *Live {
	l := a.sites[site]
	if l == nil {
		l = &Live{meter: b.meter(site)}
		a.sites[site] = l
	}
	return l
}
