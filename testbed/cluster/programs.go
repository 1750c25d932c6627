package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kubernetesVersion is what the programs say they are. They are built from the
// module that cmd/meridian-scheduler/go.mod requires; a test compares the two.
const kubernetesVersion = "v1.36.3"

// needed are programs of the machine, with Debian's packages.
var needed = [][2]string{
	{"containerd", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
	{cniPrograms + "/bridge", "containernetworking-plugins"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
}

// prepare checks what the machine has and builds what is missing.
func (p *place) prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, mounts and cgroups need root")
	}
	var packages []string
	for _, n := range needed {
		if _, err := exec.LookPath(n[0]); err != nil {
			packages = append(packages, n[1])
		}
	}
	if len(packages) > 0 {
		return fmt.Errorf("programs are missing: apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	return p.build()
}

// build builds the cluster's programs: the first time for some ten minutes, later
// the Go command finds that there is nothing to do. The scheduler's module knows all
// versions; its flags here are those of its tests, so that they share what is compiled.
func (p *place) build() error {
	if err := os.MkdirAll(p.programs, 0o755); err != nil {
		return err
	}
	v := "-X k8s.io/component-base/version."
	parts := strings.Split(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	link := "-s -w " + v + "gitVersion=" + kubernetesVersion + " " + v + "gitMajor=" + parts[0] + " " + v + "gitMinor=" + parts[1]
	module := filepath.Join(p.root, "cmd", "meridian-scheduler")
	if err := build(module, nil, "-ldflags="+link, "-o", p.program("kube"), "./kube"); err != nil {
		return err
	}
	if err := build(module, nil, "-ldflags="+link, "-o", p.program("meridian-scheduler"), "."); err != nil {
		return err
	}
	// Images hold one file and no C library.
	if err := build(p.root, []string{"CGO_ENABLED=0"}, "-ldflags=-s -w", "-o", p.program("pause"), "./testbed/cluster/pause"); err != nil {
		return err
	}
	return writeImage(p.program("pause.tar"), p.program("pause"), []string{pauseImage})
}

func build(dir string, env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w", args[len(args)-1], err)
	}
	return nil
}

// image makes an image of a static program and gives it to every node.
func (p *place) image(program string, names []string) error {
	s, err := p.read()
	if err != nil {
		return err
	}
	file := p.file("images", filepath.Base(program)+".tar")
	if err := writeImage(file, program, names); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		cmd := exec.Command("/proc/self/exe", "exec", "--name", p.name, "--source", p.root, "--node", n.Name,
			"ctr", "--namespace", "k8s.io", "images", "import", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: import %s: %w: %s", n.Name, file, err, out)
		}
	}
	return nil
}
