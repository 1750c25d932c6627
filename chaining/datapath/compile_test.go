package datapath

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft/packetgrammar"
)

func numbered(t *path.Table) func(string) (device, error) {
	return func(name string) (device, error) {
		i, ok := t.PortByName(name)
		if !ok {
			return device{}, errors.New("no such interface")
		}
		return device{index: uint32(i) + 1}, nil
	}
}

// Every hop, rule and slot of a table is in its image.
func TestCompile(t *testing.T) {
	table := packetgrammar.Table()
	im, err := compile(table, numbered(table))
	if err != nil {
		t.Fatal(err)
	}
	slots := 0
	for _, c := range table.Classes {
		slots += len(c.Spread)
	}
	rules := len(table.Rules)
	for _, b := range table.Branches {
		rules += len(b)
	}
	if len(im.hops) != len(table.Hops) || len(im.rules) != rules || im.classifier != len(table.Rules) || len(im.slots) != slots || len(im.ports) != len(table.Ports) {
		t.Errorf("%d hops, %d rules (%d of the classifier), %d slots, %d ports", len(im.hops), len(im.rules), im.classifier, len(im.slots), len(im.ports))
	}
	for spi, live := range table.Paths {
		if h := im.hops[spi<<8|firstSI]; h.Flags&hopLive == 0 || int(h.PathMtu) != live.MTU {
			t.Errorf("path %d: flags %d, MTU %d", spi, h.Flags, h.PathMtu)
		}
	}
}

// Only functions' ports are gone through to the other end of their veth: others have a
// guard, and whatever else there is, on the way out.
func TestCompilePeer(t *testing.T) {
	table := packetgrammar.Table()
	number := numbered(table)
	im, err := compile(table, func(name string) (device, error) {
		d, err := number(name)
		d.peer = true
		return d, err
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[uint32]int{}
	for at, h := range im.hops {
		if want := h.Kind == uint32(path.KindPlain) || h.Kind == uint32(path.KindGPE); h.Flags&hopPeer != 0 != want {
			t.Errorf("hop %s of kind %d: flags %d", pathString(at), h.Kind, h.Flags)
		}
		kinds[h.Kind]++
	}
	if kinds[uint32(path.KindPlain)] == 0 || kinds[uint32(path.KindGPE)] == 0 || len(kinds) < 4 {
		t.Errorf("the table has hops of kinds %v", kinds)
	}
}

func TestCompileRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*path.Table){
		"no such interface": func(t *path.Table) { t.Ports = append(t.Ports, path.Port{Interface: "", Role: path.RoleIngress}) },
		"role 9":            func(t *path.Table) { t.Ports[0].Role = 9 },
		"state 7":           func(t *path.Table) { t.Ports[packetgrammar.PortMAC].State = 7 },
		"two addresses of one family": func(t *path.Table) {
			t.Hops[path.Hop{SPI: 5, SI: 5}] = path.NextHop{Kind: path.KindNode, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("2001:db8::1")}
		},
		"no port to send to": func(t *path.Table) {
			t.Hops[path.Hop{SPI: 5, SI: 5}] = path.NextHop{Kind: path.KindEther, Port: path.NoPort}
		},
		"has no hop": func(t *path.Table) { t.Paths[99] = path.Live{MTU: 1500} },
		"at most":    func(t *path.Table) { t.Rules = make([]path.Rule, maxRules+1) },
	} {
		table := packetgrammar.Table()
		find := numbered(table)
		spoil(table)
		if _, err := compile(table, func(name string) (device, error) {
			if name == "" {
				return device{}, errors.New("no such interface")
			}
			return find(name)
		}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestWords(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	if w := words(four); w[0] != 0 || w[1] != 0 || w[2] != order32(0xffff) || w[3] != order32(0xc0000201) {
		t.Errorf("%x", w)
	}
	if tunnelWords(four) != [4]uint32{order32(0xc0000201)} || tunnelWords(six) != words(six) {
		t.Error("tunnel addresses")
	}
	addr, mask := prefixWords(netip.MustParsePrefix("::ffff:10.0.0.0/104"))
	if addr[3] != order32(10<<24) || mask != [4]uint32{^uint32(0), ^uint32(0), ^uint32(0), order32(0xff000000)} {
		t.Errorf("%x %x", addr, mask)
	}
	if _, mask := prefixWords(netip.Prefix{}); mask != [4]uint32{} {
		t.Errorf("any address has mask %x", mask)
	}
	if r := ReasonName(ReasonNoRoute); r != "no-route" || ReasonName(path.ReasonGuard) != "guard" {
		t.Error(r)
	}
	if w := word(3); w.next().generation() != 0 || w.next()>>32 != 1 {
		t.Errorf("%x", w.next())
	}
}
