package demo

import (
	"time"

	"github.com/meridian-mesh/meridian/testbed/load"
	"github.com/meridian-mesh/meridian/testbed/scenario"
)

// meter turns the generator's running totals into rates for the view.
type meter struct {
	scenario *scenario.Scenario
	marks    []reading // of about the last second, oldest first
}

type reading struct {
	at    time.Duration
	sites []load.Live
}

func newMeter(s *scenario.Scenario) *meter { return &meter{scenario: s} }

// frame describes this moment of a run.
func (m *meter) frame(policy string, at time.Duration, live []load.Live, mesh []serviceShares, killed []bool) frame {
	f := frame{policy: policy, at: max(at, 0), length: m.scenario.Duration(), phase: "waiting for the last answers"}
	for _, p := range m.scenario.Phases {
		if f.at >= p.From && f.at < p.To {
			f.phase = p.Name
		}
	}
	if live == nil {
		return f
	}
	m.marks = append(m.marks, reading{at, live})
	for len(m.marks) > 1 && m.marks[0].at < at-1200*time.Millisecond {
		m.marks = m.marks[1:]
	}
	old := m.marks[0]
	span := (at - old.at).Seconds()
	for i, s := range m.scenario.Sites {
		sf := siteFrame{
			name: s.Name, capacity: s.Capacity(), errors: live[i].Errors, inFlight: mesh[i].InFlight,
			source: mesh[i].Source, down: killed[i],
		}
		switch i {
		case m.scenario.Hot:
			sf.role = "hot"
		case m.scenario.Slow:
			sf.role = "slow"
		}
		if span > 0 {
			sf.demand = float64(live[i].Sent-old.sites[i].Sent) / span
		}
		if n := live[i].Answered - old.sites[i].Answered; n > 0 {
			sf.awayShare = float64(live[i].Away-old.sites[i].Away) / float64(n)
			sf.meanMS = (live[i].Waiting - old.sites[i].Waiting).Seconds() * 1e3 / float64(n)
		}
		if mesh[i].Service != "" {
			sf.shares = map[string]float64{s.Name: mesh[i].HomeShare}
			for _, r := range mesh[i].Remotes {
				sf.shares[r.Site] = r.Share
			}
		}
		f.sites = append(f.sites, sf)
	}
	return f
}
