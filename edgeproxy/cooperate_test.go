package edgeproxy

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
	"github.com/meridian-mesh/meridian/edgeproxy/share"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

const echo = mesh.ServiceKey("default/echo")

// fakeLoads is a data path whose clock and counters the test moves.
type fakeLoads struct {
	now  atomic.Int64
	load ServiceLoad
}

func (f *fakeLoads) Now() int64 { return f.now.Load() }

func (f *fakeLoads) Loads(dst []ServiceLoad) []ServiceLoad { return append(dst[:0], f.load) }

// rig is a Cooperation of site north, ticked by hand.
type rig struct {
	t *testing.T
	*Cooperation
	loads   *fakeLoads
	gate    upstream.Gate
	report  upstream.Report
	reports []*mesh.NodeReport
}

func siteNamed(name string, links ...mesh.SiteLink) *mesh.Site {
	s := &mesh.Site{Metadata: mesh.ObjectMeta{Name: name}}
	s.Spec.Gateways = []mesh.SiteGateway{{Address: "127.0.0.1:1"}}
	s.Spec.Links = links
	return s
}

func shared(site string, slots int) *mesh.MeshService {
	s := &mesh.MeshService{Metadata: mesh.ObjectMeta{Namespace: "default", Name: "echo"}}
	s.Spec.Export = &mesh.Export{Scope: mesh.ScopeMesh}
	s.Spec.Ports = []mesh.ServicePort{{Port: 80}}
	s.Spec.Endpoints = []mesh.Endpoint{
		{Address: "127.0.0.1:2", Site: site, Capacity: &mesh.Capacity{Concurrency: slots, ServiceTime: mesh.Duration(10 * time.Millisecond)}},
		{Address: "127.0.0.1:3", Site: "south"},
		{Address: "127.0.0.1:4", Site: "east"},
	}
	return s
}

func snapshotOf(services ...*mesh.MeshService) *mesh.Snapshot {
	millis := func(n int) *mesh.Duration { d := mesh.Duration(time.Duration(n) * time.Millisecond); return &d }
	s := &mesh.Snapshot{Site: "north"}
	s.Objects.Sites = []*mesh.Site{
		siteNamed("north", mesh.SiteLink{To: "south", RTT: millis(4)}, mesh.SiteLink{To: "east", RTT: millis(2), Price: 1, Address: "127.0.0.1:9"}),
		siteNamed("south"), siteNamed("east"),
	}
	s.Objects.Services = services
	return s
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, loads: &fakeLoads{}}
	r.Cooperation = NewCooperation(CooperationConfig{
		Site: "north", Node: "n1", Log: slog.New(slog.DiscardHandler),
		Publish: func(n *mesh.NodeReport) error { r.reports = append(r.reports, n); return nil },
	})
	r.loads.now.Store(int64(time.Hour))
	r.now = r.loads.Now
	r.loads.load = ServiceLoad{Service: echo, Slots: 4, ServiceTime: 10 * time.Millisecond}
	if err := r.Configure(snapshotOf(shared("north", 4)), r.build); err != nil {
		t.Fatal(err)
	}
	return r
}

// build asks for gates as a view's builder does; its order is not the plan's.
func (r *rig) build() error {
	r.gate, r.report = r.Gate(echo, []string{"south", "east"}), r.Report(echo)
	return nil
}

// run lets d pass under a demand, all of it served at home.
func (r *rig) run(d time.Duration, perSecond int) {
	r.t.Helper()
	var buf []ServiceLoad
	for range int(d / tickEvery) {
		r.loads.now.Add(int64(tickEvery))
		n := uint64(perSecond / 10)
		l := &r.loads.load
		l.Demand += n
		l.Arrivals += n
		l.Completions += n
		buf, _ = r.tick(r.loads, buf)
	}
}

