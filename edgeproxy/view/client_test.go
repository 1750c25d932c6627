package view

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestClient(t *testing.T) {
	networks := []string{"10.0.0.0/8", "2001:db8::/32"}
	for _, c := range []struct {
		networks  []string
		hops      int
		peer, way string
		forwarded bool
		want      string // empty: the peer does not speak for clients
	}{
		// One way to say it: whoever is in the networks speaks for the one before.
		{networks, 0, "10.0.0.1", "1.1.1.1, 2.2.2.2", false, "2.2.2.2"},
		{networks, 0, "10.0.0.1", "1.1.1.1, 10.9.9.9, 10.1.1.1:443", false, "1.1.1.1"},
		{networks, 0, "10.0.0.1", "10.9.9.9, 10.1.1.1", false, "10.9.9.9"},
		{networks, 0, "10.0.0.1", "", false, "10.0.0.1"},
		{networks, 0, "10.0.0.1", "1.1.1.1, unknown", false, "10.0.0.1"},
		{networks, 0, "3.3.3.3", "1.1.1.1", false, ""},
		// A number of hops, as Envoy's xff_num_trusted_hops.
		{nil, 1, "3.3.3.3", "1.1.1.1, 2.2.2.2", false, "2.2.2.2"},
		{nil, 2, "3.3.3.3", "0.0.0.1, 1.1.1.1,2.2.2.2", false, "1.1.1.1"},
		{nil, 3, "3.3.3.3", "1.1.1.1, 2.2.2.2", false, "3.3.3.3"},
		{nil, 1, "3.3.3.3", "", false, "3.3.3.3"},
		{nil, 2, "3.3.3.3", "1.1.1.1, junk", false, "3.3.3.3"},
		{nil, 0, "3.3.3.3", "1.1.1.1", false, ""},
		// Both: of the networks only.
		{networks, 1, "10.0.0.1", "1.1.1.1, 10.2.2.2", false, "10.2.2.2"},
		{networks, 1, "3.3.3.3", "1.1.1.1", false, ""},
		{networks, 0, "::ffff:10.0.0.1", "[2001:db9::7]:443, 2001:db8::1", false, "2001:db9::7"},
		{networks, 0, "10.0.0.1", `for=1.1.1.1;proto=https, For="[2001:db9::1]:4711"; by="a,b"`, true, "2001:db9::1"},
		{networks, 0, "10.0.0.1", `for=1.1.1.1, for=_hidden`, true, "10.0.0.1"},
		{networks, 0, "10.0.0.1", `proto=http`, true, "10.0.0.1"},
		{nil, 2, "3.3.3.3", `for=1.1.1.1, for="2.2.2.2:_x"`, true, "1.1.1.1"},
	} {
		f := newForwarding(&mesh.Forwarding{TrustedNetworks: c.networks, TrustedHops: c.hops})
		peer, got := netip.MustParseAddr(c.peer), ""
		if f.FindsClients(peer) {
			got = f.Client(peer, []byte(c.way), c.forwarded).String()
		}
		if got != c.want {
			t.Errorf("networks %v, %d hops, %s says %q: client %q, want %q", c.networks, c.hops, c.peer, c.way, got, c.want)
		}
	}
}

// FuzzAddress holds the reading of addresses against package netip.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "::", "::1", "1::", "2001:db8::8:800:200c:417a", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4",
		"1:2:3:4:5:6:1.2.3.4", "1::2::3", ":1", "1:", "12345::", "1.2.3", "01.2.3.4", "256.1.1.1", "1:2:3:4:5:6:7::", "::1.2.3.4.5", "a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got netip.Addr
		var ok bool
		if strings.Contains(text, ":") {
			got, ok = parse6([]byte(text))
		} else {
			got, ok = parse4([]byte(text))
		}
		want, err := netip.ParseAddr(text)
		if err == nil && want.Zone() != "" {
			err = errors.New("a zone")
		}
		if ok != (err == nil) || ok && got != want.Unmap() {
			t.Fatalf("%q is %v %v, netip has %v %v", text, got, ok, want, err)
		}
	})
}

func TestClientAllocates(t *testing.T) {
	f := newForwarding(&mesh.Forwarding{TrustedHops: 2})
	way, peer := []byte("2001:db8::1, [2001:db8::2]:80"), netip.MustParseAddr("10.0.0.1")
	if n := testing.AllocsPerRun(100, func() { f.Client(peer, way, false) }); n != 0 {
		t.Errorf("finding a client allocates %v times", n)
	}
}
