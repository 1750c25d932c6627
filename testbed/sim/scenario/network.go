package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/geo/rtt"
	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// The model of a city's mobile network: 0.3 to 1.5 ms one way from a base station
// to its aggregation point and 0.52 ms of round trip per kilometre (assumed, as in
// testbed/topo).
const (
	accessMin, accessMax = 0.3, 1.5
	cityMSPerKM          = 0.52
	// backboneAccessMS is the round trip from a site to its point of presence.
	backboneAccessMS = 1.0
)

// melbourne is where made cities stand.
var melbourne = orb.Point{144.9631, -37.8136}

// build returns the network and how many users live nearest to each site, nil
// where it has none.
func (n *Network) build(data string) (sim.Network, []int, error) {
	parts := 0
	for _, is := range []bool{n.Ring != nil, n.Line != nil, n.Sites != nil, n.City != nil, n.Backbone != nil, n.EUA != nil, n.GML != nil} {
		if is {
			parts++
		}
	}
	if parts != 1 {
		return sim.Network{}, nil, fmt.Errorf("has %d parts: want exactly one of ring, line, sites, city, backbone, eua, gml", parts)
	}
	switch {
	case n.Ring != nil:
		net, err := n.Ring.build(true)
		return net, nil, err
	case n.Line != nil:
		net, err := n.Line.build(false)
		return net, nil, err
	case n.Sites != nil:
		net, err := list(n.Sites)
		return net, nil, err
	case n.City != nil:
		return n.City.made()
	case n.EUA != nil:
		return n.EUA.eua(data)
	case n.Backbone != nil:
		net, err := n.Backbone.build()
		return net, nil, err
	default:
		net, err := n.GML.build(data)
		return net, nil, err
	}
}

// maxSites bounds a scenario; the tables are square.
const maxSites = 2000

func sized(n int) error {
	if n < 1 || n > maxSites {
		return fmt.Errorf("%d sites: want 1 to %d", n, maxSites)
	}
	return nil
}

func square(n int, rttMS func(i, j int) float64) [][]float64 {
	out := make([][]float64, n)
	for i := range n {
		out[i] = make([]float64, n)
		for j := range n {
			if i != j {
				out[i][j] = rttMS(i, j)
			}
		}
	}
	return out
}

func (r *Ring) build(round bool) (sim.Network, error) {
	if err := sized(r.Sites); err != nil {
		return sim.Network{}, err
	}
	if len(r.Slots) != 1 && len(r.Slots) != r.Sites {
		return sim.Network{}, fmt.Errorf("slots has %d numbers: want one, or one for each of %d sites", len(r.Slots), r.Sites)
	}
	spacing := 1000 * r.SpacingKM
	if spacing <= 0 {
		spacing = 20000
	}
	net := sim.Network{RTTMS: square(r.Sites, func(i, j int) float64 {
		hops := max(i-j, j-i)
		if round {
			hops = min(hops, r.Sites-hops)
		}
		return ms(r.Hop) * float64(hops)
	})}
	for i := range r.Sites {
		p := geo.Destination(melbourne, 360*float64(i)/float64(r.Sites), spacing)
		if !round {
			p = geo.Destination(melbourne, 90, spacing*float64(i))
		}
		net.Sites = append(net.Sites, sim.Site{
			Name: fmt.Sprintf("site-%d", i), Location: p, Slots: r.Slots[i%len(r.Slots)], ServiceMS: ms(r.Service),
		})
	}
	return net, nil
}

