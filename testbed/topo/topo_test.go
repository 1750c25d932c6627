package topo

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/geo"
)

func TestDefault(t *testing.T) {
	d := Default(1)
	if len(d.Sites) != 6 {
		t.Fatalf("%d sites", len(d.Sites))
	}
	least, most := time.Hour, time.Duration(0)
	for i, s := range d.Sites {
		if s.Slots < 2 || s.Slots > 8 || s.ServiceTime < 15*time.Millisecond || s.ServiceTime > 40*time.Millisecond {
			t.Errorf("%s: %d slots of %v", s.Name, s.Slots, s.ServiceTime)
		}
		if d.UsersOf(i) < 10 {
			t.Errorf("%s: %d users", s.Name, d.UsersOf(i))
		}
		if d.RTT(i, i) != 0 {
			t.Errorf("%s: RTT to itself is %v", s.Name, d.RTT(i, i))
		}
		for j := range i {
			least, most = min(least, d.RTT(i, j)), max(most, d.RTT(i, j))
			if d.RTT(i, j) != d.RTT(j, i) {
				t.Errorf("RTT %d-%d is not symmetric", i, j)
			}
			t.Logf("%s - %s %v", d.Sites[j].Name, s.Name, d.RTT(i, j))
		}
	}
	// The demo promises round trips that span 1 to 25 ms.
	if least < time.Millisecond || least > 3*time.Millisecond || most < 18*time.Millisecond || most > 25*time.Millisecond {
		t.Errorf("RTTs from %v to %v", least, most)
	}
	if c := d.Capacity(); c < 900 || c > 1200 {
		t.Errorf("total capacity is %.0f req/s", c)
	}
	checkHomes(t, d)
	if !reflect.DeepEqual(d, Default(1)) {
		t.Error("the same seed gives another topology")
	}
	if reflect.DeepEqual(d.Users, Default(2).Users) {
		t.Error("another seed gives the same users")
	}
}

// checkHomes compares every user's home with a search over all sites.
func checkHomes(t *testing.T, d *Topology) {
	t.Helper()
	for i, u := range d.Users {
		for j, s := range d.Sites {
			if geo.DistanceMeters(u.Position, s.Location) < geo.DistanceMeters(u.Position, d.Sites[u.Home].Location) {
				t.Fatalf("user %d: site %d is nearer than home %d", i, j, u.Home)
			}
		}
	}
}

func eua(t *testing.T, maxSites int, seed uint64) *Topology {
	t.Helper()
	dir := os.Getenv("MERIDIAN_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "eua")
	var in [2]Input
	for i, name := range []string{"site-optus-melbCBD.csv", "users-melbcbd-generated.csv"} {
		f, err := os.Open(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			t.Skipf("no EUA data set in %s: set MERIDIAN_TESTDATA to the folder that holds eua/", dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		in[i] = Input{name, f}
	}
	d, err := FromEUA(in[0], in[1], maxSites, seed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRealEUA(t *testing.T) {
	all := eua(t, 0, 1)
	if len(all.Sites) != 125 || len(all.Users) != 816 {
		t.Fatalf("%d sites, %d users", len(all.Sites), len(all.Users))
	}
	checkHomes(t, all)
	d := eua(t, 12, 1)
	if len(d.Sites) != 12 || len(d.Users) != 816 {
		t.Fatalf("%d sites, %d users", len(d.Sites), len(d.Users))
	}
	checkHomes(t, d)
	homes := 0
	slots := map[int]bool{}
	for i, s := range d.Sites {
		if s.Slots < 2 || s.Slots > 8 || s.Capacity() <= 0 || s.Title == "" {
			t.Errorf("%+v", s)
		}
		homes += d.UsersOf(i)
		slots[s.Slots] = true
		for j := range i {
			if r := d.RTT(i, j); r < 1200*time.Microsecond || r > 10*time.Millisecond {
				t.Errorf("RTT %s - %s is %v", d.Sites[i].Name, d.Sites[j].Name, r)
			}
		}
	}
	if homes != 816 || len(slots) < 3 {
		t.Errorf("%d users have a home, %d different capacities", homes, len(slots))
	}
	if !reflect.DeepEqual(d, eua(t, 12, 1)) || reflect.DeepEqual(d.Sites, eua(t, 12, 2).Sites) {
		t.Error("seed does not decide the topology")
	}
}

func TestFaultsNameFileAndLine(t *testing.T) {
	const sites = "SITE_ID,LATITUDE,LONGITUDE,NAME\n1,-37.8,144.9,one\n2,-37.9,145.0,two\n"
	const users = "Latitude,Longitude\n-37.8,144.9\n"
	for _, tc := range []struct{ sites, users, want string }{
		{"", users, "sites.csv: is empty, want a header with the columns SITE_ID"},
		{"SITE_ID,LAT,LONGITUDE,NAME\n", users, "sites.csv:1: column LATITUDE is missing, have SITE_ID, LAT, LONGITUDE, NAME"},
		{sites + "3,x,145,three\n", users, `sites.csv:4: latitude "x" is not a number`},
		{sites + "3,-91,145,three\n", users, "sites.csv:4: latitude -91 is not between"},
		{sites + "3,-37,NaN,three\n", users, "sites.csv:4: longitude NaN is not between"},
		{sites + "2,-37,145,three\n", users, "sites.csv:4: SITE_ID 2 is there twice, first on line 3"},
		{sites + "??,-37,145,three\n", users, `sites.csv:4: SITE_ID "??" has no letter or digit`},
		{sites + "3,-37\n", users, "sites.csv:4:1: wrong number of fields"},
		{sites[:strings.Index(sites, "2,-37.9")], users, "sites.csv: has 1 sites, at least 2 are needed"},
		{sites, "Latitude,Longitude\n", "users.csv: has no users"},
		{sites, users + "\n-37.8,\n", `users.csv:4: longitude "" is not a number`},
	} {
		d, err := FromEUA(Input{"sites.csv", strings.NewReader(tc.sites)}, Input{"users.csv", strings.NewReader(tc.users)}, 0, 1)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("got %v, %v; want %s", d, err, tc.want)
		}
	}
	if _, err := FromEUA(Input{"s", strings.NewReader(sites)}, Input{"u", strings.NewReader(users)}, -1, 1); err == nil {
		t.Error("took -1 sites")
	}
}
