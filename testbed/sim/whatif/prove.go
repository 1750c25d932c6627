package whatif

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// HoldS is for how long of a replay each step of the recorded demand is held: queues
// settle in a few seconds, so an hour need not take one.
const HoldS = 15.0

// worse is by how much a promise that is broken already may become worse before the
// change is to blame.
const worse = 1.05

// Proof is what becomes of a service's promise under the loads of the past.
type Proof struct {
	Answer
	// Broken are the promises that the change breaks, Standing those that are broken
	// with it and without it alike.
	Broken   []string `json:"broken,omitempty"`
	Standing []string `json:"standing,omitempty"`
}

// Prove replays the demand that sites recorded (Site.Past), each step held for
// [HoldS], without the change and with it, and judges both by what the documents after
// the change promise.
func Prove(w World, c Change, seed uint64) (*Proof, error) {
	steps := 0
	for i := range w.Sites {
		steps = max(steps, len(w.Sites[i].Past))
	}
	if steps == 0 {
		return nil, errors.New("no site has recorded any load yet")
	}
	a, err := w.answer(c, seed, load{forS: warmS + HoldS*float64(steps), stepS: HoldS})
	if err != nil {
		return nil, err
	}
	d := c.Documents
	if d == nil {
		d = w.Declared
	}
	p := &Proof{Answer: *a}
	if d != nil && d.Objective != nil {
		p.judge(d.Objective)
	}
	return p, nil
}

// judge compares both outcomes with what is promised.
func (p *Proof) judge(o *mesh.ServiceObjective) {
	ask := func(what, unit string, most, before, after float64) {
		switch {
		case !(after > most):
		case before > most && after <= before*worse:
			p.Standing = append(p.Standing, fmt.Sprintf("%s is %.4g%s, promised %.4g%s, and is %.4g%s without the change", what, after, unit, most, unit, before, unit))
		default:
			p.Broken = append(p.Broken, fmt.Sprintf("%s would be %.4g%s, promised %.4g%s; it is %.4g%s without the change", what, after, unit, most, unit, before, unit))
		}
	}
	inMS := func(d *mesh.Duration) float64 {
		if d == nil {
			return math.Inf(1)
		}
		return float64(d.D()) / float64(time.Millisecond)
	}
	ask("mean latency", "ms", inMS(o.MeanLatency), p.Before.MeanMS, p.After.MeanMS)
	ask("99th percentile", "ms", inMS(o.P99Latency), p.Before.P99MS, p.After.P99MS)
	if o.ErrorPercent != nil {
		ask("part of errors", "%", *o.ErrorPercent, 100*p.Before.Errors, 100*p.After.Errors)
	}
}