// says is the meridian-load value of a site that is idle with many slots.
func says(site string, seq uint64) []byte {
	r := inband.Report{
		Site: []byte(site), Reporter: []byte("x"), Service: []byte(echo),
		Epoch: 1, Seq: seq, Slots: 16, ServiceMS: 10, ArrivalsPerS: 10,
	}
	prefix, err := r.AppendPrefix(nil)
	if err != nil {
		panic(err)
	}
	return inband.Append(nil, prefix, 1)
}

func (r *rig) shareOf(site string) RemoteShareInForce {
	r.t.Helper()
	for _, s := range r.Weights(time.Time{}).Services {
		for _, remote := range s.Remotes {
			if remote.Site == site {
				return remote
			}
		}
	}
	r.t.Fatalf("no share of site %s", site)
	return RemoteShareInForce{}
}

// A site in need sends its surplus to the site that it heard of, and only there.
func TestCooperation_overflow(t *testing.T) {
	r := newRig(t)
	r.run(time.Second, 100)
	if got := r.shareOf("south"); got.Share != 0 || got.Excluded == "" || got.RTTMS != 4 {
		t.Errorf("a site that said nothing: %+v", got)
	}
	r.loads.load.InFlight = 40
	for seq := range uint64(20) {
		r.gate.Load(1, says("east", seq+1), r.loads.Now())
		r.run(tickEvery, 800) // 400 a second is what north can do
	}
	east, south := r.shareOf("east"), r.shareOf("south")
	if east.Share < 0.3 || south.Share != 0 {
		t.Errorf("east gets %.2f, south %.2f", east.Share, south.Share)
	}
	if east.PriceMS < 1.3*2+1 {
		t.Errorf("price %.2f ms holds no round trip of 2 ms and link price of 1 ms", east.PriceMS)
	}
	// The gate speaks in the view's numbers.
	if got := r.gate.Pick(0, r.loads.Now(), 1000, 7, 0); got != 1 {
		t.Errorf("a hot home sends to %d, want 1 (east)", got)
	}
	if got := r.gate.Pick(0, r.loads.Now(), 0, 7, 0); got != upstream.Home {
		t.Errorf("an idle home sends to %d", got)
	}
	v := r.Weights(time.Time{})
	if s := v.Services[0]; s.SinceMS > v.NowMS || s.SinceMS < v.NowMS-60_000 {
		t.Errorf("in force since %d, now is %d", s.SinceMS, v.NowMS)
	}
	if last := v.History[len(v.History)-1]; last.Source != "standby" || math.Abs(last.Shares["east"]-east.Share) > shareStep {
		t.Errorf("history ends with %+v", last)
	}
	last := r.reports[len(r.reports)-1]
	if len(last.Heard) != 1 || last.Heard[0].Site != "east" || len(last.InForce) != 1 || last.InForce[0].Shares["east"] != east.Share || last.Services[0].Demand < 700 {
		t.Errorf("report to the controller: %+v", last)
	}
}

// Requests that get no answer make a site suspect, and the gate leaves it out.
func TestCooperation_suspect(t *testing.T) {
	r := newRig(t)
	r.loads.load.InFlight = 40
	for seq := range uint64(10) {
		r.gate.Load(1, says("east", seq+1), r.loads.Now())
		r.run(tickEvery, 800)
	}
	now := r.loads.Now()
	r.gate.Sent(1, now)
	if got := r.shareOf("east").Outstanding; got != 1 {
		t.Errorf("%d outstanding after one was sent", got)
	}
	r.gate.Done(1, now, upstream.Cancelled)
	if why := r.shareOf("east").Suspect; why != "" {
		t.Errorf("a client that went away made the site suspect: %s", why)
	}
	r.gate.Sent(1, now)
	r.gate.Done(1, now, upstream.Unreachable)
	r.run(tickEvery, 800)
	if got := r.shareOf("east"); got.Suspect == "" || got.Outstanding != 0 {
		t.Errorf("no connection, and yet %+v", got)
	}
	if got := r.gate.Pick(0, r.loads.Now(), 1000, 7, 0); got != upstream.Home {
		t.Errorf("sends to %d, which is suspect", got)
	}
	r.probed("east", 3*time.Millisecond, [][]byte{says("east", 100)}, nil)
	if why := r.shareOf("east").Suspect; why != "" {
		t.Errorf("after a probe's answer still %s", why)
	}
	r.gate.Sent(1, now)
	r.gate.Done(1, now, upstream.Unreachable)
	r.gate.Load(1, says("east", 101), r.loads.Now())
	if why := r.shareOf("east").Suspect; why != "" {
		t.Errorf("after a response still %s", why)
	}
}

