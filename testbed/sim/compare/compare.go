package compare

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
)

// Options say what to run.
type Options struct {
	Scenarios []*sim.Scenario
	Policies  []string
	Seeds     []uint64
	// Delays are report delays in periods of 500 ms; policies that use no reports
	// run once.
	Delays []float64
	// StayHome and ShedAfterMS go to the product's policies.
	StayHome, ShedAfterMS float64
	// Workers is how many runs go at once, 0 for one a processor.
	Workers int
	// Progress is called from one goroutine after each run.
	Progress func(done, all int, what string)
}

// Result is a whole comparison.
type Result struct {
	Seeds     []uint64   `json:"seeds"`
	Scenarios []Scenario `json:"scenarios"`
}

// Scenario is the results of one scenario.
type Scenario struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Uneven bool   `json:"uneven,omitempty"`
	Cuts   bool   `json:"cuts,omitempty"`
	Hot    string `json:"hot"`
	// Unavoidable is the part of measured requests that no rule could serve, by
	// capacity alone.
	Unavoidable float64  `json:"unavoidable,omitempty"`
	Sites       []Place  `json:"sites"`
	Cells       []Cell   `json:"cells"`
	Changes     []string `json:"changes,omitempty"`
}

// Place is a site on the map.
type Place struct {
	Name     string  `json:"name"`
	Lon, Lat float64 `json:",omitempty"`
	Slots    int     `json:"slots"`
}

// Cell is one policy in one scenario at one report delay, over all seeds.
type Cell struct {
	Policy string  `json:"policy"`
	Delay  float64 `json:"delayPeriods"`
	MeanMS float64 `json:"meanMs"`
	P50MS  float64 `json:"p50Ms"`
	P99MS  float64 `json:"p99Ms"`
	// Errors, Shed and Away are parts of the measured requests; shed ones are errors too.
	Errors float64 `json:"errors"`
	Shed   float64 `json:"shed,omitempty"`
	Away   float64 `json:"away"`
	// ClassErrors are those of the scenario's priority classes, as parts of their
	// requests, "" being what is in none; absent without classes.
	ClassErrors map[string]float64 `json:"classErrors,omitempty"`
	// Ratio is the mean over the optimum's, Worst the largest of one seed, Cross the
	// same of requests served elsewhere and Spread that of the load's deviation; 0
	// where the optimum was not run.
	Ratio  float64 `json:"ratio,omitempty"`
	Worst  float64 `json:"worst,omitempty"`
	Cross  float64 `json:"cross,omitempty"`
	Spread float64 `json:"spread,omitempty"`
	// SettleS is after how many seconds of a change the 1 s mean and that of the 5 s
	// that follow are at most 1.1 of the optimum's steady mean; -1 for never.
	SettleS float64 `json:"settleS"`
	// IdleS is the longest time that a site queued beside an idle neighbour worth the way.
	IdleS float64 `json:"queuedBesideIdleS"`
	// Missed are the bars that the product's policies do not keep.
	Missed []string `json:"missed,omitempty"`

	PerSecondMS []float64  `json:"perSecondMs"`
	AwayPerS    []float64  `json:"awayPerS"`
	CDF         [][2]int64 `json:"cdf"` // delay in us, requests up to it
	SentPerS    [][]uint32 `json:"sentPerS,omitempty"`
	BusyPercent [][]uint16 `json:"busyPercent,omitempty"`
	bytes       float64
	deviation   float64 // of the load
	perSeed     []float64
	stats       []*sim.Stats
	seconds     []sim.Second
	key         key
}

type key struct {
	scenario int
	policy   string
	delay    float64
}

// uses tells whether a policy's results depend on the report delay.
func uses(name string) bool {
	switch word, _, _ := strings.Cut(name, "@"); word {
	case policy.NameMeridian, policy.NameBus, policy.NameLearned, policy.NameWater, policy.NameLoad, policy.NameSLATE:
		return true
	}
	return false
}