func list(sites []Site) (sim.Network, error) {
	n := len(sites)
	var net sim.Network
	index := map[string]int{}
	for i, s := range sites {
		if _, ok := index[s.Name]; ok || s.Name == "" {
			return net, fmt.Errorf("sites[%d]: name %q is empty or there twice", i, s.Name)
		}
		index[s.Name] = i
		net.Sites = append(net.Sites, sim.Site{
			Name: s.Name, Location: orb.Point{s.Lon, s.Lat}, Slots: s.Slots, ServiceMS: ms(s.Service), DemandPerS: s.PerS,
		})
	}
	located := slices.ContainsFunc(sites, func(s Site) bool { return s.Lon != 0 || s.Lat != 0 })
	net.RTTMS = square(n, func(i, j int) float64 {
		if !located {
			return math.NaN()
		}
		return ms(rtt.Prior(geo.DistanceMeters(net.Sites[i].Location, net.Sites[j].Location), 0, 0))
	})
	for i, s := range sites {
		for to, d := range s.RTT {
			j, ok := index[to]
			if !ok {
				return net, fmt.Errorf("site %s: rtt to %q, which is no site", s.Name, to)
			}
			net.RTTMS[i][j], net.RTTMS[j][i] = ms(d), ms(d)
		}
	}
	for i := range n {
		for j := range n {
			if math.IsNaN(net.RTTMS[i][j]) {
				return net, fmt.Errorf("no round trip between %s and %s: give rtt, or lon and lat of all", sites[i].Name, sites[j].Name)
			}
		}
	}
	return net, nil
}

// finish turns positions into a city's network: round trips, users, slots.
func (c *City) finish(names []string, at []orb.Point, users []orb.Point) (sim.Network, []int, error) {
	r := rand.New(rand.NewPCG(c.Seed, 0xacce55))
	people := make([]int, len(at))
	for _, u := range users {
		best := 0
		for i := range at {
			if geo.DistanceMeters(u, at[i]) < geo.DistanceMeters(u, at[best]) {
				best = i
			}
		}
		people[best]++
	}
	access := make([]float64, len(at))
	for i := range access {
		access[i] = accessMin + r.Float64()*(accessMax-accessMin)
	}
	net := sim.Network{RTTMS: square(len(at), func(i, j int) float64 {
		return 2*(access[i]+access[j]) + cityMSPerKM*geo.DistanceMeters(at[i], at[j])/1000
	})}
	most := slices.Max(people)
	service := c.Service
	if service == 0 {
		service = 10 * time.Millisecond
	}
	for i := range at {
		slots := c.Slots
		if slots == 0 {
			slots = 1 + int(math.Round(15*float64(people[i])/float64(max(1, most))))
		}
		net.Sites = append(net.Sites, sim.Site{Name: names[i], Location: at[i], Slots: slots, ServiceMS: ms(service)})
	}
	return net, people, nil
}

// made draws a city: sites denser towards the middle, users in clusters.
func (c *City) made() (sim.Network, []int, error) {
	if err := sized(c.Sites); err != nil {
		return sim.Network{}, nil, err
	}
	r := rand.New(rand.NewPCG(c.Seed, 0xc17))
	around := func(p orb.Point, m float64) orb.Point {
		return geo.Destination(p, r.Float64()*360, m*math.Abs(r.NormFloat64()))
	}
	// The EUA's 125 sites lie within about 1.5 km; the area grows with their number.
	radius := 1200 * math.Sqrt(float64(c.Sites)/125)
	var names []string
	var at, users, clusters []orb.Point
	for i := range c.Sites {
		names, at = append(names, fmt.Sprintf("cell-%03d", i)), append(at, around(melbourne, radius))
	}
	for range max(3, c.Sites/4) {
		clusters = append(clusters, around(melbourne, radius))
	}
	count := c.Users
	if count == 0 {
		count = 7 * c.Sites
	}
	for range count {
		if r.Float64() < 0.4 {
			users = append(users, around(melbourne, radius))
		} else {
			users = append(users, around(clusters[r.IntN(len(clusters))], radius/5))
		}
	}
	return c.finish(names, at, users)
}

