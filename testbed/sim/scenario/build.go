package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

// Values of File.Demand.
const (
	byCapacity = "capacity"
	byUsers    = "users"
	moving     = "moving"
)

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Build makes the scenario; see [Load] for data.
func (f *File) Build(data string) (*sim.Scenario, error) {
	fail := func(format string, args ...any) (*sim.Scenario, error) {
		return nil, fmt.Errorf("scenario %s: %w", f.Name, fmt.Errorf(format, args...))
	}
	net, people, err := f.Network.build(data)
	if err != nil {
		return fail("network: %w", err)
	}
	sc := &sim.Scenario{
		Name: f.Name, Title: f.Title, Network: net, Work: sim.Work{Law: f.Work.Law, CV: f.Work.CV},
		DeadlineMS: ms(f.Deadline), ForS: f.For.Seconds(), MeasureFromS: f.Measure.Seconds(),
		Neighbours: f.Neighbours, RequestBytes: f.Bytes, ShedAfterMS: ms(f.ShedAfter), Uneven: f.Uneven,
	}
	for _, c := range f.Classes {
		sc.Classes = append(sc.Classes, sim.Class{Name: c.Name, Part: c.Part, ShedAfterMS: ms(c.ShedAfter)})
	}
	if sc.Neighbours == 0 && len(net.Sites) > 32 {
		sc.Neighbours = 24 // as many as a plan looks at with ease
	}
	if err := f.demand(sc, people); err != nil {
		return fail("%w", err)
	}
	if sc.Hot, err = f.site(sc, f.Hot); err != nil {
		return fail("hot: %w", err)
	}
	for k, c := range f.Changes {
		out, err := f.change(sc, c)
		if err != nil {
			return fail("changes[%d]: %w", k, err)
		}
		sc.Changes = append(sc.Changes, out)
		sc.Cuts = sc.Cuts || len(out.Cut) > 0 || out.Bus < 0
	}
	if err := sc.Check(); err != nil {
		return fail("%w", err)
	}
	return sc, nil
}

// demand sets every site's rate.
func (f *File) demand(sc *sim.Scenario, people []int) error {
	sites := sc.Network.Sites
	total := 0.0
	for i := range sites {
		total += sites[i].CapacityPerS()
	}
	switch f.Demand {
	case "", byCapacity:
		for i := range sites {
			if sites[i].DemandPerS == 0 {
				sites[i].DemandPerS = f.Load * sites[i].CapacityPerS()
			}
		}
	case byUsers:
		if people == nil {
			return fmt.Errorf("demand: users needs a network with users: city or eua")
		}
		sum := 0
		for _, n := range people {
			sum += n
		}
		for i := range sites {
			sites[i].DemandPerS = f.Load * total * float64(people[i]) / float64(sum)
		}
	case moving:
		if f.Moving == nil {
			return fmt.Errorf("demand: moving needs the part moving")
		}
		users, err := f.Moving.users(sc.Network.Sites)
		if err != nil {
			return fmt.Errorf("moving: %w", err)
		}
		users.PerS = f.Load * total / float64(len(users.Home))
		sc.Users = users
	default:
		return fmt.Errorf("demand %q: want %s, %s or %s", f.Demand, byCapacity, byUsers, moving)
	}
	return nil
}

// site finds a site by name; hot is the scenario's hot one.
func (f *File) site(sc *sim.Scenario, name string) (int, error) {
	sites := sc.Network.Sites
	switch name {
	case "":
		return 0, nil
	case "hot":
		return sc.Hot, nil
	case "largest":
		best := 0
		for i := range sites {
			if sites[i].CapacityPerS() > sites[best].CapacityPerS() {
				best = i
			}
		}
		return best, nil
	case "nearest": // to the hot one
		best := -1
		for j, r := range sc.Network.RTTMS[sc.Hot] {
			if j != sc.Hot && (best < 0 || r < sc.Network.RTTMS[sc.Hot][best]) {
				best = j
			}
		}
		if best >= 0 {
			return best, nil
		}
	}
	if i := slices.IndexFunc(sites, func(s sim.Site) bool { return s.Name == name }); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("no site %q", name)
}

func (f *File) change(sc *sim.Scenario, c Change) (sim.Change, error) {
	out := sim.Change{AtS: c.At.Seconds(), Site: -1, Demand: c.Demand, Service: c.Service}
	var err error
	if c.Site != "" {
		if out.Site, err = f.site(sc, c.Site); err != nil {
			return out, err
		}
	}
	if c.Load > 0 {
		if c.Demand > 0 || out.Site < 0 {
			return out, fmt.Errorf("load is for one site and excludes demand")
		}
		s := &sc.Network.Sites[out.Site]
		out.Demand = c.Load * s.CapacityPerS() / s.DemandPerS
	}
	if out.Cut, err = f.pairs(sc, c.Cut); err != nil {
		return out, fmt.Errorf("cut: %w", err)
	}
	if out.Heal, err = f.pairs(sc, c.Heal); err != nil {
		return out, fmt.Errorf("heal: %w", err)
	}
	switch c.Bus {
	case "":
	case "down":
		out.Bus = -1
	case "up":
		out.Bus = 1
	default:
		return out, fmt.Errorf("bus %q: want down or up", c.Bus)
	}
	return out, nil
}

func (f *File) pairs(sc *sim.Scenario, names [][]string) ([]sim.Pair, error) {
	var out []sim.Pair
	for _, p := range names {
		if len(p) == 2 && p[1] == "*" { // a site from all others
			a, err := f.site(sc, p[0])
			if err != nil {
				return nil, err
			}
			for b := range sc.Network.Sites {
				if b != a {
					out = append(out, sim.Pair{A: a, B: b})
				}
			}
			continue
		}
		if len(p) != 2 {
			return nil, fmt.Errorf("%q: want pairs of sites, such as [[hot, nearest]]", p)
		}
		a, err := f.site(sc, p[0])
		if err != nil {
			return nil, err
		}
		b, err := f.site(sc, p[1])
		if err != nil {
			return nil, err
		}
		out = append(out, sim.Pair{A: a, B: b})
	}
	return out, nil
}