// ours tells whether the bars are for a policy.
func ours(name string) bool { return strings.HasPrefix(name, policy.NameMeridian) }

// Run runs everything; a cancelled context ends it with its error.
func Run(ctx context.Context, o Options) (*Result, error) {
	if len(o.Seeds) == 0 || len(o.Scenarios) == 0 || len(o.Policies) == 0 {
		return nil, fmt.Errorf("nothing to run: %d scenarios, %d policies, %d seeds", len(o.Scenarios), len(o.Policies), len(o.Seeds))
	}
	if len(o.Delays) == 0 {
		o.Delays = []float64{1}
	}
	var cells []*Cell
	for s := range o.Scenarios {
		for _, p := range o.Policies {
			delays := o.Delays
			if !uses(p) {
				delays = delays[:1]
			}
			for _, d := range delays {
				if _, err := policy.New(p, policy.Options{}); err != nil {
					return nil, err
				}
				cells = append(cells, &Cell{Policy: p, Delay: d, key: key{s, p, d}, stats: make([]*sim.Stats, len(o.Seeds))})
			}
		}
	}
	if err := runAll(ctx, &o, cells); err != nil {
		return nil, err
	}
	out := &Result{Seeds: o.Seeds}
	for i, sc := range o.Scenarios {
		out.Scenarios = append(out.Scenarios, summarise(sc, i, cells))
	}
	return out, nil
}

type job struct {
	cell *Cell
	seed int
}