func (c *City) eua(data string) (sim.Network, []int, error) {
	fail := func(err error) (sim.Network, []int, error) { return sim.Network{}, nil, err }
	if err := sized(c.Sites); err != nil {
		return fail(err)
	}
	if data == "" {
		return fail(fmt.Errorf("the EUA data set: %w", ErrNoData))
	}
	dir := filepath.Join(data, "eua")
	sites, err := os.Open(filepath.Join(dir, "site-optus-melbCBD.csv"))
	if err != nil {
		return fail(err)
	}
	defer sites.Close()
	users, err := os.Open(filepath.Join(dir, "users-melbcbd-generated.csv"))
	if err != nil {
		return fail(err)
	}
	defer users.Close()
	t, err := topo.FromEUA(topo.Input{Name: sites.Name(), Reader: sites}, topo.Input{Name: users.Name(), Reader: users}, c.Sites, c.Seed)
	if err != nil {
		return fail(err)
	}
	var names []string
	var at, people []orb.Point
	for _, s := range t.Sites {
		names, at = append(names, s.Name), append(at, s.Location)
	}
	for _, u := range t.Users {
		people = append(people, u.Position)
	}
	return c.finish(names, at, people)
}

// links are ways between sites, in ms; the network's round trips are the shortest
// ways over them.
func overLinks(sites []sim.Site, links [][2]int) (sim.Network, error) {
	n := len(sites)
	d := square(n, func(int, int) float64 { return math.Inf(1) })
	for _, l := range links {
		w := ms(rtt.Prior(geo.DistanceMeters(sites[l[0]].Location, sites[l[1]].Location), 0, 0))
		d[l[0]][l[1]], d[l[1]][l[0]] = math.Min(w, d[l[0]][l[1]]), math.Min(w, d[l[0]][l[1]])
	}
	for k := range n {
		for i := range n {
			for j := range n {
				d[i][j] = math.Min(d[i][j], d[i][k]+d[k][j])
			}
		}
	}
	for i := range n {
		for j := range n {
			if math.IsInf(d[i][j], 1) {
				return sim.Network{}, fmt.Errorf("there is no way from %s to %s", sites[i].Name, sites[j].Name)
			}
			if i != j {
				d[i][j] += 2 * backboneAccessMS
			}
		}
	}
	return sim.Network{Sites: sites, RTTMS: d}, nil
}

func (b *Backbone) build() (sim.Network, error) {
	if err := sized(b.Sites); err != nil {
		return sim.Network{}, err
	}
	r := rand.New(rand.NewPCG(b.Seed, 0xbac))
	var sites []sim.Site
	for i := range b.Sites {
		p := geo.Destination(melbourne, r.Float64()*360, 600000*math.Sqrt(r.Float64()))
		sites = append(sites, sim.Site{Name: fmt.Sprintf("pop-%02d", i), Location: p, Slots: b.Slots, ServiceMS: ms(b.Service)})
	}
	// Each is joined to the nearest before it, so that all are, and to its two
	// nearest, so that there are rings.
	var links [][2]int
	for i := range sites {
		order := make([]int, 0, len(sites))
		for j := range sites {
			if j != i {
				order = append(order, j)
			}
		}
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Compare(geo.DistanceMeters(sites[i].Location, sites[a].Location), geo.DistanceMeters(sites[i].Location, sites[b].Location))
		})
		for k, j := range order {
			if k < 2 {
				links = append(links, [2]int{i, j})
			}
		}
		for _, j := range order {
			if j < i {
				links = append(links, [2]int{i, j})
				break
			}
		}
	}
	return overLinks(sites, links)
}

func (g *GML) build(data string) (sim.Network, error) {
	name := g.File
	if !filepath.IsAbs(name) && !isLocal(name) {
		if data == "" {
			return sim.Network{}, fmt.Errorf("%s: %w", name, ErrNoData)
		}
		name = filepath.Join(data, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return sim.Network{}, err
	}
	nodes, links, err := ReadGML(name, text)
	if err != nil {
		return sim.Network{}, err
	}
	var sites []sim.Site
	for _, n := range nodes {
		sites = append(sites, sim.Site{Name: n.Name, Location: n.Location, Slots: g.Slots, ServiceMS: ms(g.Service)})
	}
	if len(sites) < 2 {
		return sim.Network{}, errors.New("fewer than two nodes with coordinates")
	}
	return overLinks(sites, links)
}

func isLocal(name string) bool { return len(name) > 1 && name[0] == '.' }
