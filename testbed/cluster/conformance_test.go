//go:build cluster

package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// report is the part of the suite's report that says how it went.
type report struct {
	Profiles []struct {
		Name     string
		Core     result
		Extended *result
	}
}

type result struct {
	Result      string
	Statistics  struct{ Passed, Failed, Skipped int }
	FailedTests []string
}

// core is how many core tests a profile of v1.6.3 has: fewer would be another suite's.
var core = map[string]int{"GATEWAY-HTTP": 36, "GATEWAY-GRPC": 14, "GATEWAY-TCP": 18, "GATEWAY-TLS": 19, "GATEWAY-UDP": 19}

// successes in a row are asked for by each check of the suite. Its own 3 come about by
// chance where requests go anywhere.
const successes = "RequiredConsecutiveSuccesses:20"

// TestConformance runs the Gateway API's conformance suite, unmodified, for all that
// the GatewayClass says it supports, and writes its report. Then it runs a test that
// passed once more without a proxy: it must fail, or passing means nothing.
func TestConformance(t *testing.T) {
	suite := filepath.Join(t.TempDir(), "suite")
	for _, args := range [][]string{
		{"test", "-c", "-vet=off", "-o", suite, "."},
		{"build", "-o", filepath.Join(filepath.Dir(suite), "echo-basic"), "sigs.k8s.io/gateway-api/conformance/echo-basic"},
		{"build", "-o", filepath.Join(filepath.Dir(suite), "whoami"), "./whoami"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "conformance", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	c := start(t, "conformance")
	for program, names := range images(t) {
		c.command(t, "image", append([]string{filepath.Join(filepath.Dir(suite), program)}, names...)...)
	}
	c.install(t)
	bin := t.TempDir()
	goBuild(t, nil, bin+"/", "./cmd/sitecontroller", "./cmd/edgeproxy")
	s := c.startSite(t, bin, "edge", c.account(t), 1, "--kube-certificates", t.TempDir())

	profiles := []string{"GATEWAY-HTTP", "GATEWAY-GRPC"}
	for feature, profile := range map[string]string{"TLSRoute": "GATEWAY-TLS", "TCPRoute": "GATEWAY-TCP", "UDPRoute": "GATEWAY-UDP"} {
		if slices.Contains(c.features(t), feature) {
			profiles = append(profiles, profile)
		}
	}
	slices.Sort(profiles)
	version, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		t.Fatalf("the version to put into the report: git describe: %v", err)
	}
	file := filepath.Join(t.TempDir(), "report.yaml")
	began := time.Now()
	out, err := c.suite(t, suite, "suite.log", "-conformance-profiles", strings.Join(profiles, ","), "-timeout-config-overrides", successes, "-report-output", file,
		"-organization", "meridian-mesh", "-project", "meridian", "-url", "https://github.com/meridian-mesh/meridian",
		"-contact", "https://github.com/meridian-mesh/meridian/issues", "-version", strings.TrimSpace(string(version)))
	t.Logf("the suite took %.0f s", time.Since(began).Seconds())
	if err != nil {
		t.Errorf("the suite: %v\n%s", err, failures(out))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("no report: %v", err)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "docs", "conformance", "gateway-api-v1.6.3.yaml"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := yaml.Unmarshal(b, &r); err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	seen := map[string]bool{}
	for _, p := range r.Profiles {
		seen[p.Name] = true
		t.Logf("%s: core %+v, extended %+v", p.Name, p.Core, p.Extended)
		for _, x := range []*result{&p.Core, p.Extended} {
			if x != nil && (x.Statistics.Failed > 0 || x.Result != "success") {
				t.Errorf("%s: %s, failed are %v", p.Name, x.Result, x.FailedTests)
			}
		}
		if n, ok := core[p.Name]; ok && p.Core.Statistics.Passed != n {
			t.Errorf("%s: %d core tests passed, want %d", p.Name, p.Core.Statistics.Passed, n)
		}
	}
	for _, p := range profiles {
		if !seen[p] {
			t.Errorf("the report does not speak of %s", p)
		}
	}

	t.Run("Control", func(t *testing.T) {
		const one = "HTTPRouteMatching"
		if !bytes.Contains(out, []byte("--- PASS: TestConformance/"+one+" ")) {
			t.Fatalf("%s did not pass with a proxy", one)
		}
		if err := s.stopProxy(); err != nil {
			t.Fatal(err)
		}
		out, err := c.suite(t, suite, "control.log", "-conformance-profiles", "GATEWAY-HTTP", "-run-test", one, "-timeout-config-overrides", successes+";MaxTimeToConsistency:10")
		if err == nil || !bytes.Contains(out, []byte("--- FAIL: TestConformance/"+one+" ")) {
			t.Errorf("without a proxy %s must fail: %v\n%s", one, err, failures(out))
		}
	})
}

// suite runs the suite in the control plane's network and returns all that it said,
// which is kept beside the cluster's folder, too.
func (c *cluster) suite(t *testing.T, program, log string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := c.cmd("exec", append([]string{program, "-test.v", "-test.timeout", "40m", "-test.run", "^TestConformance$", "-gateway-class", "meridian", "-cleanup-base-resources=false"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	out, err := cmd.CombinedOutput()
	path := filepath.Join(filepath.Dir(filepath.Dir(c.Logs)), log)
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Error(err)
	}
	t.Logf("all that the suite said: %s", path)
	return out, err
}

// failures are the lines of the suite's output that say what failed.
func failures(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- FAIL") || strings.Contains(line, "Error:") || strings.Contains(line, "panic:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// features are those that the GatewayClass lists.
func (c *cluster) features(t *testing.T) (names []string) {
	t.Helper()
	eventually(t, "the GatewayClass' features", func() error {
		var o struct {
			Status struct{ SupportedFeatures []struct{ Name string } }
		}
		c.get(t, objectPath(gatewayVersion, "GatewayClass", "meridian"), &o)
		names = nil
		for _, f := range o.Status.SupportedFeatures {
			names = append(names, f.Name)
		}
		if len(names) == 0 {
			return errNotYet
		}
		return nil
	})
	return names
}

// images are the names of the images that the suite's manifests for gateways ask for, by
// the program that is in them here: its own echo server, and whoami in CoreDNS's place.
func images(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-json", "sigs.k8s.io/gateway-api/conformance")
	cmd.Dir = "conformance"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	image := regexp.MustCompile(`(?m)^\s*(?:- )?image: (\S+)$`)
	for _, dir := range []string{"base", "tests"} {
		err := filepath.WalkDir(filepath.Join(module.Dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "mesh" {
				return fs.SkipDir
			}
			if filepath.Ext(path) != ".yaml" {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range image.FindAllSubmatch(b, -1) {
				name, program := string(m[1]), ""
				switch {
				case strings.Contains(name, "/echo-basic:"):
					program = "echo-basic"
				case strings.Contains(name, "/coredns:"):
					program = "whoami"
				default:
					t.Fatalf("%s asks for image %s, which nothing here stands for", path, name)
				}
				if !slices.Contains(names[program], name) {
					names[program] = append(names[program], name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != 2 {
		t.Fatalf("the suite's images are %v", names)
	}
	return names
}
