package export

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxWeight is the highest weight of a HAProxy server.
const maxWeight = 256

// HAProxy is one backend of a HAProxy that follows a service's weights. Its servers
// are named by site: SITE, or SITE-anything where a site has several.
type HAProxy struct {
	// Socket is the runtime socket: a path, or host:port.
	Socket string
	// Service is the service, Backend the backend that the site's own users reach.
	Service mesh.ServiceKey
	Backend string
	// From names, by site, the backends that only requests of that site reach; they
	// have the site's own servers alone.
	From map[string]string
}

// ParseHAProxy reads socket=PATH,service=NAMESPACE/NAME,backend=NAME[,from.SITE=NAME]....
func ParseHAProxy(s string) (HAProxy, error) {
	h := HAProxy{From: map[string]string{}}
	for _, part := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || value == "" {
			return h, fmt.Errorf("%q: want key=value", part)
		}
		switch site, from := strings.CutPrefix(key, "from."); {
		case from && site != "":
			h.From[site] = value
		case key == "socket":
			h.Socket = value
		case key == "service":
			if !strings.Contains(value, "/") {
				value = mesh.DefaultNamespace + "/" + value
			}
			h.Service = mesh.ServiceKey(value)
		case key == "backend":
			h.Backend = value
		default:
			return h, fmt.Errorf("%q: want socket, service, backend or from.SITE", key)
		}
	}
	if h.Socket == "" || h.Service == "" || h.Backend == "" {
		return h, fmt.Errorf("%q: socket, service and backend are needed", s)
	}
	for _, name := range append([]string{h.Backend}, values(h.From)...) {
		if strings.ContainsAny(name, " ;/\n\t") {
			return h, fmt.Errorf("backend %q is not a name", name)
		}
	}
	return h, nil
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// Server is one server of a backend, as HAProxy says it is.
type Server struct {
	Backend, Name   string
	Weight          int
	Up              bool
	Current, Queued int
	// Total counts requests since HAProxy started.
	Total uint64
}

// siteOf returns the site of a server's name, of the names given: the longest fits.
func siteOf(server string, sites []string) (best string) {
	for _, s := range sites {
		if (server == s || strings.HasPrefix(server, s+"-")) && len(s) > len(best) {
			best = s
		}
	}
	return best
}

// ask sends one command and returns the answer.
func (h HAProxy) ask(ctx context.Context, command string) (string, error) {
	network := "tcp"
	if strings.Contains(h.Socket, "/") {
		network = "unix"
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, h.Socket)
	if err != nil {
		return "", fmt.Errorf("haproxy: %w", err)
	}
	defer c.Close()
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return "", fmt.Errorf("haproxy: %w", err)
		}
	}
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", fmt.Errorf("haproxy: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(bufio.NewReader(c), 16<<20))
	if err != nil {
		return "", fmt.Errorf("haproxy: %s: %w", command, err)
	}
	return string(out), nil
}

// Servers reads the servers of all backends that matter.
func (h HAProxy) Servers(ctx context.Context) ([]Server, error) {
	text, err := h.ask(ctx, "show stat -1 4 -1") // servers only
	if err != nil {
		return nil, err
	}
	return h.parse(text)
}

