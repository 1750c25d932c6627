package scenario

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

//go:embed files/*.yaml
var shipped embed.FS

// File is a scenario as it is written.
type File struct {
	Name  string `yaml:"name"`
	Title string `yaml:"title"`
	// Network has exactly one of its parts.
	Network Network `yaml:"network"`
	// Load is the demand at the start as a part of capacity: of every site's own, or
	// with Demand: users of the whole mesh.
	Load float64 `yaml:"load"`
	// Demand is capacity (the default), users (by how many live nearest) or moving.
	Demand string `yaml:"demand"`
	Work   struct {
		Law string  `yaml:"law"`
		CV  float64 `yaml:"cv"`
	} `yaml:"work"`
	Deadline   time.Duration `yaml:"deadline"`
	For        time.Duration `yaml:"for"`
	Measure    time.Duration `yaml:"measureFrom"`
	Neighbours int           `yaml:"neighbours"`
	Bytes      float64       `yaml:"bytes"`
	ShedAfter  time.Duration `yaml:"shedAfter"`
	Classes    []Class       `yaml:"classes"`
	// Hot is a site's name, or largest; the first site when it is empty. Changes may
	// say hot for it.
	Hot    string `yaml:"hot"`
	Uneven bool   `yaml:"uneven"`
	// Moving are users with paths.
	Moving  *Moving  `yaml:"moving"`
	Changes []Change `yaml:"changes"`
}

// Class is a priority class of requests: a part of all, with a ShedAfter of its own.
type Class struct {
	Name      string        `yaml:"name"`
	Part      float64       `yaml:"part"`
	ShedAfter time.Duration `yaml:"shedAfter"`
}

// Network is one way to get sites.
type Network struct {
	Ring     *Ring     `yaml:"ring"`
	Line     *Ring     `yaml:"line"`
	Sites    []Site    `yaml:"sites"`
	City     *City     `yaml:"city"`
	Backbone *Backbone `yaml:"backbone"`
	EUA      *City     `yaml:"eua"`
	GML      *GML      `yaml:"gml"`
}

// Ring is equal sites in a ring or a line; Slots may name one number for each.
// SpacingKM is how far they stand apart on the map, 20 if it is not said.
type Ring struct {
	Sites   int           `yaml:"sites"`
	Slots   []int         `yaml:"slots"`
	Service time.Duration `yaml:"service"`
	Hop     time.Duration `yaml:"hop"`

	SpacingKM float64 `yaml:"spacingKm"`
}

// Site is one site of a list. RTT names the round trips to sites before it.
type Site struct {
	Name    string                   `yaml:"name"`
	Lon     float64                  `yaml:"lon"`
	Lat     float64                  `yaml:"lat"`
	Slots   int                      `yaml:"slots"`
	Service time.Duration            `yaml:"service"`
	PerS    float64                  `yaml:"perS"`
	RTT     map[string]time.Duration `yaml:"rtt"`
}

// City is base stations of a city, real (eua) or made by Seed. Slots is equal, or
// 0 for 1 to 16 by the number of users.
type City struct {
	Sites   int           `yaml:"sites"`
	Users   int           `yaml:"users"`
	Slots   int           `yaml:"slots"`
	Service time.Duration `yaml:"service"`
	Seed    uint64        `yaml:"seed"`
}

// Backbone is a made operator's network of a country.
type Backbone struct {
	Sites   int           `yaml:"sites"`
	Slots   int           `yaml:"slots"`
	Service time.Duration `yaml:"service"`
	Seed    uint64        `yaml:"seed"`
}

// GML is an operator's network from a file of the Internet Topology Zoo.
type GML struct {
	File    string        `yaml:"file"`
	Slots   int           `yaml:"slots"`
	Service time.Duration `yaml:"service"`
}

// Moving is how users move: waypoint (random, in the city) or road (along the
// sites in order, with an accident).
type Moving struct {
	Path  string  `yaml:"path"`
	Users int     `yaml:"users"`
	KmH   float64 `yaml:"kmh"`
	// From and Until are when the accident blocks the road at Km.
	From  time.Duration `yaml:"from"`
	Until time.Duration `yaml:"until"`
	Km    float64       `yaml:"km"`
	Seed  uint64        `yaml:"seed"`
}

// Change is something that happens. Site is a name, hot, or empty for all.
type Change struct {
	At      time.Duration `yaml:"at"`
	Site    string        `yaml:"site"`
	Demand  float64       `yaml:"demand"`
	Load    float64       `yaml:"load"`
	Service float64       `yaml:"service"`
	Cut     [][]string    `yaml:"cut"`
	Heal    [][]string    `yaml:"heal"`
	Bus     string        `yaml:"bus"`
}

// Names lists the shipped scenarios.
func Names() []string {
	entries, err := shipped.ReadDir("files")
	if err != nil {
		panic(err) // embedded
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(out)
	return out
}

// ErrNoData says that a scenario needs the data folder and there is none.
var ErrNoData = errors.New("needs the data folder")

// Load builds a shipped scenario by name, or one from a file (a name with a slash
// or that ends in .yaml, .yml or .json). data is the folder of real data, empty
// when there is none; without it those that need it fail with ErrNoData.
func Load(name, data string) (*sim.Scenario, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	return f.Build(data)
}

// Open reads a scenario without building it.
func Open(name string) (*File, error) {
	var text []byte
	var err error
	if isFile(name) {
		if text, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("scenario: %w", err)
		}
	} else if text, err = shipped.ReadFile(path.Join("files", name+".yaml")); err != nil {
		return nil, fmt.Errorf("no scenario %q: want a file, or one of %s", name, strings.Join(Names(), ", "))
	}
	return Parse(name, text)
}

func isFile(name string) bool {
	return strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".json")
}

// Parse reads one YAML (or JSON) document strictly. Faults name file and line.
func Parse(name string, text []byte) (*File, error) {
	f := &File{Deadline: 2 * time.Second, For: 80 * time.Second, Measure: 20 * time.Second, Bytes: 10_000}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: is empty", name)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(File)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", name)
	}
	if f.Name == "" {
		return nil, fmt.Errorf("%s: name is missing", name)
	}
	return f, nil
}
