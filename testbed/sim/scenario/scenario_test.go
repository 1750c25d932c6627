package scenario

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder is the data folder, empty where there is none.
func folder() string {
	dir := os.Getenv("MERIDIAN_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

func TestShippedScenariosBuild(t *testing.T) {
	for _, name := range Names() {
		sc, err := Load(name, folder())
		if folder() == "" && errors.Is(err, ErrNoData) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if sc.Name != name || sc.Title == "" {
			t.Errorf("file %s holds scenario %q (%q)", name, sc.Name, sc.Title)
		}
		again, err := Load(name, folder())
		if err != nil {
			t.Fatal(err)
		}
		for i := range sc.Network.Sites {
			if sc.Network.Sites[i] != again.Network.Sites[i] {
				t.Errorf("%s: site %d differs when it is built again", name, i)
			}
			for j := range sc.Network.Sites {
				if math.Abs(sc.Network.RTTMS[i][j]-sc.Network.RTTMS[j][i]) > 1e-9 {
					t.Errorf("%s: there and back differ between %d and %d", name, i, j)
				}
			}
		}
	}
}

func TestWithoutDataTheReasonIsSaid(t *testing.T) {
	for _, name := range []string{"melbourne-12", "zoo-abilene"} {
		if _, err := Load(name, ""); !errors.Is(err, ErrNoData) {
			t.Errorf("%s: %v, want ErrNoData", name, err)
		}
	}
}

func TestFaults(t *testing.T) {
	const good = "name: x\nload: 0.5\nnetwork:\n  ring: {sites: 3, slots: [2], service: 10ms, hop: 1ms}\n"
	if _, err := Parse("x.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct{ text, want string }{
		{"", "is empty"},
		{"load: 1\n", "name is missing"},
		{good + "speed: 3\n", "line 5: field speed not found"},
		{good + "deadline: soon\n", "line 5"},
		{good + "---\n" + good, "more than one document"},
		{"name: x\n", "has 0 parts"},
		{good + "hot: nowhere\n", `hot: no site "nowhere"`},
		{good + "demand: users\n", "needs a network with users"},
		{good + "demand: moving\n", "needs the part moving"},
		{good + "changes:\n  - {at: 3s, cut: [[site-0]]}\n", "changes[0]: cut"},
		{good + "changes:\n  - {at: 3s, bus: maybe}\n", `bus "maybe"`},
		{good + "changes:\n  - {at: 3s, load: 2}\n", "load is for one site"},
		{good + "work: {law: normal}\n", `service times are "normal"`},
		{good + "measureFrom: 90s\n", "measured from second 90"},
		{strings.Replace(good, "[2]", "[2, 2]", 1), "slots has 2 numbers"},
		{strings.Replace(good, "sites: 3", "sites: 100000", 1), "want 1 to"},
		{strings.Replace(good, "slots: [2]", "slots: [0]", 1), "0 slots"},
	} {
		f, err := Parse("x.yaml", []byte(k.text))
		if err == nil {
			_, err = f.Build("")
		}
		if err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%q: %v, want %q", k.text, err, k.want)
		}
	}
	if _, err := Load("no-such", ""); err == nil || !strings.Contains(err.Error(), "ring-step") {
		t.Errorf("unknown name: %v", err)
	}
}

func TestListOfSites(t *testing.T) {
	f, err := Parse("x", []byte(`name: x
network:
  sites:
    - {name: a, slots: 2, service: 10ms, perS: 20}
    - {name: b, slots: 1, service: 5ms, perS: 30, rtt: {a: 7ms}}
`))
	if err != nil {
		t.Fatal(err)
	}
	sc, err := f.Build("")
	if err != nil {
		t.Fatal(err)
	}
	if sc.Network.RTTMS[0][1] != 7 || sc.Network.RTTMS[1][0] != 7 || sc.Network.Sites[1].DemandPerS != 30 {
		t.Errorf("%+v", sc.Network)
	}
}

const smallGML = `graph [
  # made up
  label "X"
  node [ id 0 label "New York" Longitude -74.0 Latitude 40.7 ]
  node [ id 1 label "Chicago" Longitude -87.6 Latitude 41.8 ]
  node [ id 2 label "relay" ]
  node [ id 3 label "Chicago" Longitude -88.0 Latitude 41.9 ]
  edge [ source 0 target 2 ]
  edge [ source 2 target 1 ]
  edge [ source 1 target 3 ]
]
`

func TestReadGML(t *testing.T) {
	nodes, links, err := ReadGML("x.gml", []byte(smallGML))
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 3 || nodes[0].Name != "new-york" || nodes[2].Name != "chicago-3" || nodes[1].Location[1] != 41.8 {
		t.Errorf("nodes %+v", nodes)
	}
	if len(links) != 2 {
		t.Errorf("links %v: the relay joins New York and Chicago", links)
	}
	for _, k := range []struct{ old, new, want string }{
		{"target 3", "target 9", `x.gml:10: an edge to node "9"`},
		{"40.7", "north", "x.gml:4: node 0: latitude"},
		{"40.7", "140.7", "x.gml:4"},
		{"id 3", "id 1", "x.gml:7: node 1 is there twice"},
		{`"X"`, `"X`, "x.gml"},
		{"]\n]\n", "", "ends within a list"},
		{"graph [", "[ graph", `"[" where a key belongs`},
		{"graph", "tree", "there is no graph"},
	} {
		if _, _, err := ReadGML("x.gml", []byte(strings.Replace(smallGML, k.old, k.new, 1))); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s for %s: %v, want %q", k.new, k.old, err, k.want)
		}
	}
}

