package topo

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
)

// Input is a named CSV file. Messages name it.
type Input struct {
	Name   string
	Reader io.Reader
}

// The model of a city's mobile network in which a few kilometres cost more than
// their fibre: 0.3 to 1.5 ms one way from a base station to its aggregation
// point, and 0.52 ms of round trip per kilometre between those. Assumed, and the
// model that the load sharing rule was compared with.
const (
	cityAccessMin = 0.3 // ms, one way
	cityAccessMax = 1.5
	cityMSPerKM   = 0.52
)

// Bounds of the capacities that FromEUA assigns.
const (
	minSlots, maxSlots = 2, 8
	minServiceMS       = 15
	maxServiceMS       = 40
)

// FromEUA reads the files of the EUA data sets (Lai et al., ICSOC 2018) as they
// are: sites with the columns SITE_ID, LATITUDE, LONGITUDE and NAME, users with
// Latitude and Longitude; further columns are ignored and case does not matter.
//
// It takes the maxSites sites nearest the centroid of all (0 takes all). The
// seed draws each site's service time and aggregation hop; slots follow the
// number of users whose nearest site it is. A fault names file and line.
func FromEUA(sites, users Input, maxSites int, seed uint64) (*Topology, error) {
	if maxSites < 0 {
		return nil, fmt.Errorf("the number of sites is %d, it must not be negative", maxSites)
	}
	t := &Topology{msPerKM: cityMSPerKM}
	seen := map[string]int{}
	err := rows(sites, []string{"SITE_ID", "LATITUDE", "LONGITUDE", "NAME"}, func(line int, f []string) error {
		id := siteName(f[0])
		if id == "" {
			return fmt.Errorf("SITE_ID %q has no letter or digit", f[0])
		}
		if first := seen[id]; first > 0 {
			return fmt.Errorf("SITE_ID %s is there twice, first on line %d", f[0], first)
		}
		seen[id] = line
		p, err := position(f[1], f[2])
		if err != nil {
			return err
		}
		t.Sites = append(t.Sites, Site{Name: id, Title: strings.Join(strings.Fields(f[3]), " "), Location: p})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(t.Sites) < 2 {
		return nil, fmt.Errorf("%s: has %d sites, at least 2 are needed", sites.Name, len(t.Sites))
	}
	err = rows(users, []string{"Latitude", "Longitude"}, func(_ int, f []string) error {
		p, err := position(f[0], f[1])
		if err == nil {
			t.Users = append(t.Users, User{Position: p})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(t.Users) == 0 {
		return nil, fmt.Errorf("%s: has no users", users.Name)
	}
	total := len(t.Sites)
	t.keepCentral(maxSites)
	if err := t.settle(); err != nil {
		return nil, err
	}
	t.equip(rand.New(rand.NewPCG(seed, 0)))
	t.Title = fmt.Sprintf("%d of %d sites of %s, %d users of %s (real positions; capacities and aggregation hops assumed)",
		len(t.Sites), total, sites.Name, len(t.Users), users.Name)
	return t, nil
}

// keepCentral keeps the n sites nearest the centroid of all, in order of name.
func (t *Topology) keepCentral(n int) {
	byName := func(a, b Site) int { return cmp.Compare(a.Name, b.Name) }
	if n > 0 && n < len(t.Sites) {
		points := make([]orb.Point, len(t.Sites))
		for i, s := range t.Sites {
			points[i] = s.Location
		}
		if center, ok := geo.Centroid(points); ok {
			slices.SortFunc(t.Sites, func(a, b Site) int {
				return cmp.Or(cmp.Compare(geo.DistanceMeters(center, a.Location), geo.DistanceMeters(center, b.Location)), byName(a, b))
			})
		}
		t.Sites = t.Sites[:n:n]
	}
	slices.SortFunc(t.Sites, byName)
}

// equip draws what the files do not say of a site.
func (t *Topology) equip(r *rand.Rand) {
	most := 0
	for i := range t.Sites {
		most = max(most, t.UsersOf(i))
	}
	for i := range t.Sites {
		s := &t.Sites[i]
		s.Slots = minSlots + int(math.Round(float64(t.UsersOf(i))/float64(most)*(maxSlots-minSlots)))
		s.ServiceTime = time.Duration(minServiceMS+r.IntN(maxServiceMS-minServiceMS+1)) * time.Millisecond
		oneWay := cityAccessMin + r.Float64()*(cityAccessMax-cityAccessMin)
		s.Access = time.Duration(2 * oneWay * float64(time.Millisecond)).Round(10 * time.Microsecond)
	}
}

// siteName makes an RFC 1123 label of an identifier.
func siteName(id string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(id) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if b.Len() > 0 {
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" || len(name) > 50 {
		return ""
	}
	return "s" + name
}

func position(lat, lon string) (orb.Point, error) {
	la, err := strconv.ParseFloat(strings.TrimSpace(lat), 64)
	if err != nil {
		return orb.Point{}, fmt.Errorf("latitude %q is not a number", lat)
	}
	lo, err := strconv.ParseFloat(strings.TrimSpace(lon), 64)
	if err != nil {
		return orb.Point{}, fmt.Errorf("longitude %q is not a number", lon)
	}
	p := orb.Point{lo, la}
	return p, geo.Check(p)
}

// rows calls each with the named columns of every row.
func rows(in Input, columns []string, each func(line int, fields []string) error) error {
	r := csv.NewReader(in.Reader)
	r.TrimLeadingSpace = true
	r.ReuseRecord = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: is empty, want a header with the columns %s", in.Name, strings.Join(columns, ", "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Name, err)
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		at[i] = slices.IndexFunc(header, func(h string) bool {
			return strings.EqualFold(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")), c)
		})
		if at[i] < 0 {
			return fmt.Errorf("%s:1: column %s is missing, have %s", in.Name, c, strings.Join(header, ", "))
		}
	}
	fields := make([]string, len(columns))
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var fault *csv.ParseError
		if errors.As(err, &fault) {
			return fmt.Errorf("%s:%d:%d: %w", in.Name, fault.Line, fault.Column, fault.Err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		line, _ := r.FieldPos(0)
		for i, c := range at {
			fields[i] = record[c]
		}
		if err := each(line, fields); err != nil {
			return fmt.Errorf("%s:%d: %w", in.Name, line, err)
		}
	}
}