func TestCooperation_probe(t *testing.T) {
	r := newRig(t)
	if got := r.answered("east"); !got.IsZero() {
		t.Errorf("east answered at %v", got)
	}
	r.probed("east", 8*time.Millisecond, [][]byte{says("south", 1), []byte("nonsense"), says("east", 1)}, nil)
	r.run(tickEvery, 100)
	if got := r.shareOf("east"); got.Excluded != "" || got.AgeMS > 500 {
		t.Errorf("east after its probe: %+v", got)
	}
	if got := r.shareOf("south"); got.Excluded == "" {
		t.Error("east's gateway spoke for south and was believed")
	}
	for range 50 {
		r.probed("east", 8*time.Millisecond, nil, nil)
	}
	r.run(tickEvery, 100)
	if got := r.shareOf("east").RTTMS; got < 6 || got > 8.1 {
		t.Errorf("round trip %.2f ms after 50 of 8 ms, 2 declared", got)
	}
	r.gate.Load(1, says("east", 2), r.loads.Now())
	if age := time.Since(r.answered("east")); age > time.Minute {
		t.Errorf("east answered %v ago", age)
	}
}

// A snapshot that the proxy refuses leaves gates, services and peers as they were.
func TestCooperation_refused(t *testing.T) {
	r := newRig(t)
	r.run(time.Second, 100)
	gate := r.gate
	other := shared("north", 4)
	other.Metadata.Name = "other"
	no := errors.New("bind: address in use")
	if err := r.Configure(snapshotOf(other), func() error {
		if r.Gate("default/other", []string{"south"}) == nil {
			t.Error("no gate for the service of the next snapshot")
		}
		return no
	}); !errors.Is(err, no) {
		t.Fatal(err)
	}
	r.loads.load.InFlight = 40
	for seq := range uint64(20) {
		gate.Load(1, says("east", seq+1), r.loads.Now())
		r.run(tickEvery, 800)
	}
	if got := gate.Pick(0, r.loads.Now(), 1000, 7, 0); got != 1 {
		t.Errorf("the gate in force is not fed any more: %d", got)
	}
	// Taken: the new gate goes on with the plan that is in force, at once.
	if err := r.Configure(snapshotOf(shared("north", 4)), func() error {
		r.gate = r.Gate(echo, []string{"east"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := r.gate.Pick(0, r.loads.Now(), 1000, 7, 0); got != 0 {
		t.Errorf("the next gate sends to %d, want 0 (east)", got)
	}
}

// A site in balance writes no history.
func TestCooperation_calm(t *testing.T) {
	r := newRig(t)
	r.run(3*time.Second, 100)
	if n := len(r.Weights(time.Time{}).History); n != 1 {
		t.Errorf("%d changes of shares that never changed", n)
	}
}

func TestCooperation_controller(t *testing.T) {
	r := newRig(t)
	r.run(time.Second, 100)
	plan := func(seq uint64, site string) *mesh.Weights {
		return &mesh.Weights{
			Site: site, Epoch: 1, Seq: seq, IssuedAt: time.Unix(1, 0), ExpiresAt: time.Unix(3, 0),
			Services: []mesh.ServiceWeights{{Service: echo, HomeLimit: 3, HomeWeight: 0.6,
				Remotes: []mesh.RemoteWeight{{Site: "south", Weight: 0.4, Draw: 40, Limit: 10, RTTMS: 4, PriceMS: 9}}}},
		}
	}
	r.SetWeights(plan(1, "elsewhere"))
	r.run(time.Second, 100)
	if got := r.Weights(time.Time{}).Services[0].Source; got != "standby" {
		t.Errorf("another site's plan is in force: %s", got)
	}
	r.SetWeights(plan(2, "north"))
	r.run(1500*time.Millisecond, 100)
	v := r.Weights(time.Time{}).Services[0]
	if v.Source != "controller" || v.HomeLimit != 3 || r.shareOf("south").Share != 0.4 {
		t.Errorf("in force: %+v", v)
	}
	r.run(4*time.Second, 100)
	if v := r.Weights(time.Time{}); v.Services[0].Source != "standby" {
		t.Errorf("a plan that nobody renews is in force: %+v", v.Services[0])
	}
}

// Only the nearest sites are asked, and none where nothing is shared.
func TestCooperation_probesFew(t *testing.T) {
	r := newRig(t)
	if set := <-r.peers; len(set) != 2 || set[0].site != "east" || set[1].site != "south" {
		t.Errorf("probes %+v, want the nearer first", set)
	}
	many := snapshotOf(shared("north", 4))
	for i := range 3 * plan.MaxRemotes {
		far := siteNamed(fmt.Sprintf("far-%d", i))
		far.Spec.Location = mesh.Location{Lon: 10 + float64(i)/10}
		many.Objects.Sites = append(many.Objects.Sites, far)
	}
	if err := r.Configure(many, r.build); err != nil {
		t.Fatal(err)
	}
	if set := <-r.peers; len(set) != plan.MaxRemotes || set[0].site != "east" || set[2].site != "far-0" {
		t.Errorf("probes %d sites, first %s", len(set), set[0].site)
	}
	if err := r.Configure(snapshotOf(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if set := <-r.peers; len(set) != 0 {
		t.Errorf("shares nothing and probes %+v", set)
	}
}

func TestCooperation_unshared(t *testing.T) {
	private := shared("north", 4)
	private.Spec.Export = nil
	r := newRig(t)
	for name, c := range map[string]*Cooperation{
		"service is not exported": r.Cooperation,
		"node has no site":        NewCooperation(CooperationConfig{Node: "n1", Log: slog.New(slog.DiscardHandler)}),
	} {
		s := snapshotOf(private)
		if c.Site == "" {
			s = snapshotOf(shared("north", 4))
		}
		if err := c.Configure(s, func() error {
			if c.Gate(echo, []string{"south"}) != nil || c.Report(echo) != nil {
				t.Errorf("%s: shared", name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// What one site is told of its own requests is not what another is told.
func TestReport(t *testing.T) {
	r := newRig(t)
	if got := r.report.AppendLoad(nil, []byte("south"), 3); len(got) != 0 {
		t.Errorf("before the first tick: %q", got)
	}
	for range 20 {
		if n := len(r.loads.load.From); n == 0 {
			r.loads.load.From = []SourceCount{{Site: "south"}}
		}
		r.loads.load.From[0].N += 5
		r.run(tickEvery, 100)
	}
	var toSouth, toEast inband.Report
	if err := toSouth.Parse(r.report.AppendLoad(nil, []byte("south"), 3)); err != nil {
		t.Fatal(err)
	}
	if err := toEast.Parse(r.report.AppendLoad(nil, []byte("east"), 3)); err != nil {
		t.Fatal(err)
	}
	if toSouth.FromYouPerS < 30 || toEast.FromYouPerS != 0 || toSouth.InFlight != 3 || toSouth.Spillers != 1 || string(toSouth.Site) != "north" {
		t.Errorf("to south %+v, to east %+v", toSouth, toEast)
	}
}

// What loops call per request allocates nothing.
func TestGate_allocations(t *testing.T) {
	r := newRig(t)
	r.gate.Load(1, says("east", 1), r.loads.Now())
	r.run(time.Second, 800)
	now := r.loads.Now()
	source, value := []byte("south"), says("east", 2)
	buf := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		r.gate.Pick(0, now, 1000, 7, 0)
		r.gate.Sent(1, now)
		r.gate.Load(1, value, now)
		r.gate.Done(1, now, upstream.Answered)
		buf = r.report.AppendLoad(buf[:0], source, 3)
	}); n > 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// A report that is damaged or of another site or service is left aside.
func TestGate_strangers(t *testing.T) {
	r := newRig(t)
	for _, value := range []string{"", "1;", strings.Repeat("x", 5000), string(says("south", 1))} {
		r.gate.Load(1, []byte(value), r.loads.Now())
	}
	r.run(tickEvery, 100)
	for _, site := range []string{"east", "south"} {
		if got := r.shareOf(site); got.Excluded == "" {
			t.Errorf("%s is known: %+v", site, got)
		}
	}
}

func TestWaysTo(t *testing.T) {
	c := NewCooperation(CooperationConfig{Site: "north", Log: slog.New(slog.DiscardHandler)})
	ways := c.waysTo(snapshotOf().Objects.Sites)
	if len(ways) != 2 {
		t.Fatalf("%+v", ways)
	}
	south, east := ways[0], ways[1]
	if south.Site != "south" || south.RTTMS != 4 || south.PriceMS != 0 || !slices.Equal(south.addresses, []string{"127.0.0.1:1"}) {
		t.Errorf("south: %+v", south)
	}
	if east.Site != "east" || east.RTTMS != 2 || east.PriceMS != 1 || !slices.Equal(east.addresses, []string{"127.0.0.1:9"}) {
		t.Errorf("the link's address stands for the advertised ones: %+v", east)
	}
	far, mute := siteNamed("far"), siteNamed("mute")
	far.Spec.Location = mesh.Location{Lon: 1}
	mute.Spec.Gateways = nil
	ways = c.waysTo([]*mesh.Site{siteNamed("north"), far, mute})
	if rtt := ways[0].RTTMS; rtt < 1.5 || rtt > 4 { // 111 km
		t.Errorf("prior of 111 km: %.2f ms", rtt)
	}
	if ways[1].Excluded == "" {
		t.Errorf("a site without gateways: %+v", ways[1])
	}
}

// A retry goes neither where the request was nor to an excluded site, but rather to
// one that no plan speaks of.
func TestGate_tried(t *testing.T) {
	r := newRig(t)
	g := r.gate.(*gate)
	g.plan.Store(nil)
	pick := func(tried ...int) int {
		var set upstream.Tried
		for _, i := range tried {
			set = set.With(i)
		}
		return r.gate.Pick(0, r.loads.Now(), 0, 7, set)
	}
	for _, tt := range []struct {
		tried []int
		want  int
	}{
		{nil, upstream.Home}, {[]int{upstream.Home}, 0}, {[]int{upstream.Home, 0}, 1},
		{[]int{upstream.Home, 0, 1}, upstream.None}, {[]int{0, 1}, upstream.Home},
	} {
		if got := pick(tt.tried...); got != tt.want {
			t.Errorf("without a plan, tried %v: %d, want %d", tt.tried, got, tt.want)
		}
	}
	plan, err := share.Compile("", &mesh.ServiceWeights{Service: g.service, HomeLimit: 1, Remotes: []mesh.RemoteWeight{
		{Site: "elsewhere", Draw: 1, Limit: 9}, {Site: g.remotes[0].site, Excluded: "fenced"},
	}}, &share.Ledger{})
	if err != nil {
		t.Fatal(err)
	}
	g.take(plan, true)
	for _, tt := range []struct {
		tried []int
		want  int
	}{{nil, upstream.Home}, {[]int{upstream.Home}, 1}, {[]int{upstream.Home, 1}, upstream.None}} {
		if got := pick(tt.tried...); got != tt.want {
			t.Errorf("tried %v: %d, want %d", tt.tried, got, tt.want)
		}
	}
}