// parse reads the CSV of "show stat" (management guide, section 9.1).
func (h HAProxy) parse(text string) ([]Server, error) {
	text, ok := strings.CutPrefix(text, "# ")
	if !ok {
		return nil, fmt.Errorf("haproxy: %s answers no statistics: is it the runtime socket, with level admin?", h.Socket)
	}
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("haproxy: statistics of %s: %w", h.Socket, err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "status", "weight", "scur", "qcur", "stot"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("haproxy: statistics of %s have no column %s", h.Socket, name)
		}
	}
	wanted := map[string]bool{h.Backend: true}
	for _, name := range h.From {
		wanted[name] = true
	}
	var out []Server
	for _, row := range rows[1:] {
		get := func(name string) string {
			if i := column[name]; i < len(row) {
				return row[i]
			}
			return ""
		}
		if !wanted[get("pxname")] {
			continue
		}
		number := func(name string) int {
			n, _ := strconv.Atoi(get(name)) // what does not apply is empty
			return n
		}
		total, _ := strconv.ParseUint(get("stot"), 10, 64)
		status := get("status")
		out = append(out, Server{
			Backend: get("pxname"), Name: get("svname"), Weight: number("weight"),
			Up:      strings.HasPrefix(status, "UP") || status == "no check",
			Current: number("scur"), Queued: number("qcur"), Total: total,
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("haproxy: %s has no backend %s with servers", h.Socket, h.Backend)
	}
	return out, nil
}

// Commands are what brings the backend's servers to the shares: nothing when they
// are there. A site's part is split evenly among its servers that are up.
func (h HAProxy) Commands(servers []Server, s Service) []string {
	var sites []string
	for _, x := range s.Shares {
		sites = append(sites, x.Site)
	}
	count := map[string]int{}
	for _, x := range servers {
		if x.Backend == h.Backend && x.Up {
			count[siteOf(x.Name, sites)]++
		}
	}
	part := map[string]float64{}
	most := 0.0
	for _, x := range s.Shares {
		if n := count[x.Site]; n > 0 {
			part[x.Site] = x.Part / float64(n)
			most = max(most, part[x.Site])
		}
	}
	if most == 0 {
		return nil // nobody who is planned with is up: HAProxy knows what to do with the rest
	}
	var out []string
	for _, x := range servers {
		site := siteOf(x.Name, sites)
		if x.Backend != h.Backend || site == "" {
			continue
		}
		// The one with the largest part has the highest weight there is, so that small parts stay apart.
		want := int(math.Round(part[site] / most * maxWeight))
		if want != x.Weight {
			out = append(out, fmt.Sprintf("set weight %s/%s %d", h.Backend, x.Name, want))
		}
	}
	return out
}

// Follow sets the weights.
func (h HAProxy) Follow(ctx context.Context, servers []Server, s Service) error {
	commands := h.Commands(servers, s)
	if len(commands) == 0 {
		return nil
	}
	answer, err := h.ask(ctx, strings.Join(commands, ";"))
	if err != nil {
		return err
	}
	if said := strings.TrimSpace(answer); said != "" {
		return fmt.Errorf("haproxy: %s: %s", h.Socket, said)
	}
	return nil
}

// Meter turns HAProxy's counters into the report that a node would make.
type Meter struct {
	home  string
	at    time.Time
	last  map[string]uint64
	rates map[string]float64
	from  map[string]string
}

// NewMeter is for the site named home.
func NewMeter(h HAProxy, home string) *Meter {
	m := &Meter{home: home, last: map[string]uint64{}, rates: map[string]float64{}, from: map[string]string{}}
	for site, backend := range h.From {
		m.from[backend] = site
	}
	return m
}

// meterSmooth is the time over which rates are smoothed.
const meterSmooth = 500 * time.Millisecond

// Read takes in counters at a time. capacity is what the site's endpoints declare:
// HAProxy does not know how long a request takes when nothing waits.
func (m *Meter) Read(now time.Time, backend string, servers []Server, sites []string, capacity mesh.ServiceReport) (mesh.NodeServiceReport, error) {
	if capacity.Slots == 0 || capacity.ServiceTimeMS == 0 {
		return mesh.NodeServiceReport{}, errors.New("export: the service's endpoints here declare no capacity (concurrency, serviceTime), and a HAProxy does not tell it")
	}
	gap := now.Sub(m.at)
	first := m.at.IsZero()
	m.at = now
	keep := 1 - min(1, float64(gap)/float64(meterSmooth))
	r := mesh.NodeServiceReport{ServiceReport: capacity}
	r.From = map[string]float64{}
	for _, s := range servers {
		key := s.Backend + "/" + s.Name
		was, known := m.last[key]
		m.last[key] = s.Total
		if !first && known && s.Total >= was && gap > 0 { // else HAProxy was started anew
			m.rates[key] = keep*m.rates[key] + (1-keep)*float64(s.Total-was)/gap.Seconds()
		}
		rate := m.rates[key]
		here := siteOf(s.Name, sites) == m.home
		if here {
			r.InFlight += s.Current + s.Queued
			r.Arrivals += rate
		}
		if s.Backend == backend {
			r.Demand += rate
		} else if site := m.from[s.Backend]; here && rate > 0.01 {
			r.From[site] += rate
		}
	}
	r.Spillers = len(r.From)
	return r, nil
}
