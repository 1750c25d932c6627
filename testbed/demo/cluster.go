package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/meridian-mesh/meridian/testbed/emu"
	"github.com/meridian-mesh/meridian/testbed/link"
	"github.com/meridian-mesh/meridian/testbed/load"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// endpointsPerSite is how many servers share a site's slots.
const endpointsPerSite = 2

// startLimit bounds each step of the start.
const startLimit = 30 * time.Second

// cluster is a running mesh.
type cluster struct {
	topology *topo.Topology
	programs programs
	dir      string
	family   *family
	client   *http.Client
	seed     uint64

	backends []emu.Control
	layout   layout
	relays   [][]*link.Relay // from, to; nil to itself
	plane    plane
	proxies  []proxyRun
	watch    *watch
}

// proxyRun is what an edgeproxy writes about itself, as far as the demo reads it.
type proxyRun struct {
	Admin     string `json:"admin"`
	Listeners []struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	} `json:"listeners"`
}

func (p proxyRun) listener(name string) (netip.AddrPort, error) {
	for _, l := range p.Listeners {
		if l.Name == name {
			return netip.ParseAddrPort(l.Address)
		}
	}
	return netip.AddrPort{}, fmt.Errorf("listener %s is not bound yet", name)
}

// startCluster brings a mesh up, all of whose files are in dir. What was started
// when it fails is the family's to stop and the relays' to close by c.close.
func startCluster(ctx context.Context, c *cluster, links *reactor.Loop, policyName string) error {
	for _, step := range []func(context.Context) error{
		c.startBackends,
		func(context.Context) error { return c.openRelays(links) },
		c.startPlane,
		func(ctx context.Context) error { return c.applyAll(ctx, policyName) },
		c.startProxies,
		c.join,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) names() []string {
	var out []string
	for _, s := range c.topology.Sites {
		out = append(out, s.Name)
	}
	return out
}

// folder makes a folder for one process's files.
func (c *cluster) folder(name string) (string, error) {
	path := filepath.Join(c.dir, name)
	return path, os.MkdirAll(path, 0o700)
}

func (c *cluster) startBackends(ctx context.Context) error {
	configs := make([]emu.Config, len(c.topology.Sites))
	files := make([]string, len(configs))
	for i, s := range c.topology.Sites {
		configs[i] = emu.Config{Site: s.Name, Endpoints: min(endpointsPerSite, s.Slots), Slots: s.Slots, ServiceTime: s.ServiceTime, Seed: c.seed + uint64(i)}
		name := "backend-" + s.Name
		dir, err := c.folder(name)
		if err != nil {
			return err
		}
		files[i] = filepath.Join(dir, "run.json")
		if _, err := c.family.start(name, c.programs.meridian, "demo-backend", "--site", s.Name,
			"--endpoints", fmt.Sprint(configs[i].Endpoints), "--slots", fmt.Sprint(s.Slots),
			"--service-time", s.ServiceTime.String(), "--seed", fmt.Sprint(configs[i].Seed), "--run-file", files[i]); err != nil {
			return err
		}
	}
	for i, path := range files {
		var run emu.RunFile
		if err := within(ctx, startLimit, "the backends of "+configs[i].Site, func() error { return readFile(path, &run) }); err != nil {
			return err
		}
		c.backends = append(c.backends, emu.Control{Addr: run.Control, Client: c.client})
		var list []endpoint
		for k, address := range run.Endpoints {
			list = append(list, endpoint{address, configs[i].SlotsOf(k)})
		}
		c.layout.endpoints = append(c.layout.endpoints, list)
	}
	return nil
}

func (c *cluster) openRelays(loop *reactor.Loop) error {
	n := len(c.topology.Sites)
	c.layout.topology = c.topology
	c.layout.links = make([][]string, n)
	c.relays = make([][]*link.Relay, n)
	for i := range n {
		c.layout.links[i] = make([]string, n)
		c.relays[i] = make([]*link.Relay, n)
		for j := range n {
			if i == j {
				continue
			}
			r, err := link.Open(loop, c.topology.RTT(i, j), netip.AddrPort{})
			if err != nil {
				return err
			}
			c.relays[i][j] = r
			c.layout.links[i][j] = r.Addr().String()
		}
	}
	return nil
}

func (c *cluster) startProxies(ctx context.Context) error {
	files := make([]string, len(c.topology.Sites))
	for i, s := range c.topology.Sites {
		name := "proxy-" + s.Name
		dir, err := c.folder(name)
		if err != nil {
			return err
		}
		files[i] = filepath.Join(dir, "run.json")
		args := append(c.plane.nodeArgs(i), "--site", s.Name, "--node", s.Name+"-1", "--admin", "127.0.0.1:0",
			"--state-dir", dir, "--loops", "1", "--drain-timeout", "1s")
		if _, err := c.family.start(name, c.programs.proxy, args...); err != nil {
			return err
		}
	}
	c.proxies = make([]proxyRun, len(files))
	for i, path := range files {
		if err := within(ctx, startLimit, "the proxy of "+c.topology.Sites[i].Name+" to listen", func() error {
			if err := readFile(path, &c.proxies[i]); err != nil {
				return err
			}
			_, users := c.proxies[i].listener(usersName)
			_, neighbors := c.proxies[i].listener(neighborName)
			return errors.Join(users, neighbors)
		}); err != nil {
			return err
		}
	}
	return nil
}

// join leads the relays to the proxies and waits until every site may use every other.
func (c *cluster) join(ctx context.Context) error {
	for i := range c.relays {
		for j, r := range c.relays[i] {
			if r == nil {
				continue
			}
			target, err := c.proxies[j].listener(neighborName)
			if err != nil {
				return err
			}
			r.SetTarget(target)
		}
	}
	c.watch = newWatch(c.client, c.names(), func(i int) string { return c.proxies[i].Admin })
	for i, s := range c.topology.Sites {
		if err := within(ctx, startLimit, s.Name+" to know the other sites", func() error { return c.knowsOthers(ctx, i) }); err != nil {
			return err
		}
	}
	return nil
}

// knowsOthers is nil when a site's proxy may send to every other site.
func (c *cluster) knowsOthers(ctx context.Context, site int) error {
	if err := c.watch.poll(ctx, site); err != nil {
		return err
	}
	s := c.watch.shares()[site]
	if got, want := len(s.Remotes), len(c.topology.Sites)-1; got != want {
		return fmt.Errorf("it has weights for %d of %d other sites (source %s)", got, want, s.Source)
	}
	for _, r := range s.Remotes {
		if r.Excluded != "" || r.Suspect != "" {
			return fmt.Errorf("%s is left out: %s%s", r.Site, r.Excluded, r.Suspect)
		}
	}
	return nil
}

// usePolicy applies a sharing policy and waits until all proxies have it and the
// backends' queues are empty.
func (c *cluster) usePolicy(ctx context.Context, name string) error {
	if err := c.applyPolicy(ctx, name); err != nil {
		return err
	}
	for i, s := range c.topology.Sites {
		if err := within(ctx, startLimit, s.Name+" to share by policy "+name, func() error {
			if err := c.watch.poll(ctx, i); err != nil {
				return err
			}
			if got := c.watch.shares()[i].Policy; got != sharing[name] {
				return fmt.Errorf("its policy is %s", got)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := c.backends[i].SetFactor(ctx, 1); err != nil {
			return err
		}
		if err := within(ctx, 2*clientDeadline, "the queue of "+s.Name+" to be empty", func() error {
			n, err := c.backends[i].Stats(ctx)
			if err == nil && n.Busy+n.Waiting > 0 {
				err = fmt.Errorf("%d requests are there", n.Busy+n.Waiting)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// generator makes a load generator for this mesh.
func (c *cluster) generator(loop *reactor.Loop) (*load.Generator, error) {
	cfg := load.Config{Host: host, Path: "/work", Deadline: clientDeadline}
	for i, s := range c.topology.Sites {
		addr, err := c.proxies[i].listener(usersName)
		if err != nil {
			return nil, err
		}
		cfg.Sites = append(cfg.Sites, load.Site{Name: s.Name, Proxy: addr})
	}
	for _, u := range c.topology.Users {
		site := &cfg.Sites[u.Home]
		site.Users = append(site.Users, load.Position{Lon: u.Position[0], Lat: u.Position[1]})
	}
	return load.New(loop, cfg), nil
}

// close ends all processes and relays.
func (c *cluster) close() {
	c.family.stop(5 * time.Second)
	for _, row := range c.relays {
		for _, r := range row {
			if r != nil {
				r.Close()
			}
		}
	}
	c.client.CloseIdleConnections()
}

// readFile reads a JSON file that a process writes about itself.
func readFile(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
