package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Addresses, all of them in namespaces of the cluster's own: nothing of them is
// seen outside, and several clusters may run beside each other.
const (
	controlAddress = "10.99.0.1"    // API server; every node's way out
	lanBits        = 24             // of the network between them
	servicesCIDR   = "10.96.0.0/16" // ClusterIPs
	podsCIDR       = "10.244.0.0/16"
	apiClusterIP   = "10.96.0.1"
	// freeCIDR is local to the control plane's namespace as a whole, so that a proxy
	// there has as many addresses for Gateways as it wants.
	freeCIDR = "10.98.0.0/16"
	maxNodes = 9
)

// node is one machine of the cluster.
type node struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Pods is where its pods' addresses are from.
	Pods netip.Prefix `json:"pods"`
	// Process is the process that holds its namespaces, as the cluster counts them.
	Process int `json:"process"`
}

func nodes(n int) []node {
	var list []node
	for i := 1; i <= n; i++ {
		list = append(list, node{
			Name:    fmt.Sprintf("node-%d", i),
			Address: netip.AddrFrom4([4]byte{10, 99, 0, byte(10 + i)}),
			Pods:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
		})
	}
	return list
}

// state is what there is to know of a running cluster; it stands in state.json.
type state struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	// Init is the cluster's first process, as this machine counts them.
	Init  int    `json:"init"`
	Nodes []node `json:"nodes"`
	// Addresses may be used by processes in the control plane's namespace.
	Addresses string `json:"addresses"`
	// Scheduler is the folder of the traffic matrix and delays that it reads.
	Scheduler string `json:"scheduler"`
	// Logs is the folder of all logs.
	Logs string `json:"logs"`
}

// place is where things are: the source, what is built of it, and one cluster's folder.
type place struct {
	name     string
	root     string
	programs string
	dir      string
}

// hidden are the folders that each node has for itself.
var hidden = []string{"/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys"}

// newPlace finds the source above the working directory, where none is given.
func newPlace(name, root string) (*place, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name == "programs" {
		return nil, fmt.Errorf("--name %q: want lower-case letters, digits and -, and not \"programs\"", name)
	}
	if root == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		for root = dir; !isSource(root); root = filepath.Dir(root) {
			if root == filepath.Dir(root) {
				return nil, fmt.Errorf("%s is not inside Meridian's source, of which the cluster is built: go there, or say --source DIR", dir)
			}
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	if !isSource(root) {
		return nil, fmt.Errorf("--source %s: no cmd/meridian-scheduler/go.mod in there", root)
	}
	for _, h := range hidden {
		if root == h || strings.HasPrefix(root, h+"/") {
			return nil, fmt.Errorf("the source is in %s, which every node has for itself: use a copy elsewhere", h)
		}
	}
	base := filepath.Join(root, "bin", "cluster")
	return &place{name: name, root: root, programs: filepath.Join(base, "programs"), dir: filepath.Join(base, name)}, nil
}

func isSource(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cmd", "meridian-scheduler", "go.mod"))
	return err == nil
}

func (p *place) program(name string) string { return filepath.Join(p.programs, name) }

func (p *place) file(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

// cgroup is the cluster's folder in each cgroup hierarchy.
func (p *place) cgroup() string { return "/meridian-cluster-" + p.name }

// read returns the state of the cluster that runs.
func (p *place) read() (*state, error) {
	b, err := os.ReadFile(p.file("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster %q runs: start one with up", p.name)
	} else if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w: end the cluster with down", p.file("state.json"), err)
	}
	return s, nil
}
