package resolve

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// hostsTTL is how long what a hosts file says is believed.
const hostsTTL = 10 * time.Second

// config is how the system resolves names.
type config struct {
	servers  []netip.AddrPort
	domains  []string
	ndots    int
	timeout  time.Duration
	attempts int
	hosts    map[string][]netip.Addr
}

// files are where a config is read. They are read for every lookup: on a node that
// moves between networks they change.
type files struct{ resolvConf, hosts string }

var systemFiles = files{"/etc/resolv.conf", "/etc/hosts"}

// read reads the files; a valid server replaces theirs.
func (f files) read(server netip.AddrPort) (config, error) {
	c := config{ndots: 1, timeout: 5 * time.Second, attempts: 2, hosts: map[string][]netip.Addr{}}
	conf, err := lines(f.resolvConf)
	if err != nil {
		return config{}, err
	}
	for _, words := range conf {
		c.setting(words)
	}
	if server.IsValid() {
		c.servers = []netip.AddrPort{server}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")} // resolv.conf(5)
	}
	hosts, err := lines(f.hosts)
	if err != nil {
		return config{}, err
	}
	for _, words := range hosts {
		if a, err := netip.ParseAddr(words[0]); err == nil {
			for _, name := range words[1:] {
				c.host(strings.ToLower(name), a)
			}
		}
	}
	return c, nil
}

// host notes an address of a name, of which IPv4 ones push the others out.
func (c *config) host(name string, a netip.Addr) {
	have := c.hosts[name]
	switch {
	case len(have) > 0 && have[0].Is4() && !a.Is4():
	case len(have) > 0 && !have[0].Is4() && a.Is4():
		c.hosts[name] = []netip.Addr{a}
	default:
		c.hosts[name] = append(have, a)
	}
}

func (c *config) setting(words []string) {
	switch words[0] {
	case "nameserver":
		if len(words) > 1 {
			if a, err := netip.ParseAddr(words[1]); err == nil && len(c.servers) < 3 {
				c.servers = append(c.servers, netip.AddrPortFrom(a, 53))
			}
		}
	case "search", "domain":
		c.domains = words[1:]
	case "options":
		for _, o := range words[1:] {
			name, value, _ := strings.Cut(o, ":")
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				continue
			}
			switch name {
			case "ndots":
				c.ndots = min(n, 15)
			case "timeout":
				c.timeout = time.Duration(min(max(n, 1), 30)) * time.Second
			case "attempts":
				c.attempts = min(max(n, 1), 5)
			}
		}
	}
}

// lines reads the words of a file's lines without comments and empty ones. A file
// that is not there has none.
func lines(name string) ([][]string, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, words)
		}
	}
	return out, nil
}