func runAll(ctx context.Context, o *Options, cells []*Cell) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := o.Workers
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	jobs, done := make(chan job), make(chan job)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for j := range jobs {
				sc := o.Scenarios[j.cell.key.scenario]
				stats, err := one(ctx, sc, j.cell, o, o.Seeds[j.seed])
				if err != nil {
					cancel(fmt.Errorf("scenario %s, policy %s, seed %d: %w", sc.Name, j.cell.Policy, o.Seeds[j.seed], err))
				}
				j.cell.stats[j.seed] = stats
				done <- j
			}
		})
	}
	go func() {
		defer close(jobs)
		for _, c := range cells {
			for k := range o.Seeds {
				select {
				case jobs <- job{c, k}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	go func() {
		group.Wait()
		close(done)
	}()
	n := 0
	for j := range done {
		n++
		if o.Progress != nil && ctx.Err() == nil {
			o.Progress(n, len(cells)*len(o.Seeds), o.Scenarios[j.cell.key.scenario].Name+" "+j.cell.Policy)
		}
	}
	return context.Cause(ctx)
}

func one(ctx context.Context, sc *sim.Scenario, c *Cell, o *Options, seed uint64) (*sim.Stats, error) {
	p, err := policy.New(c.Policy, policy.Options{DelayPeriods: c.Delay, StayHome: o.StayHome, ShedAfterMS: o.ShedAfterMS})
	if err != nil {
		return nil, err
	}
	m, err := sim.New(sc, p, seed)
	if err != nil {
		return nil, err
	}
	stats, whole := m.Run(func() bool { return ctx.Err() != nil })
	if !whole {
		return nil, ctx.Err()
	}
	return stats, nil
}

// summarise turns the statistics of one scenario into cells.
func summarise(sc *sim.Scenario, index int, cells []*Cell) Scenario {
	out := Scenario{Name: sc.Name, Title: sc.Title, Uneven: sc.Uneven, Cuts: sc.Cuts, Hot: sc.Network.Sites[sc.Hot].Name}
	for _, s := range sc.Network.Sites {
		out.Sites = append(out.Sites, Place{Name: s.Name, Lon: s.Location[0], Lat: s.Location[1], Slots: s.Slots})
	}
	for _, c := range sc.Changes {
		out.Changes = append(out.Changes, fmt.Sprintf("%.0f s", c.AtS))
	}
	var reference *Cell
	for _, c := range cells {
		if c.key.scenario == index {
			c.sum(sc)
			if c.Policy == policy.NameOptimum {
				reference = c
			}
		}
	}
	out.Unavoidable = unavoidable(sc)
	for _, c := range cells {
		if c.key.scenario == index {
			if reference != nil {
				c.compare(sc, reference)
			}
			out.Cells = append(out.Cells, *c)
		}
	}
	return out
}

func (c *Cell) sum(sc *sim.Scenario) {
	var all sim.Tally
	bins := make([]uint64, len(c.stats[0].Bins))
	c.seconds = make([]sim.Second, len(c.stats[0].Second))
	spread := 0.0
	for _, s := range c.stats {
		add(&all, &s.Window)
		for k, n := range s.Bins {
			bins[k] += n
		}
		for k := range s.Second {
			add(&c.seconds[k], &s.Second[k])
		}
		c.IdleS = math.Max(c.IdleS, s.QueuedBesideIdleS)
		c.perSeed = append(c.perSeed, s.Window.MeanMS())
		spread += s.LoadSD() * s.LoadSD() / float64(len(c.stats))
	}
	for k := range sc.Classes {
		c.classErrors(sc.Classes[k].Name, k+1)
		c.classErrors("", 0)
	}
	n := math.Max(1, float64(all.Requests))
	c.MeanMS, c.Errors, c.Shed, c.Away = all.MeanMS(), float64(all.Errors())/n, float64(all.Shed)/n, float64(all.Away)/n
	c.deviation = math.Sqrt(spread)
	total, sum := uint64(0), uint64(0)
	for _, b := range bins {
		total += b
	}
	half, most := false, false
	for k, b := range bins {
		if b == 0 {
			continue
		}
		sum += b
		at := math.Min(sim.BinMS(k), sc.DeadlineMS)
		c.CDF = append(c.CDF, [2]int64{int64(at * 1000), int64(sum)})
		if !half && 2*sum >= total {
			half, c.P50MS = true, at
		}
		if !most && float64(sum) >= 0.99*float64(total) {
			most, c.P99MS = true, at
		}
	}
	secs := int(sc.ForS)
	for k := range secs {
		s := &c.seconds[k]
		c.PerSecondMS = append(c.PerSecondMS, math.Round(1000*s.SumMS/math.Max(1, float64(s.Requests)))/1000)
		c.AwayPerS = append(c.AwayPerS, float64(s.Away)/float64(len(c.stats)))
	}
	first := c.stats[0]
	if len(sc.Network.Sites) <= 200 {
		c.SentPerS = first.Sent[:secs]
		for _, row := range first.Busy[:secs] {
			out := make([]uint16, len(row))
			for i, b := range row {
				out[i] = uint16(math.Min(999, math.Round(float64(100*b))))
			}
			c.BusyPercent = append(c.BusyPercent, out)
		}
	}
	c.bytes = sc.RequestBytes
	c.stats = nil
}

func (c *Cell) classErrors(name string, number int) {
	var sum sim.Tally
	for _, s := range c.stats {
		add(&sum, &s.Class[number])
	}
	if c.ClassErrors == nil {
		c.ClassErrors = map[string]float64{}
	}
	c.ClassErrors[name] = float64(sum.Errors()) / math.Max(1, float64(sum.Requests))
}

func add(to, s *sim.Tally) {
	to.Requests += s.Requests
	to.Late += s.Late
	to.Shed += s.Shed
	to.Away += s.Away
	to.SumMS += s.SumMS
}

// compare relates a cell to the optimum's.
func (c *Cell) compare(sc *sim.Scenario, ref *Cell) {
	c.Ratio = c.MeanMS / ref.MeanMS
	for k := range c.perSeed {
		c.Worst = math.Max(c.Worst, c.perSeed[k]/ref.perSeed[k])
	}
	if ref.Away > 0 {
		c.Cross = c.Away / ref.Away
	}
	c.SettleS = settle(sc, c.seconds, ref.seconds)
	c.Spread = c.deviation / math.Max(ref.deviation, 1e-9)
	if ours(c.Policy) {
		c.Missed = missed(sc, c)
	}
}

// settle is the longest that any change's transient lasted.
func settle(sc *sim.Scenario, seconds, ref []sim.Second) float64 {
	edges := []int{int(sc.MeasureFromS)}
	for _, ch := range sc.Changes {
		if k := int(math.Ceil(ch.AtS)); k > edges[len(edges)-1] && k < int(sc.ForS) {
			edges = append(edges, k)
		}
	}
	end := int(sc.ForS)
	longest := 0.0
	for e, from := range edges {
		to := end
		if e+1 < len(edges) {
			to = edges[e+1]
		}
		if to-from < 8 {
			continue
		}
		bar := 1.1 * meanOf(ref[from:to])
		at := -1
		for k := from; k < to && at < 0; k++ {
			if meanOf(seconds[k:k+1]) <= bar && meanOf(seconds[k:min(k+5, to)]) <= bar {
				at = k - from
			}
		}
		if at < 0 {
			return -1
		}
		longest = math.Max(longest, float64(at))
	}
	return longest
}

func meanOf(seconds []sim.Second) float64 {
	var t sim.Tally
	for i := range seconds {
		add(&t, &seconds[i])
	}
	return t.MeanMS()
}

// unavoidable is the part of requests beyond all capacity while measuring, when
// demand is set by changes alone.
func unavoidable(sc *sim.Scenario) float64 {
	if sc.Users != nil {
		return 0
	}
	factor, slow := make([]float64, len(sc.Network.Sites)), make([]float64, len(sc.Network.Sites))
	for i := range factor {
		factor[i], slow[i] = 1, 1
	}
	changes := slices.Clone(sc.Changes)
	slices.SortStableFunc(changes, func(a, b sim.Change) int { return int(math.Copysign(1, a.AtS-b.AtS)) })
	asked, over := 0.0, 0.0
	for s := 0.0; s < sc.ForS; s++ {
		for len(changes) > 0 && changes[0].AtS <= s {
			c := changes[0]
			for i := range factor {
				if c.Site >= 0 && c.Site != i {
					continue
				}
				if c.Demand > 0 {
					factor[i] = c.Demand
				}
				if c.Service > 0 {
					slow[i] = c.Service
				}
			}
			changes = changes[1:]
		}
		if s < sc.MeasureFromS {
			continue
		}
		demand, capacity := 0.0, 0.0
		for i := range factor {
			demand += sc.Network.Sites[i].DemandPerS * factor[i]
			capacity += sc.Network.Sites[i].CapacityPerS() / slow[i]
		}
		asked += demand
		over += math.Max(0, demand-capacity)
	}
	return over / math.Max(asked, 1e-9)
}

// The bars of docs/benchmarks.md.
const (
	barMean, barCut, barBusUneven = 1.05, 1.08, 1.15
	barSettleS                    = 2
	barCross, barCrossUneven      = 1.15, 1.35
	barSpread                     = 1.6
	barIdleS                      = 1
	barShed                       = 1.2
)

func missed(sc *sim.Scenario, c *Cell) []string {
	var out []string
	check := func(what string, got, most float64) {
		if got > most {
			out = append(out, fmt.Sprintf("%s %.3g > %.3g", what, got, most))
		}
	}
	if u := unavoidable(sc); u > 0.001 {
		// There is no optimum to speak of; what counts is who is refused.
		check("errors", c.Errors, barShed*u)
		return out
	}
	mean, cross := barMean, barCross
	if sc.Cuts {
		mean = barCut
	}
	if sc.Uneven {
		cross = barCrossUneven
		if c.Policy == policy.NameBus {
			mean = barBusUneven
		}
	}
	check("mean", c.Ratio, mean)
	check("cross", c.Cross, cross)
	check("spread", c.Spread, barSpread)
	check("idle s", c.IdleS, barIdleS)
	if c.SettleS < 0 {
		out = append(out, "never settles")
	} else {
		check("settle s", c.SettleS, barSettleS)
	}
	return out
}