func FuzzReadGML(f *testing.F) {
	f.Add([]byte(smallGML))
	f.Add([]byte(`graph [ node [ id 0 ] ] x "`))
	f.Fuzz(func(t *testing.T, text []byte) {
		nodes, links, err := ReadGML("f", text)
		if err != nil {
			return
		}
		for _, l := range links {
			if l[0] < 0 || l[1] >= len(nodes) || l[0] >= l[1] {
				t.Fatalf("link %v of %d nodes", l, len(nodes))
			}
		}
	})
}

func TestZooNetworks(t *testing.T) {
	if folder() == "" {
		t.Skip("MERIDIAN_TESTDATA is not set: no operator networks to read")
	}
	for name, sites := range map[string]int{"zoo-abilene": 11, "zoo-geant": 37} {
		sc, err := Load(name, folder())
		if err != nil {
			t.Error(err)
			continue
		}
		most := 0.0
		for _, row := range sc.Network.RTTMS {
			for _, r := range row {
				most = math.Max(most, r)
			}
		}
		if len(sc.Network.Sites) < sites || most < 20 || most > 250 {
			t.Errorf("%s: %d sites, longest round trip %.0f ms", name, len(sc.Network.Sites), most)
		}
	}
}

func TestMovers(t *testing.T) {
	for _, name := range []string{"walk", "accident"} {
		sc, err := Load(name, "")
		if err != nil {
			t.Fatal(err)
		}
		count := func(home []int) []int {
			n := make([]int, len(sc.Network.Sites))
			for _, h := range home {
				n[h]++
			}
			return n
		}
		home := make([]int, len(sc.Users.Home))
		again := make([]int, len(home))
		move, twin := sc.Users.Mover(), sc.Users.Mover()
		var first, later []int
		moved := 0
		for s := 0.0; s <= 100; s++ {
			before := append([]int(nil), home...)
			move(s, home)
			twin(s, again)
			for k := range home {
				if home[k] != again[k] {
					t.Fatalf("%s: user %d differs between two runs", name, k)
				}
				if s > 0 && home[k] != before[k] {
					moved++
				}
			}
			if s == 15 {
				first = count(home)
			}
		}
		later = count(home)
		if moved < 20 {
			t.Errorf("%s: users changed site %d times in 100 s", name, moved)
		}
		if name == "accident" && float64(later[5]) < 1.4*float64(first[5]) {
			t.Errorf("accident at site 5: %d users before, %d while it blocks the road", first[5], later[5])
		}
	}
}
